package deploy

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tebraproxy/pkg/peertest"
)

// runBuild runs terraform/build.sh with a gcloud that does what script says, and
// returns the exit status, all output, and how often gcloud was called.
func runBuild(t *testing.T, script string) (status int, output string, calls int) {
	t.Helper()
	bash := peertest.Program(t, "install bash", "bash")
	dir := t.TempDir()
	gcloud := "#!" + bash + "\necho \"$*\" >> " + dir + "/calls\n" + script + "\n"
	if err := os.WriteFile(filepath.Join(dir, "gcloud"), []byte(gcloud), 0o755); err != nil {
		t.Fatal(err)
	}
	path, err := filepath.Abs(filepath.Join(root, "terraform", "build.sh"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), bash, path)
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "PROJECT=p", "REGION=r", "REPOSITORY=tebra", "BUCKET=b",
		"SERVICE_ACCOUNT=projects/p/serviceAccounts/a", "TAG=src-1", "RETRY_SECONDS=0")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	log, err := os.ReadFile(filepath.Join(dir, "calls"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"--project=p", "--region=r", "gs://b/source", "_TAG=src-1", "--service-account=projects/p/serviceAccounts/a"} {
		if !strings.Contains(string(log), want) {
			t.Errorf("gcloud was called with %q, want %s in it", log, want)
		}
	}
	return cmd.ProcessState.ExitCode(), out.String(), strings.Count(string(log), "\n")
}

func TestABuildIsTriedAgainOnlyWhileRightsAreNotKnownEverywhere(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, script  string
		status, calls int
		says          string
	}{
		{"it succeeds", `echo done`, 0, 1, "done"},
		{"rights come", `[ "$(wc -l < "$(dirname "$0")/calls")" -ge 3 ] || { echo PERMISSION_DENIED >&2; exit 1; }`, 0, 3, "PERMISSION_DENIED"},
		{"rights never come", `echo PERMISSION_DENIED >&2; exit 1`, 1, 10, "attempt 10 of 10"},
		{"a test fails", `echo "BUILD FAILURE: step exited with 1"; exit 7`, 7, 1, "BUILD FAILURE"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			status, output, calls := runBuild(t, test.script)
			if status != test.status || calls != test.calls || !strings.Contains(output, test.says) {
				t.Errorf("status %d after %d calls, %q; want %d after %d, and %q", status, calls, output, test.status, test.calls, test.says)
			}
		})
	}
}
