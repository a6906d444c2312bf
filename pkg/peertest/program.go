package peertest

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// Program returns the path of the first of names that is installed. Without any
// it skips the test; install says what would help.
func Program(t testing.TB, install string, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	requireReal(t, fmt.Errorf("no %s; %s", strings.Join(names, " or "), install))
	return ""
}
