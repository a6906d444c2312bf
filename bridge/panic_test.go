package bridge

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

// TestAPanicStopsTheBridgeAndSaysNothingOfItsValue: Go would print the value, which may
// quote a request. What the bridge held is given back, and another one goes on.
func TestAPanicStopsTheBridgeAndSaysNothingOfItsValue(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]any{"an error": errors.New(canary), "text": canary} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			r := b.assemble()
			var panicked atomic.Bool
			r.deps.NewID = func() string { panicked.Store(true); panic(value) }
			good := b.add(5, "quick")
			b.addFields("id", "bad", "action", "quick", "userId", "u", "params", "["+canary)
			r.begin(t)
			<-r.done
			if !panicked.Load() || r.err == nil || strings.Contains(r.err.Error(), "XYZZY") {
				t.Errorf("Run() = %v (panicked: %v), want an error that says that a part panicked, not why", r.err, panicked.Load())
			}
			if b.logs.count(slog.LevelError, "panicked") != 1 || b.logs.count(slog.LevelDebug, "XYZZY") != 0 {
				t.Errorf("the log does not say that it panicked, or says what with:\n%s", b.logs.tail(10))
			}
			second := b.start() // it waits for nothing: CLAIM_IDLE is longer than this test
			b.waitPublished(good)
			peertest.Eventually(t, wait, "the bad entry's answer", func() bool { return len(b.responses()) == 1 })
			b.waitSettled()
			second.stop(t)
		})
	}
}

// beforePipelines is a hook of a Redis client that does something before it sends a
// pipeline.
type beforePipelines func(ctx context.Context, cmds []redis.Cmder)

func (beforePipelines) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (beforePipelines) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (f beforePipelines) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		f(ctx, cmds)
		return next(ctx, cmds)
	}
}

// TestAPanicDuringAClaimKeepsNoWorkerWaiting: one that has read by then waits to admit
// what it read, and the bridge waits for it.
func TestAPanicDuringAClaimKeepsNoWorkerWaiting(t *testing.T) {
	t.Parallel()
	b := setup(t)
	claimed := b.add(1, "quick")
	if err := b.rdb.XGroupCreate(t.Context(), b.keys.Requests(), tebra.GroupBridge, "0").Err(); err != nil {
		t.Fatal(err)
	}
	if err := b.rdb.XReadGroup(t.Context(), &redis.XReadGroupArgs{Group: tebra.GroupBridge, Consumer: "dead",
		Streams: []string{b.keys.Requests(), ">"}, Block: -1}).Err(); err != nil {
		t.Fatal(err)
	}
	if err := b.rdb.Do(t.Context(), "XCLAIM", b.keys.Requests(), tebra.GroupBridge, "dead", 0, claimed[0], "IDLE", 1<<40, "JUSTID").Err(); err != nil {
		t.Fatal(err)
	}
	r := b.assemble()
	var panicked atomic.Bool
	r.deps.Redis.(*redis.Client).AddHook(beforePipelines(func(_ context.Context, cmds []redis.Cmder) {
		if cmds[0].Name() != "zscore" || panicked.Swap(true) { // only what is claimed is looked for among what is open
			return
		}
		read := r.counts.read.Load()
		b.add(1, "quick")
		peertest.Eventually(t, wait, "a worker to read", func() bool { return r.counts.read.Load() > read })
		panic("claiming")
	}))
	r.begin(t)
	peertest.Eventually(t, wait, "the bridge to stop", func() bool {
		select {
		case <-r.done:
			return true
		default:
			return false
		}
	})
	if !panicked.Load() || r.err == nil {
		t.Errorf("Run() = %v (panicked: %v), want an error that says that a part panicked", r.err, panicked.Load())
	}
}

// canary is what an entry holds that makes a bridge panic, and what it panics with.
const canary = "XYZZY Jane Doe"

