package peertest

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
)

// told holds the fallbacks that this process has spoken of.
var told sync.Map

// inCI reports whether a missing part is an error. An unreadable CI variable
// counts as set: better a loud failure than a silent fallback.
func inCI() bool {
	value := os.Getenv("CI")
	if value == "" {
		return false
	}
	ci, err := strconv.ParseBool(value)
	return ci || err != nil
}

// requireReal skips the test because of what is missing, or fails it in CI.
func requireReal(t testing.TB, missing error) {
	t.Helper()
	if inCI() {
		t.Fatalf("CI=true, and a real part is missing: %v", missing)
	}
	t.Skipf("needs a real part: %v", missing)
}

// fallBack says, once per process and standIn, what takes the place of what is
// missing. In CI it fails the test instead.
func fallBack(t testing.TB, missing error, standIn string) {
	t.Helper()
	if inCI() {
		t.Fatalf("CI=true, and a real part is missing: %v", missing)
	}
	if _, again := told.LoadOrStore(standIn, true); again {
		return
	}
	fmt.Fprintf(os.Stderr, "peertest: %v; in its place: %s\n", missing, standIn)
}
