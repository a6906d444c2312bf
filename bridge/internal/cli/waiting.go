package cli

import (
	"context"
	"time"

	"tebraproxy/bridge/internal/inspect"
)

const (
	// silence is how long nothing may be heard of a request before people are told
	// what it may be waiting for, and whyTimeout bounds finding that out.
	silence    = 3 * time.Second
	whyTimeout = 2 * time.Second
)

// causes returns what requests may be waiting for. It is nothing where that can't be
// found out: whoever sends is told of a Redis that fails already.
func causes(ctx context.Context, i *inspect.Inspector) []inspect.Concern {
	ctx, cancel := context.WithTimeout(ctx, whyTimeout)
	defer cancel()
	standing, err := i.Status(ctx, 0, nil)
	if err != nil {
		return nil
	}
	return standing.Concerns()
}

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
	found := causes(ctx, w.inspector)
	w.since = w.app.now()
	for _, c := range found {
		if w.told[c.Do] {
			continue
		}
		w.told[c.Do] = true
		before()
		w.app.note("waiting: %s", c.What)
	}
}
