package gateway_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	admin "firebase.google.com/go/v4"
	"github.com/redis/go-redis/v9"

	"tebraproxy/functions/firebase"
	"tebraproxy/functions/gateway"
	"tebraproxy/pkg/config"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/peertest/browser"
	"tebraproxy/pkg/tebra"
)

const patience = 30 * time.Second

// TestTheClientIsSmall: under 4 KB over the wire.
func TestTheClientIsSmall(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(gateway.Script) // a bytes.Buffer takes everything
	w.Close()
	if b.Len() >= 4000 {
		t.Errorf("tebra.js has %d bytes gzipped, want less than 4000", b.Len())
	}
}

// TestTheClientByItself runs the client's own tests in Node.
func TestTheClientByItself(t *testing.T) {
	t.Parallel()
	node := peertest.Program(t, "install Node 20 or later", "node")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, node, "--test", "client/tebra.test.mjs").CombinedOutput()
	if err != nil {
		t.Errorf("node --test: %v\n%s", err, out)
	}
}

// site is a page on one origin and a gateway on another, over a Redis, with a
// stand-in for all that answers requests.
type site struct {
	t    *testing.T
	rdb  *redis.Client
	keys tebra.Keys
	auth *peertest.AuthEmulator
	cfg  gateway.Config
	v    gateway.Verifier

	addr    string // of the gateway, the same over a restart
	stop    func()
	page    string       // the address of a page of a listed origin
	streams atomic.Int64 // event streams that were asked for, refused ones too
	open    atomic.Int64 // of those, that have not ended
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, auth: peertest.FirebaseAuth(t), rdb: peertest.RealRedis(t).Client()}
	t.Setenv("FIREBASE_AUTH_EMULATOR_HOST", s.auth.Host())
	app, err := admin.NewApp(t.Context(), &admin.Config{ProjectID: s.auth.SignInProject()})
	s.must(err)
	accounts, err := app.Auth(t.Context())
	s.must(err)
	s.v = firebase.NewTokens(accounts, s.auth.SignInProject())
	s.keys, err = tebra.NewKeys("tebra")
	s.must(err)
	s.page = s.servePage()
	s.cfg = gateway.Config{
		Redis: config.Redis{Prefix: "tebra"}, Origins: []string{s.page}, UserRate: 1000, StreamTime: 50 * time.Minute,
		MaxStreams: 100, MaxUserStreams: 20, MaxRequestBytes: 1 << 20, Retention: 24 * time.Hour,
	}
	s.addr = "127.0.0.1:0"
	s.startGateway()
	t.Cleanup(func() { s.stop() })
	s.answerAll()
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// servePage serves an empty page, as an application's own server would.
func (s *site) servePage() string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!doctype html><title>application</title>")
	}))
	s.t.Cleanup(server.Close)
	return server.URL
}

func (s *site) startGateway() {
	s.t.Helper()
	g, err := gateway.New(s.cfg, gateway.Deps{Redis: s.rdb, Verifier: s.v, Log: slog.New(slog.DiscardHandler)})
	s.must(err)
	ln, err := net.Listen("tcp", s.addr)
	s.must(err)
	s.addr = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && r.URL.Path == "/v1/events" {
			s.streams.Add(1)
			s.open.Add(1)
			defer s.open.Add(-1)
		}
		g.ServeHTTP(w, r)
	})}
	var running sync.WaitGroup
	running.Go(func() { _ = g.Run(ctx) })
	running.Go(func() { _ = server.Serve(ln) })
	s.stop = func() {
		server.Close() // at once, as a crash would
		cancel()
		running.Wait()
	}
}

