package bridge

import (
	"context"
	"fmt"
	"runtime/metrics"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

// tries returns how often a kind of trouble was met since it began.
func (r *running) tries(kind string) int {
	r.notes.mu.Lock()
	defer r.notes.mu.Unlock()
	if ep := r.notes.open[kind]; ep != nil {
		return ep.times
	}
	return 0
}

// waiting asks Redis what waits.
func (b *bundle) waiting() stream.Waiting {
	b.Helper()
	w, err := stream.New(b.rdb, b.keys).Waiting(b.Context())
	if err != nil {
		b.Fatalf("Waiting() = %v", err)
	}
	return w
}

func TestWhilePubSubIsAwayReadingStopsAndNothingIsAcknowledged(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sink.watch(b.rdb, b.keys)
	b.sink.unreachable()
	const batchSize, all = 20, 1000
	ids := b.add(all, "quick")
	r := b.start("BATCH_SIZE=20")
	peertest.Eventually(t, wait, "every worker to have failed a few times", func() bool { return r.tries("pubsub") >= 5*workers })
	if n := len(b.pending(tebra.GroupBridge, "")); n == 0 || n > workers*batchSize {
		t.Errorf("%d entries are in hand, want 1 to %d: a batch a worker, and no more reading", n, workers*batchSize)
	}
	if acknowledged := all - len(b.pending(tebra.GroupBridge, "")) - int(b.waiting().Lag); acknowledged != 0 {
		t.Errorf("%d entries were acknowledged, want none", acknowledged)
	}
	b.sink.reachable()
	back := time.Now()
	b.waitPublished(ids)
	if took := time.Since(back); took > 10*time.Second {
		t.Errorf("after Pub/Sub was back it took %v until everything was published, want seconds", took)
	}
	b.checkPromises(ids)
}

func TestASlowPubSubIsWaitedFor(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sink.watch(b.rdb, b.keys)
	var now, most atomic.Int64
	b.sink.onPublish(func(ctx context.Context, _ *pubsubpb.PublishRequest) error {
		most.Store(max(most.Load(), now.Add(1)))
		defer now.Add(-1)
		return pass(ctx, 200*time.Millisecond)
	})
	ids := b.add(300, "quick")
	b.start("BATCH_SIZE=25")
	b.checkPromises(ids)
	if got := most.Load(); got > workers {
		t.Errorf("%d publish requests were under way at once, want at most %d", got, workers)
	}
	if got := len(b.sink.requests()); got != len(ids) {
		t.Errorf("%d messages were published, want %d", got, len(ids))
	}
}

// pass lets time pass, as a slow peer does, unless ctx ends.
func pass(ctx context.Context, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-ctx.Done()
	if context.Cause(ctx) == context.DeadlineExceeded {
		return nil
	}
	return ctx.Err()
}

// refusing returns a hook that refuses every request to a topic that holds a
// message for which bad is true.
func refusing(topic string, bad func(*pubsubpb.PubsubMessage) bool) publishHook {
	return func(_ context.Context, req *pubsubpb.PublishRequest) error {
		if req.GetTopic() == topic && slices.ContainsFunc(req.GetMessages(), bad) {
			return status.Error(codes.InvalidArgument, "a message is not valid")
		}
		return nil
	}
}

func TestAMessageThatPubSubRefusesHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sink.watch(b.rdb, b.keys)
	ids := b.add(100, "quick")
	poison := map[string]bool{ids[0]: true, ids[41]: true, ids[99]: true}
	b.sink.onPublish(refusing(requestsTopic, func(m *pubsubpb.PubsubMessage) bool { return poison[m.Attributes[tebra.AttrEntryID]] }))
	good := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return poison[id] })
	b.start()
	b.checkPromises(good)
	letters := b.sink.deadLetters()
	if len(letters) != len(poison) {
		t.Fatalf("%d dead letters, want %d", len(letters), len(poison))
	}
	for _, m := range letters {
		if got := m.Attributes[tebra.AttrReason]; !poison[m.Attributes[tebra.AttrEntryID]] || got != string(tebra.DeadLettered) {
			t.Errorf("dead letter of entry %s with reason %q, want one of %v with %q", m.Attributes[tebra.AttrEntryID], got, poison, tebra.DeadLettered)
		}
	}
	for _, answer := range b.responses() {
		if answer["status"] != "error" || answer["errorCode"] != string(tebra.DeadLettered) {
			t.Errorf("answer %v, want error %s", answer, tebra.DeadLettered)
		}
	}
	if got := len(b.responses()); got != len(poison) {
		t.Errorf("%d answers, want %d", got, len(poison))
	}
	for id := range poison {
		if err := b.rdb.ZScore(t.Context(), b.keys.Open(tebra.DefaultLane), id).Err(); err != redis.Nil {
			t.Errorf("entry %s is still open (%v)", id, err)
		}
	}
}

