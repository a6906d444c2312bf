package bridge

import (
	"context"
	"sync/atomic"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

// stuck returns a hook that blocks every publish until the caller is gone or
// release is called, and counts the messages that came so far.
func stuck() (hook publishHook, came *atomic.Int64, release func()) {
	came = &atomic.Int64{}
	gate := make(chan struct{})
	hook = func(ctx context.Context, req *pubsubpb.PublishRequest) error {
		came.Add(int64(len(req.GetMessages())))
		select {
		case <-gate:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return hook, came, func() { close(gate) }
}

func TestWhatABridgeHeldWhenItWasKilledIsPublishedByAnother(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]func(*sink, publishHook){
		"between read and publish": (*sink).onPublish,
		"between publish and XACK": (*sink).onConfirm,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.sink.watch(b.rdb, b.keys)
			hook, came, release := stuck()
			at(b.sink, hook)
			ids := append(b.add(50, "quick"), b.add(50, "change")...)
			ids = append(ids, b.add(10, "slow")...)
			p := b.startProcess("CLAIM_IDLE=3s")
			peertest.Eventually(t, wait, "the bridge to publish", func() bool { return came.Load() > 0 })
			peertest.Eventually(t, wait, "everything to be read", func() bool {
				return len(b.pending(tebra.GroupBridge, ""))+len(b.pending(tebra.GroupParked, "")) == len(ids)
			})
			p.kill()
			at(b.sink, nil)
			release()
			b.startProcess("CLAIM_IDLE=3s")
			b.checkPromises(ids)
			b.checkNobodyToldTwice()
		})
	}
}

// checkNobodyToldTwice fails the test if a request was said to be pending twice.
func (b *bundle) checkNobodyToldTwice() {
	b.Helper()
	told := map[string]int{}
	for _, m := range b.entries(b.keys.Status()) {
		told[m["requestId"]]++
	}
	for id, n := range told {
		if n != 1 {
			b.Errorf("request %s has %d statuses, want one, pending", id, n)
		}
	}
}

func TestWhatCameBeforeTheFirstStartIsServed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sink.watch(b.rdb, b.keys)
	ids := b.add(300, "quick")
	ids = append(ids, b.add(20, "slow")...)
	ids = append(ids, b.add(50, "change")...)
	b.start()
	b.checkPromises(ids)
}

func TestWhatComesWhileEveryBridgeIsDownIsServed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.sink.watch(b.rdb, b.keys)
	first := b.start()
	ids := b.add(20, "quick")
	b.waitPublished(ids)
	first.stop(t)
	ids = append(ids, b.add(300, "quick")...)
	ids = append(ids, b.add(5, "slow")...)
	b.start()
	b.checkPromises(ids)
	if n := len(b.sink.requests()); n != len(ids) {
		t.Errorf("%d messages were published, want %d", n, len(ids))
	}
}
