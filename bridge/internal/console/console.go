package console

import (
	"context"
	"embed"
	"encoding/json"
	"io/fs"
	"log/slog"
	"net/http"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/bridge/internal/deadletters"
	"tebraproxy/bridge/internal/inspect"
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
	NewID     func() string
	Now       func() time.Time
	Log       *slog.Logger
}

// Console serves the page and its API. It is safe for concurrent use.
type Console struct {
	cfg    Config
	deps   Deps
	live   *live
	token  string
	routes http.Handler
}

// New returns a console. It talks to nobody until [Console.Run] and the first
// request.
func New(cfg Config, deps Deps) (*Console, error) {
	c := &Console{cfg: cfg, deps: deps, token: newToken(), live: newLive(deps.Inspector, deps.Now, deps.Log)}
	files, err := fs.Sub(static, "static")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(files))
	mux.HandleFunc("GET /api/about", c.about)
	mux.HandleFunc("GET /api/events", c.live.serve)
	mux.HandleFunc("POST /api/requests", c.send)
	mux.HandleFunc("POST /api/trace", c.trace)
	mux.HandleFunc("GET /api/letters", c.listLetters)
	mux.HandleFunc("POST /api/letters/show", c.showLetter)
	mux.HandleFunc("POST /api/letters/replay", c.replayLetters)
	mux.HandleFunc("POST /api/letters/drop", c.dropLetters)
	c.routes = guard(c.token, mux)
	return c, nil
}

// Run follows the streams for all pages until ctx ends, and then ends their event
// streams. Call it once.
func (c *Console) Run(ctx context.Context) { c.live.run(ctx) }

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

// maxBody bounds what a page sends, in bytes: the largest request that a bridge can
// be told to take, and some room.
const maxBody = 8<<20 + 64<<10

// read reads what the page sends into body, or refuses it and returns false.
func read(w http.ResponseWriter, r *http.Request, body any) bool {
	in := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	in.DisallowUnknownFields()
	if err := in.Decode(body); err != nil {
		refuse(w, http.StatusBadRequest, "the body is not what this path takes")
		return false
	}
	return true
}
