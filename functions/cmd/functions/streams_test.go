package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

// What one gateway process is tried with on a quiet machine, and otherwise.
const (
	fullStreams, fewStreams = 5000, 1000      // each of a user of its own
	answerRate              = 200             // a second, to users at random
	residentBase            = int64(50 << 20) // with no stream open
	residentOfStream        = int64(70 << 10) // so that 5,000 take less than 400 MiB
	// maxLatency is for 99 in a hundred answers, from before the XADD until the
	// client has read it.
	maxLatency = 50 * time.Millisecond
)

// TestEventStreamsAreManyAndQuick: with many streams open, every answer reaches its
// user's stream once, and no other, and the process stays small. How quick it is
// only a quiet machine tells: TEBRA_QUIET=1 opens more streams, writes for longer,
// and holds the answers to their time.
func TestEventStreamsAreManyAndQuick(t *testing.T) {
	streams, answers := fewStreams, 2*answerRate
	quiet := os.Getenv("TEBRA_QUIET") != ""
	if quiet {
		streams, answers = fullStreams, 30*answerRate
	}
	needFiles(t, uint64(streams)+200)
	server := peertest.RealRedis(t)
	p := launch(t, gatewayEnviron(server.URL(), believer(t)))
	began := time.Now()
	listeners := openStreams(t, p.url, streams)
	t.Logf("%d streams open after %v", streams, time.Since(began).Round(time.Millisecond))
	latencies := collect(t, listeners, writeAnswers(t, server.Client(), streams, answers))
	held := resident(t, p.cmd.Process.Pid)
	slices.Sort(latencies)
	at := func(q float64) time.Duration { return latencies[int(q*float64(len(latencies)-1))] }
	t.Logf("%d answers to %d streams at %d/s: p50 %v, p99 %v, longest %v; resident %.1f MiB",
		len(latencies), streams, answerRate, at(0.5), at(0.99), at(1), float64(held)/(1<<20))
	if quiet && at(0.99) > maxLatency {
		t.Errorf("99 in a hundred answers took up to %v, want at most %v", at(0.99), maxLatency)
	}
	if most := residentBase + int64(streams)*residentOfStream; held > most {
		t.Errorf("%d bytes resident with %d streams, want at most %d", held, streams, most)
	}
}

// needFiles skips the test where the process may not open that many files.
func needFiles(t *testing.T, n uint64) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur < n { // Go has raised it to what is allowed
		t.Skipf("needs %d open files, and the limit is %d: raise it with ulimit -n", n, limit.Cur)
	}
}

func gatewayEnviron(redisURL, authHost string) []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "PORT=0", "FUNCTION_TARGET=Gateway",
		"REDIS_URL=" + redisURL, "GOOGLE_CLOUD_PROJECT=demo-load", "FIREBASE_AUTH_EMULATOR_HOST=" + authHost,
	}
}

// believer stands in for the Auth emulator where thousands of users would be too
// many for it: it knows every user. It returns its host and port.
func believer(t *testing.T) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var asked struct{ LocalID []string }
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || len(asked.LocalID) != 1 {
			http.Error(w, "one user at a time", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"users":[{"localId":%q}]}`, asked.LocalID[0])
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// tokenOf is a token as the emulator issues them, signed by nobody.
func tokenOf(user string) string {
	now := time.Now().Unix()
	claims := fmt.Sprintf(`{"iss":"https://securetoken.google.com/demo-load","aud":"demo-load","sub":%q,"iat":%d,"exp":%d}`, user, now-1, now+3600)
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"none"}`)) + "." + part([]byte(claims)) + "."
}

// arrival is an answer as a stream got it.
type arrival struct {
	stream, user string // whose stream, and whose answer
	number       int
	took         time.Duration
}

type listeners struct {
	arrivals chan arrival
	failed   chan error
}

// openStreams opens a stream for each of n users.
func openStreams(t *testing.T, url string, n int) *listeners {
	t.Helper()
	l := &listeners{arrivals: make(chan arrival, 4096), failed: make(chan error, n)}
	var ready, running sync.WaitGroup
	slots := make(chan struct{}, 64)
	conns := make([]net.Conn, n)
	for i := range n {
		ready.Add(1)
		running.Go(func() {
			slots <- struct{}{}
			user := fmt.Sprintf("user-%d", i)
			conn, in, err := openStream(strings.TrimPrefix(url, "http://"), user)
			conns[i] = conn
			<-slots
			ready.Done()
			if err != nil {
				l.failed <- err
				return
			}
			if err := l.read(in, user); !errors.Is(err, net.ErrClosed) {
				l.failed <- err
			}
		})
	}
	ready.Wait()
	t.Cleanup(func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
		running.Wait()
	})
	select {
	case err := <-l.failed:
		t.Fatal(err)
	default:
	}
	return l
}

