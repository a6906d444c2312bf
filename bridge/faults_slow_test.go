package bridge

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

// A bridge that stands still (paused, starved, cut off) between two steps comes
// back to entries that another has claimed, and may have brought to their end.

// lanesUsed are the lanes of the test policy's actions.
var lanesUsed = []string{tebra.DefaultLane, "slow"}

// checkClosed fails the test if one of some answered entries takes room in a lane.
func (b *bundle) checkClosed(answered []string) {
	b.Helper()
	for _, lane := range lanesUsed {
		for _, key := range []string{b.keys.Open(lane), b.keys.Retrying(lane)} {
			open, err := b.rdb.ZRange(b.Context(), key, 0, -1).Result()
			if err != nil {
				b.Fatalf("ZRANGE: %v", err)
			}
			for _, id := range open {
				if slices.Contains(answered, id) {
					b.Errorf("entry %s is in %s, want it nowhere: it has its answer", id, key)
				}
			}
		}
	}
}

// checkLastWord fails the test unless n requests succeeded, and nobody was told
// anything about them afterwards.
func (b *bundle) checkLastWord(n int) {
	b.Helper()
	for id, got := range b.statuses() {
		if !slices.Contains(got, tebra.Success) {
			continue
		}
		n--
		if last := got[len(got)-1]; last != tebra.Success {
			b.Errorf("statuses of request %s: %v, want none after %s", id, got, tebra.Success)
		}
	}
	if n != 0 {
		b.Errorf("%d requests more were to succeed", n)
	}
}

func TestABridgeThatWasSlowToAdmitLeavesToAnotherWhatThatOneClaimed(t *testing.T) {
	t.Parallel()
	for name, admit := range map[string]func(*Bridge, context.Context, *batch) error{
		"new entries":     (*Bridge).admit,
		"claimed entries": (*Bridge).place, // as after the ledger was asked
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			slow := b.assemble()
			if err := slow.join(t.Context()); err != nil {
				t.Fatalf("join() = %v", err)
			}
			ids := append(append(b.add(3, "quick"), b.add(3, "change")...), b.add(3, "slow")...)
			entries, err := slow.stream.Read(t.Context(), slow.consumer, len(ids), time.Second)
			if err != nil || len(entries) != len(ids) {
				t.Fatalf("Read() = %d entries, %v, want %d", len(entries), err, len(ids))
			}
			bt := slow.newBatch(entries)

			if err := slow.stream.GiveBack(t.Context(), slow.consumer, ids); err != nil { // so they are idle for long
				t.Fatal(err)
			}
			b.start()
			b.checkPromises(ids)
			b.complete(ids)

			if err := admit(slow.Bridge, t.Context(), bt); err != nil {
				t.Fatalf("admitting = %v", err)
			}
			b.checkClosed(ids)
			b.checkLastWord(len(ids))
			if n := len(bt.items); n != 0 {
				t.Errorf("the slow bridge goes on with %d of the entries, want none", n)
			}
			if got := b.pending(tebra.GroupParked, ""); len(got) > 0 {
				t.Errorf("parked = %v, want nothing", got)
			}
		})
	}
}

func TestABridgeThatIsHeldUpLongReadsAgainWithCare(t *testing.T) {
	t.Parallel()
	b := setup(t)
	slow := b.assemble("CLAIM_IDLE=1s", "MAX_REQUEST_BYTES=65536") // so that its first batch has room for all
	// Another of its goroutines is at it, and its reclaimer has not come round.
	slow.admitMu.Lock()
	slow.taking.Lock()
	goOn := sync.OnceFunc(func() { slow.taking.Unlock(); slow.admitMu.Unlock() })
	defer goOn()
	ids := append(append(b.add(3, "quick"), b.add(3, "change")...), b.add(3, "slow")...)
	slow.begin(t)
	peertest.Eventually(t, wait, "the slow bridge to have read everything", func() bool {
		return len(b.pending(tebra.GroupBridge, slow.consumer)) == len(ids)
	})
	read := time.Now()
	if err := slow.stream.GiveBack(t.Context(), slow.consumer, ids); err != nil { // so they are idle for long
		t.Fatal(err)
	}
	other := b.start()
	b.waitPublished(ids)
	b.waitSettled()
	other.stop(t)
	b.complete(ids)
	peertest.Eventually(t, wait, "the slow bridge to be late", func() bool { return slow.outdated(read) })
	goOn()
	slow.stop(t)

	b.checkClosed(ids)
	b.checkLastWord(len(ids))
	if n := slow.counts.published.Load(); n != 0 {
		t.Errorf("the slow bridge published %d, want none", n)
	}
}

func TestAnEntryThatWasMadeOpenAfterItsAnswerIsClosedByWhoClaimsIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.start()
	ids := append(append(b.add(2, "quick"), b.add(2, "change")...), b.add(2, "slow")...)
	b.checkPromises(ids)
	first.stop(t)
	b.complete(ids)
	// A second bridge had claimed them, looked for their answers just before those
	// came, and died just after it had given them room.
	for i, id := range ids {
		if err := b.rdb.Do(t.Context(), "XCLAIM", b.keys.Requests(), tebra.GroupBridge, "dead", 0, id, "IDLE", 3_600_000, "FORCE", "JUSTID").Err(); err != nil {
			t.Fatal(err)
		}
		lane := lanesUsed[i/4]
		for _, key := range []string{b.keys.Open(lane), b.keys.Retrying(lane)} {
			if err := b.rdb.ZAdd(t.Context(), key, redis.Z{Member: id}).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.start()
	b.waitSettled()
	b.checkClosed(ids)
	if n := len(b.sink.requests()); n != len(ids) {
		t.Errorf("%d messages were published, want %d", n, len(ids))
	}
}

func TestABridgeThatIsLateToAcknowledgeLeavesToAnotherWhatThatOneClaimed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	late := b.assemble() // it never runs
	if err := late.join(t.Context()); err != nil {
		t.Fatalf("join() = %v", err)
	}
	ids := b.add(6, "quick")
	entries, err := late.stream.Read(t.Context(), late.consumer, len(ids), time.Second)
	if err != nil || len(entries) != len(ids) {
		t.Fatalf("Read() = %d entries, %v, want %d", len(entries), err, len(ids))
	}
	bt := late.newBatch(entries)
	claimed := &redis.XClaimArgs{Stream: b.keys.Requests(), Group: tebra.GroupBridge, Consumer: "other", Messages: []string{ids[1], ids[4]}}
	if err := b.rdb.XClaimJustID(t.Context(), claimed).Err(); err != nil {
		t.Fatal(err)
	}
	bt.taken = bt.taken.Add(-late.cfg.ClaimIdle) // Redis was away, say
	late.acknowledge(t.Context(), t.Context(), bt, ids)
	if got := b.pending(tebra.GroupBridge, ""); !slices.Equal(got, claimed.Messages) {
		t.Errorf("in hand = %v, want %v, which another has claimed", got, claimed.Messages)
	}
	if bt.unfinished {
		t.Error("the late bridge is to read again, want it to leave the entries to the other")
	}
}
