package bridge

import (
	"encoding/json"
	"net/http"
	"time"
)

// alive is how long a bridge may be without a heartbeat in Redis before it
// counts as stuck. A Redis that is not there is no reason to be restarted, but a
// bridge that can't tell is.
const alive = 2 * time.Minute

// Health answers /healthz (it is pulling, or waits at the gate on purpose) and
// /readyz (it has joined its group).
func (b *Bridge) Health() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", b.healthz)
	mux.HandleFunc("GET /readyz", b.readyz)
	return mux
}

func (b *Bridge) healthz(w http.ResponseWriter, _ *http.Request) {
	beat := time.Unix(0, b.counts.beat.Load())
	ok := time.Since(beat) < alive || time.Since(b.started) < alive
	b.report(w, ok)
}

func (b *Bridge) readyz(w http.ResponseWriter, _ *http.Request) {
	b.report(w, b.counts.beat.Load() != 0)
}

func (b *Bridge) report(w http.ResponseWriter, ok bool) {
	w.Header().Set("Content-Type", "application/json")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{ // the prober may be gone
		"ok": ok, "consumer": b.consumer, "gate": b.gate.reason(),
		"read": b.counts.read.Load(), "published": b.counts.published.Load(),
	})
}
