package functions

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"tebraproxy/pkg/peertest"
)

// running is a server of functions.
type running struct {
	t     testing.TB
	url   string
	stop  context.CancelFunc // as SIGTERM does
	ended chan error
}

// start starts a server and stops it with the test.
func start(t testing.TB, timing timing, fns map[string]http.Handler) *running {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &running{t: t, url: "http://" + ln.Addr().String(), stop: stop, ended: make(chan error, 1)}
	go func() { s.ended <- serve(ctx, ln, timing, fns, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		stop()
		if err := <-s.ended; err != nil {
			t.Errorf("serve() = %v, want no error", err)
		}
	})
	return s
}

// end waits for the server's end and returns how long that took.
func (s *running) end() time.Duration {
	s.t.Helper()
	began := time.Now()
	s.stop()
	err := await(s.t, s.ended, "the server to end")
	s.ended <- err // for the clean-up
	return time.Since(began)
}

// client opens a connection for each request, so that nothing is left over.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func (s *running) post(path string, body []byte) (int, string, error) {
	resp, err := client.Post(s.url+path, "application/json", bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// posting posts in the background; 0 means that no answer came.
func (s *running) posting(path string, body []byte) <-chan int {
	status := make(chan int, 1)
	go func() {
		code, _, err := s.post(path, body)
		if err != nil {
			code = 0
		}
		status <- code
	}()
	return status
}

func (s *running) wantAnswer(path string, status int, text string) {
	s.t.Helper()
	got, body, err := s.post(path, nil)
	if err != nil || got != status || body != text {
		s.t.Errorf("POST %s = %d %q (%v), want %d %q", path, got, body, err, status, text)
	}
}

// saying answers everything with one text.
func saying(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) })
}

const notFound = "404 page not found\n"

func TestWithoutATargetEachFunctionHasItsPath(t *testing.T) {
	t.Parallel()
	s := start(t, defaultTiming(time.Minute), map[string]http.Handler{
		ProcessRequest: saying("process"), RecordDeadLetter: saying("record")})
	s.wantAnswer("/"+ProcessRequest, http.StatusOK, "process")
	s.wantAnswer("/"+RecordDeadLetter, http.StatusOK, "record")
	s.wantAnswer("/", http.StatusNotFound, notFound)
	s.wantAnswer("/processrequest", http.StatusNotFound, notFound)
}

// TestWithATargetEveryPathIsThatFunctions: Cloud Run pushes to the root. It sets a
// variable of the whole process, so no other test may run beside it.
func TestWithATargetEveryPathIsThatFunctions(t *testing.T) {
	t.Setenv(targetVariable, RecordDeadLetter)
	s := start(t, defaultTiming(time.Minute), map[string]http.Handler{RecordDeadLetter: saying("record")})
	s.wantAnswer("/", http.StatusOK, "record")
	s.wantAnswer("/any", http.StatusOK, "record")
}

func TestATargetThatDoesNotFitIsRefused(t *testing.T) {
	for target, fns := range map[string]map[string]http.Handler{
		"Unheard": {ProcessRequest: saying("")},
		// Dead letters would go to ProcessRequest.
		ProcessRequest: {ProcessRequest: saying(""), RecordDeadLetter: saying("")},
	} {
		t.Setenv(targetVariable, target)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		err = Serve(t.Context(), ln, time.Minute, fns, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), targetVariable) || !strings.Contains(err.Error(), target) {
			t.Errorf("Serve() with target %s = %v, want an error that names both", target, err)
		}
		if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the listener is left with %v, want it closed", err)
		}
	}
}

// TestServersInOneProcessDoNotMix: the framework's registry is one for all of them.
func TestServersInOneProcessDoNotMix(t *testing.T) {
	t.Parallel()
	var starting sync.WaitGroup
	servers := make([]*running, 6)
	for i := range servers {
		starting.Go(func() {
			fns := map[string]http.Handler{ProcessRequest: saying(fmt.Sprint("process ", i))}
			if i%2 == 0 {
				fns[RecordDeadLetter] = saying(fmt.Sprint("record ", i))
			}
			servers[i] = start(t, defaultTiming(time.Minute), fns)
		})
	}
	starting.Wait()
	for i, s := range servers {
		s.wantAnswer("/"+ProcessRequest, http.StatusOK, fmt.Sprint("process ", i))
		if i%2 == 0 {
			s.wantAnswer("/"+RecordDeadLetter, http.StatusOK, fmt.Sprint("record ", i))
		} else {
			s.wantAnswer("/"+RecordDeadLetter, http.StatusNotFound, notFound)
		}
	}
}

