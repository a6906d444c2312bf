package peertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const firebaseStartTimeout = 120 * time.Second

// AuthEmulator is the Firebase Auth emulator that the tests of a test binary
// share. Its methods are safe for concurrent use.
type AuthEmulator struct {
	host    string
	project string // whose users sign in without naming one
	process *process
}

var sharedAuth shared[*AuthEmulator]

// FirebaseAuth returns the Firebase Auth emulator, which knows no users. The
// package's TestMain must call [Main]. It looks for the firebase of npm's
// firebase-tools at FIREBASE_TOOLS, in this repository's .ci/node_modules, and in
// PATH; without it, or without node, it skips the test.
func FirebaseAuth(t testing.TB) *AuthEmulator {
	t.Helper()
	path, err := findFirebase()
	if err != nil {
		requireReal(t, err)
	}
	emulator := sharedAuth.get(t, func() (*AuthEmulator, func() error, error) { return startFirebase(path) })
	logOnFailure(t, emulator.process)
	return emulator
}

// findFirebase returns the firebase command, or what is missing. The pinned one
// of this repository goes before whatever the machine has.
func findFirebase() (string, error) {
	if _, err := exec.LookPath("node"); err != nil {
		return "", fmt.Errorf("no node, which the Firebase Auth emulator runs on (%w)", err)
	}
	if path := os.Getenv("FIREBASE_TOOLS"); path != "" {
		return namedFirebase(path)
	}
	if root, err := moduleRoot(); err == nil {
		path := filepath.Join(root, ".ci", "node_modules", ".bin", "firebase")
		if _, err := exec.LookPath(path); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath("firebase")
	if err != nil {
		return "", fmt.Errorf("no firebase (%w); run npm ci in .ci", err)
	}
	return path, nil
}

// namedFirebase returns the command that FIREBASE_TOOLS names.
func namedFirebase(path string) (string, error) {
	path, err := exec.LookPath(path)
	if err != nil {
		return "", fmt.Errorf("FIREBASE_TOOLS names no command: %w", err)
	}
	return filepath.Abs(path) // it will run in another directory
}

// moduleRoot returns the directory above the working directory that holds
// go.mod. Tests run in their package's directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = parent
	}
}

func startFirebase(path string) (*AuthEmulator, func() error, error) {
	project := newProjectID()
	process, ports, err := serveShared(firebaseStartTimeout, 3, func(dir string, ports []int) (command, error) {
		err := writeFirebaseConfig(dir, ports)
		return firebaseCommand(path, dir, project, loopback(ports[0])), err
	})
	if err != nil {
		return nil, nil, err
	}
	return &AuthEmulator{host: loopback(ports[0]), project: project, process: process}, process.discard, nil
}

// writeFirebaseConfig names every port: those that it left out would be fixed
// ones, the same for all test binaries.
func writeFirebaseConfig(dir string, ports []int) error {
	listen := func(port int) map[string]any { return map[string]any{"host": "127.0.0.1", "port": port} }
	config, err := json.Marshal(map[string]any{"emulators": map[string]any{
		"auth":              listen(ports[0]),
		"hub":               listen(ports[1]),
		"logging":           listen(ports[2]),
		"ui":                map[string]any{"enabled": false},
		"singleProjectMode": false, // each test has a project of its own
	}})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "firebase.json"), config, 0o600)
}

func firebaseCommand(path, dir, project, host string) command {
	return command{
		name: "firebase",
		path: path,
		args: []string{"emulators:start", "--only", "auth", "--project", project},
		// Its settings, caches and locks belong to this run, not to the user.
		env: []string{
			"HOME=" + dir, "XDG_CONFIG_HOME=" + dir, "XDG_CACHE_HOME=" + dir, "TMPDIR=" + dir,
			"NO_UPDATE_NOTIFIER=1",
		},
		dir:         dir,
		deathSignal: syscall.SIGKILL,
		ready:       "All emulators ready",
		probe:       func(ctx context.Context) error { return getOK(ctx, "http://"+host+"/") },
	}
}

// getOK returns nil when url answers 200.
func getOK(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true} // no proxy, and nothing stays open
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, response.Status)
	}
	return nil
}

// Host returns host:port, as FIREBASE_AUTH_EMULATOR_HOST takes it.
func (e *AuthEmulator) Host() string { return e.host }

// Project returns the ID of a new project, whose users no other test sees.
func (e *AuthEmulator) Project() string { return newProjectID() }

// SignInProject returns the project of the users of [AuthEmulator.SignUp].
func (e *AuthEmulator) SignInProject() string { return e.project }

// SignUp makes a user as an application's page would, and returns the user's ID
// and an ID token.
func (e *AuthEmulator) SignUp(t testing.TB) (uid, token string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost,
		"http://"+e.host+"/identitytoolkit.googleapis.com/v1/accounts:signUp?key=any", strings.NewReader(`{"returnSecureToken":true}`))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var user struct{ LocalID, IDToken string }
	if err := json.NewDecoder(response.Body).Decode(&user); err != nil || user.IDToken == "" {
		t.Fatalf("signing up with the Auth emulator: %s, %v", response.Status, err)
	}
	return user.LocalID, user.IDToken
}
