package ledger

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

func TestMain(m *testing.M) {
	// The command line comes later, and wins.
	for name, value := range map[string]string{
		"rapid.checks":     "300",
		"rapid.nofailfile": "true", // the seed, which is printed, does as well
	} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	peertest.Main(m)
}

const (
	testLease = 150 * time.Second
	testTTL   = 48 * time.Hour
	testNeed  = 30 * time.Second
	testUser  = "user-1"
)

// began is when every test's clock begins: in the future of the server's, so
// that entry IDs which the server chooses follow those that tests choose.
var began = time.UnixMilli(2_200_000_000_000)

// fixture is a ledger on a Redis of its own, with a clock and IDs that the test
// decides on.
type fixture struct {
	t    tb
	rdb  *redis.Client
	keys tebra.Keys
	l    *Ledger
	now  atomic.Int64
	ids  atomic.Int64
	seq  int
}

// tb is what a fixture needs of a test: rapid's is no testing.TB.
type tb interface {
	Context() context.Context
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func newFixture(t tb, rdb *redis.Client) *fixture {
	t.Helper()
	keys, err := tebra.NewKeys("{t}")
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, rdb: rdb, keys: keys}
	f.now.Store(began.UnixMilli())
	f.l = New(rdb, keys, Config{TTL: testTTL, Lease: testLease}, WithClock(f.clock), WithIDs(f.id("token"), f.id("answer")))
	f.makeGroups()
	return f
}

func (f *fixture) clock() time.Time { return time.UnixMilli(f.now.Load()) }

func (f *fixture) advance(d time.Duration) { f.now.Add(d.Milliseconds()) }

func (f *fixture) id(kind string) func() string {
	return func() string { return fmt.Sprintf("%s-%d", kind, f.ids.Add(1)) }
}

// makeGroups makes the stream and its groups. An entry that came and went keeps
// the server from choosing IDs by its own clock.
func (f *fixture) makeGroups() {
	f.t.Helper()
	id := f.nextID()
	f.must(f.rdb.XAdd(f.t.Context(), &redis.XAddArgs{Stream: f.keys.Requests(), ID: id, Values: []string{"a", "b"}}).Err())
	f.must(f.rdb.XDel(f.t.Context(), f.keys.Requests(), id).Err())
	for _, group := range []string{tebra.GroupBridge, tebra.GroupParked} {
		f.must(f.rdb.XGroupCreate(f.t.Context(), f.keys.Requests(), group, "0").Err())
	}
}

// nextID leaves room for the IDs that the server chooses in between.
func (f *fixture) nextID() string {
	f.seq += 100
	return fmt.Sprintf("%d-%d", f.now.Load(), f.seq)
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// onEveryRedis runs a test against a redis-server and against miniredis.
func onEveryRedis(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Helper()
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		test(t, newFixture(t, peertest.Redis(t).Client()))
	})
	t.Run("miniredis", func(t *testing.T) {
		t.Parallel()
		test(t, newFixture(t, miniClient(t)))
	})
}

func miniClient(t testing.TB) *redis.Client {
	rdb := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()})
	t.Cleanup(func() { rdb.Close() })
	return rdb
}

// request is what tests send: an ID, what it asks for, and whether that changes
// something.
type request struct {
	id     string
	params string
	write  bool
}

var (
	aRead  = request{id: "r", params: `{"q":1}`}
	aWrite = request{id: "w", params: `{"q":1}`, write: true}
)

func (r request) action() string {
	if r.write {
		return "createAppointment"
	}
	return "getPatient"
}

func (r request) fingerprint() string { return tebra.Fingerprint(r.action(), []byte(r.params)) }

func (r request) hash() string { return tebra.LedgerHash(testUser, r.id) }

// send puts r on the stream and takes it as a bridge does: on record, if it is
// a write, and open.
func (f *fixture) send(r request) Delivery {
	f.t.Helper()
	return f.admit(f.arrive(r))
}

