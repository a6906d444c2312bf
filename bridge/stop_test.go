package bridge

import (
	"context"
	"syscall"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

// inTime is how long Cloud Run leaves a process after SIGTERM.
const inTime = 10 * time.Second

// unclaimable returns the entries in hand that another bridge could not claim at
// once.
func (b *bundle) unclaimable(idle time.Duration) []string {
	b.Helper()
	list, err := b.rdb.XPendingExt(b.Context(), &redis.XPendingExtArgs{
		Stream: b.keys.Requests(), Group: tebra.GroupBridge, Start: "-", End: "+", Count: 1_000_000}).Result()
	if err != nil {
		b.Fatalf("XPENDING: %v", err)
	}
	var ids []string
	for _, p := range list {
		if p.Idle < idle {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

// checkStopped fails the test unless every entry is published and acknowledged, or
// pending and claimable at once, or parked, or unread, after the bridge has ended.
func (b *bundle) checkStopped(ids []string) {
	b.Helper()
	if got := b.unclaimable(time.Hour); len(got) != 0 {
		b.Errorf("entries %v are pending but not to be claimed at once", got)
	}
	somewhere := map[string]bool{}
	for _, id := range append(b.pending(tebra.GroupBridge, ""), b.pending(tebra.GroupParked, "")...) {
		somewhere[id] = true
	}
	groups, err := b.rdb.XInfoGroups(b.Context(), b.keys.Requests()).Result()
	if err != nil {
		b.Fatal(err)
	}
	var read tebra.EntryID
	for _, g := range groups {
		if g.Name == tebra.GroupBridge {
			read, _ = tebra.ParseEntryID(g.LastDeliveredID) // Redis gave it
		}
	}
	confirmed := map[string]bool{}
	for _, id := range ids {
		confirmed[id] = true
	}
	for _, id := range b.sink.missing(ids) {
		delete(confirmed, id)
	}
	for _, s := range ids {
		id, _ := tebra.ParseEntryID(s) // Redis gave it
		unread := id.Compare(read) > 0
		if !unread && !somewhere[s] && !confirmed[s] {
			b.Errorf("entry %s is neither published nor anywhere", s)
		}
	}
}

func TestSIGTERMUnderLoadEndsInTimeWithNothingHalfDone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sink.watch(b.rdb, b.keys)
	b.sink.onPublish(func(ctx context.Context, _ *pubsubpb.PublishRequest) error { return pass(ctx, 30*time.Millisecond) })
	ids := append(b.add(3000, "quick"), b.add(300, "change")...)
	ids = append(ids, b.add(100, "slow")...)
	p := b.startProcess("BATCH_SIZE=50", "MAX_IN_FLIGHT=100000")
	peertest.Eventually(t, wait, "the bridge to be in the middle of it", func() bool { return len(b.sink.requests()) > 500 })
	p.signal(syscall.SIGTERM)
	began := time.Now()
	if got := p.exit(wait); got != 0 {
		t.Errorf("exit status = %d, want 0", got)
	}
	if took := time.Since(began); took > inTime {
		t.Errorf("it took %v to end, want at most %v", took, inTime)
	}
	if len(b.sink.missing(ids)) == 0 {
		t.Fatal("everything was published before the signal came: the test shows nothing")
	}
	b.checkStopped(ids)
	if got := b.pending(tebra.GroupBridge, ""); len(got) != 0 {
		t.Errorf("%d entries are still in hand, want none: Pub/Sub and Redis were there", len(got))
	}
	if got := b.consumers(); len(got) != 0 {
		t.Errorf("consumers = %v, want none", got)
	}
	for id, n := range b.sink.times() {
		if n != 1 {
			t.Errorf("entry %s was published %d times, want once", id, n)
		}
	}
	b.sink.onPublish(nil)
	b.start("MAX_IN_FLIGHT=100000")
	b.answerPublished("slow", time.Millisecond)
	b.checkPromises(ids)
	b.checkNobodyToldTwice()
}

func TestSIGTERMWhilePubSubHangsGivesBackWhatIsInHand(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sink.watch(b.rdb, b.keys)
	hook, came, release := stuck()
	defer release()
	b.sink.onPublish(hook)
	ids := append(b.add(200, "quick"), b.add(10, "change")...)
	p := b.startProcess("BATCH_SIZE=50")
	peertest.Eventually(t, wait, "every worker to hang", func() bool { return came.Load() >= workers })
	p.signal(syscall.SIGTERM)
	began := time.Now()
	if got := p.exit(wait); got != 0 {
		t.Errorf("exit status = %d, want 0", got)
	}
	if took := time.Since(began); took > inTime {
		t.Errorf("it took %v to end, want at most %v", took, inTime)
	}
	b.checkStopped(ids)
	b.sink.onPublish(nil)
	b.start() // at the default CLAIM_IDLE, so what was not given back would come too late
	b.checkPromises(ids)
	b.checkNobodyToldTwice()
}

func TestASecondSIGTERMEndsAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	hook, came, release := stuck()
	defer release()
	b.sink.onPublish(hook)
	b.add(10, "quick")
	p := b.startProcess()
	peertest.Eventually(t, wait, "the bridge to hang", func() bool { return came.Load() > 0 })
	p.signal(syscall.SIGTERM)
	began := time.Now()
	// The first signal has to have been taken before the second does anything.
	peertest.Eventually(t, wait, "the second signal to end it", func() bool {
		select {
		case <-p.done:
			return true
		default:
			_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may just have ended
			return false
		}
	})
	if took := time.Since(began); took > stopGrace/2 {
		t.Errorf("it took %v to end, want it to end at once", took)
	}
	if got := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !got.Signaled() || got.Signal() != syscall.SIGTERM {
		t.Errorf("it ended with %v, want by SIGTERM", p.cmd.ProcessState)
	}
}

func TestWhatWasConfirmedIsAcknowledgedAlsoWhenTheTimeForPublishingIsOver(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.assemble()
	if err := r.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	ids := b.add(3, "quick")
	if _, err := r.stream.Read(t.Context(), r.Consumer(), 10, time.Second); err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	bt := &batch{}
	r.acknowledge(over, over, bt, ids)
	if got := b.pending(tebra.GroupBridge, ""); len(got) != 0 || bt.unfinished {
		t.Errorf("pending = %v, unfinished = %v, want all acknowledged", got, bt.unfinished)
	}
}

func TestABridgeWithoutRedisStopsInTime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.start()
	b.waitPublished(b.add(10, "quick"))
	b.server.Pause()
	defer b.server.Resume()
	peertest.Eventually(t, wait, "the bridge to be stuck in a read", func() bool { return r.tries("redis") > 0 })
	if took := r.stop(t); took > inTime {
		t.Errorf("it took %v to stop, want at most %v", took, inTime)
	}
}

func TestGivingBackMakesAllOfALongListClaimable(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.assemble()
	if err := r.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	ids := b.add(2500, "quick")
	if _, err := stream.New(b.rdb, b.keys).Read(t.Context(), r.Consumer(), len(ids), time.Second); err != nil {
		t.Fatal(err)
	}
	if err := r.giveBackAll(t.Context()); err != nil {
		t.Fatalf("giveBackAll() = %v", err)
	}
	if got := b.unclaimable(time.Hour); len(got) != 0 {
		t.Errorf("%d entries are not to be claimed at once, want none", len(got))
	}
}
