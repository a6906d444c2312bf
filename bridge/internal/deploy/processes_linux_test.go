package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tebraproxy/pkg/peertest"
)

// Secrets that processes get, none of which may be seen.
const (
	secretPassword = "made-up-redis-password"
	secretKey      = "made-up-api-key"
)

// A binary is a real program, with what it is started with.
type binary struct {
	pkg     string
	args    []string
	environ []string
	ready   *regexp.Regexp // in its output; its group is where it listens
}

var listens = regexp.MustCompile(`"addr(?:ess)?":"[^"]*:([0-9]+)"`)

// binaries are all programs that hold secrets.
var binaries = map[string]binary{
	"bridge": {"bridge/cmd/bridge", []string{"run"}, []string{"HEALTH_PORT=0"}, listens},
	"functions": {"functions/cmd/functions", nil, []string{"FUNCTION_TARGET=ProcessRequest", "PORT=0",
		"TEBRA_PHP_API_URL=http://127.0.0.1:1/api", "TEBRA_INTERNAL_API_KEY=" + secretKey}, listens},
	"tebra": {"bridge/cmd/tebra", []string{"console"}, []string{"TEBRA_PHP_API_URL=http://127.0.0.1:1/api",
		"TEBRA_INTERNAL_API_KEY=" + secretKey}, regexp.MustCompile(`http://127\.0\.0\.1:([0-9]+)`)},
}

// output is what a process prints; it may be read while it is written.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// startBinary builds a program, starts it as an operator does, in a directory of its
// own, and returns once it says where it listens.
func startBinary(t *testing.T, b binary) (cmd *exec.Cmd, port string, out *output) {
	t.Helper()
	redis := peertest.RealRedis(t, peertest.WithACL("user tebra on >"+secretPassword+" ~* &* +@all"))
	path := filepath.Join(t.TempDir(), "program")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, "tebraproxy/"+b.pkg)
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", b.pkg, err, text)
	}
	cmd, out = exec.CommandContext(t.Context(), path, b.args...), &output{}
	cmd.Dir, cmd.Stdout, cmd.Stderr = t.TempDir(), out, out
	cmd.Env = append([]string{"HOME=" + cmd.Dir, "GOTRACEBACK=crash", "GOOGLE_CLOUD_PROJECT=demo", "PUBSUB_EMULATOR_HOST=127.0.0.1:1",
		"REDIS_URL=redis://tebra:" + secretPassword + "@" + redis.Addr()}, b.environ...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	peertest.Eventually(t, wait, b.pkg+" to say where it listens", func() bool {
		found := b.ready.FindStringSubmatch(out.String())
		if found != nil {
			port = found[1]
		}
		return port != ""
	})
	return cmd, port, out
}

// coreFiles lets what this test starts leave core files as large as the system
// allows, so that a program that leaves none does so by itself.
var coreFiles = sync.OnceValue(func() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_CORE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	return syscall.Setrlimit(syscall.RLIMIT_CORE, &limit)
})

// TestNoProcessShowsItsSecrets starts each program with secrets in its environment, and
// looks for them where others may look: its arguments, profiles and variables that it
// might serve, and what is left when it crashes.
func TestNoProcessShowsItsSecrets(t *testing.T) {
	t.Parallel()
	if err := coreFiles(); err != nil {
		t.Fatal(err)
	}
	for name, b := range binaries {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd, port, out := startBinary(t, b)
			for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/vars"} {
				if status, body := fetch(t, "http://127.0.0.1:"+port+path); status < 400 {
					t.Errorf("GET %s = %d, %.200s, want it refused", path, status, body)
				}
			}
			proc := fmt.Sprintf("/proc/%d/", cmd.Process.Pid)
			arguments, err := os.ReadFile(proc + "cmdline")
			if err != nil || len(arguments) == 0 {
				t.Fatalf("its arguments are %q, %v", arguments, err)
			}
			limits, err := os.ReadFile(proc + "limits")
			if core := regexp.MustCompile(`(?m)^Max core file size +0 +0 `); err != nil || !core.Match(limits) {
				t.Errorf("its limits are %s, %v, want core files of 0 bytes", limits, err)
			}
			// With GOTRACEBACK=crash, Go's runtime ends with a signal that dumps core.
			if err := cmd.Process.Signal(syscall.SIGQUIT); err != nil {
				t.Fatal(err)
			}
			var exit *exec.ExitError
			if err := cmd.Wait(); !errors.As(err, &exit) {
				t.Fatalf("it ended with %v, want it to crash", err)
			}
			status, ok := exit.Sys().(syscall.WaitStatus)
			if !ok || !status.Signaled() || status.CoreDump() {
				t.Errorf("it ended with %v, want a signal that dumps no core", exit)
			}
			left, err := filepath.Glob(filepath.Join(cmd.Dir, "*core*"))
			if err != nil || len(left) > 0 {
				t.Errorf("it left %q, %v, want no core file", left, err)
			}
			if !strings.Contains(out.String(), "goroutine ") {
				t.Errorf("it printed %s, want the stacks of a crash", out)
			}
			for _, secret := range []string{secretPassword, secretKey} {
				if strings.Contains(string(arguments)+out.String(), secret) {
					t.Errorf("%q is among its arguments %q or in what it printed: %s", secret, arguments, out)
				}
			}
		})
	}
}

func fetch(t *testing.T, url string) (status int, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}