// answerAll answers requests until the test ends, with what they asked for and who
// asked. A request with params {"wait": true} is answered by answerWaiting.
func (s *site) answerAll() {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for after := "0-0"; ctx.Err() == nil; {
			found, err := s.rdb.XRead(ctx, &redis.XReadArgs{Streams: []string{s.keys.Requests(), after}, Block: 100 * time.Millisecond}).Result()
			if err != nil {
				continue
			}
			for _, m := range found[0].Messages {
				after = m.ID
				s.status(ctx, m, tebra.Pending)
				s.status(ctx, m, tebra.Processing)
				if params := field(m, "params"); !strings.Contains(params, "wait") {
					s.answer(ctx, m)
				}
			}
		}
	})
	s.t.Cleanup(func() { cancel(); running.Wait() })
}

func field(m redis.XMessage, name string) string { value, _ := m.Values[name].(string); return value }

func (s *site) status(ctx context.Context, m redis.XMessage, state tebra.State) {
	s.rdb.XAdd(ctx, &redis.XAddArgs{Stream: s.keys.Status(), Values: tebra.StatusUpdate{
		CorrelationID: field(m, "correlationId"), RequestID: field(m, "id"), State: state, Timestamp: time.Now(),
		UserID: field(m, "userId"), Action: field(m, "action"),
	}.Fields()})
}

func (s *site) answer(ctx context.Context, m redis.XMessage) {
	data, err := json.Marshal(map[string]any{"params": json.RawMessage(field(m, "params")), "user": field(m, "userId")})
	if err != nil {
		return // params are JSON
	}
	r := tebra.Response{
		ID: "a", RequestID: field(m, "id"), CorrelationID: field(m, "correlationId"), Timestamp: time.Now(),
		UserID: field(m, "userId"), Action: field(m, "action"), Attempts: 1,
	}
	if r.Action == "getPatients" {
		r.Error, r.ErrorCode = "no such action", tebra.Rejected
	} else {
		r.Data = data
	}
	s.status(ctx, m, r.State())
	s.rdb.XAdd(ctx, &redis.XAddArgs{Stream: s.keys.Responses(), Values: r.Fields()})
}

// answerWaiting answers all requests that wait.
func (s *site) answerWaiting() {
	s.t.Helper()
	all, err := s.rdb.XRange(s.t.Context(), s.keys.Requests(), "-", "+").Result()
	s.must(err)
	for _, m := range all {
		if strings.Contains(field(m, "params"), "wait") {
			s.answer(s.t.Context(), m)
		}
	}
}

// signIn opens the page in a tab and makes a client there, `tebra`, for a new user.
func (s *site) signIn(at string) (p *browser.Page, uid string) {
	s.t.Helper()
	uid, token := s.auth.SignUp(s.t)
	p = browser.Open(s.t)
	p.Go(at)
	if at == s.page {
		s.makeClient(p, token)
	}
	return p, uid
}

// makeClient makes a client in a page, `tebra`.
func (s *site) makeClient(p *browser.Page, token string) {
	s.t.Helper()
	browser.Eval[bool](p, patience, fmt.Sprintf(`(async () => {
		const { Tebra } = await import('http://%s/v1/tebra.js');
		window.asked = [];
		window.seen = [];
		window.token = '%s';
		window.tebra = new Tebra({ url: 'http://%s', token: async (refresh) => { asked.push(!!refresh); return asked.length == 1 && window.stale || token; } });
		return true;
	})()`, s.addr, token, s.addr))
}

type answer struct {
	Params map[string]any
	User   string
}

