package bridge

import (
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"tebraproxy/pkg/peertest"
)

// TestAPanicStopsTheBridgeAndSaysNothingOfItsValue: Go would print the value, which may
// quote a request. What the bridge held is given back, and another one goes on.
func TestAPanicStopsTheBridgeAndSaysNothingOfItsValue(t *testing.T) {
	t.Parallel()
	const canary = "XYZZY Jane Doe"
	for name, value := range map[string]any{"an error": errors.New(canary), "text": canary} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			r := b.assemble()
			var panicked atomic.Bool
			r.deps.NewID = func() string { panicked.Store(true); panic(value) }
			good := b.add(5, "quick")
			b.addFields("id", "bad", "action", "quick", "userId", "u", "params", "["+canary)
			r.begin(t)
			<-r.done
			if !panicked.Load() || r.err == nil || strings.Contains(r.err.Error(), "XYZZY") {
				t.Errorf("Run() = %v (panicked: %v), want an error that says that a part panicked, not why", r.err, panicked.Load())
			}
			if b.logs.count(slog.LevelError, "panicked") != 1 || b.logs.count(slog.LevelDebug, "XYZZY") != 0 {
				t.Errorf("the log does not say that it panicked, or says what with:\n%s", b.logs.tail(10))
			}
			second := b.start() // it waits for nothing: CLAIM_IDLE is longer than this test
			b.waitPublished(good)
			peertest.Eventually(t, wait, "the bad entry's answer", func() bool { return len(b.responses()) == 1 })
			b.waitSettled()
			second.stop(t)
		})
	}
}
