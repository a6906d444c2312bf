package bridge

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

// slowWindow is how many requests of the tests' lane "slow" may be open at once.
const slowWindow = 30

// open returns how many requests of a lane are admitted and unanswered.
func (b *bundle) open(lane string) int {
	b.Helper()
	n, err := b.rdb.ZCard(b.Context(), b.keys.Open(lane)).Result()
	if err != nil {
		b.Fatalf("ZCARD: %v", err)
	}
	return int(n)
}

// answer takes entries out of their lane, as an answer does.
func (b *bundle) answer(lane string, ids ...string) {
	b.Helper()
	members := make([]any, len(ids))
	for i, id := range ids {
		members[i] = id
	}
	if err := b.rdb.ZRem(b.Context(), b.keys.Open(lane), members...).Err(); err != nil {
		b.Fatalf("ZREM: %v", err)
	}
}

// answerPublished is a function that answers what is published of a lane, one
// request each interval, until the test ends.
func (b *bundle) answerPublished(lane string, every time.Duration) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		answered := 0
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			ids := entryIDs(ofLane(b.sink.requests(), lane))
			if answered < len(ids) {
				_ = b.rdb.ZRem(ctx, b.keys.Open(lane), ids[answered]).Err() // the test sees what it didn't do
				answered++
			}
		}
	}()
	b.Cleanup(func() { stop(); <-done })
}

func ofLane(messages []*pubsubpb.PubsubMessage, lane string) []*pubsubpb.PubsubMessage {
	return slices.DeleteFunc(messages, func(m *pubsubpb.PubsubMessage) bool { return m.Attributes[tebra.AttrLane] != lane })
}

// publishedAfter returns how long it takes until one new request of an action is
// published, from before its XADD.
func (b *bundle) publishedAfter(action string) time.Duration {
	b.Helper()
	fields := request(action)
	arrived := make(chan time.Time, 1)
	b.sink.onPublish(func(_ context.Context, req *pubsubpb.PublishRequest) error {
		for _, m := range req.GetMessages() {
			if m.Attributes[tebra.AttrRequestID] == fields[1] {
				arrived <- time.Now()
			}
		}
		return nil
	})
	defer b.sink.onPublish(nil)
	began := time.Now()
	b.addFields(fields...)
	select {
	case at := <-arrived:
		return at.Sub(began)
	case <-time.After(wait):
		b.Fatalf("waited %v for a request of %s to be published", wait, action)
		return 0
	}
}

func TestABurstIsReadPastBeforeItIsPutAway(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const burst, batchSize = 5000, 500
	ids := b.add(burst, "slow")
	other := b.add(1, "quick")[0]
	r := b.assemble()
	now := time.Now()
	r.lot.now = func() time.Time { return now } // a slow machine is not what this is about
	r.begin(t)
	// Two batches or so are parked before it is seen that the lane is full.
	peertest.Eventually(t, wait, "the burst to be parked", func() bool {
		w := b.waiting()
		if w.Unread && w.Parked > 4*batchSize {
			t.Fatalf("%d of a burst of %d were parked before all was read, want at most %d", w.Parked, burst, 4*batchSize)
		}
		return w.Parked == burst-slowWindow
	})
	b.waitPublished(append(ids[:slowWindow:slowWindow], other))
	peertest.Eventually(t, wait, "everybody to be told", func() bool { return len(b.statuses()) == burst+1 })
	b.checkNobodyToldTwice()
}

// unhurried is how long it takes to write the burst below when nothing else wants
// the processors. By how much longer it takes, a test can tell how much slower
// everything is at the moment; from twice as long on, nothing can be told.
const unhurried = 100 * time.Millisecond

