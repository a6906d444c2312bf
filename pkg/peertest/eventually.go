package peertest

import (
	"testing"
	"time"
)

// pollInterval is short against what tests wait for and long against what
// their conditions cost.
const pollInterval = 5 * time.Millisecond

// Eventually waits until cond returns true, asking it every few milliseconds.
// It fails the test when that takes longer than timeout; what completes the
// sentence "waited 5s for …". Call it from the test's own goroutine; cond runs
// there too.
func Eventually(t testing.TB, timeout time.Duration, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited %v for %s", timeout, what)
		}
	}
}
