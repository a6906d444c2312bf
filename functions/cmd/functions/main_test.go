package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/php/phptest"
	"tebraproxy/pkg/push"
	"tebraproxy/pkg/tebra"
)

const (
	testKey  = "key"
	patience = 30 * time.Second
	// What a deployment may take: from exec to the first served request, and at idle.
	maxStart    = 150 * time.Millisecond
	maxResident = 40 << 20
	// exitTime is what Cloud Run gives after SIGTERM.
	exitTime = 10 * time.Second
)

// build builds the command once, as it is deployed: without the symbols, which are
// a third of the file.
var build = sync.OnceValues(func() (string, error) {
	path := filepath.Join(buildDir, "functions")
	out, err := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building the command: %w\n%s", err, out)
	}
	return path, nil
})

var buildDir string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	var err error
	if buildDir, err = os.MkdirTemp("", "functions"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(buildDir)
	return peertest.TestingM{M: m}.Run()
}

// process is the running command.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	url    string
	began  time.Time
	exited chan error
	log    bytes.Buffer // read it after exited
}

// environ is that of a process with its peers, and nothing of this one's but what
// Go needs.
func environ(redisURL, apiURL string, more ...string) []string {
	return append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "PORT=0",
		"REDIS_URL=" + redisURL, "GOOGLE_CLOUD_PROJECT=demo-functions", "PUBSUB_EMULATOR_HOST=127.0.0.1:1",
		"FUNCTION_TARGET=ProcessRequest", "TEBRA_PHP_API_URL=" + apiURL, "TEBRA_INTERNAL_API_KEY=" + testKey,
	}, more...)
}

// launch starts the command and returns once it says where it listens.
func launch(t *testing.T, environ []string) *process {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: exec.Command(path), exited: make(chan error, 1)}
	p.cmd.Env = environ
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = p.cmd.Stdout
	p.began = time.Now()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			p.log.WriteString(lines.Text() + "\n")
			var line struct{ Message, Address string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Message == "serving" {
				address <- line.Address
			}
		}
		p.exited <- p.cmd.Wait()
	}()
	t.Cleanup(p.kill)
	select {
	case a := <-address:
		p.url = "http://127.0.0.1" + a[strings.LastIndex(a, ":"):]
	case err := <-p.exited:
		p.exited <- err
		t.Fatalf("the command ended with %v:\n%s", err, p.log.String())
	case <-time.After(patience):
		t.Fatal("the command does not say where it listens")
	}
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	err := <-p.exited
	p.exited <- err
	if p.t.Failed() {
		p.t.Logf("the log of the command:\n%s", p.log.String())
	}
}

// client opens a connection for each request: none is left over.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}

func (p *process) push(body []byte) int {
	p.t.Helper()
	resp, err := client.Post(p.url+"/", "application/json", bytes.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// pushOf is a read of an action, as a bridge publishes it.
func pushOf(id, action string) []byte {
	req := tebra.Request{
		ID: id, CorrelationID: id, Action: action, UserID: "user-1", Params: []byte("{}"), Timestamp: "2026-01-02T03:04:05Z",
	}
	now := time.Now()
	env := tebra.Envelope{
		RequestID: id, CorrelationID: id, Action: action, UserID: req.UserID, Lane: tebra.DefaultLane, Epoch: "e",
		EntryID: fmt.Sprintf("%d-0", now.UnixMilli()), Ledger: tebra.LedgerHash(req.UserID, id), AdmittedAt: now,
	}
	return push.Message{ID: "1", Data: req.AppendJSON(nil), Attributes: env.Attributes(), Subscription: "s"}.Append(nil)
}

// TestStartIsQuickAndIdleIsSmall: the best of a few starts, because other tests run
// beside this one.
func TestStartIsQuickAndIdleIsSmall(t *testing.T) {
	t.Parallel()
	server := peertest.RealRedis(t)
	api := httptest.NewServer(phptest.New(phptest.Config{APIKey: testKey}))
	t.Cleanup(api.Close)
	for name, test := range map[string]struct {
		environ []string
		action  string // one that is answered without asking anybody for roles
	}{
		"static":   {[]string{"POLICY_FILE=" + policyFile(t, named)}, "health"},
		"firebase": {[]string{"POLICY_FILE=" + policyFile(t, inFirebase), "FIREBASE_AUTH_EMULATOR_HOST=127.0.0.1:1"}, "unheardOf"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			best, least := time.Hour, int64(1<<40)
			for i := 0; i < 15 && (best > maxStart || least > maxResident); i++ {
				p := launch(t, environ(server.URL(), api.URL, test.environ...))
				if got := p.push(pushOf(fmt.Sprint(name, i), test.action)); got != http.StatusNoContent {
					t.Fatalf("push = %d, want 204", got)
				}
				best = min(best, time.Since(p.began))
				least = min(least, resident(t, p.cmd.Process.Pid))
				p.kill()
			}
			t.Logf("from exec to the first served request %v, resident %.1f MiB", best, float64(least)/(1<<20))
			if best > maxStart {
				t.Errorf("from exec to the first served request %v, want at most %v", best, maxStart)
			}
			if least > maxResident {
				t.Errorf("%d bytes resident at idle, want at most %d", least, maxResident)
			}
		})
	}
}

// resident returns the bytes of memory that a process holds.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("needs /proc to see what is resident")
	}
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no VmRSS in /proc")
	return 0
}