// This test is alone (not parallel), as it measures time.
func TestABurstInOneLaneDelaysNoOther(t *testing.T) {
	if underRace {
		t.Skip("measures time, which the race detector multiplies; TestABurstIsReadPastBeforeItIsPutAway runs")
	}
	const burst, trials, most = 20_000, 5, 50 * time.Millisecond
	b := setup(t)
	b.start()
	b.waitPublished(b.add(1, "quick"))
	var took, writes []time.Duration
	for n := range trials {
		began := time.Now()
		b.add(burst, "slow")
		writes = append(writes, time.Since(began))
		took = append(took, b.publishedAfter("quick"))
		peertest.Eventually(t, wait, "the burst to be parked", func() bool { return b.waiting().Parked == int64((n+1)*burst-slowWindow) })
	}
	slices.Sort(took)
	slices.Sort(writes)
	t.Logf("from XADD to the publish, behind %d of another lane, which took %v to write: %v", burst, writes, took)
	if writes[trials/2] > 2*unhurried {
		t.Skipf("measures time, and this machine is busy or slow: writing the burst took %v, want at most %v; TestABurstIsReadPastBeforeItIsPutAway runs", writes[trials/2], 2*unhurried)
	}
	bound := time.Duration(float64(most) * max(1, float64(writes[trials/2])/float64(unhurried)))
	if median := took[trials/2]; median > bound {
		t.Errorf("a request was published %v after its XADD at the median, want at most %v", median, bound)
	}
	if got := b.open("slow"); got != slowWindow {
		t.Errorf("%d requests of the slow lane are open, want %d", got, slowWindow)
	}
}

// This test is alone (not parallel), as it measures the heap of the process.
func TestWhatIsParkedIsNotInMemory(t *testing.T) {
	b := setup(t)
	const all, bound = 50_000, 24 << 20
	r := b.start()
	growth := heapGrowth(func() {
		b.add(all, "slow")
		peertest.Eventually(t, wait, "all to be parked", func() bool { return b.waiting().Parked == all-slowWindow })
	})
	r.stop(t)
	t.Logf("heap growth with %d parked: %d KiB", all, growth>>10)
	if growth > bound {
		t.Errorf("the heap grew by %d MiB, want at most %d", growth>>20, bound>>20)
	}
}

func TestALimitedWindowIsNeverOvershot(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sink.watch(b.rdb, b.keys)
	var most atomic.Int64
	b.sink.onPublish(func(ctx context.Context, _ *pubsubpb.PublishRequest) error {
		n, err := b.rdb.ZCard(ctx, b.keys.Open("slow")).Result()
		most.Store(max(most.Load(), n))
		return err
	})
	b.start("BATCH_SIZE=20")
	b.start("BATCH_SIZE=20")
	b.answerPublished("slow", 5*time.Millisecond)
	var ids []string
	for range 5 {
		ids = append(ids, b.add(60, "slow")...)
		ids = append(ids, b.add(20, "quick")...)
	}
	b.checkPromises(ids)
	if got := most.Load(); got > slowWindow {
		t.Errorf("%d requests of a limited lane were open at once, want at most %d", got, slowWindow)
	}
	b.checkNobodyToldTwice()
	for id, n := range b.sink.times() {
		if n != 1 {
			t.Errorf("entry %s was published %d times, want once", id, n)
		}
	}
}

func TestALaneIsServedOldestFirst(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.answerPublished("slow", time.Millisecond)
	ids := b.add(100, "slow")
	b.start("BATCH_SIZE=10")
	ids = append(ids, b.add(100, "slow")...)
	b.checkPromises(ids)
	got := entryIDs(b.sink.requests())
	// A few workers publish the first of them, each a batch and at the same time.
	const atOnce = workers * 10
	for i, id := range got {
		if at := slices.Index(ids, id); at > i+atOnce || at < i-atOnce {
			t.Errorf("entry no. %d was published as no. %d, want it in its turn, give or take %d", at+1, i+1, atOnce)
		}
	}
	parked := got[atOnce:]
	if !slices.IsSortedFunc(parked, compareIDs) {
		t.Errorf("what had waited was published as %v, want oldest first", parked)
	}
}

func compareIDs(a, b string) int {
	x, _ := tebra.ParseEntryID(a) // Redis gave them
	y, _ := tebra.ParseEntryID(b)
	return x.Compare(y)
}

