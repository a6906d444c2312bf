package local

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"github.com/redis/go-redis/v9"

	"tebraproxy/bridge"
	"tebraproxy/bridge/internal/pump"
	"tebraproxy/bridge/internal/topology"
	"tebraproxy/functions"
	"tebraproxy/pkg/breaker"
	"tebraproxy/pkg/config"
	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/php"
	"tebraproxy/pkg/php/phptest"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/publish"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

//go:embed policy.yaml
var localPolicy []byte

// partKey is the attribute of log lines that names the part whose they are.
const (
	partKey       = "part"
	functionsPart = "functions"
)

// Pipeline is a running pipeline. Close ends it.
type Pipeline struct {
	Info   Info // how to reach it
	Keys   tebra.Keys
	Redis  *redis.Client
	API    *phptest.Server // nil when a real API answers
	Health string          // URL of the bridge's health and metrics
	// Console is what to open in a browser, "" where none was asked for. Whoever
	// knows it may use the console.
	Console string
	// Gateway is the gateway's URL, "" where none was asked for. GatewayToken is the
	// part of its tokens that makes them count, "" where the Auth emulator issues them.
	Gateway, GatewayToken string

	seen *telemetry.Telemetry

	closers []func()
}

// Close ends everything that Start began, in the reverse order, and waits for it.
func (p *Pipeline) Close() {
	for i := len(p.closers) - 1; i >= 0; i-- {
		p.closers[i]()
	}
	p.closers = nil
}

func (p *Pipeline) onClose(f func()) { p.closers = append(p.closers, f) }

// Start starts a pipeline and returns once it takes requests. ctx bounds the
// start only.
func Start(ctx context.Context, opts Options, log *slog.Logger) (*Pipeline, error) {
	p := &Pipeline{}
	if err := p.start(ctx, opts, log); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (p *Pipeline) start(ctx context.Context, opts Options, log *slog.Logger) error {
	rules, err := opts.policy()
	if err != nil {
		return err
	}
	if p.Keys, err = tebra.NewKeys(opts.Prefix); err != nil {
		return err
	}
	p.Info = Info{
		Prefix: opts.Prefix, Project: opts.Project,
		RequestsTopic: "tebra-requests", DeadLettersTopic: "tebra-dead-letters", InspectSubscription: "tebra-dead-letters-inspect",
	}
	for _, step := range []func() error{
		func() error { return p.startTelemetry(ctx, opts) },
		func() error { return p.startRedis(ctx, opts) },
		func() error { return p.startPubSub(opts, log) },
		func() error { return p.startAPI(opts) },
		func() error { return p.startFunctions(ctx, opts, rules, log) },
		func() error { return p.createTopology(ctx, opts) },
		func() error { return p.startBridge(ctx, opts, rules, log) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	if len(opts.GatewayOrigins) > 0 {
		if err := p.startGateway(ctx, opts, log); err != nil {
			return err
		}
	}
	if !opts.Console {
		return nil
	}
	return p.startConsole(ctx, opts, rules, log)
}

func (o Options) policy() (*policy.Policy, error) {
	if o.PolicyFile != "" {
		return policy.Load(o.PolicyFile)
	}
	return policy.Parse(localPolicy)
}

// startTelemetry makes the telemetry that all parts share: one page of metrics shows
// all of the pipeline, and OTEL_EXPORTER_OTLP_ENDPOINT says where else to.
func (p *Pipeline) startTelemetry(ctx context.Context, opts Options) error {
	cfg, err := config.Load[telemetry.Config](opts.Environ)
	if err != nil {
		return err
	}
	if problems := cfg.Problems(); len(problems) > 0 {
		return &config.Error{Problems: problems}
	}
	p.seen, err = telemetry.New(ctx, cfg, telemetry.Options{Service: "tebra-local", Version: "local", Spans: opts.Spans})
	if err != nil {
		return err
	}
	p.onClose(func() { _ = p.seen.Shutdown(context.Background()) }) // it says what went wrong itself
	return nil
}

func (p *Pipeline) startRedis(ctx context.Context, opts Options) error {
	p.Info.RedisURL, p.Info.RedisCACert = opts.Redis, opts.RedisCACert
	if opts.Redis == "" {
		url, stop, err := startRedis()
		if err != nil {
			return fmt.Errorf("starting the embedded Redis: %w", err)
		}
		p.onClose(stop)
		p.Info.RedisURL = url
	}
	options, err := stream.Options(p.Info.RedisURL, opts.RedisCACert)
	if err != nil {
		return err
	}
	p.Redis = redis.NewClient(options)
	p.onClose(func() { p.Redis.Close() })
	if err := p.Redis.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("no Redis answers at --redis: %w", err)
	}
	return nil
}

func (p *Pipeline) startPubSub(opts Options, log *slog.Logger) error {
	p.Info.PubSubEmulator = opts.PubSubEmulator
	if opts.PubSubEmulator != "" {
		return nil
	}
	server, err := pump.Start(pump.Config{Log: log})
	if err != nil {
		return fmt.Errorf("starting the embedded Pub/Sub: %w", err)
	}
	p.onClose(func() { server.Close() })
	p.Info.PubSubEmulator = server.Addr()
	return nil
}

// standInKey is the API key that the stand-in asks for.
const standInKey = "local"

func (p *Pipeline) startAPI(opts Options) error {
	p.Info.PHPAPI, p.Info.PHPAPIKey = opts.PHPAPI, opts.PHPAPIKey
	if opts.PHPAPI != "" {
		return nil
	}
	p.API, p.Info.PHPAPIKey = phptest.New(phptest.Config{APIKey: standInKey}), standInKey
	url, err := p.serve(p.API)
	p.Info.PHPAPI = url + "/api"
	return err
}

// serve serves h on a free port of loopback until Close.
func (p *Pipeline) serve(h http.Handler) (url string, err error) { return p.serveAt(h, 0) }

// serveAt is serve with a port, 0 for a free one.
func (p *Pipeline) serveAt(h http.Handler, port int) (url string, err error) {
	ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return "", err
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(ln) }) // it ends with Close
	p.onClose(func() {
		server.Close()
		wg.Wait()
	})
	return "http://" + ln.Addr().String(), nil
}

