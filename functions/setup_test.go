package functions

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"tebraproxy/pkg/breaker"
	"tebraproxy/pkg/config"
	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/php"
	"tebraproxy/pkg/php/phptest"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/push"
	"tebraproxy/pkg/rate"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(peertest.TestingM{M: m}) }

const (
	testKey  = "test-key-2718281828"
	testUser = "user-1"
	// patience is for what is expected to come by itself.
	patience = 20 * time.Second
)

// testPolicy has actions that are free of any rate (read and write), some that
// share a lane, and users of every kind.
const testPolicy = `
version: 1
lanes:
  limited: {interval: 40ms}
  slow: {interval: 30s}
actions:
  health: {roles: [tester]}
  syncSchedule: {roles: [tester], lane: default}
  createAppointment: {roles: [tester], lane: default}
  getPatient: {roles: [tester], lane: limited}
  updateAppointment: {roles: [tester], lane: limited}
  getAppointments: {roles: [tester], lane: slow}
  searchPatients: {roles: [tester], ttl: 1m, lane: default}
  getProviders: {roles: []}
users:
  source: static
  accounts:
    user-1: {roles: [tester]}
    user-2: {roles: [visitor]}
    user-3: {roles: [tester], disabled: true}
`

// fixture is both functions over a Redis, with a stand-in for the API. Fixtures
// may share a Redis: each has a prefix of its own.
type fixture struct {
	t       testing.TB
	cfg     Config
	deps    Deps
	keys    tebra.Keys
	rdb     *redis.Client // the test's own
	api     *phptest.Server
	url     string       // where the API is
	calls   atomic.Int64 // that came to it
	letters *letters
	logs    *logBuffer
	skew    atomic.Int64 // of the ledger's clock, in ms
	ids     atomic.Int64
}

// option changes what a fixture is made of, before the functions are.
type option func(f *fixture)

var prefixes atomic.Int64

func newFixture(t testing.TB, server *peertest.RedisServer, opts ...option) *fixture {
	t.Helper()
	f := &fixture{t: t, rdb: server.Client(), letters: &letters{}, logs: &logBuffer{}}
	f.cfg = Config{
		Common: Common{
			Redis:          config.Redis{Prefix: fmt.Sprintf("t%d", prefixes.Add(1))},
			HandlerTimeout: 90 * time.Second, LedgerLease: 150 * time.Second,
			LedgerTTL: 48 * time.Hour, AckDeadline: 120 * time.Second,
		},
		PHPTimeout: 30 * time.Second, RateWait: 45 * time.Second,
	}
	var err error
	f.keys, err = tebra.NewKeys(f.cfg.Prefix)
	f.must(err)
	f.api = phptest.New(phptest.Config{APIKey: testKey})
	f.url = f.serveAPI(f.api)
	options, err := stream.Options(server.URL(), "")
	f.must(err)
	rdb := redis.NewClient(options)
	t.Cleanup(func() { rdb.Close() })
	rules, err := policy.Parse([]byte(testPolicy))
	f.must(err)
	roles, _ := rules.Static()
	f.deps = Deps{
		Ledger:  f.ledger(rdb),
		Breaker: breaker.New(rdb, f.keys, breaker.Config{}),
		Rate:    rate.New(rdb, f.keys), Policy: rules, Authorizer: policy.NewAuthorizer(rules, roles),
		DeadLetters: f.letters, Log: telemetry.NewLogger(f.logs, slog.LevelDebug),
	}
	for _, o := range opts {
		o(f)
	}
	if f.deps.API == nil {
		f.deps.API = f.client(php.Config{})
	}
	for _, group := range []string{tebra.GroupBridge, tebra.GroupParked} {
		f.must(f.rdb.XGroupCreateMkStream(t.Context(), f.keys.Requests(), group, "0").Err())
	}
	return f
}

// ledger returns one whose clock the test can move on.
func (f *fixture) ledger(rdb redis.UniversalClient) *ledger.Ledger {
	return ledger.New(rdb, f.keys, ledger.Config{TTL: f.cfg.LedgerTTL, Lease: f.cfg.LedgerLease},
		ledger.WithClock(func() time.Time { return time.Now().Add(time.Duration(f.skew.Load()) * time.Millisecond) }))
}

func (f *fixture) advance(d time.Duration) { f.skew.Add(d.Milliseconds()) }

// client returns one for the API; cfg's URL is the stand-in's unless it has one.
func (f *fixture) client(cfg php.Config) *php.Client {
	f.t.Helper()
	if cfg.URL == "" {
		cfg.URL = f.url
	}
	cfg.APIKey = testKey
	c, err := php.New(cfg)
	f.must(err)
	f.t.Cleanup(c.Close)
	return c
}

