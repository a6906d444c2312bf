package bridge

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"tebraproxy/pkg/breaker"
	"tebraproxy/pkg/config"
	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/publish"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

// What the tests of this package share: a Redis of the test's own, a Pub/Sub
// sink (sink_test.go), bridges in this process that a test starts and stops, and
// bridges in processes of their own that it can kill (process_test.go).

// asBridge, set in the environment, makes the test binary a bridge process.
const asBridge = "BRIDGE_TEST_RUN_AS_BRIDGE"

func TestMain(m *testing.M) {
	if os.Getenv(asBridge) != "" {
		os.Exit(bridgeMain())
	}
	// Most of these tests wait most of the time, so more of them run at once than
	// there are processors, unless -parallel says otherwise.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	peertest.Main(m)
}

// bridgeMain is what cmd/bridge does for "bridge run", without the health server.
func bridgeMain() int {
	go exitWithParent()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	b, closeAll, err := assemble(os.Environ(), slog.New(slog.NewTextHandler(os.Stdout, nil)))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	defer closeAll()
	if err := b.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	return 0
}

// assemble makes a bridge from an environment, as cmd/bridge does.
func assemble(environ []string, log *slog.Logger) (b *Bridge, closeAll func(), err error) {
	cfg, err := config.Load[Config](environ)
	if err != nil {
		return nil, nil, err
	}
	rules, err := policy.Load(cfg.PolicyFile)
	if err != nil {
		return nil, nil, err
	}
	keys, err := tebra.NewKeys(cfg.Prefix)
	if err != nil {
		return nil, nil, err
	}
	options, err := stream.Options(cfg.URL, cfg.CACert)
	if err != nil {
		return nil, nil, err
	}
	logging.Disable()
	rdb := redis.NewClient(options)
	topics, err := pubsub.NewTopicAdminClient(context.Background(), publish.ClientOptions(cfg.EmulatorHost)...)
	if err != nil {
		rdb.Close()
		return nil, nil, err
	}
	b = New(cfg, Deps{
		Redis: rdb, Keys: keys,
		Ledger:      ledger.New(rdb, keys, ledger.Config{TTL: cfg.LedgerTTL}),
		Breaker:     breaker.New(rdb, keys, breaker.Config{}),
		Policy:      rules,
		Requests:    publish.New(topics, cfg.Requests()),
		DeadLetters: publish.New(topics, cfg.DeadLetters()),
		Topics:      topics,
		Log:         log, Version: "test",
	})
	return b, func() { topics.Close(); rdb.Close() }, nil
}

// testPolicy has an action of each kind that matters to a bridge. A lane with an
// interval of 1 s has a window of 30.
const testPolicy = `
version: 1
lanes:
  slow: {interval: 1s}
actions:
  quick: {effect: read, ttl: 24h, lane: default}
  change: {effect: write, ttl: 4h, lane: default}
  slow: {effect: read, ttl: 24h, lane: slow}
`

// wait is how long a test waits for what should take milliseconds, on a machine
// that is busy with other tests.
const wait = 20 * time.Second

// bundle is what a test has to work with.
type bundle struct {
	*testing.T
	server *peertest.RedisServer
	rdb    *redis.Client // the test's own way to Redis
	keys   tebra.Keys
	sink   *sink
	logs   *logBook // of all bridges in this process
	policy string   // path of the policy file
}

// setup starts a redis-server and a sink for t.
func setup(t *testing.T, opts ...peertest.RedisOption) *bundle {
	t.Helper()
	server := peertest.RealRedis(t, opts...)
	keys, err := tebra.NewKeys("test")
	if err != nil {
		t.Fatal(err)
	}
	b := &bundle{T: t, server: server, rdb: server.Client(), keys: keys, logs: &logBook{}, policy: filepath.Join(t.TempDir(), "policy.yaml")}
	b.writePolicy(testPolicy)
	b.sink = newSink(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the bridges' log:\n%s", b.logs.tail(60))
		}
	})
	return b
}

