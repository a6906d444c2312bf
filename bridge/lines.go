package bridge

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

// linesMost is how many requests a second have a log line of their own when they are
// published. A line costs as much as publishing does: of a burst, the rest are
// counted in one line. What becomes of each is in the functions' log and in the
// audit log in any case.
const linesMost = 100

// lines writes that requests were published. It is safe for concurrent use.
type lines struct {
	log    *slog.Logger
	action func(name string) string // the word for an action

	mu    sync.Mutex
	since time.Time // when the second began
	wrote int
	more  int
}

func (l *lines) published(it *item) {
	if !l.log.Enabled(context.Background(), slog.LevelInfo) {
		return
	}
	write, more := l.admit(time.Now())
	if more > 0 {
		l.log.Info("published more than have lines of their own", "requests", more)
	}
	if !write {
		return
	}
	e := &it.envelope
	l.log.LogAttrs(context.Background(), slog.LevelInfo, "published",
		slog.String("entryId", e.EntryID), slog.String("requestId", tebra.Shown(e.RequestID)),
		slog.String("correlationId", tebra.Shown(e.CorrelationID)), slog.String("action", l.action(e.Action)), slog.String("lane", e.Lane),
		slog.String(telemetry.TraceKey, telemetry.TraceOf(e)))
}

// admit reports whether one more line may be written, and how many were not in the
// second that is over.
func (l *lines) admit(now time.Time) (write bool, more int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.since) >= time.Second {
		more = l.more
		l.since, l.wrote, l.more = now, 0, 0
	}
	if l.wrote == linesMost {
		l.more++
		return false, more
	}
	l.wrote++
	return true, more
}
