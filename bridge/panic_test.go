package bridge

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

// TestAPanicStopsTheBridgeAndSaysNothingOfItsValue: Go would print the value, which may
// quote a request. What the bridge held is given back, and another one goes on.
func TestAPanicStopsTheBridgeAndSaysNothingOfItsValue(t *testing.T) {
	t.Parallel()
	const canary = "XYZZY Jane Doe"
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
