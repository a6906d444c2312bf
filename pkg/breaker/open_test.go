package breaker

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/peertest"
)

// counter counts the scripts that a client runs.
type counter struct{ scripts atomic.Int64 }

func (c *counter) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (c *counter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "evalsha" {
			c.scripts.Add(1)
		}
		return next(ctx, cmd)
	}
}

func (c *counter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error { return next(ctx, cmds) }
}

// allOpen asks a breaker from many goroutines at once and returns how many were
// told that it is open.
func allOpen(ctx context.Context, b *Breaker, callers int) int64 {
	var open atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			if b.Open(ctx) {
				open.Add(1)
			}
		})
	}
	wg.Wait()
	return open.Load()
}

func TestOpenAsksOnceForAllAndAgainWhenItsAnswerIsOld(t *testing.T) {
	eachRedis(t, func(t *testing.T, w *world) {
		const callers = 50
		other, b := w.breaker(), w.breaker()
		asked := &counter{}
		w.rdb.AddHook(asked)
		if got := allOpen(t.Context(), b, callers); got != 0 || asked.scripts.Load() != 1 {
			t.Fatalf("%d of %d callers: open, after %d scripts, want none after 1", got, callers, asked.scripts.Load())
		}
		w.record(other, false, rules.MinFailures)
		asked.scripts.Store(0)
		w.clock.advance(b.cfg.CacheFor - 1)
		if got := allOpen(t.Context(), b, callers); got != 0 || asked.scripts.Load() != 0 {
			t.Errorf("just before the answer is old, %d of %d callers: open, after %d scripts, want none after none", got, callers, asked.scripts.Load())
		}
		w.clock.advance(1)
		if allOpen(t.Context(), b, callers); asked.scripts.Load() != 1 {
			t.Errorf("when the answer is old, %d scripts, want 1", asked.scripts.Load())
		}
		if got := allOpen(t.Context(), b, callers); got != callers {
			t.Errorf("with the new answer, %d of %d callers: open, want all", got, callers)
		}
		if w.clock.advance(rules.Interval); !b.Open(t.Context()) {
			t.Error("Open() while half-open = false, want true: requests are no probes")
		}
		w.probed(other, true)
		if w.clock.advance(b.cfg.CacheFor); b.Open(t.Context()) {
			t.Error("Open() after a successful probe = true, want false")
		}
	})
}

func TestOpenKnowsAtOnceWhatThisInstanceDid(t *testing.T) {
	eachRedis(t, func(t *testing.T, w *world) {
		b := w.breaker()
		if b.Open(t.Context()) {
			t.Fatal("Open() at first = true, want false")
		}
		if w.record(b, false, rules.MinFailures); !b.Open(t.Context()) {
			t.Error("Open() after this instance's failures = false, want true")
		}
		if w.probed(b, true); b.Open(t.Context()) {
			t.Error("Open() after this instance's probe = true, want false")
		}
	})
}

func TestACallerThatLeftDoesNotMisleadTheOthers(t *testing.T) {
	eachRedis(t, func(t *testing.T, w *world) {
		w.opened()
		left, leave := context.WithCancel(t.Context())
		leave()
		b := w.breaker()
		b.Open(left)
		if !b.Open(t.Context()) {
			t.Error("Open() after a caller without patience = false, want true")
		}
	})
}

// slack is what a busy machine may add to a bound on time.
const slack = 2 * time.Second

func TestWithoutRedisItIsClosedAndEverybodyElseIsTold(t *testing.T) {
	t.Parallel()
	server := peertest.RealRedis(t)
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1, DialerRetries: 1}) // says at once that nobody is there
	t.Cleanup(func() { rdb.Close() })
	w := &world{t, rdb, newKeys(t, "tebra"), newClock()}
	b := w.opened()
	server.Kill()
	w.clock.advance(time.Minute) // no answer is new enough
	began := time.Now()
	if b.Open(t.Context()) {
		t.Error("Open() without Redis = true, want false")
	}
	if took := time.Since(began); took > openTimeout+slack {
		t.Errorf("Open() without Redis took %v, want at most %v", took, openTimeout)
	}
	if _, err := b.State(t.Context()); err == nil {
		t.Error("State() without Redis = nil, want an error")
	}
	if _, err := b.Record(t.Context(), false); err == nil {
		t.Error("Record(false) without Redis = nil, want an error")
	}
	if _, err := b.Record(t.Context(), true); err != nil {
		t.Errorf("Record(true) without Redis = %v, want nil", err)
	}
	if err := b.Probed(t.Context(), true); err == nil {
		t.Error("Probed() without Redis = nil, want an error")
	}
	if mine, err := b.TryProbe(t.Context()); mine || err == nil {
		t.Errorf("TryProbe() without Redis = %v, %v, want false and an error", mine, err)
	}
	server.Start() // empty, and without the script
	peertest.Eventually(t, 10*time.Second, "Redis", func() bool {
		_, err := b.State(t.Context())
		return err == nil
	})
	if got := w.record(b, false, rules.MinFailures); got != Open {
		t.Errorf("Record(false) with a new Redis = %v, want %v", got, Open)
	}
}

func TestAStalledRedisHoldsUpOneCallerAndNotForLong(t *testing.T) {
	t.Parallel()
	server := peertest.RealRedis(t)
	w := &world{t, server.Client(), newKeys(t, "tebra"), newClock()}
	b := w.opened()
	server.Pause()
	defer server.Resume()
	w.clock.advance(b.cfg.CacheFor)
	began, done := time.Now(), make(chan bool, 1)
	go func() { done <- b.Open(t.Context()) }()
	peertest.Eventually(t, 5*time.Second, "somebody who asks Redis", func() bool {
		if b.asking.TryLock() {
			b.asking.Unlock()
			return len(done) > 0
		}
		return true
	})
	if got := allOpen(t.Context(), b, 50); got != 50 {
		t.Errorf("%d of 50 others: open, want all to go by the last answer", got)
	}
	if len(done) > 0 {
		t.Error("the caller that asked Redis was back before the others, want them not to wait for it")
	}
	if <-done {
		t.Error("Open() with a stalled Redis = true, want false")
	}
	if took := time.Since(began); took < openTimeout || took > openTimeout+slack {
		t.Errorf("Open() with a stalled Redis took %v, want %v", took, openTimeout)
	}
}

func TestAStalledRedisHoldsUpTheFirstCallersTogether(t *testing.T) {
	t.Parallel()
	server := peertest.RealRedis(t)
	w := &world{t, server.Client(), newKeys(t, "tebra"), newClock()}
	server.Pause()
	defer server.Resume()
	const callers = 50 // one after the other they would take 25 s
	began := time.Now()
	if got := allOpen(t.Context(), w.breaker(), callers); got != 0 {
		t.Errorf("%d of %d callers: open, want none", got, callers)
	}
	if took := time.Since(began); took > openTimeout+slack {
		t.Errorf("%d first callers with a stalled Redis took %v, want %v in all", callers, took, openTimeout)
	}
}