// TestSIGTERMGivesBackWhatHangs, within the time that Cloud Run gives, and ends with
// success.
func TestSIGTERMGivesBackWhatHangs(t *testing.T) {
	t.Parallel()
	server := peertest.RealRedis(t)
	standIn := phptest.New(phptest.Config{APIKey: testKey})
	if err := standIn.Behave(phptest.Rule{Do: "hang"}); err != nil {
		t.Fatal(err)
	}
	api := httptest.NewServer(standIn)
	t.Cleanup(api.Close)
	p := launch(t, environ(server.URL(), api.URL, "POLICY_FILE="+policyFile(t, named)))
	status := make(chan int, 1)
	go func() {
		resp, err := client.Post(p.url, "application/json", bytes.NewReader(pushOf("r", "health")))
		if err != nil {
			status <- 0
			return
		}
		resp.Body.Close()
		status <- resp.StatusCode
	}()
	peertest.Eventually(t, patience, "the call", func() bool { return len(standIn.Journal()) == 1 })
	began := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-p.exited:
		p.exited <- err
		if err != nil {
			t.Errorf("the command ended with %v, want success", err)
		}
	case <-time.After(patience):
		t.Fatal("the command still runs")
	}
	if took := time.Since(began); took > exitTime {
		t.Errorf("the command took %v to end, want at most %v", took, exitTime)
	}
	if got := <-status; got != http.StatusServiceUnavailable {
		t.Errorf("push = %d, want 503", got)
	}
	if got := retrying(t, server.Client()); got != 1 {
		t.Errorf("%d entries wait to be tried again, want 1", got)
	}
}

func retrying(t *testing.T, rdb *redis.Client) int64 {
	t.Helper()
	keys, err := tebra.NewKeys(tebra.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	n, err := rdb.ZCard(context.WithoutCancel(t.Context()), keys.Retrying(tebra.DefaultLane)).Result()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestABadConfigurationEndsWithStatus2 and says what is wrong.
func TestABadConfigurationEndsWithStatus2(t *testing.T) {
	t.Parallel()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path)
	cmd.Env = []string{"FUNCTION_TARGET=ProcessRequest"}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("the command ended with %v, want status 2", err)
	}
	for _, name := range []string{"REDIS_URL", "GOOGLE_CLOUD_PROJECT", "TEBRA_PHP_API_URL", "TEBRA_INTERNAL_API_KEY"} {
		if !strings.Contains(string(out), name) {
			t.Errorf("it said %s\nwant %s in it", out, name)
		}
	}
}

// TestWhatLibrariesPrintIsNotInTheLog: net/http prints what an API sends after its
// answer, and that may be about anybody.
func TestWhatLibrariesPrintIsNotInTheLog(t *testing.T) {
	t.Parallel()
	const canary = "XYZZY-Jane-Doe"
	closed := make(chan struct{}, 1)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, buf, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		const answer = `{"success":true,"data":{}}`
		fmt.Fprintf(buf, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s%s", len(answer), answer, canary)
		buf.Flush()
		_, _ = conn.Read(make([]byte, 1)) // until the client has closed it, because of the rest
		closed <- struct{}{}
	}))
	t.Cleanup(api.Close)
	p := launch(t, environ(peertest.RealRedis(t).URL(), api.URL, "POLICY_FILE="+policyFile(t, named)))
	if got := p.push(pushOf("r", "health")); got != http.StatusNoContent {
		t.Errorf("push = %d, want 204", got)
	}
	select {
	case <-closed:
	case <-time.After(patience):
		t.Fatal("the connection is still open; is the rest no longer noticed?")
	}
	p.kill()
	if log := p.log.String(); strings.Contains(log, "XYZZY") || !strings.Contains(log, "answered") {
		t.Errorf("the log holds what the API sent, or nothing:\n%s", log)
	}
}