// arrive puts r on the stream only.
func (f *fixture) arrive(r request) Delivery {
	f.t.Helper()
	entry := f.nextID()
	f.must(f.rdb.XAdd(f.t.Context(), &redis.XAddArgs{
		Stream: f.keys.Requests(), ID: entry, Values: []string{"id", r.id},
	}).Err())
	return f.delivery(r, entry, fmt.Sprintf("c%d", f.seq))
}

func (f *fixture) delivery(r request, entry, correlation string) Delivery {
	return Delivery{
		Envelope: tebra.Envelope{
			RequestID: r.id, CorrelationID: correlation, Action: r.action(), UserID: testUser, EntryID: entry,
			Lane: tebra.DefaultLane, Ledger: r.hash(), AdmittedAt: f.clock(),
		},
		Fingerprint: r.fingerprint(), Write: r.write,
	}
}

func (f *fixture) admit(d Delivery) Delivery {
	f.t.Helper()
	e := &d.Envelope
	var writes []Admission
	if d.Write {
		writes = append(writes, Admission{Hash: e.Ledger, EntryID: e.EntryID, Fingerprint: d.Fingerprint})
	}
	epoch, _, err := f.l.Admit(f.t.Context(), writes)
	f.must(err)
	e.Epoch, e.AdmittedAt = epoch, f.clock()
	f.must(f.rdb.ZAdd(f.t.Context(), f.keys.Open(e.Lane), redis.Z{Score: float64(f.now.Load()), Member: e.EntryID}).Err())
	return d
}

func (f *fixture) claim(d Delivery) *Claim {
	f.t.Helper()
	c, err := f.l.Claim(f.t.Context(), d)
	f.must(err)
	return c
}

func (f *fixture) settle(d Delivery) *Claim {
	f.t.Helper()
	c, err := f.l.Settle(f.t.Context(), d)
	f.must(err)
	return c
}

// run claims d, which must be there to run, and starts it.
func (f *fixture) run(d Delivery) *Claim {
	f.t.Helper()
	c := f.claim(d)
	if c.Verdict != Run {
		f.t.Fatalf("Claim(%s) = %s, want %s", d.Envelope.EntryID, c.Verdict, Run)
	}
	f.must(f.l.Start(f.t.Context(), c, testNeed))
	return c
}

func succeed() tebra.Response {
	return tebra.Response{Data: json.RawMessage(`{"ok":true}`)}
}

func fail(code tebra.ErrorCode) tebra.Response { return tebra.Response{ErrorCode: code} }

// answer runs d to its end.
func (f *fixture) answer(d Delivery, resp tebra.Response) {
	f.t.Helper()
	f.must(f.l.Complete(f.t.Context(), f.run(d), resp))
}

func (f *fixture) flush() {
	f.t.Helper()
	f.must(f.rdb.FlushAll(f.t.Context()).Err())
	f.makeGroups()
}

// expire lets every lease run out.
func (f *fixture) expire() { f.advance(testLease) }

// responses returns what was answered, oldest first.
func (f *fixture) responses() []tebra.Response {
	f.t.Helper()
	entries, err := f.rdb.XRange(f.t.Context(), f.keys.Responses(), "-", "+").Result()
	f.must(err)
	var rs []tebra.Response
	for _, e := range entries {
		r, err := tebra.ParseResponse(fields(e))
		f.must(err)
		rs = append(rs, r)
	}
	return rs
}

// said returns what the status stream says about d, one word for each entry,
// with attempt and code.
func (f *fixture) said(d Delivery) []string {
	f.t.Helper()
	entries, err := f.rdb.XRange(f.t.Context(), f.keys.Status(), "-", "+").Result()
	f.must(err)
	var words []string
	for _, e := range entries {
		s, err := tebra.ParseStatus(fields(e))
		f.must(err)
		if s.CorrelationID == d.Envelope.CorrelationID {
			words = append(words, strings.TrimSpace(fmt.Sprintf("%s %d %s", s.State, s.Attempt, s.ErrorCode)))
		}
	}
	return words
}

