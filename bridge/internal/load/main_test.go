package load

import (
	"flag"
	"os"
	"testing"

	"tebraproxy/bridge/internal/fleet"
)

var (
	soakFor = flag.Duration("load.soak", 0, "how long to soak, from 12m to say anything; 0 is a few seconds, to see that it works")
	soakAt  = flag.Int("load.rate", 200, "requests a second of the soak")
	outDir  = flag.String("load.out", "", "directory for results; empty is a temporary one")
)

func TestMain(m *testing.M) { fleet.Main(m) }

// results returns the directory that results go to.
func results(t *testing.T) string {
	t.Helper()
	if *outDir == "" {
		return t.TempDir()
	}
	if err := os.MkdirAll(*outDir, 0o755); err != nil {
		t.Fatal(err)
	}
	return *outDir
}

// logs returns a directory for the logs of all processes, which stays when the test
// fails.
func logs(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "load-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the logs of all processes are in %s", dir)
			return
		}
		_ = os.RemoveAll(dir) // it is in the temporary directory
	})
	return dir
}
