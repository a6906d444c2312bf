package breaker

import (
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

func TestMain(m *testing.M) { peertest.Main(m) }

// clock is set by tests. It is safe for concurrent use.
type clock struct {
	mu sync.Mutex
	at time.Time
}

// newClock starts at the beginning of a part of any window.
func newClock() *clock { return &clock{at: time.UnixMilli(1_800_000_000_000)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func newKeys(t testing.TB, prefix string) tebra.Keys {
	t.Helper()
	keys, err := tebra.NewKeys(prefix)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// world is a Redis and a clock, and makes breakers that share them.
type world struct {
	t     *testing.T
	rdb   *redis.Client
	keys  tebra.Keys
	clock *clock
}

// eachRedis runs a test against redis-server and against miniredis.
func eachRedis(t *testing.T, test func(t *testing.T, w *world)) {
	t.Parallel()
	t.Run("redis-server", func(t *testing.T) {
		t.Parallel()
		test(t, &world{t, peertest.RealRedis(t).Client(), newKeys(t, "{tebra}"), newClock()})
	})
	t.Run("miniredis", func(t *testing.T) {
		t.Parallel()
		rdb := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()})
		t.Cleanup(func() { rdb.Close() })
		test(t, &world{t, rdb, newKeys(t, "tebra"), newClock()})
	})
}

// rules are such that a part of the window is a second.
var rules = Config{Window: 6 * time.Second, MinFailures: 3, Interval: 10 * time.Second}

// breaker returns another instance's breaker.
func (w *world) breaker() *Breaker {
	cfg := rules
	cfg.Now = w.clock.now
	return New(w.rdb, w.keys, cfg)
}

// record records a number of calls that ended the same way.
func (w *world) record(b *Breaker, ok bool, times int) State {
	w.t.Helper()
	var state State
	for range times {
		var err error
		if state, err = b.Record(w.t.Context(), ok); err != nil {
			w.t.Fatalf("Record(%v) = %v", ok, err)
		}
	}
	return state
}

func (w *world) state(b *Breaker) Snapshot {
	w.t.Helper()
	s, err := b.State(w.t.Context())
	if err != nil {
		w.t.Fatalf("State() = %v", err)
	}
	return s
}

func (w *world) probed(b *Breaker, ok bool) {
	w.t.Helper()
	if err := b.Probed(w.t.Context(), ok); err != nil {
		w.t.Fatalf("Probed(%v) = %v", ok, err)
	}
}

func (w *world) tryProbe(b *Breaker) bool {
	w.t.Helper()
	mine, err := b.TryProbe(w.t.Context())
	if err != nil {
		w.t.Fatalf("TryProbe() = %v", err)
	}
	return mine
}

// opened returns a breaker that has just opened.
func (w *world) opened() *Breaker {
	w.t.Helper()
	b := w.breaker()
	if got := w.record(b, false, rules.MinFailures); got != Open {
		w.t.Fatalf("Record(false) for the %dth time = %v, want %v", rules.MinFailures, got, Open)
	}
	return b
}

// ttl returns how long Redis keeps the breaker, -1 ns for ever.
func (w *world) ttl() time.Duration {
	w.t.Helper()
	ttl, err := w.rdb.TTL(w.t.Context(), w.keys.Breaker()).Result()
	if err != nil {
		w.t.Fatalf("TTL: %v", err)
	}
	return ttl
}