// TestAPageOfAnotherOrigin sends requests, sees their statuses and gets answers and
// errors: with real preflights, since the page's port is not the gateway's.
func TestAPageOfAnotherOrigin(t *testing.T) {
	s := newSite(t)
	p, uid := s.signIn(s.page)
	got := browser.Eval[answer](p, patience, `tebra.syncSchedule({ date: '2026-11-23' }, { onStatus: (s) => seen.push(s.status) })`)
	if got.User != uid || got.Params["date"] != "2026-11-23" {
		t.Errorf("answer = %+v, want the params and user %s", got, uid)
	}
	if states := browser.Eval[[]string](p, patience, `seen`); strings.Join(states, " ") != "pending processing success" {
		t.Errorf("statuses = %v, want pending, processing, success", states)
	}
	failed := browser.Eval[[]string](p, patience, `tebra.call('getPatients').then(() => [], (e) => [e.name, e.code, e.message])`)
	if strings.Join(failed, "|") != "TebraError|rejected|no such action" {
		t.Errorf("an error came as %v", failed)
	}
	many := browser.Eval[int](p, patience, `Promise.all([...Array(50).keys()].map((n) => tebra.call('health', { n }))).then((all) => all.filter((a, n) => a.params.n === n).length)`)
	if many != 50 {
		t.Errorf("%d of 50 answers came to their own calls", many)
	}
	for _, test := range []struct{ options, want string }{
		{`{ timeout: 200 }`, "TimeoutError"}, {`{ signal: AbortSignal.abort() }`, "AbortError"},
	} {
		name := browser.Eval[string](p, patience, `tebra.call('health', { wait: 1 }, `+test.options+`).then(() => '', (e) => e.name)`)
		if name != test.want {
			t.Errorf("call with %s ended with %q, want %q", test.options, name, test.want)
		}
	}
}

// TestATokenIsRefreshedOnce when it is refused.
func TestATokenIsRefreshedOnce(t *testing.T) {
	s := newSite(t)
	p, _ := s.signIn(s.page)
	browser.Eval[bool](p, patience, `(window.stale = 'not.a.token', true)`)
	browser.Eval[answer](p, patience, `tebra.call('health')`)
	if got := browser.Eval[[]bool](p, patience, `asked`); fmt.Sprint(got) != "[false true false]" {
		t.Errorf("the token was asked for as refresh %v, want [false true false]", got)
	}
}

// TestTwoUsersNeverSeeEachOthersEvents, in two browsers.
func TestTwoUsersNeverSeeEachOthersEvents(t *testing.T) {
	s := newSite(t)
	one, first := s.signIn(s.page)
	two, second := s.signIn(s.page)
	for _, p := range []*browser.Page{one, two} {
		browser.Eval[bool](p, patience, `(tebra.subscribe((u) => seen.push(u.data.userId)), true)`)
		browser.Eval[answer](p, patience, `tebra.call('health')`)
	}
	for range 5 {
		browser.Eval[answer](one, patience, `tebra.call('health')`)
		browser.Eval[answer](two, patience, `tebra.call('health')`)
	}
	for p, uid := range map[*browser.Page]string{one: first, two: second} {
		p.Until(patience, `seen.length >= 24`)
		for _, got := range browser.Eval[[]string](p, patience, `seen`) {
			if got != uid {
				t.Fatalf("user %s saw an event of %s", uid, got)
			}
		}
	}
}

// TestAnOutageOfTheGatewayLosesNothing: five seconds without it, while answers are
// written; every call under way gets its own, once.
func TestAnOutageOfTheGatewayLosesNothing(t *testing.T) {
	s := newSite(t)
	p, _ := s.signIn(s.page)
	const calls = 20
	browser.Eval[bool](p, patience, fmt.Sprintf(`(tebra.subscribe((u) => u.stream.endsWith(':responses') && seen.push(u.id)),
		window.all = Promise.all([...Array(%d).keys()].map((n) => tebra.call('health', { wait: 1, n }, { timeout: 60000 }))), true)`, calls))
	peertest.Eventually(t, patience, "the requests", func() bool { return s.rdb.XLen(t.Context(), s.keys.Requests()).Val() == calls })
	s.stop()
	outage := time.After(5 * time.Second)
	s.answerWaiting()
	<-outage
	s.startGateway()
	if got := browser.Eval[int](p, time.Minute, `all.then((all) => all.filter((a, n) => a.params.n === n).length)`); got != calls {
		t.Errorf("%d of %d answers came to their own calls", got, calls)
	}
	if got := browser.Eval[[]string](p, patience, `seen`); len(got) != calls {
		t.Errorf("%d answers were seen, want each of %d once", len(got), calls)
	}
	late := browser.Eval[answer](p, patience, `tebra.call('health')`)
	if late.User == "" {
		t.Error("a call after the outage got no answer")
	}
}

