package peertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

var errNoMain = errors.New("this package's tests share a peer that nobody would end: " +
	"add func TestMain(m *testing.M) { peertest.Main(m) }")

// atEnd holds what ends the shared peers of this test binary.
var atEnd struct {
	sync.Mutex
	armed bool
	stops []func() error
}

// TestingM is a test binary's main that ends the shared peers after the last
// test. It serves those who wrap main once more, such as
// goleak.VerifyTestMain(peertest.TestingM{M: m}); others call [Main].
type TestingM struct{ *testing.M }

// Run runs the tests, ends the shared peers, and returns the exit code.
func (m TestingM) Run() int {
	atEnd.Lock()
	atEnd.armed = true
	atEnd.Unlock()
	defer stopShared()
	return m.M.Run()
}

// Main runs a package's tests from its TestMain, ends the peers that they
// shared, and exits.
func Main(m *testing.M) { os.Exit(TestingM{M: m}.Run()) }

func stopShared() {
	atEnd.Lock()
	defer atEnd.Unlock()
	for _, stop := range atEnd.stops {
		if err := stop(); err != nil {
			fmt.Fprintf(os.Stderr, "peertest: end a shared peer: %v\n", err)
		}
	}
	atEnd.stops = nil
}

// shared is a peer that all tests of the test binary use.
type shared[T any] struct {
	once  sync.Once
	value T
	err   error
}

// get returns the peer, which the first caller starts. start also returns what
// ends it.
func (s *shared[T]) get(t testing.TB, start func() (T, func() error, error)) T {
	t.Helper()
	s.once.Do(func() { s.value, s.err = startShared(start) })
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.value
}

func startShared[T any](start func() (T, func() error, error)) (value T, err error) {
	if !armed() {
		return value, errNoMain
	}
	value, stop, err := start()
	if err != nil {
		return value, err
	}
	atEnd.Lock()
	defer atEnd.Unlock()
	atEnd.stops = append(atEnd.stops, stop)
	return value, nil
}

func armed() bool {
	atEnd.Lock()
	defer atEnd.Unlock()
	return atEnd.armed
}

// logOnFailure puts the end of the peer's log into the output of a test that
// fails.
func logOnFailure(t testing.TB, p *process) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the log of %s:\n%s", p.name, p.tail())
		}
	})
}

// serveShared is [serve] for a shared peer: it outlives the test that starts it,
// and has a directory of its own.
func serveShared(timeout time.Duration, n int, build func(dir string, ports []int) (command, error)) (*process, []int, error) {
	dir, err := os.MkdirTemp("", "peertest-")
	if err != nil {
		return nil, nil, fmt.Errorf("make a directory for a peer: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	process, ports, err := serve(ctx, n, func(ports []int) (command, error) { return build(dir, ports) })
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	return process, ports, nil
}