// spoilers make a bridge panic at what holds the canary, each in another place.
var spoilers = []struct {
	name  string
	spoil func(*testing.T, *Bridge)
}{
	{"decoding", func(_ *testing.T, b *Bridge) {
		decode := b.codec.decode
		b.codec.decode = func(fields []string, maxBytes int) (tebra.Request, error) {
			panicAt(strings.Join(fields, " "))
			return decode(fields, maxBytes)
		}
	}},
	{"its fingerprint", func(_ *testing.T, b *Bridge) {
		fingerprint := b.codec.fingerprint
		b.codec.fingerprint = func(action string, params []byte) string {
			panicAt(string(params))
			return fingerprint(action, params)
		}
	}},
	{"encoding", func(_ *testing.T, b *Bridge) {
		encode := b.codec.encode
		b.codec.encode = func(r tebra.Request, dst []byte) []byte {
			panicAt(string(r.Params))
			return encode(r, dst)
		}
	}},
	{"its span", func(t *testing.T, b *Bridge) {
		tel, err := telemetry.New(t.Context(), telemetry.Config{Sampler: "always_on"},
			telemetry.Options{Service: "test", Spans: exportsAllButBad{tracetest.NewNoopExporter()}, Metrics: sdkmetric.NewManualReader()})
		if err != nil {
			t.Fatal(err)
		}
		b.seen = tel.Bridge(nil, nil)
	}},
}

// exportsAllButBad is an exporter that panics at the spans of request "bad".
type exportsAllButBad struct{ sdktrace.SpanExporter }

func (e exportsAllButBad) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	for _, s := range spans {
		for _, a := range s.Attributes() {
			if a.Value.AsString() == "bad" {
				panic(canary)
			}
		}
	}
	return nil
}

func panicAt(text string) {
	if strings.Contains(text, canary) {
		panic(errors.New(canary))
	}
}

// TestAnEntryThatMakesTheBridgePanicIsRejectedAndTheOthersAreServed, wherever it
// panics, and by whichever way the entry comes.
func TestAnEntryThatMakesTheBridgePanicIsRejectedAndTheOthersAreServed(t *testing.T) {
	t.Parallel()
	ways := []struct {
		name string
		set  func(*bundle, []string)
	}{
		{"new", func(*bundle, []string) {}},
		{"claimed", func(b *bundle, ids []string) { b.hold(tebra.GroupBridge, "dead", ids) }},
		{"parked", func(b *bundle, ids []string) { b.hold(tebra.GroupParked, tebra.DefaultLane, ids) }},
	}
	for _, spoiler := range spoilers {
		for _, way := range ways {
			t.Run(spoiler.name+", "+way.name, func(t *testing.T) {
				t.Parallel()
				b := setup(t)
				b.sink.watch(b.rdb, b.keys)
				good := b.add(3, "change")
				bad := b.addFields("id", "bad", "action", "change", "params", `{"name":"`+canary+`"}`, "userId", "u")
				good = append(good, b.add(3, "quick")...)
				way.set(b, append(slices.Clone(good), bad))
				r := b.assemble()
				spoiler.spoil(t, r.Bridge)
				r.begin(t)
				b.checkPromises(good)
				b.checkSpoiled(bad)
				b.complete(good)
				b.checkLastWord(len(good))
				b.checkClosed(append(good, bad))
				b.waitPublished(b.add(1, "quick"))
				r.stop(t)
				if b.logs.count(slog.LevelError, "made the bridge panic") != 1 || b.logs.count(slog.LevelDebug, "XYZZY") != 0 {
					t.Errorf("the log does not say once that an entry made the bridge panic, or says what with:\n%s", b.logs.tail(10))
				}
			})
		}
	}
}

// hold makes entries pending for a consumer of a group, long ago, as the only thing
// that was ever done with them.
func (b *bundle) hold(group, consumer string, ids []string) {
	b.Helper()
	s := stream.New(b.rdb, b.keys)
	if _, err := s.EnsureGroups(b.Context()); err != nil {
		b.Fatal(err)
	}
	if _, err := s.Read(b.Context(), "reader", len(ids), wait); err != nil {
		b.Fatal(err)
	}
	if err := s.Ack(b.Context(), ids); err != nil {
		b.Fatal(err)
	}
	claim := []any{"XCLAIM", b.keys.Requests(), group, consumer, 0}
	for _, id := range ids {
		claim = append(claim, id)
	}
	if err := b.rdb.Do(b.Context(), append(claim, "IDLE", 1<<40, "FORCE", "JUSTID")...).Err(); err != nil {
		b.Fatal(err)
	}
}