// TestAPageThatIsLoadedAgainGetsAllItsAnswers with one event stream more than another,
// however many requests it sends again: what was answered before and what is after.
func TestAPageThatIsLoadedAgainGetsAllItsAnswers(t *testing.T) {
	s := newSite(t)
	p, _ := s.signIn(s.page)
	const calls = 50 // more than a user may have streams
	all := fmt.Sprintf(`[...Array(%d).keys()].map((n) => tebra.call('health', n %% 2 ? { n, wait: 1 } : { n }, { id: 'r' + n, timeout: 60000,
		onStatus: (s) => seen.push(s.requestId + ' ' + s.status) }))`, calls)
	browser.Eval[bool](p, patience, `(window.first = `+all+`, first.forEach((call) => call.catch(() => {})), true)`)
	browser.Eval[int](p, patience, `Promise.all(first.filter((_, n) => n % 2 === 0)).then((all) => all.length)`)
	token := browser.Eval[string](p, patience, `token`)
	if got := s.streams.Load(); got != 1 {
		t.Errorf("the page that sent the requests opened %d event streams, want 1", got)
	}
	p.Go(s.page)
	s.streams.Store(0)
	s.makeClient(p, token)
	browser.Eval[bool](p, patience, `(window.again = Promise.all(`+all+`), true)`)
	p.Until(patience, fmt.Sprintf(`seen.filter((s) => s.endsWith('success')).length >= %d`, calls/2))
	s.answerWaiting()
	if got := browser.Eval[int](p, time.Minute, `again.then((all) => all.filter((a, n) => a.params.n === n).length)`); got != calls {
		t.Errorf("%d of %d answers came to their own calls", got, calls)
	}
	if got := s.streams.Load(); got > 2 {
		t.Errorf("%d requests that were sent again opened %d event streams, want at most 2", calls, got)
	}
	states := map[string]int{}
	for _, state := range browser.Eval[[]string](p, patience, `seen`) {
		states[state]++
	}
	for n := range calls {
		for _, word := range []string{"pending", "processing", "success"} {
			if state := fmt.Sprintf("r%d %s", n, word); states[state] != 1 {
				t.Errorf("%s was told %d times, want once", state, states[state])
			}
		}
	}
	if n := s.rdb.XLen(t.Context(), s.keys.Requests()).Val(); n != calls {
		t.Errorf("%d requests on the stream, want %d", n, calls)
	}
	peertest.Eventually(t, patience, "the end of the stream that nobody needs", func() bool { return s.open.Load() == 1 })
}

// TestAPageThatIsNotListedIsRefused by the browser: it gets no answer to its
// preflight, and nothing is put on the stream.
func TestAPageThatIsNotListedIsRefused(t *testing.T) {
	s := newSite(t)
	_, token := s.auth.SignUp(t)
	p, _ := s.signIn(s.servePage())
	for _, path := range []string{"/v1/requests", "/v1/events"} {
		method, body := "GET", "undefined"
		if path == "/v1/requests" {
			method, body = "POST", `'{"action":"health"}'`
		}
		got := browser.Eval[string](p, patience, fmt.Sprintf(`fetch('http://%s%s', { method: '%s', body: %s, headers:
			{ Authorization: 'Bearer %s', 'Content-Type': 'application/json' } }).then((r) => 'answered ' + r.status, (e) => e.name)`, s.addr, path, method, body, token))
		if got != "TypeError" {
			t.Errorf("%s %s from another origin = %q, want a TypeError of fetch", method, path, got)
		}
	}
	if n := s.rdb.XLen(t.Context(), s.keys.Requests()).Val(); n != 0 {
		t.Errorf("%d requests on the stream, want none", n)
	}
}
