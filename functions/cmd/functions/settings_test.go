package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tebraproxy/pkg/config"
)

// rightEnvironment is the least that is needed.
func rightEnvironment() []string {
	return []string{
		"REDIS_URL=redis://127.0.0.1:1", "GOOGLE_CLOUD_PROJECT=demo", "FUNCTION_TARGET=ProcessRequest",
		"TEBRA_PHP_API_URL=http://127.0.0.1:1", "TEBRA_INTERNAL_API_KEY=key",
	}
}

const anyone = `
version: 1
actions:
  health: {roles: [tester]}
users:
  source: static
  anyone: {roles: [tester]}
`

const named = `
version: 1
actions:
  health: {roles: [tester]}
users:
  source: static
  accounts: {user-1: {roles: [tester]}}
`

const inFirebase = `
version: 1
actions:
  health: {roles: [tester]}
users: {source: firebase}
`

func policyFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func problemsOf(t *testing.T, environ ...string) []string {
	t.Helper()
	_, err := load(append(rightEnvironment(), environ...))
	if err == nil {
		return nil
	}
	var bad *config.Error
	if !errors.As(err, &bad) {
		t.Fatalf("load() = %v, want a *config.Error", err)
	}
	return bad.Problems
}

func TestWhoGetsRolesOnCloudRunIsNamed(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		policy  string
		environ []string
		refused bool
	}{
		"anyone, on one's own machine": {anyone, nil, false},
		"anyone, on Cloud Run":         {anyone, []string{"K_SERVICE=functions"}, true},
		"anyone, in a nameless one":    {anyone, []string{"K_SERVICE="}, true},
		"named users, on Cloud Run":    {named, []string{"K_SERVICE=functions"}, false},
		"Firebase, on Cloud Run":       {inFirebase, []string{"K_SERVICE=functions"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := problemsOf(t, append(test.environ, "POLICY_FILE="+policyFile(t, test.policy))...)
			if !test.refused {
				if got != nil {
					t.Errorf("problems = %q, want none", got)
				}
				return
			}
			if len(got) != 1 || !strings.Contains(got[0], "anyone") || !strings.Contains(got[0], "POLICY_FILE") {
				t.Errorf("problems = %q, want one about POLICY_FILE and anyone", got)
			}
		})
	}
}

func TestAllThatIsWrongIsSaidAtOnce(t *testing.T) {
	t.Parallel()
	got := strings.Join(problemsOf(t,
		"REDIS_URL=secret://x", "PHP_TIMEOUT=0s", "FUNCTION_TARGET=x", "K_SERVICE=functions",
		"FIREBASE_AUTH_EMULATOR_HOST=127.0.0.1:9099", "POLICY_FILE="+policyFile(t, "version: 2\nactions: 7")), "\n")
	for _, word := range []string{"REDIS_URL", "PHP_TIMEOUT", "FUNCTION_TARGET", "FIREBASE_AUTH_EMULATOR_HOST", "POLICY_FILE"} {
		if !strings.Contains(got, word) {
			t.Errorf("problems = %s\nwant %s among them", got, word)
		}
	}
	if strings.Contains(got, "secret") {
		t.Errorf("problems = %s\nwhich tell a secret", got)
	}
}

// TestEachFunctionIsAskedForWhatItUses: no key where nobody is called, no topic where
// nothing is published.
func TestEachFunctionIsAskedForWhatItUses(t *testing.T) {
	t.Parallel()
	if _, err := loadRecorder([]string{"FUNCTION_TARGET=RecordDeadLetter", "REDIS_URL=redis://127.0.0.1:1"}); err != nil {
		t.Errorf("loadRecorder() = %v, want nil", err)
	}
	least := []string{"FUNCTION_TARGET=Gateway", "REDIS_URL=redis://127.0.0.1:1", "GOOGLE_CLOUD_PROJECT=demo"}
	if _, err := loadGateway(least); err != nil {
		t.Errorf("loadGateway() = %v, want nil", err)
	}
	_, err := loadGateway(append(least, "REDIS_URL=ftp://x", "GATEWAY_ORIGINS=*", "FIREBASE_AUTH_EMULATOR_HOST=x:1", "K_SERVICE=s"))
	for _, name := range []string{"REDIS_URL", "GATEWAY_ORIGINS", "FIREBASE_AUTH_EMULATOR_HOST"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("loadGateway() = %v, want %s among the problems", err, name)
		}
	}
}

// TestAPolicyHasToFitTheDeadlines: a timeout longer than the call may take.
func TestAPolicyHasToFitTheDeadlines(t *testing.T) {
	t.Parallel()
	path := policyFile(t, named+"\n")
	long := policyFile(t, strings.Replace(named, "roles: [tester]}\nusers", "roles: [tester], timeout: 31s}\nusers", 1))
	if got := problemsOf(t, "POLICY_FILE="+path); got != nil {
		t.Errorf("problems = %q, want none", got)
	}
	if got := problemsOf(t, "POLICY_FILE="+long); len(got) != 1 || !strings.Contains(got[0], "PHP_TIMEOUT") {
		t.Errorf("problems = %q, want one about PHP_TIMEOUT", got)
	}
}