// checkSpoiled fails the test unless an entry was rejected once, whole and by name, and
// never published.
func (b *bundle) checkSpoiled(id string) {
	b.Helper()
	var answers []map[string]string
	for _, answer := range b.responses() {
		if answer["requestId"] == "bad" {
			answers = append(answers, answer)
		}
	}
	if len(answers) != 1 || answers[0]["errorCode"] != string(tebra.DeadLettered) || answers[0]["userId"] != "u" || strings.Contains(answers[0]["error"], "XYZZY") {
		b.Errorf("answers = %v, want one %s for its user, without contents", answers, tebra.DeadLettered)
	}
	if got := b.statuses()["bad"]; len(got) == 0 || slices.Index(got, tebra.Failed) != len(got)-1 {
		b.Errorf("statuses = %v, want %s as the last, once", got, tebra.Failed)
	}
	letters := b.sink.deadLetters()
	if len(letters) != 1 || letters[0].Attributes[tebra.AttrEntryID] != id || !strings.Contains(string(letters[0].Data), canary) {
		b.Fatalf("dead letters = %v, want one of %s with its contents", letters, id)
	}
	b.checkLetter("spoiled", tebra.DeadLettered, letters[0])
	if missing := b.sink.missing([]string{id}); len(missing) != 1 {
		b.Errorf("entry %s was published, want it rejected", id)
	}
}

// TestAnEntryThatIsNoRequestAndMakesTheBridgePanicAtItsSpanIsRejectedOnce, and the
// others are served.
func TestAnEntryThatIsNoRequestAndMakesTheBridgePanicAtItsSpanIsRejectedOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.assemble()
	for _, s := range spoilers {
		if s.name == "its span" {
			s.spoil(t, r.Bridge)
		}
	}
	b.addFields("id", "bad", "action", "change", "params", "[object Object]", "userId", "u")
	good := b.add(3, "quick")
	r.begin(t)
	b.waitPublished(good)
	peertest.Eventually(t, wait, "an answer", func() bool { return len(b.responses()) == 1 })
	b.waitPublished(b.add(1, "quick"))
	r.stop(t)
	if answer := b.responses()[0]; answer["requestId"] != "bad" || answer["errorCode"] != string(tebra.Malformed) {
		t.Errorf("answer = %v, want %s for request bad", answer, tebra.Malformed)
	}
	if n := len(b.sink.deadLetters()); n != 1 || b.logs.count(slog.LevelError, "made the bridge panic") != 1 || b.logs.count(slog.LevelDebug, "XYZZY") != 0 {
		t.Errorf("%d dead letters, want one, and one line about the panic that does not say what with:\n%s", n, b.logs.tail(10))
	}
}

// TestARequestThatCantBeLoggedIsPublishedOnce, though the bridge panics at its line.
func TestARequestThatCantBeLoggedIsPublishedOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := b.add(2, "quick")
	ids = append(ids, b.add(1, "slow")...)
	ids = append(ids, b.add(2, "quick")...)
	r := b.assemble()
	r.lines.action = func(name string) string {
		if name == "slow" {
			panic(canary)
		}
		return name
	}
	r.begin(t)
	b.checkPromises(ids)
	r.stop(t)
	if n := len(b.sink.requests()); n != len(ids) || b.logs.count(slog.LevelError, "made the bridge panic") != 1 {
		t.Errorf("%d messages of %d entries were published, want one of each, and one line about the panic:\n%s", n, len(ids), b.logs.tail(10))
	}
}

// TestAnOverdueRequestThatMakesTheSweepPanicKeepsNoOtherFromItsAnswer: it stays open.
func TestAnOverdueRequestThatMakesTheSweepPanicKeepsNoOtherFromItsAnswer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := b.publishOld("quick", "quick", "quick")
	r := b.assemble()
	encode, n := r.codec.encode, 0
	r.codec.encode = func(q tebra.Request, dst []byte) []byte {
		if n++; n == 2 {
			panic(canary)
		}
		return encode(q, dst)
	}
	b.sweepOnce(r)
	b.ageNotes()
	b.sweepOnce(r)
	if got := len(b.responses()); got != len(ids)-1 || b.open(tebra.DefaultLane) != 1 {
		t.Errorf("%d answers and %d open, want %d and 1", got, b.open(tebra.DefaultLane), len(ids)-1)
	}
	if b.logs.count(slog.LevelError, "made the bridge panic") != 1 || b.logs.count(slog.LevelDebug, "XYZZY") != 0 {
		t.Errorf("the log does not say once that an entry made the bridge panic, or says what with:\n%s", b.logs.tail(10))
	}
}
