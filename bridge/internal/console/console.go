package console

import (
	"context"
	"embed"
	"encoding/json"
	"io/fs"
	"log/slog"
	"mime"
	"net/http"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/bridge/internal/deadletters"
	"tebraproxy/bridge/internal/inspect"
	"tebraproxy/functions/gateway"
	"tebraproxy/pkg/config"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/tebra"
)

//go:embed static
var static embed.FS

// Config says whose console it is.
type Config struct {
	Where    string // what is looked at, for people, such as Redis's host and port
	Operator string // who acts, for the record
	User     string // who asks unless the form says so, "" for nobody
	// MaxRequestBytes bounds a request that the form sends: what the bridges take.
	MaxRequestBytes int
}

// Auditor writes down what is about to be shown. Where it can't, it is not.
type Auditor interface {
	Audit(context.Context, ...tebra.AuditRecord) error
}

// Deps are what a console works with. They stay the caller's to close.
type Deps struct {
	Redis     redis.UniversalClient
	Keys      tebra.Keys
	Rules     *policy.Policy
	Inspector *inspect.Inspector
	Letters   *deadletters.Queue // nil where it is not known where they are
	Auditor   Auditor
	Now       func() time.Time
	Log       *slog.Logger
}

// Console serves the page and its API. It is safe for concurrent use.
type Console struct {
	cfg     Config
	deps    Deps
	live    *live
	token   string
	gateway *gateway.Gateway
	sends   chan struct{} // closed once a page sends requests
	routes  http.Handler
}

// Bounds of the gateway that the page's own requests go through.
const (
	mostPerMinute = 1000
	streamTime    = 50 * time.Minute
	// idKnown is how long an ID that is sent again is known to be the same request.
	idKnown = 24 * time.Hour
)

// New returns a console. It talks to nobody until [Console.Run] and the first
// request.
func New(cfg Config, deps Deps) (*Console, error) {
	c := &Console{
		cfg: cfg, deps: deps, token: NewSecret(), sends: make(chan struct{}), live: newLive(deps.Inspector, deps.Now, deps.Log),
	}
	var err error
	c.gateway, err = gateway.New(gateway.Config{
		Redis: config.Redis{Prefix: deps.Keys.Prefix()}, UserRate: mostPerMinute, StreamTime: streamTime,
		MaxStreams: mostPages, MaxUserStreams: mostPages, MaxRequestBytes: cfg.MaxRequestBytes, Retention: idKnown,
	}, gateway.Deps{
		Redis: deps.Redis, Log: deps.Log, Bare: true,
		Verifier: sender{bearer{c.token}, sync.OnceFunc(func() { close(c.sends) })},
	})
	if err != nil {
		return nil, err
	}
	files, err := fs.Sub(static, "static")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(files))
	mux.HandleFunc("GET /api/about", c.about)
	mux.HandleFunc("GET /api/events", c.live.serve)
	mux.HandleFunc("POST /api/trace", c.trace)
	mux.HandleFunc("GET /api/letters", c.listLetters)
	mux.HandleFunc("POST /api/letters/show", c.showLetter)
	mux.HandleFunc("POST /api/letters/replay", c.replayLetters)
	mux.HandleFunc("POST /api/letters/drop", c.dropLetters)
	mux.Handle("GET /v1/", c.gateway)
	mux.Handle("POST /v1/", c.gateway)
	c.routes = guard(c.token, mux)
	return c, nil
}

// Run follows the streams for all pages until ctx ends, and then ends their event
// streams. It reads answers only once a page has sent something. Call it once.
func (c *Console) Run(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { c.live.run(ctx) })
	select {
	case <-c.sends:
		_ = c.gateway.Run(ctx) // it ends with ctx
	case <-ctx.Done():
	}
}

// Address returns what to open in a browser, of a console that is served at base,
// such as http://127.0.0.1:8090. Whoever knows it may use the console.
func (c *Console) Address(base string) string { return base + "/#" + c.token }

// ServeHTTP answers one request.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.routes.ServeHTTP(w, r) }

// knownAction is an action that the form offers.
type knownAction struct {
	Name   string       `json:"name"`
	Write  bool         `json:"write"`
	Params []knownParam `json:"params"`
}

type knownParam struct {
	Name   string `json:"name"`
	Object bool   `json:"object"`
}

func (c *Console) about(w http.ResponseWriter, _ *http.Request) {
	actions := []knownAction{}
	for _, action := range c.deps.Rules.Actions() {
		known := knownAction{Name: action.Name, Write: action.Effect == policy.Write, Params: []knownParam{}}
		for _, p := range tebra.Params(action.Name) {
			known.Params = append(known.Params, knownParam{Name: p.Name, Object: p.Object})
		}
		actions = append(actions, known)
	}
	answer(w, map[string]any{
		"where": c.cfg.Where, "prefix": c.deps.Keys.Prefix(), "operator": c.cfg.Operator, "user": c.cfg.User,
		"actions": actions, "letters": c.deps.Letters != nil,
	})
}

// refuse answers with an error, which tells people what to do.
func refuse(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": message}) // whoever asked may be gone
}

func answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(body) // whoever asked may be gone
}

// maxBody bounds what a page says to /api, in bytes: the IDs of many letters.
const maxBody = 1 << 20

// read reads what the page sends into body, or refuses it and returns false. A page of
// another site could send JSON only after a preflight, which nothing here answers.
func read(w http.ResponseWriter, r *http.Request, body any) bool {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		refuse(w, http.StatusUnsupportedMediaType, "send JSON, with Content-Type: application/json")
		return false
	}
	in := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	in.DisallowUnknownFields()
	if err := in.Decode(body); err != nil {
		refuse(w, http.StatusBadRequest, "the body is not what this path takes")
		return false
	}
	return true
}
