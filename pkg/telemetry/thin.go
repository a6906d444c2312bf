package telemetry

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Bounds of what [Thin] lets through.
const (
	thinWindow = time.Minute
	thinBurst  = 5   // lines of one message a window
	thinMost   = 100 // messages that are told apart; more share one
)

// Thin returns a logger that writes of warnings and errors with one message only
// the first few a minute, and with the next how many it kept to itself
// ("suppressed"). Lines below warnings pass.
//
// It is for trouble that meets every request alike, such as a Redis that is away.
// What happened to one request is never thinned: use the logger itself.
func Thin(log *slog.Logger) *slog.Logger {
	return slog.New(&thinHandler{Handler: log.Handler(), shared: &thinState{now: time.Now, messages: map[string]*thinCount{}}})
}

// thinHandler thins what goes on to another handler.
type thinHandler struct {
	slog.Handler
	shared *thinState
}

// thinState is shared by all loggers that come from one by With.
type thinState struct {
	now      func() time.Time
	mu       sync.Mutex
	messages map[string]*thinCount
}

type thinCount struct {
	since            time.Time
	passed, withheld int
}

func (h *thinHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn {
		return h.Handler.Handle(ctx, r)
	}
	pass, withheld := h.shared.admit(r.Message)
	if !pass {
		return nil
	}
	if withheld > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("suppressed", withheld))
	}
	return h.Handler.Handle(ctx, r)
}

func (h *thinHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &thinHandler{h.Handler.WithAttrs(attrs), h.shared}
}

func (h *thinHandler) WithGroup(name string) slog.Handler {
	return &thinHandler{h.Handler.WithGroup(name), h.shared}
}

// admit reports whether one more line of a message may be written, and how many
// were not since the last.
func (s *thinState) admit(message string) (pass bool, withheld int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.messages[message]
	if c == nil {
		if len(s.messages) >= thinMost {
			message = ""
		}
		if c = s.messages[message]; c == nil {
			c = &thinCount{}
			s.messages[message] = c
		}
	}
	now := s.now()
	if now.Sub(c.since) >= thinWindow {
		withheld = c.withheld
		*c = thinCount{since: now}
	}
	if c.passed >= thinBurst {
		c.withheld++
		return false, 0
	}
	c.passed++
	return true, withheld
}
