package peertest

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
)

// testTimeout is what tests here wait for something that takes milliseconds.
const testTimeout = 10 * time.Second

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperVariable); dir != "" {
		helperMain(dir)
		return
	}
	if kind := os.Getenv(programVariable); kind != "" {
		programMain(kind)
	}
	Main(m)
}

// verdict is how a function ended the test that it was given: by failing or
// skipping it, and with which words.
type verdict struct{ failed, skipped string }

// verdictOf runs f with a test that only takes notes.
func verdictOf(t *testing.T, f func(t testing.TB)) verdict {
	t.Helper()
	notes := &noteTB{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(notes)
	}()
	<-done
	return notes.verdict
}

type noteTB struct {
	testing.TB
	verdict verdict
}

func (n *noteTB) Fatal(args ...any)                 { n.fail(fmt.Sprint(args...)) }
func (n *noteTB) Fatalf(format string, args ...any) { n.fail(fmt.Sprintf(format, args...)) }

func (n *noteTB) fail(text string) {
	n.verdict.failed = text
	runtime.Goexit()
}

func (n *noteTB) Skipf(format string, args ...any) {
	n.verdict.skipped = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestEventuallyReturnsOnceTheConditionHolds(t *testing.T) {
	t.Parallel()
	asked := 0
	got := verdictOf(t, func(t testing.TB) {
		Eventually(t, testTimeout, "the third call", func() bool {
			asked++
			return asked == 3
		})
	})
	if got != (verdict{}) || asked != 3 {
		t.Errorf("Eventually() ended with %+v after %d calls, want none after 3", got, asked)
	}
}

func TestEventuallyFailsWithWhatItWaitedFor(t *testing.T) {
	t.Parallel()
	got := verdictOf(t, func(t testing.TB) {
		Eventually(t, 20*time.Millisecond, "Godot", func() bool { return false })
	})
	if want := "waited 20ms for Godot"; got.failed != want {
		t.Errorf("Eventually() failed with %q, want %q", got.failed, want)
	}
}