// writePolicy replaces the policy of the bridges that start from now on.
func (b *bundle) writePolicy(text string) {
	b.Helper()
	if err := os.WriteFile(b.policy, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
}

// environ is the environment that a bridge of this test is configured from. A
// later variable wins.
func (b *bundle) environ(more ...string) []string {
	return append([]string{
		"REDIS_URL=" + b.server.URL(), "STREAM_PREFIX=" + b.keys.Prefix(),
		"GOOGLE_CLOUD_PROJECT=" + sinkProject, "PUBSUB_EMULATOR_HOST=" + b.sink.addr,
		"POLICY_FILE=" + b.policy, "HEALTH_PORT=0",
	}, more...)
}

// running is a bridge in this process.
type running struct {
	*Bridge
	cancel context.CancelFunc
	done   chan struct{} // closed when Run has returned
	err    error         // what it returned; read after done
}

// start starts a bridge in this process, configured by the bundle's environment
// with the variables ("NAME=value") in more over it. The test's end stops it.
func (b *bundle) start(more ...string) *running {
	b.Helper()
	r := b.assemble(more...)
	r.begin(b.T)
	return r
}

// assemble returns a bridge that begin will run, so that a test can change it.
func (b *bundle) assemble(more ...string) *running {
	b.Helper()
	br, closeAll, err := assemble(b.environ(more...), slog.New(b.logs))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(closeAll)
	return &running{Bridge: br, done: make(chan struct{})}
}

// begin runs the bridge in a goroutine that the test's end waits for.
func (r *running) begin(t *testing.T) {
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	go func() {
		defer close(r.done)
		r.err = r.Run(ctx)
	}()
	t.Cleanup(func() { r.cancel(); <-r.done })
}

// stop ends the bridge as SIGTERM would, waits for it, and returns how long that
// took.
func (r *running) stop(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	r.cancel()
	<-r.done
	if r.err != nil {
		t.Errorf("Run() = %v, want nil", r.err)
	}
	return time.Since(began)
}

// add writes n requests of an action, and returns their entries' IDs. The ID of
// a request is unique in the test. Up to a thousand come at once, so that a
// bridge reads them in as few batches as it can.
func (b *bundle) add(n int, action string) []string {
	b.Helper()
	ids := make([]string, 0, n)
	for n > 0 {
		chunk := min(n, 1000)
		n -= chunk
		pipe := b.rdb.TxPipeline()
		cmds := make([]*redis.StringCmd, chunk)
		for i := range cmds {
			cmds[i] = pipe.XAdd(b.Context(), &redis.XAddArgs{Stream: b.keys.Requests(), Values: request(action)})
		}
		if _, err := pipe.Exec(b.Context()); err != nil {
			b.Fatalf("XADD: %v", err)
		}
		for _, cmd := range cmds {
			ids = append(ids, cmd.Val())
		}
	}
	return ids
}

// requestNumber makes IDs unique.
var requestNumber = struct {
	sync.Mutex
	n int
}{}

// request returns the fields of a valid request with an ID of its own.
func request(action string) []string {
	requestNumber.Lock()
	requestNumber.n++
	id := "request-" + strconv.Itoa(requestNumber.n)
	requestNumber.Unlock()
	return []string{"id", id, "action", action, "params", `{"a":1}`, "userId", "user-1",
		"timestamp", "2026-11-23T08:00:00.000Z", "correlationId", "correlation-of-" + id}
}

// addFields writes one entry as it is.
func (b *bundle) addFields(fields ...string) string {
	b.Helper()
	id, err := b.rdb.XAdd(b.Context(), &redis.XAddArgs{Stream: b.keys.Requests(), Values: fields}).Result()
	if err != nil {
		b.Fatalf("XADD: %v", err)
	}
	return id
}

// statuses returns the states that were written for each request ID, in order.
func (b *bundle) statuses() map[string][]tebra.State {
	b.Helper()
	states := map[string][]tebra.State{}
	for _, m := range b.entries(b.keys.Status()) {
		id := m["requestId"]
		states[id] = append(states[id], tebra.State(m["status"]))
	}
	return states
}

// responses returns the entries of the responses stream, in order.
func (b *bundle) responses() []map[string]string {
	b.Helper()
	return b.entries(b.keys.Responses())
}

func (b *bundle) entries(key string) []map[string]string {
	b.Helper()
	list, err := b.rdb.XRange(b.Context(), key, "-", "+").Result()
	if err != nil {
		b.Fatalf("XRANGE %s: %v", key, err)
	}
	entries := make([]map[string]string, 0, len(list))
	for _, m := range list {
		fields := map[string]string{}
		for name, value := range m.Values {
			fields[name] = fmt.Sprint(value)
		}
		entries = append(entries, fields)
	}
	return entries
}

// pending returns the IDs that are pending in a group, for all its consumers or,
// where one is given, for that one.
func (b *bundle) pending(group, consumer string) []string {
	b.Helper()
	list, err := b.rdb.XPendingExt(b.Context(), &redis.XPendingExtArgs{
		Stream: b.keys.Requests(), Group: group, Start: "-", End: "+", Count: 1_000_000, Consumer: consumer}).Result()
	if err != nil && !errors.Is(err, redis.Nil) && !stream.NoGroup(err) {
		b.Fatalf("XPENDING: %v", err)
	}
	ids := make([]string, 0, len(list))
	for _, p := range list {
		ids = append(ids, p.ID)
	}
	return ids
}

// waitPublished waits until each entry was confirmed to the bridge at least once.
func (b *bundle) waitPublished(ids []string) {
	b.Helper()
	peertest.Eventually(b.T, wait, fmt.Sprintf("%d entries to be published", len(ids)), func() bool {
		return len(b.sink.missing(ids)) == 0
	})
}

// waitSettled waits until nothing is unread, in hand, or parked.
func (b *bundle) waitSettled() {
	b.Helper()
	s := stream.New(b.rdb, b.keys)
	var last stream.Waiting
	defer func() {
		if b.Failed() {
			b.Logf("waiting: %+v; pending for bridges: %v", last, b.pending(tebra.GroupBridge, ""))
		}
	}()
	peertest.Eventually(b.T, wait, "nothing to be unread, in hand or parked", func() bool {
		w, err := s.Waiting(b.Context())
		last = w
		return err == nil && w.Idle()
	})
}

// checkPromises fails the test unless every entry was published, what was
// published twice says so by its entry ID, no entry was acknowledged before its
// publish was confirmed, and nothing is left in anybody's hands.
func (b *bundle) checkPromises(ids []string) {
	b.Helper()
	b.waitPublished(ids)
	b.waitSettled()
	entryOf := map[string]string{}
	for _, m := range b.sink.requests() {
		request, entry := m.Attributes[tebra.AttrRequestID], m.Attributes[tebra.AttrEntryID]
		if before, ok := entryOf[request]; ok && before != entry {
			b.Errorf("request %s was published for entry %s and for entry %s, want one entry ID", request, before, entry)
		}
		entryOf[request] = entry
	}
	if early := b.sink.acknowledgedEarly(); len(early) > 0 {
		b.Errorf("%d entries, %s among them, were acknowledged before their publish was confirmed", len(early), early[0])
	}
}

// logBook is a slog.Handler that keeps what is logged, the newest last.
type logBook struct {
	mu    sync.Mutex
	lines []logLine
	total int
}

// logLine is one record: its level and message, and the whole as text.
type logLine struct {
	level   slog.Level
	message string
	text    string
}

// publishedLine is what a bridge says of each request.
const publishedLine = "published"

// mostLines bounds what a logBook keeps.
const mostLines = 10_000

func (l *logBook) Enabled(context.Context, slog.Level) bool { return true }

func (l *logBook) Handle(_ context.Context, r slog.Record) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%s %s %s", r.Time.Format("15:04:05.000"), r.Level, r.Message)
	r.Attrs(func(a slog.Attr) bool { fmt.Fprintf(&text, " %s=%q", a.Key, a.Value.String()); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.Message != publishedLine { // one a request, trouble or not
		l.total++
	}
	if len(l.lines) == mostLines {
		l.lines = slices.Delete(l.lines, 0, mostLines/2)
	}
	l.lines = append(l.lines, logLine{r.Level, r.Message, text.String()})
	return nil
}

func (l *logBook) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l *logBook) WithGroup(string) slog.Handler      { return l }

// count returns how many lines of at least a level hold a text.
func (l *logBook) count(level slog.Level, text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, line := range l.lines {
		if line.level >= level && strings.Contains(line.text, text) {
			n++
		}
	}
	return n
}

// written returns how many lines were logged that are not about one request.
func (l *logBook) written() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

func (l *logBook) tail(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var text strings.Builder
	for _, line := range l.lines[max(0, len(l.lines)-n):] {
		text.WriteString(line.text + "\n")
	}
	return text.String()
}

// answerAll stands in for the functions until the test ends: it takes everything
// that was published out of the open sets, so that lanes have room.
func (b *bundle) answerAll() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sleep(ctx, 10*time.Millisecond) {
			for _, m := range b.sink.requests() {
				_ = b.rdb.ZRem(ctx, b.keys.Open(m.Attributes[tebra.AttrLane]), m.Attributes[tebra.AttrEntryID]).Err() // again soon
			}
		}
	}()
	b.Cleanup(func() { cancel(); <-done })
}