// TestNobodyElseGetsTheRoutes: while the framework's own server runs, a stranger on
// the loopback can ask it too.
func TestNobodyElseGetsTheRoutes(t *testing.T) {
	t.Parallel()
	registry.Lock() // so that nobody asks in earnest
	defer registry.Unlock()
	asker := &asker{token: "token", server: make(chan *http.Server, 1)}
	asking.Store(asker)
	defer asking.Store(nil)
	req, err := http.NewRequestWithContext(
		context.WithValue(t.Context(), http.ServerContextKey, &http.Server{}), http.MethodGet, "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"", "guess", "token"} {
		req.Header.Set(routesHeader, token)
		handOver(req)
		if got, want := len(asker.server) == 1, token == asker.token; got != want {
			t.Errorf("a request with token %q is handed the server: %t, want %t", token, got, want)
		}
	}
}

// Servers that are impatient about one thing each.

func impatientForHeaders() timing {
	t := defaultTiming(time.Minute)
	t.readHeader, t.read = 200*time.Millisecond, time.Minute
	return t
}

func impatientForBodies() timing {
	t := defaultTiming(time.Minute)
	t.readHeader, t.read = time.Minute, 400*time.Millisecond
	return t
}

func impatientForMore() timing {
	t := defaultTiming(time.Minute)
	t.readHeader, t.read, t.idle = time.Minute, time.Minute, 300*time.Millisecond
	return t
}

// TestSlowClientsAreCutOff: one that trickles its header, one that trickles its
// body, one that says nothing at all, and one that only keeps its connection.
func TestSlowClientsAreCutOff(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t))
	fns := map[string]http.Handler{ProcessRequest: f.processor()}
	headers, bodies, more := start(t, impatientForHeaders(), fns), start(t, impatientForBodies(), fns), start(t, impatientForMore(), fns)
	const header = "POST /" + ProcessRequest + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	for name, test := range map[string]struct {
		server               *running
		first, trickle, want string
	}{
		"header":     {headers, header, "X-Slow: 1\r\n", ""},
		"body":       {bodies, header + "Content-Length: 100000\r\n\r\n", " ", "400 Bad Request"},
		"chunks":     {bodies, header + "Transfer-Encoding: chunked\r\n\r\n", "1\r\n \r\n", "400 Bad Request"},
		"silence":    {headers, "", "", ""},
		"idle after": {more, "GET /" + ProcessRequest + " HTTP/1.1\r\nHost: x\r\n\r\n", "", "405 Method Not Allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", strings.TrimPrefix(test.server.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(patience))
			answer := make(chan string, 1)
			go func() {
				text, _ := io.ReadAll(bufio.NewReader(conn)) // to the end: the server closes
				answer <- string(text)
			}()
			io.WriteString(conn, test.first)
			got := trickle(t, conn, test.trickle, answer)
			if !strings.Contains(got, test.want) {
				t.Errorf("the answer is %q, want %q in it", got, test.want)
			}
		})
	}
}

// trickle writes piece after piece until the server has closed the connection, and
// returns what it had answered.
func trickle(t *testing.T, conn net.Conn, piece string, answer <-chan string) string {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		select {
		case text := <-answer:
			return text
		case <-tick.C:
			io.WriteString(conn, piece) // fails once the server has closed
		case <-deadline:
			t.Fatalf("the server still listens after %v", patience)
		}
	}
}

// TestACallMayTakeLongerThanReadingMay: the read timeout is about the request.
func TestACallMayTakeLongerThanReadingMay(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t))
	f.behave("latency=1s", 1)
	s := start(t, impatientForBodies(), map[string]http.Handler{ProcessRequest: f.processor()})
	m := f.publish(aWrite)
	f.wantStatus(s.posting("/"+ProcessRequest, m.body()), http.StatusNoContent)
	f.wantState(m, after(answered, 1))
}

// TestALongHeaderIsRefused by the server itself.
func TestALongHeaderIsRefused(t *testing.T) {
	t.Parallel()
	s := start(t, defaultTiming(time.Minute), map[string]http.Handler{ProcessRequest: saying("process")})
	req, err := http.NewRequest(http.MethodPost, s.url+"/"+ProcessRequest, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Long", strings.Repeat("x", 2*maxHeaderBytes))
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status = %d, want 431", resp.StatusCode)
	}
}

