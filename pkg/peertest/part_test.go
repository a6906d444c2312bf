package peertest

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"
)

// programVariable makes this test binary a program that [Start] starts.
const programVariable = "PEERTEST_PROGRAM"

// programMain says that it serves and ends with SIGTERM, unless it is deaf.
func programMain(kind string) {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	fmt.Println("serving", kind)
	for {
		<-term
		if kind != "deaf" {
			os.Exit(0)
		}
	}
}

// startProgram starts this test binary as a program.
func startProgram(t *testing.T, kind string) *Process {
	t.Helper()
	dir := t.TempDir()
	return Start(t, 0, func([]int) Part {
		return Part{Name: "program", Path: os.Args[0], Env: []string{programVariable + "=" + kind}, Dir: dir, Ready: "serving"}
	})
}

func TestAProgramIsStoppedKilledPausedAndStartedAgain(t *testing.T) {
	t.Parallel()
	p := startProgram(t, "docile")
	first := p.PID()
	for _, step := range []struct {
		name    string
		do      func() error
		running bool
	}{
		{"Pause", p.Pause, true}, {"Resume", p.Resume, true},
		{"Stop", p.Stop, false}, {"Kill of what has ended", p.Kill, false},
		{"Start", func() error { return p.Start(t.Context()) }, true}, {"Kill", p.Kill, false},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s = %v, want nil", step.name, err)
		}
		if got := p.Running(); got != step.running {
			t.Fatalf("Running() = %v after %s, want %v", got, step.name, step.running)
		}
	}
	if p.PID() == first {
		t.Errorf("PID() = %d after a new start, want another", first)
	}
}

func TestAProgramThatDoesNotStopIsKilled(t *testing.T) {
	t.Parallel()
	p := startProgram(t, "deaf")
	p.patience = 100 * time.Millisecond
	began := time.Now()
	if err := p.Stop(); !errors.Is(err, ErrSlow) {
		t.Errorf("Stop() = %v, want ErrSlow", err)
	}
	if p.Running() || time.Since(began) < p.patience {
		t.Errorf("Stop() returned after %v, running %v; want it killed after %v", time.Since(began), p.Running(), p.patience)
	}
}
