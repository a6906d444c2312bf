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
	"time"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	firebaseapp "firebase.google.com/go/v4"
	"firebase.google.com/go/v4/auth"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"google.golang.org/api/idtoken"

	"tebraproxy/functions"
	"tebraproxy/functions/firebase"
	"tebraproxy/functions/gateway"
	"tebraproxy/pkg/config"
	"tebraproxy/pkg/php"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/publish"
	"tebraproxy/pkg/telemetry"
)

// version is set by the linker.
var version = "dev"

func main() {
	if err := config.KeepSecrets(); err != nil {
		fmt.Fprintln(os.Stderr, "functions: a crash may write secrets to disk:", err)
	}
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

// run is the composition root: what is dialled here is closed here. Each function
// is configured by itself, so that none is given a key that it has no use for.
func run(ctx context.Context, environ []string, logs io.Writer) error {
	project, _ := lookup(environ)("GOOGLE_CLOUD_PROJECT")
	attributes, _ := lookup(environ)("OTEL_RESOURCE_ATTRIBUTES")
	log := telemetry.NewLogger(logs, slog.LevelInfo,
		telemetry.InProject(project), telemetry.InNamespace(telemetry.Config{Attributes: attributes}.Namespace()))
	telemetry.ReportErrors(log)
	switch targetOf(environ) {
	case functions.RecordDeadLetter:
		return runRecorder(ctx, environ, log)
	case gateway.Target:
		return runGateway(ctx, environ, log)
	default: // its configuration says what is wrong with the target
		return runProcessor(ctx, environ, log)
	}
}

func runProcessor(ctx context.Context, environ []string, log *slog.Logger) error {
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
	seen, stop, err := observe(ctx, s.Telemetry, s.Target, log)
	if err != nil {
		return err
	}
	defer stop()
	all, err := functions.Assemble(s.Config, functions.Clients{
		Redis: rdb, Topics: topics, Policy: s.rules, Roles: roles, API: api, Log: log, Telemetry: seen,
	})
	if err != nil {
		return &config.Error{Problems: []string{err.Error()}}
	}
	return serve(ctx, s.Target, s.Port, s.HandlerTimeout, all[s.Target], log)
}

func runRecorder(ctx context.Context, environ []string, log *slog.Logger) error {
	s, err := loadRecorder(environ)
	if err != nil {
		return err
	}
	rdb := redis.NewClient(s.redis)
	defer rdb.Close()
	seen, stop, err := observe(ctx, s.Telemetry, s.Target, log)
	if err != nil {
		return err
	}
	defer stop()
	recorder, err := functions.AssembleRecorder(s.RecorderConfig, functions.Clients{Redis: rdb, Policy: s.rules, Log: log, Telemetry: seen})
	if err != nil {
		return &config.Error{Problems: []string{err.Error()}}
	}
	return serve(ctx, s.Target, s.Port, s.HandlerTimeout, recorder, log)
}

// observe makes a function's telemetry. stop sends what is left of it.
func observe(ctx context.Context, cfg telemetry.Config, function string, log *slog.Logger) (seen *telemetry.Telemetry, stop func(), err error) {
	seen, err = telemetry.New(ctx, cfg, telemetry.Options{Service: "tebra-" + function, Version: version})
	if err != nil {
		return nil, nil, err
	}
	return seen, func() {
		if err := seen.Shutdown(ctx); err != nil {
			log.Warn("the last telemetry is lost", "error", err)
		}
	}, nil
}

// gatewayTimeout bounds the gateway's short requests; event streams set their own
// deadlines.
const gatewayTimeout = 30 * time.Second

func runGateway(ctx context.Context, environ []string, log *slog.Logger) error {
	s, err := loadGateway(environ)
	if err != nil {
		return err
	}
	rdb := redis.NewClient(s.redis)
	defer rdb.Close()
	accounts, err := firebaseAccounts(ctx, s.Project)
	if err != nil {
		return err
	}
	seen, stopTelemetry, err := observe(ctx, s.Telemetry, s.Target, log)
	if err != nil {
		return err
	}
	defer stopTelemetry()
	g, err := gateway.New(s.Config, gateway.Deps{
		Redis: rdb, Verifier: firebase.NewTokens(accounts, s.Project), Log: log, Telemetry: seen})
	if err != nil {
		return &config.Error{Problems: []string{err.Error()}}
	}
	// Event streams end when the reader does, so that the server can stop.
	reading, stop := context.WithCancel(ctx)
	read := make(chan error, 1)
	go func() { read <- g.Run(reading) }()
	err = serve(ctx, s.Target, s.Port, gatewayTimeout, g, log)
	stop()
	return errors.Join(err, <-read)
}

// serve serves one function.
func serve(ctx context.Context, name string, port int, timeout time.Duration, fn http.Handler, log *slog.Logger) error {
	ln, err := net.Listen("tcp", ":"+strconv.Itoa(port))
	if err != nil {
		return fmt.Errorf("listening for requests: %w", err)
	}
	log.Info("serving", "function", name, "address", ln.Addr().String())
	return functions.Serve(ctx, ln, timeout, map[string]http.Handler{name: fn}, log)
}

// roleSource returns where the policy says that users' roles come from.
func roleSource(ctx context.Context, rules *policy.Policy, project string) (policy.Source, error) {
	if static, ok := rules.Static(); ok {
		return static, nil
	}
	claims, _ := rules.Firebase() // it is one of the two
	users, err := firebaseAccounts(ctx, project)
	if err != nil {
		return nil, err
	}
	return policy.NewCache(firebase.New(users, claims.Claim), policy.CacheConfig{TTL: claims.Cache}), nil
}

// firebaseAccounts returns a client of a project's Firebase Auth.
func firebaseAccounts(ctx context.Context, project string) (*auth.Client, error) {
	app, err := firebaseapp.NewApp(ctx, &firebaseapp.Config{ProjectID: project})
	if err != nil {
		return nil, fmt.Errorf("making a client of Firebase: %w", err)
	}
	accounts, err := app.Auth(ctx)
	if err != nil {
		return nil, fmt.Errorf("making a client of Firebase Auth: %w", err)
	}
	return accounts, nil
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