// serveAPI serves h as the API, counting the calls that come.
func (f *fixture) serveAPI(h http.Handler) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.calls.Add(1)
		h.ServeHTTP(w, r)
	}))
	f.t.Cleanup(server.Close)
	return server.URL
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) behave(do string, times int) {
	f.t.Helper()
	f.must(f.api.Behave(phptest.Rule{Do: do, Times: times}))
}

func (f *fixture) processor() *Processor { return NewProcessor(f.cfg, f.deps) }

func (f *fixture) recorder() *Recorder { return NewRecorder(RecorderConfig{f.cfg.Common}, f.deps) }

// Options of a fixture.

func phpTimeout(d time.Duration) option { return func(f *fixture) { f.cfg.PHPTimeout = d } }

func handlerTimeout(d time.Duration) option { return func(f *fixture) { f.cfg.HandlerTimeout = d } }

// touchyBreaker opens at the first failure and is never asked from the cache.
func touchyBreaker(f *fixture) {
	f.deps.Breaker = breaker.New(f.rdb, f.keys, breaker.Config{MinFailures: 1, CacheFor: time.Nanosecond})
}

// request is what a user asks for.
type request struct {
	id, action, user, params, metadata string
}

var (
	aRead  = request{action: "syncSchedule"}
	aWrite = request{action: "createAppointment", params: `{"appointmentData":{"a":1}}`}
)

// message is a request on its way: published by a bridge.
type message struct {
	env  tebra.Envelope
	data []byte
}

// publish puts a request on the stream and takes it as a bridge does: on record,
// if it is a write, and open.
func (f *fixture) publish(r request) message {
	f.t.Helper()
	n := f.ids.Add(1)
	if r.id == "" {
		r.id = fmt.Sprintf("request-%d", n)
	}
	if r.user == "" {
		r.user = testUser
	}
	if r.params == "" {
		r.params = "{}"
	}
	req := tebra.Request{
		ID: r.id, Action: r.action, UserID: r.user, Params: []byte(r.params),
		CorrelationID: fmt.Sprintf("correlation-%d", n), Timestamp: "2026-01-02T03:04:05Z",
	}
	if r.metadata != "" {
		req.Metadata = []byte(r.metadata)
	}
	ctx := f.t.Context()
	entry, err := f.rdb.XAdd(ctx, &redis.XAddArgs{Stream: f.keys.Requests(), Values: []string{"data", string(req.AppendJSON(nil))}}).Result()
	f.must(err)
	return f.admit(req, entry)
}

// admit takes an entry of the stream.
func (f *fixture) admit(req tebra.Request, entry string) message {
	f.t.Helper()
	ctx := f.t.Context()
	env := tebra.Envelope{
		RequestID: req.ID, CorrelationID: req.CorrelationID, Action: req.Action, UserID: req.UserID,
		EntryID: entry, Lane: f.deps.Policy.LaneOf(req.Action), Ledger: tebra.LedgerHash(req.UserID, req.ID),
		AdmittedAt: time.Now().Add(time.Second), // so that the entry's own time is the arrival
	}
	var writes []ledger.Admission
	if f.deps.Policy.IsWrite(req.Action) {
		writes = append(writes, ledger.Admission{Hash: env.Ledger, EntryID: entry, Fingerprint: tebra.Fingerprint(req.Action, req.Params)})
	}
	var err error
	env.Epoch, _, err = f.deps.Ledger.Admit(ctx, writes)
	f.must(err)
	f.must(f.rdb.ZAdd(ctx, f.keys.Open(env.Lane), redis.Z{Score: float64(env.AdmittedAt.UnixMilli()), Member: entry}).Err())
	return message{env: env, data: req.AppendJSON(nil)}
}

// body is the push of m.
func (m message) body() []byte { return pushBody(m.data, m.env.Attributes()) }

func pushBody(data []byte, attributes map[string]string) []byte {
	return push.Message{
		ID: "1", Data: data, Attributes: attributes, Subscription: "projects/p/subscriptions/s", PublishTime: time.Now(),
	}.Append(nil)
}

// push pushes m to h and returns the status.
func (f *fixture) push(h http.Handler, m message) int {
	f.t.Helper()
	return post(h, m.body()).Code
}

func post(h http.Handler, body []byte) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	h.ServeHTTP(w, r)
	return w
}

func (f *fixture) wantPush(h http.Handler, m message, want int) {
	f.t.Helper()
	if got := f.push(h, m); got != want {
		f.t.Errorf("push of entry %s = %d, want %d; the log:\n%s", m.env.EntryID, got, want, f.logs)
	}
}

