package bridge

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

// delete removes entries as a careless XTRIM of somebody else would.
func (b *bundle) delete(ids ...string) {
	b.Helper()
	if err := b.rdb.XDel(b.Context(), b.keys.Requests(), ids...).Err(); err != nil {
		b.Fatalf("XDEL: %v", err)
	}
}

// checkTrimmed fails the test unless there is a dead letter with reason trimmed
// for each of the entries, and for no other.
func (b *bundle) checkTrimmed(ids ...string) {
	b.Helper()
	var got []string
	for _, m := range b.sink.deadLetters() {
		if m.Attributes[tebra.AttrReason] == string(reasonTrimmed) {
			got = append(got, m.Attributes[tebra.AttrEntryID])
		}
	}
	slices.Sort(got)
	if got = slices.Compact(got); !slices.Equal(got, slices.Sorted(slices.Values(ids))) {
		b.Errorf("dead letters with reason trimmed are for %v, want %v", got, ids)
	}
}

func TestAnEntryTrimmedInTheHandOfADeadBridgeIsInTheDeadLetters(t *testing.T) {
	t.Parallel()
	b := setup(t)
	hook, came, release := stuck()
	b.sink.onPublish(hook)
	ids := b.add(10, "quick")
	first := b.startProcess("CLAIM_IDLE=2s")
	peertest.Eventually(t, wait, "everything to be in hand", func() bool {
		return came.Load() > 0 && len(b.pending(tebra.GroupBridge, "")) == len(ids)
	})
	first.kill()
	b.delete(ids[0], ids[1])

	// The next bridge dies while it can't tell anybody.
	var refused atomic.Int64
	b.sink.onPublish(func(_ context.Context, req *pubsubpb.PublishRequest) error {
		if req.GetTopic() != deadLetterTopic {
			return nil
		}
		refused.Add(1)
		return status.Error(codes.Unavailable, "not now")
	})
	release()
	second := b.startProcess("CLAIM_IDLE=2s")
	peertest.Eventually(t, wait, "a dead letter to be tried", func() bool { return refused.Load() > 0 })
	b.waitPublished(ids[2:])
	second.kill()

	b.sink.onPublish(nil)
	b.start("CLAIM_IDLE=2s")
	b.checkPromises(ids[2:])
	b.checkTrimmed(ids[:2]...)
	b.waitLines(slog.LevelWarn, string(reasonTrimmed), 2)
}

func TestAnEntryTrimmedBeforeItsReplyCameIsInTheDeadLetters(t *testing.T) {
	t.Parallel()
	b := setup(t)
	proxy := newRedisProxy(t, b.server.Addr())
	b.start(proxy.url(), unclaimed)
	b.waitPublished(b.add(1, "quick"))
	lost := make(chan struct{})
	someEntry := replyTo("XREADGROUP", "", "correlation-of-")
	proxy.loseOnce(func(command []string, reply []byte) bool {
		if !someEntry(command, reply) {
			return false
		}
		<-lost
		return true
	})
	id := b.add(1, "quick")[0]
	peertest.Eventually(t, wait, "the entry to be given out", func() bool { return len(b.pending(tebra.GroupBridge, "")) == 1 })
	b.delete(id)
	close(lost)
	b.checkPromises(b.add(5, "quick"))
	b.checkTrimmed(id)
}

func TestAnEntryTrimmedWhileItWaitsForItsLaneIsInTheDeadLetters(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start(unclaimed)
	ids := b.add(40, "slow") // the window is 30
	peertest.Eventually(t, wait, "some to be parked", func() bool { return len(b.pending(tebra.GroupParked, "")) == 10 })
	b.delete(ids[30], ids[39])
	b.answerAll()
	b.checkPromises(slices.Concat(ids[:30], ids[31:39]))
	b.checkTrimmed(ids[30], ids[39])
}

func TestAnEntryTrimmedAfterItWasReadIsServed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	hook, came, release := stuck()
	b.sink.onPublish(hook)
	b.start(unclaimed)
	ids := b.add(3, "quick")
	peertest.Eventually(t, wait, "everything to be in hand", func() bool {
		return came.Load() > 0 && len(b.pending(tebra.GroupBridge, "")) == len(ids)
	})
	b.delete(ids...)
	release()
	b.checkPromises(ids)
	b.checkTrimmed()
}
