// Command functions serves the function that FUNCTION_TARGET names, as Cloud Run
// starts it. README.md lists its configuration.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	firebaseapp "firebase.google.com/go/v4"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"google.golang.org/api/idtoken"

	"tebraproxy/functions"
	"tebraproxy/functions/firebase"
	"tebraproxy/pkg/config"
	"tebraproxy/pkg/php"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/publish"
	"tebraproxy/pkg/telemetry"
)

func main() {
	logging.Disable()            // what go-redis would print is in the errors that it returns
	stdlog.SetOutput(io.Discard) // net/http may quote the API's answer there (package php)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := run(ctx, os.Environ(), os.Stdout)
	stop()
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "functions:", err)
	var bad *config.Error
	if errors.As(err, &bad) {
		os.Exit(2)
	}
	os.Exit(1)
}

// run is the composition root: what is dialled here is closed here.
func run(ctx context.Context, environ []string, logs io.Writer) error {
	log := telemetry.NewLogger(logs, slog.LevelInfo)
	s, err := load(environ)
	if err != nil {
		return err
	}
	rdb := redis.NewClient(s.redis)
	defer rdb.Close()
	topics, err := pubsub.NewTopicAdminClient(ctx, publish.ClientOptions(s.EmulatorHost)...)
	if err != nil {
		return fmt.Errorf("making a client of Pub/Sub: %w", err)
	}
	defer topics.Close()
	roles, err := roleSource(ctx, s.rules, s.Project)
	if err != nil {
		return err
	}
	tokens, err := tokenSource(ctx, s.PHPAPIAudience)
	if err != nil {
		return err
	}
	api, err := php.New(php.Config{URL: s.PHPAPIURL, APIKey: s.APIKey, Tokens: tokens})
	if err != nil {
		return &config.Error{Problems: []string{err.Error()}}
	}
	defer api.Close()
	all, err := functions.Assemble(s.Config, functions.Clients{
		Redis: rdb, Topics: topics, Policy: s.rules, Roles: roles, API: api, Log: log,
	})
	if err != nil {
		return &config.Error{Problems: []string{err.Error()}}
	}
	ln, err := net.Listen("tcp", ":"+strconv.Itoa(s.Port))
	if err != nil {
		return fmt.Errorf("listening for pushes: %w", err)
	}
	log.Info("serving", "function", s.Target, "address", ln.Addr().String())
	return functions.Serve(ctx, ln, s.HandlerTimeout, map[string]http.Handler{s.Target: all[s.Target]}, log)
}

// roleSource returns where the policy says that users' roles come from.
func roleSource(ctx context.Context, rules *policy.Policy, project string) (policy.Source, error) {
	if static, ok := rules.Static(); ok {
		return static, nil
	}
	claims, _ := rules.Firebase() // it is one of the two
	app, err := firebaseapp.NewApp(ctx, &firebaseapp.Config{ProjectID: project})
	if err != nil {
		return nil, fmt.Errorf("making a client of Firebase: %w", err)
	}
	users, err := app.Auth(ctx)
	if err != nil {
		return nil, fmt.Errorf("making a client of Firebase Auth: %w", err)
	}
	return policy.NewCache(firebase.New(users, claims.Claim), policy.CacheConfig{TTL: claims.Cache}), nil
}

// tokenSource returns a source of Google ID tokens for audience, nil without one.
func tokenSource(ctx context.Context, audience string) (php.TokenSource, error) {
	if audience == "" {
		return nil, nil
	}
	source, err := idtoken.NewTokenSource(ctx, audience)
	if err != nil {
		return nil, fmt.Errorf("getting ID tokens for TEBRA_PHP_API_AUDIENCE: %w", err)
	}
	return idTokens{source}, nil
}