func TestATopicThatRefusesEverythingDeadLettersNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sink.watch(b.rdb, b.keys)
	everything := func(*pubsubpb.PubsubMessage) bool { return true }
	b.sink.onPublish(refusing(requestsTopic, everything))
	ids := b.add(30, "quick")
	r := b.start("BATCH_SIZE=10")
	peertest.Eventually(t, wait, "several tries", func() bool { return r.tries("pubsub") >= 3*3 })
	if n := len(b.sink.deadLetters()); n != 0 {
		t.Errorf("%d dead letters, want none: the topic may be misnamed", n)
	}
	b.sink.onPublish(nil)
	b.checkPromises(ids)
	if n := len(b.responses()); n != 0 {
		t.Errorf("%d error answers, want none", n)
	}
}

func TestAConfirmationThatGotLostOnlyPublishesAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sink.watch(b.rdb, b.keys)
	var lost atomic.Int64
	b.sink.onConfirm(func(context.Context, *pubsubpb.PublishRequest) error {
		if lost.Add(1) <= 2 {
			return status.Error(codes.Unavailable, "the confirmation got lost")
		}
		return nil
	})
	ids := append(b.add(20, "quick"), b.add(20, "change")...)
	b.start()
	b.checkPromises(ids)
	if got := len(b.sink.requests()); got <= len(ids) {
		t.Errorf("%d messages were published, want more than %d", got, len(ids))
	}
}

// memoryOfObjects returns what the Go heap holds, garbage that was not collected
// yet included.
func memoryOfObjects() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// heapGrowth samples the Go heap while what runs, and returns how far above before it
// ever was.
func heapGrowth(what func()) int64 {
	before := int64(memoryOfObjects())
	done, peak := make(chan struct{}), make(chan int64)
	go func() {
		most := before
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			most = max(most, int64(memoryOfObjects()))
			select {
			case <-tick.C:
			case <-done:
				peak <- most
				return
			}
		}
	}()
	what()
	close(done)
	return <-peak - before
}

// This test is alone (not parallel), as it measures the heap of the process.
func TestMemoryStaysBoundedHoweverMuchWaits(t *testing.T) {
	b := setup(t)
	abyss := newAbyss(t)
	const all, drained, bound = 200_000, 10_000, 32 << 20
	b.add(all, "quick")
	b.sink.unreachable()
	var r *running
	growth := heapGrowth(func() {
		r = b.start("MAX_IN_FLIGHT=1000000")
		peertest.Eventually(t, wait, "Pub/Sub to fail", func() bool { return r.tries("pubsub") >= 3*workers })
		r.stop(t)
	})
	t.Logf("heap growth with %d entries waiting and Pub/Sub away: %d KiB", all, growth>>10)
	if growth > bound {
		t.Errorf("with %d entries waiting and Pub/Sub away the heap grew by %d MiB, want at most %d", all, growth>>20, bound>>20)
	}
	growth = heapGrowth(func() {
		r = b.start("MAX_IN_FLIGHT=1000000", "PUBSUB_EMULATOR_HOST="+abyss.addr)
		peertest.Eventually(t, wait, "some to be drained", func() bool { return abyss.accepted.Load() >= drained })
		r.stop(t)
	})
	t.Logf("heap growth while draining: %d KiB", growth>>10)
	if growth > bound {
		t.Errorf("while draining the heap grew by %d MiB, want at most %d", growth>>20, bound>>20)
	}
}

