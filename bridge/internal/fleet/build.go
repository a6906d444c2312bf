package fleet

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// binaries are the paths of the real programs.
type binaries struct{ bridge, functions string }

var built struct {
	once sync.Once
	dir  string
	err  error
}

// build builds the programs, once for a test binary.
func build(t testing.TB) binaries {
	t.Helper()
	built.once.Do(func() { built.err = buildOnce() })
	if built.err != nil {
		t.Fatal(built.err)
	}
	return binaries{bridge: filepath.Join(built.dir, "bridge"), functions: filepath.Join(built.dir, "functions")}
}

func buildOnce() (err error) {
	if built.dir, err = os.MkdirTemp("", "fleet-"); err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-o", built.dir+string(filepath.Separator), "tebraproxy/bridge/cmd/bridge", "tebraproxy/functions/cmd/functions")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the programs: %w\n%s", err, out)
	}
	return nil
}

func removeBinaries() {
	if built.dir != "" {
		_ = os.RemoveAll(built.dir) // it is in the temporary directory
	}
}