func fields(e redis.XMessage) map[string]string {
	m := make(map[string]string, len(e.Values))
	for k, v := range e.Values {
		m[k] = v.(string)
	}
	return m
}

// answers returns the codes of d's answers, "ok" for a success.
func (f *fixture) answers(d Delivery) []string {
	f.t.Helper()
	codes := []string{}
	for _, r := range f.responses() {
		if r.CorrelationID != d.Envelope.CorrelationID {
			continue
		}
		if r.State() == tebra.Success {
			codes = append(codes, "ok")
			continue
		}
		codes = append(codes, string(r.ErrorCode))
	}
	return codes
}

func (f *fixture) wantAnswers(d Delivery, want ...string) {
	f.t.Helper()
	if got := f.answers(d); !slices.Equal(got, want) {
		f.t.Errorf("answers to entry %s = %q, want %q", d.Envelope.EntryID, got, want)
	}
}

func (f *fixture) wantVerdict(got *Claim, want Verdict) {
	f.t.Helper()
	if got.Verdict != want {
		f.t.Errorf("verdict on entry %s = %s, want %s", got.Delivery.Envelope.EntryID, got.Verdict, want)
	}
}

// isOpen and isRetrying tell whether the sets of d's lane hold it.
func (f *fixture) isOpen(d Delivery) bool { return f.inSet(f.keys.Open(d.Envelope.Lane), d) }

func (f *fixture) isRetrying(d Delivery) bool { return f.inSet(f.keys.Retrying(d.Envelope.Lane), d) }

func (f *fixture) inSet(key string, d Delivery) bool {
	f.t.Helper()
	members, err := f.rdb.ZRange(f.t.Context(), key, 0, -1).Result()
	f.must(err)
	return slices.Contains(members, d.Envelope.EntryID)
}

func (f *fixture) wantSets(d Delivery, open, retrying bool) {
	f.t.Helper()
	if f.isOpen(d) != open || f.isRetrying(d) != retrying {
		f.t.Errorf("entry %s: open %t, retrying %t, want %t, %t",
			d.Envelope.EntryID, f.isOpen(d), f.isRetrying(d), open, retrying)
	}
}

func (f *fixture) record(d Delivery) map[string]string {
	f.t.Helper()
	m, err := f.rdb.HGetAll(f.t.Context(), f.keys.Ledger(d.Envelope.Ledger)).Result()
	f.must(err)
	return m
}

// snapshot is all that Redis holds, to see whether something changed.
func (f *fixture) snapshot() string {
	f.t.Helper()
	ctx := context.WithoutCancel(f.t.Context())
	var b strings.Builder
	names, err := f.rdb.Keys(ctx, "*").Result()
	f.must(err)
	slices.Sort(names)
	for _, name := range names {
		kind, err := f.rdb.Type(ctx, name).Result()
		f.must(err)
		var value any
		switch kind {
		case "hash":
			value, err = f.rdb.HGetAll(ctx, name).Result()
		case "zset":
			value, err = f.rdb.ZRangeWithScores(ctx, name, 0, -1).Result()
		case "stream":
			value, err = f.rdb.XRange(ctx, name, "-", "+").Result()
		default:
			value, err = f.rdb.Get(ctx, name).Result()
		}
		f.must(err)
		fmt.Fprintf(&b, "%s = %v\n", name, value)
	}
	return b.String()
}

// unchanged runs do and checks that Redis holds what it held before.
func (f *fixture) unchanged(what string, do func()) {
	f.t.Helper()
	before := f.snapshot()
	do()
	if after := f.snapshot(); after != before {
		f.t.Errorf("%s changed Redis\nfrom\n%s\nto\n%s", what, before, after)
	}
}