// state is everything that shows how far a message is.
type state struct {
	answers  []string // "ok", or an error code
	statuses []string // state, attempt, error code
	letters  []string // reasons
	open     bool
	retrying bool
	parked   bool
}

func (s state) String() string {
	return fmt.Sprintf("{answers %q, statuses %q, letters %q, open %t, retrying %t, parked %t}",
		s.answers, s.statuses, s.letters, s.open, s.retrying, s.parked)
}

func (f *fixture) state(m message) state {
	f.t.Helper()
	ctx := context.WithoutCancel(f.t.Context())
	parked, err := f.rdb.XPendingExt(ctx, &redis.XPendingExtArgs{
		Stream: f.keys.Requests(), Group: tebra.GroupParked, Start: m.env.EntryID, End: m.env.EntryID, Count: 1,
	}).Result()
	f.must(err)
	return state{
		answers: f.answers(m), statuses: f.statuses(m), letters: f.letters.reasons(m.env.EntryID),
		open: f.inSet(f.keys.Open(m.env.Lane), m), retrying: f.inSet(f.keys.Retrying(m.env.Lane), m),
		parked: len(parked) == 1 && parked[0].Consumer == m.env.Lane,
	}
}

func (f *fixture) wantState(m message, want state) {
	f.t.Helper()
	if got := f.state(m); got.String() != want.String() {
		f.t.Errorf("entry %s: state = %v,\nwant %v; the log:\n%s", m.env.EntryID, got, want, f.logs)
	}
}

func (f *fixture) inSet(key string, m message) bool {
	f.t.Helper()
	members, err := f.rdb.ZRange(f.t.Context(), key, 0, -1).Result()
	f.must(err)
	return slices.Contains(members, m.env.EntryID)
}

// responses are m's, by its correlation ID.
func (f *fixture) responses(m message) []tebra.Response {
	f.t.Helper()
	var found []tebra.Response
	for _, fields := range f.entries(f.keys.Responses()) {
		r, err := tebra.ParseResponse(fields)
		f.must(err)
		if r.CorrelationID == m.env.CorrelationID {
			found = append(found, r)
		}
	}
	return found
}

func (f *fixture) answers(m message) []string {
	f.t.Helper()
	var codes []string
	for _, r := range f.responses(m) {
		if r.ErrorCode == "" {
			codes = append(codes, "ok")
			continue
		}
		codes = append(codes, string(r.ErrorCode))
	}
	return codes
}

func (f *fixture) statuses(m message) []string {
	f.t.Helper()
	var words []string
	for _, fields := range f.entries(f.keys.Status()) {
		s, err := tebra.ParseStatus(fields)
		f.must(err)
		if s.CorrelationID == m.env.CorrelationID {
			words = append(words, strings.TrimSpace(fmt.Sprintf("%s %d %s", s.State, s.Attempt, s.ErrorCode)))
		}
	}
	return words
}

func (f *fixture) entries(stream string) []map[string]string {
	f.t.Helper()
	entries, err := f.rdb.XRange(f.t.Context(), stream, "-", "+").Result()
	f.must(err)
	var all []map[string]string
	for _, e := range entries {
		fields := map[string]string{}
		for k, v := range e.Values {
			fields[k] = v.(string)
		}
		all = append(all, fields)
	}
	return all
}

func (f *fixture) wantCalls(want int) {
	f.t.Helper()
	if got := f.calls.Load(); got != int64(want) {
		f.t.Errorf("the API got %d calls, want %d", got, want)
	}
}

// letters is a dead-letter topic in memory.
type letters struct {
	mu   sync.Mutex
	fail error // what publishing returns
	all  []message
}

func (l *letters) One(_ context.Context, data []byte, env tebra.Envelope) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return l.fail
	}
	l.all = append(l.all, message{env, data})
	return nil
}

func (l *letters) setFail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = err
}

func (l *letters) reasons(entry string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
	for _, m := range l.all {
		if m.env.EntryID == entry {
			found = append(found, string(m.env.Reason))
		}
	}
	return found
}

// logBuffer keeps what is logged. Safe for concurrent use.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text.Reset()
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

var errSource = errors.New("the source of roles is down")

// sourceFunc is a policy.Source.
type sourceFunc func(ctx context.Context, user string) ([]string, error)

func (s sourceFunc) Roles(ctx context.Context, user string) ([]string, error) { return s(ctx, user) }

func rolesFrom(s policy.Source) option {
	return func(f *fixture) { f.deps.Authorizer = policy.NewAuthorizer(f.deps.Policy, s) }
}
