package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/config"
	"tebraproxy/pkg/peertest"
)

// asMain, set in the environment, makes the test binary the program.
const asMain = "BRIDGE_TEST_RUN_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asMain) != "" {
		main()
		return
	}
	peertest.Main(m)
}

// wait is how long a test waits for what should take a second or two.
const wait = 20 * time.Second

// ended is how the program ended.
type ended struct {
	status         int
	stdout, stderr string
	state          *os.ProcessState
}

// program returns the program as a command that has not started yet, with nothing
// in its environment but environ.
func program(t *testing.T, args []string, environ ...string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*wait)
	t.Cleanup(cancel)
	cmd = exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(environ, asMain+"=1", "HOME="+t.TempDir())
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd, stdout, stderr
}

// runProgram runs the program to its end.
func runProgram(t *testing.T, args []string, environ ...string) ended {
	t.Helper()
	cmd, stdout, stderr := program(t, args, environ...)
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %v: %v", args, err)
	}
	return ended{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String(), cmd.ProcessState}
}

// pubSub is an in-memory Pub/Sub with the two topics of project "p".
func pubSub(t *testing.T) *pstest.Server {
	t.Helper()
	server := pstest.NewServer()
	t.Cleanup(func() { server.Close() })
	for _, topic := range []string{"projects/p/topics/tebra-requests", "projects/p/topics/tebra-dead-letters"} {
		if _, err := server.GServer.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topic}); err != nil {
			t.Fatal(err)
		}
	}
	return server
}

func TestBadUsageEndsWith2AndSaysWhatIsRight(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		nil, {"walk"}, {"run", "fast"}, {"drain", "--timeout"}, {"drain", "--timeout=-1s"}, {"drain", "--timeout", "0"},
		{"drain", "now"}, {"drain", "--loud"}, {"--help"},
	} {
		got := runProgram(t, args, "REDIS_URL=redis://127.0.0.1:1", "GOOGLE_CLOUD_PROJECT=p")
		if got.status != 2 || !strings.Contains(got.stderr, "usage: bridge run | bridge drain") {
			t.Errorf("bridge %q = status %d, %q, want 2 and the usage", args, got.status, got.stderr)
		}
	}
}

func TestABadConfigurationEndsWith2AndNamesAllOfIt(t *testing.T) {
	t.Parallel()
	got := runProgram(t, []string{"run"}, "REDIS_URL=tcp://user:secret@h", "BATCH_SIZE=0", "RETENTION=soon", "POLICY_FILE="+filepath.Join(t.TempDir(), "none"))
	if got.status != 2 {
		t.Errorf("status = %d, want 2", got.status)
	}
	for _, name := range []string{"REDIS_URL", "BATCH_SIZE", "RETENTION", "POLICY_FILE", "GOOGLE_CLOUD_PROJECT"} {
		if !strings.Contains(got.stderr, name) {
			t.Errorf("stderr = %q, want %s named", got.stderr, name)
		}
	}
	if strings.Contains(got.stderr+got.stdout, "secret") {
		t.Errorf("the output holds the password: %q", got.stderr+got.stdout)
	}
}

func TestADrainEndsWith0OnceAllIsPublished(t *testing.T) {
	t.Parallel()
	server, sink := peertest.Redis(t), pubSub(t)
	rdb := server.Client()
	for range 20 {
		if err := rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: "tebra:requests", Values: []string{"action", "health", "userId", "u"}}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	got := runProgram(t, []string{"drain", "--timeout", "20s"}, "REDIS_URL="+server.URL(), "GOOGLE_CLOUD_PROJECT=p", "PUBSUB_EMULATOR_HOST="+sink.Addr, "HEALTH_PORT=0")
	if got.status != 0 || got.stderr != "" {
		t.Errorf("status = %d, stderr %q, want 0 and nothing", got.status, got.stderr)
	}
	if n := len(sink.Messages()); n != 20 {
		t.Errorf("%d messages were published, want 20", n)
	}
}

func TestADrainThatCantPublishEndsWith1AndSaysWhatIsLeft(t *testing.T) {
	t.Parallel()
	server, sink := peertest.Redis(t), pubSub(t)
	if err := server.Client().XAdd(t.Context(), &redis.XAddArgs{Stream: "tebra:requests", Values: []string{"action", "health", "userId", "u"}}).Err(); err != nil {
		t.Fatal(err)
	}
	addr := sink.Addr
	sink.Close()
	got := runProgram(t, []string{"drain", "--timeout", "2s"}, "REDIS_URL="+server.URL(), "GOOGLE_CLOUD_PROJECT=p", "PUBSUB_EMULATOR_HOST="+addr, "HEALTH_PORT=0")
	if got.status != 1 {
		t.Errorf("status = %d, want 1", got.status)
	}
	for _, want := range []string{"1 are in a bridge's hand", "pubsub", "connection refused"} {
		if !strings.Contains(got.stderr, want) {
			t.Errorf("stderr = %q, want it to say %q", got.stderr, want)
		}
	}
}

var listening = regexp.MustCompile(`health is served[^\n]*"addr":"([^"]+)"`)

func TestRunServesHealthUntilSIGTERMAndEndsWith0(t *testing.T) {
	t.Parallel()
	server, sink := peertest.Redis(t), pubSub(t)
	cmd, _, stderr := program(t, []string{"run"}, "REDIS_URL="+server.URL(), "GOOGLE_CLOUD_PROJECT=p", "PUBSUB_EMULATOR_HOST="+sink.Addr, "HEALTH_PORT=0")
	cmd.Stdout = nil
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	logs := make(chan string, 1000)
	go func() {
		defer close(logs)
		buf := make([]byte, 4096)
		for {
			n, err := stdout.Read(buf)
			if n > 0 {
				logs <- string(buf[:n])
			}
			if err != nil {
				return
			}
		}
	}()
	addr, text := "", ""
	peertest.Eventually(t, wait, "the log to name the health port", func() bool {
		select {
		case more := <-logs:
			text += more
		default:
		}
		if m := listening.FindStringSubmatch(text); m != nil {
			addr = m[1]
		}
		return addr != ""
	})
	for _, path := range []string{"/healthz", "/readyz"} {
		peertest.Eventually(t, wait, path+" to answer 200", func() bool { return get(t, "http://"+addr+path) == http.StatusOK })
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for range logs { // until it ends
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v, %s, want status 0", err, stderr)
	}
}

func get(t *testing.T, url string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

func TestAHealthPortInUseIsNamed(t *testing.T) {
	t.Parallel()
	taken := peertest.Redis(t)
	_, port, _ := strings.Cut(taken.Addr(), ":")
	got := runProgram(t, []string{"run"}, "REDIS_URL="+taken.URL(), "GOOGLE_CLOUD_PROJECT=p", "PUBSUB_EMULATOR_HOST=127.0.0.1:1", "HEALTH_PORT="+port)
	if got.status != 1 || !strings.Contains(got.stderr, "HEALTH_PORT") {
		t.Errorf("status = %d, stderr %q, want 1 and HEALTH_PORT named", got.status, got.stderr)
	}
}

func TestRunReturnsTypedErrors(t *testing.T) {
	t.Parallel()
	if err := run(t.Context(), nil, nil, io.Discard); !errors.Is(err, errUsage) {
		t.Errorf("run() = %v, want %v", err, errUsage)
	}
	var bad *config.Error
	if err := run(t.Context(), []string{"run"}, nil, io.Discard); !errors.As(err, &bad) || len(bad.Problems) != 2 {
		t.Errorf("run() = %v, want a config.Error with the two required variables", err)
	}
}
