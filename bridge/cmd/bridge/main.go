// Command bridge drains the requests stream into Pub/Sub: "bridge run" for ever,
// "bridge drain" until nothing waits. README.md lists its configuration.
package main

import (
	"context"
	"errors"
	"flag"
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
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"tebraproxy/bridge"
	"tebraproxy/pkg/breaker"
	"tebraproxy/pkg/config"
	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/publish"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

// version is set by the linker.
var version = "dev"

func main() {
	stdlog.SetOutput(io.Discard) // what libraries print there, nobody has checked for contents
	if err := config.KeepSecrets(); err != nil {
		fmt.Fprintln(os.Stderr, "bridge: a crash may write secrets to disk:", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := run(ctx, os.Args[1:], os.Environ(), os.Stdout)
	stop()
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "bridge:", err)
	var bad *config.Error
	if errors.As(err, &bad) || errors.Is(err, errUsage) {
		os.Exit(2)
	}
	os.Exit(1)
}

var errUsage = errors.New("usage: bridge run | bridge drain [--timeout 10m]")

// run is the composition root: what is dialled here is closed here.
func run(ctx context.Context, args, environ []string, logs io.Writer) error {
	bridge.TuneMemory()
	work, err := command(args)
	if err != nil {
		return err
	}
	cfg, err := config.Load[bridge.Config](environ)
	if err != nil {
		return err
	}
	log := telemetry.NewLogger(logs, slog.LevelInfo, telemetry.InProject(cfg.Project), telemetry.InNamespace(cfg.Telemetry.Namespace()))
	telemetry.ReportErrors(log)
	seen, err := telemetry.New(ctx, cfg.Telemetry, telemetry.Options{Service: "tebra-bridge", Version: version})
	if err != nil {
		return err
	}
	defer func() {
		if err := seen.Shutdown(ctx); err != nil {
			log.Warn("the last telemetry is lost", "error", err)
		}
	}()
	rules, err := policy.Load(cfg.PolicyFile)
	if err != nil {
		return &config.Error{Problems: []string{err.Error()}}
	}
	keys, err := tebra.NewKeys(cfg.Prefix)
	if err != nil {
		return &config.Error{Problems: []string{err.Error()}}
	}
	options, err := stream.Options(cfg.URL, cfg.CACert)
	if err != nil {
		return &config.Error{Problems: []string{err.Error()}}
	}
	logging.Disable() // go-redis's own lines: unstructured, one a failed dial, and every error is returned as well
	rdb := redis.NewClient(options)
	defer rdb.Close()
	topics, err := pubsub.NewTopicAdminClient(ctx, publish.ClientOptions(cfg.EmulatorHost)...)
	if err != nil {
		return fmt.Errorf("making a client of Pub/Sub: %w", err)
	}
	defer topics.Close()
	b := bridge.New(cfg, bridge.Deps{
		Redis: rdb, Keys: keys,
		Ledger:      ledger.New(rdb, keys, ledger.Config{TTL: cfg.LedgerTTL}),
		Breaker:     breaker.New(rdb, keys, breaker.Config{}),
		Policy:      rules,
		Requests:    publish.New(topics, cfg.Requests()),
		DeadLetters: publish.New(topics, cfg.DeadLetters()),
		Topics:      topics,
		Log:         log, Version: version, Telemetry: seen,
	})
	stopHealth, err := serveHealth(cfg.HealthPort, b.Health(), log)
	if err != nil {
		return err
	}
	defer stopHealth()
	return work(ctx, b)
}

// command returns what the arguments ask a bridge to do.
func command(args []string) (func(context.Context, *bridge.Bridge) error, error) {
	if len(args) == 1 && args[0] == "run" {
		return func(ctx context.Context, b *bridge.Bridge) error { return b.Run(ctx) }, nil
	}
	if len(args) == 0 || args[0] != "drain" {
		return nil, errUsage
	}
	flags := flag.NewFlagSet("drain", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	timeout := flags.Duration("timeout", 10*time.Minute, "")
	if err := flags.Parse(args[1:]); err != nil || flags.NArg() > 0 || *timeout <= 0 {
		return nil, errUsage
	}
	return func(ctx context.Context, b *bridge.Bridge) error { return b.Drain(ctx, *timeout) }, nil
}

// serveHealth serves h until the returned function is called.
func serveHealth(port int, h http.Handler, log *slog.Logger) (stop func(), err error) {
	ln, err := net.Listen("tcp", ":"+strconv.Itoa(port))
	if err != nil {
		return nil, fmt.Errorf("listening on HEALTH_PORT: %w", err)
	}
	log.Info("health is served", "addr", ln.Addr().String())
	server := &http.Server{Handler: h, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			log.Error("health is no longer served", "error", err)
		}
	}()
	return func() {
		server.Close()
		<-done
	}, nil
}