// This test is alone (not parallel), as it measures the heap of the process.
func TestMemoryStaysBoundedHoweverLargeEntriesAre(t *testing.T) {
	b := setup(t)
	abyss := newAbyss(t)
	const all, size = 100, 1_000_000
	for range all {
		b.addFields(append(request("quick"), "unknown", strings.Repeat("x", size))...)
	}
	// Each worker holds a batch, once as Redis sent it and once as it was parsed; all
	// that twice, since the collector runs when the heap has doubled.
	const bound = 2 * 2 * workers * (batchBytes + size)
	growth := heapGrowth(func() {
		r := b.start("PUBSUB_EMULATOR_HOST=" + abyss.addr)
		peertest.Eventually(t, wait, "all to be drained", func() bool { return abyss.accepted.Load() >= all })
		r.stop(t)
	})
	t.Logf("heap growth: %d MiB of at most %d", growth>>20, bound>>20)
	if growth > bound {
		t.Errorf("the heap grew by %d MiB, want at most %d", growth>>20, bound>>20)
	}
}

func TestBridgesShareTheWork(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 5} {
		t.Run(fmt.Sprintf("%d bridges", n), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.sink.watch(b.rdb, b.keys)
			b.sink.onPublish(func(ctx context.Context, _ *pubsubpb.PublishRequest) error { return pass(ctx, 20*time.Millisecond) })
			bridges := make([]*running, n)
			for i := range bridges {
				bridges[i] = b.start("BATCH_SIZE=20", "MAX_IN_FLIGHT=10000")
			}
			ids := append(b.add(1500, "quick"), b.add(300, "change")...)
			b.checkPromises(ids)
			for id, times := range b.sink.times() {
				if times != 1 {
					t.Errorf("entry %s was published %d times, want once", id, times)
				}
			}
			for i, r := range bridges {
				if r.counts.published.Load() == 0 {
					t.Errorf("bridge %d of %d published nothing, want a share", i+1, n)
				}
			}
			b.checkNobodyToldTwice()
		})
	}
}

// consumers returns the names in group bridge.
func (b *bundle) consumers() []string {
	b.Helper()
	list, err := stream.New(b.rdb, b.keys).Consumers(b.Context(), tebra.GroupBridge)
	if err != nil {
		b.Fatalf("Consumers() = %v", err)
	}
	var names []string
	for _, c := range list {
		names = append(names, c.Name)
	}
	return names
}

func TestTheNameOfADeadBridgeGoesAwayOnceNothingIsPendingForIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	hook, came, release := stuck()
	defer release()
	b.sink.onPublish(hook)
	ids := b.add(30, "quick")
	dead := b.startProcess("CLAIM_IDLE=1s")
	peertest.Eventually(t, wait, "the bridge to publish", func() bool {
		return came.Load() > 0 && len(b.pending(tebra.GroupBridge, "")) == len(ids)
	})
	dead.kill()
	name := b.consumers()[0]
	b.sink.onPublish(nil)

	other := b.assemble("CLAIM_IDLE=1s")
	peertest.Eventually(t, wait, "the dead one to have been idle for long", func() bool {
		list, err := other.stream.Consumers(t.Context(), tebra.GroupBridge)
		return err == nil && list[0].Idle > other.forgetIdle()
	})
	if err := other.forgetDead(t.Context()); err != nil {
		t.Fatalf("forgetDead() = %v", err)
	}
	if got := b.consumers(); !slices.Contains(got, name) {
		t.Fatalf("consumers = %v: %s was removed with %d entries pending for it", got, name, len(ids))
	}
	other.tidyEvery = 100 * time.Millisecond
	other.begin(t)
	b.checkPromises(ids)
	peertest.Eventually(t, wait, "the name of the dead one to be removed", func() bool {
		return slices.Equal(b.consumers(), []string{other.Consumer()})
	})
}