func (p *Pipeline) startFunctions(ctx context.Context, opts Options, rules *policy.Policy, log *slog.Logger) error {
	topics, err := pubsub.NewTopicAdminClient(ctx, publish.ClientOptions(p.Info.PubSubEmulator)...)
	if err != nil {
		return fmt.Errorf("making a client of Pub/Sub: %w", err)
	}
	p.onClose(func() { topics.Close() })
	cfg, err := config.Load[functions.Config](p.environ(opts,
		"FUNCTION_TARGET="+functions.ProcessRequest, "TEBRA_PHP_API_URL="+p.Info.PHPAPI, "TEBRA_INTERNAL_API_KEY="+p.Info.PHPAPIKey))
	if err != nil {
		return err
	}
	roles, ok := rules.Static()
	if !ok {
		return errors.New("--policy: a local run knows only users of source static")
	}
	var instances []*url.URL
	for i := range max(1, opts.Instances) {
		instance, err := p.startInstance(opts, cfg, functions.Clients{
			Topics: topics, Policy: rules, Roles: roles, Log: log.With(partKey, functionsPart, "instance", i+1), Telemetry: p.seen,
		})
		if err != nil {
			return err
		}
		instances = append(instances, instance)
	}
	p.Info.FunctionsURL = instances[0].String()
	if len(instances) > 1 {
		p.Info.FunctionsURL, err = p.balance(instances, log)
	}
	return err
}

// startInstance starts one instance of the functions, with a Redis client of its
// own, and returns where it serves them.
func (p *Pipeline) startInstance(opts Options, cfg functions.Config, clients functions.Clients) (*url.URL, error) {
	options, err := stream.Options(p.Info.RedisURL, opts.RedisCACert)
	if err != nil {
		return nil, err
	}
	rdb := redis.NewClient(options)
	p.onClose(func() { rdb.Close() })
	clients.Redis = rdb
	api, err := php.New(php.Config{URL: cfg.PHPAPIURL, APIKey: cfg.APIKey})
	if err != nil {
		return nil, err
	}
	p.onClose(api.Close)
	clients.API = api
	fns, err := functions.Assemble(cfg, clients)
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p.background(func(ctx context.Context) error {
		return functions.Serve(ctx, ln, cfg.HandlerTimeout, fns, clients.Log)
	}, clients.Log)
	return &url.URL{Scheme: "http", Host: ln.Addr().String()}, nil
}

