package deploy

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tebraproxy/pkg/peertest"
)

// standInGcloud puts a gcloud into a directory that writes down how it is called and
// then does what script says. It returns bash and the directory.
func standInGcloud(t *testing.T, script string) (bash, dir string) {
	t.Helper()
	bash, dir = peertest.Program(t, "install bash", "bash"), t.TempDir()
	gcloud := "#!" + bash + "\necho \"$*\" >> " + dir + "/calls\n" + script + "\n"
	if err := os.WriteFile(filepath.Join(dir, "gcloud"), []byte(gcloud), 0o755); err != nil {
		t.Fatal(err)
	}
	return bash, dir
}

// callsOf returns how the gcloud in a directory was called, a line each.
func callsOf(t *testing.T, dir string) string {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(dir, "calls"))
	if err != nil {
		t.Fatal(err)
	}
	return string(log)
}

// inPath is the environment in which what is in a directory comes first.
func inPath(dir string) string { return "PATH=" + dir + ":" + os.Getenv("PATH") }

// runBuild runs terraform/build.sh with a gcloud that does what script says, and
// returns the exit status, all output, and how often gcloud was called.
func runBuild(t *testing.T, script string) (status int, output string, calls int) {
	t.Helper()
	bash, dir := standInGcloud(t, script)
	status, output = runScript(t, bash, "build.sh", inPath(dir), "PROJECT=p", "REGION=r", "REPOSITORY=tebra", "BUCKET=b",
		"SERVICE_ACCOUNT=projects/p/serviceAccounts/a", "TAG=src-1", "RETRY_SECONDS=0")
	log := callsOf(t, dir)
	for _, want := range []string{"--project=p", "--region=r", "gs://b/source", "_TAG=src-1", "--service-account=projects/p/serviceAccounts/a"} {
		if !strings.Contains(log, want) {
			t.Errorf("gcloud was called with %q, want %s in it", log, want)
		}
	}
	return status, output, strings.Count(log, "\n")
}

// runScript runs a script of terraform/ and returns its exit status and all output.
func runScript(t *testing.T, bash, name string, environ ...string) (status int, output string) {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(root, "terraform", name))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), bash, path)
	cmd.Env = append(os.Environ(), environ...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

func TestAgentsAreAskedForAndOnlyRedisGetsItsRole(t *testing.T) {
	t.Parallel()
	const (
		asked   = "beta services identity create --project=p --service=%s.googleapis.com --quiet\n"
		storage = "storage service-agent --project=p --quiet\n"
		role    = "projects add-iam-policy-binding p --role=roles/redis.serviceAgent --condition=None --member=serviceAccount:service-12@cloud-redis.iam.gserviceaccount.com --format=none --quiet\n"
	)
	for _, test := range []struct{ services, storage, want string }{
		{"pubsub", "false", fmt.Sprintf(asked, "pubsub")},
		{"pubsub redis", "true", fmt.Sprintf(asked, "pubsub") + fmt.Sprintf(asked, "redis") + storage + role},
	} {
		bash, dir := standInGcloud(t, "")
		status, output := runScript(t, bash, "agents.sh", inPath(dir), "PROJECT=p", "NUMBER=12", "SERVICES="+test.services, "STORAGE="+test.storage)
		if calls := callsOf(t, dir); status != 0 || calls != test.want {
			t.Errorf("%s: status %d, %s and gcloud was called so:\n%swant:\n%s", test.services, status, output, calls, test.want)
		}
	}
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

// applies are two applies of one state, with Google mocked: of them only the first
// has something to build.
const applies = `
mock_provider "google" {
  source = "./tests/mocks"
}
mock_provider "time" {}
variables {
  project_id  = "test-project"
  region      = "us-central1"
  php_api_url = "https://php-api.example.com/api"
  php_api_key = "key"
  redis_url   = "redis://redis.example.com:6379"
}
run "builds" {
  command = apply
  assert {
    condition     = can(regex("@sha256:", output.images.bridge))
    error_message = "the image is not deployed by digest"
  }
}
run "builds_no_more" {
  command = apply
  variables {
    bridge_instances = 2
  }
}
`

func TestAnApplyBuildsTheImagesOnceUnderTheSourcesHash(t *testing.T) {
	t.Parallel()
	_, dir := standInGcloud(t, "")
	config := newConfiguration(t, "", inPath(dir))
	tests, err := filepath.Glob(filepath.Join(config.dir, "tests", "*.tftest.hcl"))
	if err != nil || len(tests) == 0 {
		t.Fatalf("tests = %v, %v, want some to leave out", tests, err)
	}
	for _, test := range tests {
		if err := os.Remove(test); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(config.dir, "tests", "applies.tftest.hcl"), []byte(applies), 0o644); err != nil {
		t.Fatal(err)
	}
	output, err := config.run(t.Context(), "test", "-no-color")
	if err != nil {
		t.Fatalf("terraform test: %v\n%s", err, output)
	}
	built := regexp.MustCompile(`(?m)^builds submit \. --project=test-project --region=us-central1 .*_REPOSITORY=tebra,_TAG=src-[0-9a-f]{16} --quiet$`)
	asked := "beta services identity create --project=test-project --service=pubsub.googleapis.com --quiet\n"
	if calls := callsOf(t, dir); len(built.FindAllString(calls, -1)) != 1 || strings.Count(calls, asked) != 1 || strings.Count(calls, "\n") != 2 {
		t.Errorf("gcloud was called so:\n%swant Pub/Sub's agent asked for, and one build under a hash of the source", calls)
	}
}
