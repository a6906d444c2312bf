package cli

import (
	"context"
	"time"

	"tebraproxy/bridge/internal/inspect"
)

// waiting tells people what their requests may be waiting for, once for each cause.
// It is for one goroutine.
type waiting struct {
	app       *app
	inspector *inspect.Inspector
	since     time.Time       // when anything was answered or sent, or was looked for a cause
	told      map[string]bool // by what to do about it: the rest says for how long it has been so
}

func (a *app) newWaiting(i *inspect.Inspector) waiting {
	return waiting{app: a, inspector: i, since: a.now(), told: map[string]bool{}}
}

// look looks for a cause, if nothing was answered for a while. It calls before when
// it is about to print something.
func (w *waiting) look(ctx context.Context, before func()) {
	if w.app.now().Sub(w.since) < silence {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, whyTimeout)
	defer cancel()
	standing, err := w.inspector.Status(ctx, 0, nil)
	w.since = w.app.now()
	if err != nil { // who sends is told of a Redis that fails already
		return
	}
	for _, c := range standing.Concerns() {
		if w.told[c.Do] {
			continue
		}
		w.told[c.Do] = true
		before()
		w.app.note("waiting: %s", c.What)
	}
}