// openStream opens one stream, and returns it once it says that it is ready.
func openStream(addr, user string) (net.Conn, *bufio.Reader, error) {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return conn, nil, err
	}
	fmt.Fprintf(conn, "GET /v1/events HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %s\r\n\r\n", tokenOf(user))
	in := bufio.NewReaderSize(conn, 2<<10)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return conn, nil, fmt.Errorf("the stream of %s did not begin: %w", user, err)
		}
		if strings.HasPrefix(line, "event: ready") {
			return conn, in, conn.SetDeadline(time.Time{})
		}
	}
}

// read reports every answer that a stream gets until it ends.
func (l *listeners) read(in *bufio.Reader, user string) error {
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		at := time.Now()
		text, ok := strings.CutPrefix(line, "data: ")
		if !ok || !strings.Contains(text, `"stream":"tebra:responses"`) {
			continue
		}
		var update struct {
			Data struct{ UserID, CorrelationID string }
		}
		var number int
		var written int64
		if err := json.Unmarshal([]byte(text), &update); err != nil {
			return err
		}
		if _, err := fmt.Sscanf(update.Data.CorrelationID, "%d-at-%d", &number, &written); err != nil {
			return err
		}
		l.arrivals <- arrival{stream: user, user: update.Data.UserID, number: number, took: at.Sub(time.Unix(0, written))}
	}
}

// writeAnswers writes n answers, each with the status before it, at the rate, while
// the test goes on. It returns to whom.
func writeAnswers(t *testing.T, rdb *redis.Client, streams, n int) []string {
	t.Helper()
	users := make([]string, n)
	for i := range users {
		users[i] = fmt.Sprintf("user-%d", rand.IntN(streams))
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var writing sync.WaitGroup
	writing.Go(func() {
		tick := time.NewTicker(time.Second / answerRate)
		defer tick.Stop()
		for i, user := range users {
			<-tick.C
			id := fmt.Sprintf("%d-at-%d", i, time.Now().UnixNano())
			pipe := rdb.Pipeline()
			pipe.XAdd(ctx, &redis.XAddArgs{Stream: "tebra:status", Values: tebra.StatusUpdate{
				CorrelationID: id, RequestID: id, State: tebra.Success, Timestamp: time.Now(), UserID: user, Action: "health"}.Fields()})
			pipe.XAdd(ctx, &redis.XAddArgs{Stream: "tebra:responses", Values: tebra.Response{
				ID: id, RequestID: id, CorrelationID: id, Timestamp: time.Now(), UserID: user, Action: "health",
				Data: json.RawMessage(`"` + strings.Repeat("x", 1000) + `"`)}.Fields()})
			if _, err := pipe.Exec(ctx); err != nil {
				return // what is lost shows on the other side
			}
		}
	})
	t.Cleanup(func() { stop(); writing.Wait() })
	return users
}

// collect waits for all answers and returns how long each took.
func collect(t *testing.T, l *listeners, users []string) []time.Duration {
	t.Helper()
	latencies := make([]time.Duration, 0, len(users))
	came := make([]bool, len(users))
	for len(latencies) < len(users) {
		select {
		case a := <-l.arrivals:
			switch {
			case a.number >= len(users) || a.user != users[a.number] || a.stream != a.user:
				t.Fatalf("the stream of %s got answer %d, which is %s's", a.stream, a.number, a.user)
			case came[a.number]:
				t.Fatalf("the stream of %s got answer %d twice", a.stream, a.number)
			}
			came[a.number] = true
			latencies = append(latencies, a.took)
		case err := <-l.failed:
			t.Fatalf("after %d of %d answers a stream ended: %v", len(latencies), len(users), err)
		case <-time.After(patience):
			t.Fatalf("%d of %d answers came", len(latencies), len(users))
		}
	}
	return latencies
}

// TestSIGTERMEndsEventStreams cleanly, at once and with success: their clients go on
// at another instance.
func TestSIGTERMEndsEventStreams(t *testing.T) {
	t.Parallel()
	p := launch(t, gatewayEnviron(peertest.RealRedis(t).URL(), believer(t)))
	resp := p.stream(t)
	began := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Errorf("the stream ended with %v, want a clean end", err)
	}
	err := <-p.exited
	p.exited <- err
	if took := time.Since(began); err != nil || took > exitTime {
		t.Errorf("the command ended with %v after %v, want success within %v", err, took, exitTime)
	}
}

func (p *process) stream(t *testing.T) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+"/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+tokenOf("user-1"))
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("GET /v1/events = %d, want 200", resp.StatusCode)
	}
	return resp
}