// TestAClientThatLeavesDoesNotEndTheCall: its outcome would be unknown then.
func TestAClientThatLeavesDoesNotEndTheCall(t *testing.T) {
	t.Parallel()
	var h held
	f := newFixture(t, peertest.Redis(t), holdAPI(&h))
	pushes := make(chan context.Context, 1)
	processor := f.processor()
	s := start(t, defaultTiming(time.Minute), map[string]http.Handler{
		ProcessRequest: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			pushes <- r.Context()
			processor.ServeHTTP(w, r)
		})})
	m := f.publish(aWrite)
	ctx, leave := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/"+ProcessRequest, bytes.NewReader(m.body()))
	f.must(err)
	left := make(chan error, 1)
	go func() {
		_, err := client.Do(req)
		left <- err
	}()
	h.wait(t)
	leave()
	if err := await(t, left, "the client to leave"); err == nil {
		t.Fatal("the client got an answer, want it to have left")
	}
	await(t, (<-pushes).Done(), "the server to see that the client has left")
	h.letGo()
	peertest.Eventually(t, patience, "the answer", func() bool { return len(f.answers(m)) == 1 })
	f.wantState(m, after(answered, 1))
	f.wantPush(f.processor(), m, http.StatusNoContent)
	f.wantCalls(1)
}

// brief is a server that drains quickly.
func brief() timing {
	t := defaultTiming(time.Minute)
	t.drain = 300 * time.Millisecond
	return t
}

func TestTheDeploymentsTimingFitsIntoCloudRuns10Seconds(t *testing.T) {
	t.Parallel()
	timing := defaultTiming(90 * time.Second)
	if got := timing.drain + timing.giveBack; got > 9*time.Second {
		t.Errorf("stopping takes up to %v, want at most 9s", got)
	}
	if timing.giveBack <= finishGrace {
		t.Errorf("a server waits %v for claims to be given back, want more than the %v that may take", timing.giveBack, finishGrace)
	}
	if timing.write < 90*time.Second+timing.read+finishGrace {
		t.Errorf("writing may take %v, less than a handler", timing.write)
	}
}

func TestAStopLetsCallsFinish(t *testing.T) {
	t.Parallel()
	var h held
	f := newFixture(t, peertest.Redis(t), holdAPI(&h))
	s := start(t, defaultTiming(time.Minute), map[string]http.Handler{ProcessRequest: f.processor()})
	m := f.publish(aWrite)
	status := s.posting("/"+ProcessRequest, m.body())
	h.wait(t)
	s.stop()
	peertest.Eventually(t, patience, "the server to take no more", func() bool {
		_, _, err := s.post("/"+ProcessRequest, nil)
		return err != nil
	})
	h.letGo()
	f.wantStatus(status, http.StatusNoContent)
	s.end()
	f.wantState(m, after(answered, 1))
}

// TestAStopGivesBackWhatHangs: a read may run again elsewhere; of a write nobody
// knows whether it was made; who only waited for a turn was never called.
func TestAStopGivesBackWhatHangs(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	dates := request{action: "getAppointments", params: `{"fromDate":"2026-01-01","toDate":"2026-01-01"}`}
	for name, test := range map[string]struct {
		request request
		want    decision
		calls   int
	}{
		"a read":             {aRead, later, 1},
		"a write":            {aWrite, outcomeOpen, 1},
		"waiting for a turn": {dates, later, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, server)
			f.behave("hang", 0)
			f.must(f.deps.Rate.Hold(t.Context(), "slow", 10*time.Second))
			s := start(t, brief(), map[string]http.Handler{ProcessRequest: f.processor()})
			m := f.publish(test.request)
			status := s.posting("/"+ProcessRequest, m.body())
			peertest.Eventually(t, patience, "the attempt to be under way", func() bool {
				return len(f.statuses(m)) == 1 && f.calls.Load() == int64(test.calls)
			})
			if took := s.end(); took > brief().drain+brief().giveBack {
				t.Errorf("the server took %v to end, want at most %v", took, brief().drain+brief().giveBack)
			}
			f.wantStatus(status, test.want.http)
			f.wantState(m, after(test.want, 1))
		})
	}
}

// TestAStopWithoutRedisEndsInTime although nothing can be given back.
func TestAStopWithoutRedisEndsInTime(t *testing.T) {
	t.Parallel()
	server := durable(t)
	f := newFixture(t, server)
	f.behave("hang", 0)
	s := start(t, brief(), map[string]http.Handler{ProcessRequest: f.processor()})
	m := f.publish(aWrite)
	status := s.posting("/"+ProcessRequest, m.body())
	peertest.Eventually(t, patience, "the call", func() bool { return f.calls.Load() == 1 })
	server.Pause()
	if took := s.end(); took > brief().drain+brief().giveBack {
		t.Errorf("the server took %v to end, want at most %v", took, brief().drain+brief().giveBack)
	}
	f.wantStatus(status, http.StatusServiceUnavailable)
	server.Resume()
	f.advance(f.cfg.LedgerLease)
	f.wantPush(f.processor(), m, http.StatusNoContent)
	if got := f.answers(m); len(got) != 1 || got[0] != "outcome_unknown" {
		t.Errorf("answers = %q, want outcome_unknown", got)
	}
}