func TestAnotherBridgeGoesOnWithWhatWaitsWhenOneIsKilled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sink.watch(b.rdb, b.keys)
	first := b.startProcess("CLAIM_IDLE=1s")
	ids := b.add(150, "slow")
	b.waitPublished(ids[:slowWindow])
	// What it has published is acknowledged: answerPublished leaves no record, by which
	// another bridge would know what it claims.
	peertest.Eventually(t, wait, "the rest to be parked", func() bool {
		return len(b.pending(tebra.GroupParked, "slow")) == 150-slowWindow && len(b.pending(tebra.GroupBridge, "")) == 0
	})
	first.kill()
	b.start("CLAIM_IDLE=1s")
	b.answerPublished("slow", 5*time.Millisecond)
	b.checkPromises(ids)
	b.checkNobodyToldTwice()
}

func TestAFullLaneIsFilledAgainWithinASecond(t *testing.T) {
	t.Parallel()
	for _, lane := range []struct {
		name, action string
		window       int
	}{{"slow", "slow", slowWindow}, {tebra.DefaultLane, "quick", 20}} {
		t.Run(lane.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.start("MAX_IN_FLIGHT="+strconv.Itoa(max(lane.window, 20)), "BATCH_SIZE=10")
			ids := b.add(100, lane.action)
			peertest.Eventually(t, wait, "the lane to be full and the rest parked", func() bool {
				return len(b.pending(tebra.GroupParked, lane.name)) == 100-b.open(lane.name) && len(b.pending(tebra.GroupBridge, "")) == 0
			})
			full := b.open(lane.name)
			if full < lane.window || full > lane.window+10 {
				t.Fatalf("%d requests are open, want %d, at most a batch of 10 more", full, lane.window)
			}
			published := entryIDs(b.sink.requests())
			for len(published) < len(ids) {
				next := min(full+len(published), len(ids))
				b.answer(lane.name, b.rdb.ZRange(t.Context(), b.keys.Open(lane.name), 0, -1).Val()...)
				freed := time.Now()
				b.waitPublished(ids[:min(next-full+lane.window, len(ids))])
				if took := time.Since(freed); took > time.Second {
					t.Errorf("room was filled %v after it came free, want within a second", took)
				}
				published = entryIDs(b.sink.requests())
			}
			b.checkPromises(ids)
		})
	}
}

// parkings returns how often entries were claimed by anybody, parking included.
func (b *bundle) parkings() string {
	b.Helper()
	info, err := b.rdb.Info(b.Context(), "commandstats").Result()
	if err != nil {
		b.Fatalf("INFO: %v", err)
	}
	for line := range strings.Lines(info) {
		if strings.HasPrefix(line, "cmdstat_xclaim:") {
			calls, _, _ := strings.Cut(line, ",")
			return calls
		}
	}
	return ""
}

func TestALaneThatWasFullOnceIsNotParkedForEver(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.start("MAX_IN_FLIGHT=20", "BATCH_SIZE=10")
	ids := b.add(60, "quick")
	b.answerPublished(tebra.DefaultLane, time.Millisecond)
	b.checkPromises(ids)
	peertest.Eventually(t, wait, "everything to be answered, and the bridge to see that nothing waits", func() bool {
		return b.open(tebra.DefaultLane) == 0 && !r.lanes.hasParked(tebra.DefaultLane)
	})
	before := b.parkings()
	for range 5 {
		b.waitPublished(b.add(4, "quick"))
		b.waitSettled()
	}
	if after := b.parkings(); after != before {
		t.Errorf("with room in the lane, requests were parked: XCLAIM was called %s times before, %s after", before, after)
	}
}

