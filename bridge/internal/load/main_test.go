package load

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"tebraproxy/bridge/internal/fleet"
)

var (
	soakFor       = flag.Duration("load.soak", 0, "how long to soak, from 12m to say anything; 0 is a few seconds, to see that it works")
	soakAt        = flag.Int("load.rate", 200, "requests a second of the soak")
	latencyFor    = flag.Duration("load.latency", 0, "how long to measure latency, for each way and rate; 0 is a moment")
	throughputFor = flag.Duration("load.throughput", 0, "how long to measure throughput, for each way and API; 0 is a moment")
	scalingFor    = flag.Duration("load.scaling", 0, "how long to measure throughput, for each number of processes; 0 is a moment")
	backlog       = flag.Int("load.backlog", 0, "how many entries wait, 1000000 for a measurement; 0 is a few thousand")

	outDir = flag.String("load.out", "", "directory for results; empty is a temporary one")
	update = flag.Bool("load.update", false, "draw the plots of bridge/benchmarks anew")
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(bareVariable); spec != "" {
		if err := runBare(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	fleet.Main(m)
}

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
