package bridge

import (
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// stuckAfter is how long one of a bridge's goroutines may be without a sign of
// life. The longest that any of them does without one is to wait for its turn
// behind others that all run into their deadlines: about a minute.
const stuckAfter = 2 * time.Minute

// pulse is the sign of life of one goroutine: it beats whenever that comes round,
// be it with work, waiting at the gate, or trying a peer again that is away. It
// is safe for concurrent use; a nil pulse is nobody's.
type pulse struct{ at atomic.Int64 }

func (p *pulse) beat() {
	if p != nil {
		p.at.Store(time.Now().UnixNano())
	}
}

// vitals knows the pulses of a bridge's goroutines. It is safe for concurrent use.
type vitals struct {
	mu     sync.Mutex
	pulses map[string]*pulse
}

// begin returns the pulse of a goroutine that starts, which beats already.
func (v *vitals) begin(name string) *pulse {
	p := &pulse{}
	p.beat()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.pulses == nil {
		v.pulses = map[string]*pulse{}
	}
	v.pulses[name] = p
	return p
}

// end forgets a goroutine that has ended.
func (v *vitals) end(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.pulses, name)
}

// stuck returns the names of the goroutines without a beat since then, sorted.
func (v *vitals) stuck(since time.Time) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	names := []string{}
	for name, p := range v.pulses {
		if p.at.Load() < since.UnixNano() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// turn runs one of the bridge's goroutines in g, under a name and with a pulse.
func (b *Bridge) turn(g *errgroup.Group, name string, run func(*pulse)) {
	p := b.vitals.begin(name)
	g.Go(func() error {
		defer b.vitals.end(name)
		defer b.noPanic(name)
		run(p)
		return nil
	})
}

// Health answers two questions, each with 200 or 503 and JSON that says why.
//
// GET /healthz, for a liveness probe: does every goroutine come round? One that
// waits at the gate does, and so does one that tries Redis or Pub/Sub again and
// again: a restart would bring neither back, and would throw the backoff away.
// One that has hung for two minutes does not, and a restart is what helps.
//
// GET /readyz, for people and start-up probes: has this bridge joined its group,
// and did it reach Redis within the last heartbeats?
//
// Beside them, GET /metrics is the metrics as Prometheus text.
func (b *Bridge) Health() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", b.healthz)
	mux.HandleFunc("GET /readyz", b.readyz)
	if b.deps.Telemetry != nil {
		mux.Handle("GET /metrics", b.deps.Telemetry.MetricsHandler())
	}
	return mux
}

func (b *Bridge) healthz(w http.ResponseWriter, _ *http.Request) {
	stuck := b.vitals.stuck(time.Now().Add(-b.stuckAfter))
	b.report(w, len(stuck) == 0, stuck)
}

func (b *Bridge) readyz(w http.ResponseWriter, _ *http.Request) {
	beat := time.Unix(0, b.counts.beat.Load())
	b.report(w, time.Since(beat) < heartbeatTTL, nil)
}

func (b *Bridge) report(w http.ResponseWriter, ok bool, stuck []string) {
	w.Header().Set("Content-Type", "application/json")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	var beat string
	if at := b.counts.beat.Load(); at != 0 {
		beat = time.Unix(0, at).UTC().Format(time.RFC3339)
	}
	_ = json.NewEncoder(w).Encode(struct { // the prober may be gone
		OK        bool     `json:"ok"`
		Consumer  string   `json:"consumer"`
		Gate      string   `json:"gate"`            // why it is shut, empty when it is open
		Beat      string   `json:"beat"`            // last heartbeat in Redis, empty before the first
		Stuck     []string `json:"stuck,omitempty"` // goroutines that hang
		Read      int64    `json:"read"`
		Published int64    `json:"published"`
	}{ok, b.consumer, b.gate.reason(), beat, stuck, b.counts.read.Load(), b.counts.published.Load()})
}