func TestABridgeThatLeavesTakesItsNameWithIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.start()
	b.waitPublished(b.add(10, "quick"))
	r.stop(t)
	if got := b.consumers(); len(got) != 0 {
		t.Errorf("consumers = %v, want none", got)
	}
	if n := b.rdb.Exists(t.Context(), b.keys.Heartbeat(r.Consumer())).Val(); n != 0 {
		t.Errorf("the heartbeat of a bridge that left is still there")
	}
}

func TestALiveBridgeWhoseNameWasRemovedGoesOn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.start()
	b.waitPublished(b.add(10, "quick"))
	b.waitSettled()
	if err := b.rdb.XGroupDelConsumer(t.Context(), b.keys.Requests(), tebra.GroupBridge, r.Consumer()).Err(); err != nil {
		t.Fatal(err)
	}
	b.checkPromises(b.add(10, "quick"))
}

func TestWhatOthersTrimmedAwayIsInTheDeadLetters(t *testing.T) {
	t.Parallel()
	for name, hold := range map[string]func(*bundle, string){
		"pending": func(b *bundle, id string) {
			err := b.rdb.XReadGroup(b.Context(), &redis.XReadGroupArgs{Group: tebra.GroupBridge, Consumer: "dead",
				Streams: []string{b.keys.Requests(), ">"}, Count: 1, Block: -1}).Err()
			if err != nil {
				b.Fatalf("XREADGROUP: %v", err)
			}
		},
		"parked": func(b *bundle, id string) {
			s := stream.New(b.rdb, b.keys)
			if _, err := s.Read(b.Context(), "dead", 1, time.Second); err != nil {
				b.Fatal(err)
			}
			parked := stream.Admission{Lane: "slow", Seats: []stream.Seat{{EntryID: id}}}
			if err := s.Admit(b.Context(), "dead", time.Now(), []*stream.Admission{&parked}); err != nil {
				b.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			if _, err := stream.New(b.rdb, b.keys).EnsureGroups(t.Context()); err != nil {
				t.Fatal(err)
			}
			id := b.add(1, "slow")[0]
			hold(b, id)
			if err := b.rdb.XDel(t.Context(), b.keys.Requests(), id).Err(); err != nil {
				t.Fatal(err)
			}
			// While dead letters can't be published, it stays where it is.
			b.sink.onPublish(refusing(deadLetterTopic, func(*pubsubpb.PubsubMessage) bool { return true }))
			r := b.start("CLAIM_IDLE=1s")
			peertest.Eventually(t, wait, "a try at the dead letter", func() bool { return r.tries("deadletters") > 2 })
			if n := len(b.pending(tebra.GroupBridge, "")) + len(b.pending(tebra.GroupParked, "")); n != 1 {
				t.Errorf("%d entries are pending or parked, want 1", n)
			}
			b.sink.onPublish(nil)
			b.waitSettled()
			letters := b.sink.deadLetters()
			if len(letters) != 1 || letters[0].Attributes[tebra.AttrEntryID] != id || letters[0].Attributes[tebra.AttrReason] != string(reasonTrimmed) {
				t.Errorf("dead letters = %v, want one of entry %s with reason %s", letters, id, reasonTrimmed)
			}
			peertest.Eventually(t, wait, "it to be counted", func() bool { return r.counts.rejected.Load() == 1 })
			if n := len(b.responses()); n != 0 {
				t.Errorf("%d answers, want none: nobody knows whom to tell", n)
			}
		})
	}
}