// environ is the environment that the parts of the pipeline are configured from:
// what the options say of the parts, over what the caller's environment says of
// the rest.
func (p *Pipeline) environ(opts Options, more ...string) []string {
	env := append([]string(nil), opts.Environ...)
	env = append(env,
		"REDIS_URL="+p.Info.RedisURL, "REDIS_CA_CERT="+opts.RedisCACert, "STREAM_PREFIX="+opts.Prefix,
		"GOOGLE_CLOUD_PROJECT="+opts.Project, "PUBSUB_EMULATOR_HOST="+p.Info.PubSubEmulator,
		"REQUESTS_TOPIC="+p.Info.RequestsTopic, "DEAD_LETTERS_TOPIC="+p.Info.DeadLettersTopic,
		"PORT=0", "HEALTH_PORT=0", "POLICY_FILE=", "TEBRA_PHP_API_AUDIENCE=")
	return append(env, more...)
}

// background runs f until Close, which cancels its context and waits for it.
func (p *Pipeline) background(f func(context.Context) error, log *slog.Logger) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f(ctx); err != nil {
			log.Error("a part of the pipeline ended", "error", err)
		}
	})
	p.onClose(func() {
		cancel()
		wg.Wait()
	})
}

func (p *Pipeline) createTopology(ctx context.Context, opts Options) error {
	processURL, recordURL := p.Info.FunctionsURL+"/"+functions.ProcessRequest, p.Info.FunctionsURL+"/"+functions.RecordDeadLetter
	if opts.MakeTopology != nil {
		return opts.MakeTopology(ctx, processURL, recordURL)
	}
	topics, err := pubsub.NewTopicAdminClient(ctx, publish.ClientOptions(p.Info.PubSubEmulator)...)
	if err != nil {
		return fmt.Errorf("making a client of Pub/Sub: %w", err)
	}
	defer topics.Close()
	subs, err := pubsub.NewSubscriptionAdminClient(ctx, publish.ClientOptions(p.Info.PubSubEmulator)...)
	if err != nil {
		return fmt.Errorf("making a client of Pub/Sub: %w", err)
	}
	defer subs.Close()
	spec := topology.Production(topology.Spec{
		Project: opts.Project, Requests: p.Info.RequestsTopic, DeadLetters: p.Info.DeadLettersTopic,
		Inspect:    p.Info.InspectSubscription,
		ProcessURL: processURL, RecordURL: recordURL,
	})
	spec.MinBackoff, spec.MaxBackoff, spec.MaxAttempts = opts.MinBackoff, opts.MaxBackoff, opts.MaxAttempts
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return topology.Create(ctx, topics, subs, spec)
}

func (p *Pipeline) startBridge(ctx context.Context, opts Options, rules *policy.Policy, log *slog.Logger) error {
	cfg, err := config.Load[bridge.Config](p.environ(opts))
	if err != nil {
		return err
	}
	topics, err := pubsub.NewTopicAdminClient(ctx, publish.ClientOptions(p.Info.PubSubEmulator)...)
	if err != nil {
		return fmt.Errorf("making a client of Pub/Sub: %w", err)
	}
	p.onClose(func() { topics.Close() })
	b := bridge.New(cfg, bridge.Deps{
		Redis: p.Redis, Keys: p.Keys,
		Ledger:      ledger.New(p.Redis, p.Keys, ledger.Config{TTL: cfg.LedgerTTL}),
		Breaker:     breaker.New(p.Redis, p.Keys, breaker.Config{}),
		Policy:      rules,
		Requests:    publish.New(topics, cfg.Requests()),
		DeadLetters: publish.New(topics, cfg.DeadLetters()),
		Log:         log.With(partKey, "bridge"), Version: "local", Telemetry: p.seen,
	})
	if p.Health, err = p.serve(b.Health()); err != nil {
		return err
	}
	p.background(b.Run, log)
	return nil
}