func TestWhoWaitsOutABackoffTakesNoRoom(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start("BATCH_SIZE=10")
	ids := b.add(slowWindow+5, "slow")
	b.waitPublished(ids[:slowWindow])
	for i, id := range ids[:5] {
		if err := b.rdb.ZAdd(t.Context(), b.keys.Retrying("slow"), redis.Z{Score: float64(i), Member: id}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	b.checkPromises(ids)
}

func TestAFunctionsReturnedRequestIsPublishedAgainInItsTurn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start()
	ids := b.add(1, "change")
	b.checkPromises(ids)
	env, err := tebra.ParseEnvelope(b.sink.requests()[0].Attributes)
	if err != nil {
		t.Fatal(err)
	}
	book := ledger.New(b.rdb, b.keys, ledger.Config{})
	claim, err := book.Claim(t.Context(), ledger.Delivery{Envelope: env, Write: true, Fingerprint: tebra.Fingerprint("change", []byte(`{"a":1}`))})
	if err != nil || claim.Verdict != ledger.Run {
		t.Fatalf("Claim() = %+v, %v, want %s", claim, err, ledger.Run)
	}
	if err := book.Return(t.Context(), claim, tebra.Unavailable); err != nil {
		t.Fatalf("Return() = %v", err)
	}
	peertest.Eventually(t, wait, "the request to be published again", func() bool { return b.sink.times()[ids[0]] == 2 })
	b.waitSettled()
	again := b.sink.requests()[1]
	if got, err := tebra.ParseEnvelope(again.Attributes); err != nil || got.Epoch != env.Epoch || got.Ledger != env.Ledger {
		t.Errorf("the second message's envelope = %+v, %v, want the epoch and record of the first", got, err)
	}
}

func TestALaneThatThePolicyLostIsStillServed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.start()
	ids := b.add(slowWindow+20, "slow")
	b.waitPublished(ids[:slowWindow])
	first.stop(t)
	b.writePolicy("version: 1\nactions:\n  slow: {effect: read, ttl: 24h, lane: default}\n")
	b.start()
	b.answerPublished("slow", time.Millisecond)
	b.checkPromises(ids)
	if n, err := stream.New(b.rdb, b.keys).Consumers(t.Context(), tebra.GroupParked); err != nil || len(n) == 0 {
		t.Errorf("Consumers() = %v, %v, want the lane that was", n, err)
	}
}

func TestTheLotIsParkedWhenReadingLeavesRoomForIt(t *testing.T) {
	t.Parallel()
	now := time.Now()
	group := func(n, bytes int, age time.Duration) *lotGroup {
		return &lotGroup{lane: "slow", batch: &batch{ids: make([]string, n)}, bytes: bytes, since: now.Add(-age)}
	}
	for name, c := range map[string]struct {
		group   *lotGroup
		reading func(*lot)
		due     bool
	}{
		"there is more to read":               {group(1, 1, 0), func(l *lot) { l.saw(true) }, false},
		"the next read is under way":          {group(1, 1, 0), func(l *lot) { l.saw(true); l.reading() }, false},
		"reading has caught up":               {group(1, 1, 0), func(l *lot) { l.saw(true); l.saw(false) }, true},
		"a read waits for something to come":  {group(1, 1, 0), func(l *lot) { l.saw(true); l.asked = now.Add(-lotBlocked) }, true},
		"it has waited for long":              {group(1, 1, lotAge), func(l *lot) { l.saw(true) }, true},
		"the lot is half full":                {group(lotMost/2, 1, 0), func(l *lot) { l.saw(true) }, true},
		"the lot is half full of large names": {group(1, lotBytes/2, 0), func(l *lot) { l.saw(true) }, true},
	} {
		var l lot
		l.init()
		l.now = func() time.Time { return now }
		if !l.add(c.group) || !l.has("slow") {
			t.Fatalf("%s: the lot took nothing", name)
		}
		c.reading(&l)
		if got, _ := l.due(); (got != nil) != c.due {
			t.Errorf("%s: due = %v, want %v", name, got != nil, c.due)
		}
		l.done()
		if got, _ := l.due(); got != nil || l.has("slow") || l.entries != 0 || l.bytes != 0 {
			t.Errorf("%s: the lot is not empty after its only group is done", name)
		}
	}
	var full lot
	full.init()
	if full.add(group(lotMost+1, 1, 0)) || full.add(group(1, lotBytes+1, 0)) {
		t.Error("add() took more than the lot holds")
	}
}
