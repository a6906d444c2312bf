package gateway

import (
	"context"
	_ "embed"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/rate"
	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

// Script is the JavaScript client, an ES module.
//
//go:embed client/tebra.js
var Script []byte

// Deps is what a gateway works with. It closes none of it.
type Deps struct {
	Redis    redis.UniversalClient
	Verifier Verifier
	Log      *slog.Logger
	// Telemetry may be nil: then nothing is observed.
	Telemetry *telemetry.Telemetry
	// Bare leaves out of events what answers hold: data, and error texts.
	Bare bool
}

// Gateway is the handler of all its paths. It is safe for concurrent use.
type Gateway struct {
	cfg      Config
	keys     tebra.Keys
	rdb      redis.UniversalClient
	verifier Verifier
	limiter  *rate.Limiter
	posting  bodies // that are being taken
	hub      *hub
	past     *past
	log      *slog.Logger
	seen     *telemetry.Gateway // nil where nothing is observed
	routes   http.Handler

	heartbeat, recheck time.Duration
}

const (
	// heartbeat keeps proxies from ending a stream that has nothing to say.
	heartbeat = 15 * time.Second
	// recheck is how often a stream asks again whether its token still counts.
	recheck = 5 * time.Minute
)

// New returns a gateway from a valid configuration. It talks to nobody until
// [Gateway.Run] and the first request.
func New(cfg Config, deps Deps) (*Gateway, error) {
	keys, err := tebra.NewKeys(cfg.Prefix)
	if err != nil {
		return nil, err
	}
	g := &Gateway{
		cfg: cfg, keys: keys, rdb: deps.Redis, verifier: deps.Verifier, log: deps.Log,
		seen:      deps.Telemetry.Gateway(slices.Sorted(maps.Keys(methods)), refusals),
		limiter:   rate.New(deps.Redis, keys),
		posting:   bodies{of: map[string]int64{}},
		hub:       newHub(deps.Redis, keys, cfg.MaxStreams, cfg.MaxUserStreams, deps.Bare, deps.Log),
		heartbeat: heartbeat, recheck: recheck,
	}
	g.past = newPast(deps.Redis, keys, g.hub)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/requests", g.post)
	mux.HandleFunc("GET /v1/events", g.events)
	mux.HandleFunc("GET /v1/tebra.js", script)
	mux.HandleFunc("GET /healthz", g.health)
	mux.HandleFunc("/", unknownPath)
	g.routes = g.seen.Handler(newCORS(cfg.Origins, mux))
	return g, nil
}

// Run reads the streams for all clients until ctx ends, and then ends their event
// streams. Without it no event stream begins. Call it once.
func (g *Gateway) Run(ctx context.Context) error {
	g.hub.run(ctx)
	return nil
}

// ServeHTTP answers one request.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	g.routes.ServeHTTP(w, r)
}

// script serves the client.
func script(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
	w.Header().Set("Cache-Control", "public, max-age=300")
	_, _ = w.Write(Script) // whoever asked may be gone
}

// health answers 200 while the reader is at work, also while Redis is away: a
// restart would not bring it back.
func (g *Gateway) health(w http.ResponseWriter, _ *http.Request) {
	if !g.hub.running() {
		refuse(w, http.StatusServiceUnavailable, "stopping", "this instance reads no streams: it starts or stops")
		return
	}
	w.WriteHeader(http.StatusOK)
}

// methods is what each path answers to.
var methods = map[string]string{
	"/v1/requests": http.MethodPost,
	"/v1/events":   http.MethodGet,
	"/v1/tebra.js": http.MethodGet,
	"/healthz":     http.MethodGet,
}

func unknownPath(w http.ResponseWriter, r *http.Request) {
	if method, ok := methods[r.URL.Path]; ok {
		w.Header().Set("Allow", method+", OPTIONS")
		refuse(w, http.StatusMethodNotAllowed, "method_not_allowed", "this path takes "+method)
		return
	}
	refuse(w, http.StatusNotFound, "not_found", "there is no such path; there are POST /v1/requests and GET /v1/events")
}
