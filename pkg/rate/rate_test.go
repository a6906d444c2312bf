package rate

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

func TestMain(m *testing.M) { peertest.Main(m) }

func newKeys(t testing.TB) tebra.Keys {
	t.Helper()
	keys, err := tebra.NewKeys("{tebra}")
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// eachRedis runs a test against redis-server and against miniredis. Each limiter
// that it makes has a client of its own, as instances do.
func eachRedis(t *testing.T, test func(t *testing.T, newLimiter func() *Limiter)) {
	t.Parallel()
	t.Run("redis-server", func(t *testing.T) {
		t.Parallel()
		server := peertest.RealRedis(t)
		test(t, func() *Limiter { return New(server.Client(), newKeys(t)) })
	})
	t.Run("miniredis", func(t *testing.T) {
		t.Parallel()
		addr := miniredis.RunT(t).Addr()
		test(t, func() *Limiter {
			rdb := redis.NewClient(&redis.Options{Addr: addr})
			t.Cleanup(func() { rdb.Close() })
			return New(rdb, newKeys(t))
		})
	})
}

const (
	lane    = "appointments"
	anyTime = 2 * time.Hour // a wait that no test comes near
)

// slow is a limit whose slots do not come up while a test runs, so that what is
// taken shows in what is ahead.
var slow = Limit{Lane: lane, Interval: time.Minute, Burst: 1}

func mustReserve(t *testing.T, l *Limiter, limit Limit) time.Duration {
	t.Helper()
	wait, err := l.reserve(t.Context(), limit, anyTime)
	if err != nil {
		t.Fatalf("asking for a turn: %v", err)
	}
	return wait
}

func mustAhead(t *testing.T, l *Limiter) time.Duration {
	t.Helper()
	ahead, err := l.Ahead(t.Context(), lane)
	if err != nil {
		t.Fatalf("Ahead() = %v", err)
	}
	return ahead
}

// about reports whether got is want less the time that passed since began, give or
// take a millisecond of rounding.
func about(got, want time.Duration, began time.Time) bool {
	return got <= want+time.Millisecond && got >= want-time.Since(began)-time.Millisecond
}

func TestSlotsAreGivenInTheOrderOfAsking(t *testing.T) {
	eachRedis(t, func(t *testing.T, newLimiter func() *Limiter) {
		limiters := []*Limiter{newLimiter(), newLimiter(), newLimiter()}
		began := time.Now()
		for i := range 12 {
			if got, want := mustReserve(t, limiters[i%3], slow), time.Duration(i)*slow.Interval; !about(got, want, began) {
				t.Errorf("who asked as number %d waits %v, want %v less the time since the first", i, got, want)
			}
		}
	})
}

// What a machine adds to a wait, it takes from the time to the next one. So each
// turn is held against the time since the first was asked for.
func TestNobodysTurnComesBeforeItsSlot(t *testing.T) {
	eachRedis(t, func(t *testing.T, newLimiter func() *Limiter) {
		limiters := []*Limiter{newLimiter(), newLimiter(), newLimiter()}
		limit := Limit{Lane: lane, Interval: 40 * time.Millisecond, Burst: 1}
		const waiters = 20
		turns := make([]time.Duration, waiters)
		began := time.Now()
		var wg sync.WaitGroup
		for i := range waiters {
			wg.Go(func() {
				if err := limiters[i%3].Wait(t.Context(), limit, anyTime); err != nil {
					t.Errorf("Wait() = %v", err)
				}
				turns[i] = time.Since(began)
			})
		}
		wg.Wait()
		slices.Sort(turns)
		for i, got := range turns {
			if want := time.Duration(i)*limit.Interval - time.Millisecond; got < want { // the clocks' rounding
				t.Errorf("the %dth turn came after %v, want at least %v", i+1, got, want)
			}
		}
	})
}

func TestEachOfManyWhoAskAtOnceGetsASlotOfItsOwn(t *testing.T) {
	eachRedis(t, func(t *testing.T, newLimiter func() *Limiter) {
		limiters := []*Limiter{newLimiter(), newLimiter(), newLimiter()}
		const askers = 60
		waits := make([]time.Duration, askers)
		began := time.Now()
		var wg sync.WaitGroup
		for i := range askers {
			wg.Go(func() {
				var err error
				if waits[i], err = limiters[i%3].reserve(t.Context(), slow, anyTime); err != nil {
					t.Errorf("asking for a turn: %v", err)
				}
			})
		}
		wg.Wait()
		slices.Sort(waits)
		for i, got := range waits {
			if want := time.Duration(i) * slow.Interval; !about(got, want, began) {
				t.Errorf("the %dth slot comes in %v, want %v less the time since the first", i+1, got, want)
			}
		}
		if got, want := mustAhead(t, limiters[0]), askers*slow.Interval; !about(got, want, began) {
			t.Errorf("Ahead() = %v, want %v less the time since the first", got, want)
		}
	})
}

func TestWhoWouldWaitTooLongIsToldAtOnceAndTakesNoSlot(t *testing.T) {
	eachRedis(t, func(t *testing.T, newLimiter func() *Limiter) {
		l := newLimiter()
		began := time.Now()
		for range 3 {
			mustReserve(t, l, slow)
		}
		for _, most := range []time.Duration{2 * time.Minute, 0, -time.Minute} {
			before := mustAhead(t, l)
			var late *NotInTimeError
			if err := l.Wait(t.Context(), slow, most); !errors.As(err, &late) {
				t.Fatalf("Wait() for at most %v = %v, want a *NotInTimeError", most, err)
			}
			if want := 3*time.Minute - max(0, most); !about(late.RetryAfter, want, began) {
				t.Errorf("RetryAfter when waiting at most %v = %v, want %v less the time since the first", most, late.RetryAfter, want)
			}
			if after := mustAhead(t, l); after > before {
				t.Errorf("Ahead() after giving up = %v, want no more than the %v before", after, before)
			}
		}
	})
}

func TestAfterAPauseABurstGoesAtOnceAndThenOneByOne(t *testing.T) {
	eachRedis(t, func(t *testing.T, newLimiter func() *Limiter) {
		l := newLimiter()
		limit := slow
		limit.Burst = 3
		began := time.Now()
		for i, want := range []time.Duration{0, 0, 0, time.Minute, 2 * time.Minute} {
			if got := mustReserve(t, l, limit); !about(got, want, began) {
				t.Errorf("the %dth wait = %v, want %v less the time since the first", i+1, got, want)
			}
		}
	})
}

func TestALimitGoesByThePauseThatThereReallyWas(t *testing.T) {
	eachRedis(t, func(t *testing.T, newLimiter func() *Limiter) {
		l := newLimiter()
		limit := Limit{Lane: lane, Interval: 40 * time.Millisecond, Burst: 2}
		for range 3 {
			for range 2 {
				if got := mustReserve(t, l, limit); got != 0 {
					t.Errorf("the wait after a pause = %v, want 0s", got)
				}
			}
			peertest.Eventually(t, 10*time.Second, "the lane to be free", func() bool { return mustAhead(t, l) == 0 })
		}
	})
}

func TestAHeldLaneGivesOutNoTurnAndThenNoBurst(t *testing.T) {
	eachRedis(t, func(t *testing.T, newLimiter func() *Limiter) {
		for _, burst := range []int{1, 5} {
			limit := Limit{Lane: lane, Interval: time.Minute, Burst: burst}
			l := newLimiter()
			l.rdb.Del(t.Context(), l.keys.Rate(lane))
			began := time.Now()
			for _, d := range []time.Duration{10 * time.Minute, time.Minute, 0, -time.Hour} { // shorter ones change nothing
				if err := l.Hold(t.Context(), lane, d); err != nil {
					t.Fatalf("Hold(%v) = %v", d, err)
				}
			}
			if got := mustAhead(t, l); !about(got, 10*time.Minute, began) {
				t.Errorf("Ahead() = %v, want 10m0s", got)
			}
			for i := range 3 {
				want := 10*time.Minute + time.Duration(i)*time.Minute
				if got := mustReserve(t, l, limit); !about(got, want, began) {
					t.Errorf("burst %d: the %dth wait after Hold = %v, want %v", burst, i+1, got, want)
				}
			}
		}
	})
}

func TestAHoldThatNobodyWaitedThroughLeavesNoBurst(t *testing.T) {
	eachRedis(t, func(t *testing.T, newLimiter func() *Limiter) {
		l := newLimiter()
		limit := slow
		limit.Burst = 5
		const held = 20 * time.Millisecond
		began := time.Now()
		if err := l.Hold(t.Context(), lane, held); err != nil {
			t.Fatalf("Hold() = %v", err)
		}
		peertest.Eventually(t, 10*time.Second, "the hold to end", func() bool { return mustAhead(t, l) == 0 })
		for i := range 3 {
			want := held + time.Duration(i)*time.Minute
			if got := mustReserve(t, l, limit); !about(got, want, began) {
				t.Errorf("the %dth wait after the hold = %v, want %v less the time since it began", i+1, got, want)
			}
		}
	})
}

func TestAHoldTakesNoTurnBack(t *testing.T) {
	eachRedis(t, func(t *testing.T, newLimiter func() *Limiter) {
		l := newLimiter()
		began := time.Now()
		for range 5 {
			mustReserve(t, l, slow)
		}
		if err := l.Hold(t.Context(), lane, 2*time.Minute); err != nil {
			t.Fatalf("Hold() = %v", err)
		}
		if got := mustReserve(t, l, slow); !about(got, 5*time.Minute, began) {
			t.Errorf("the wait behind turns that outlast the hold = %v, want 5m0s", got)
		}
	})
}

func TestTheKeyGoesWhenItSaysNothingAnyMore(t *testing.T) {
	eachRedis(t, func(t *testing.T, newLimiter func() *Limiter) {
		l := newLimiter()
		began := time.Now()
		check := func(after string, want time.Duration) {
			t.Helper()
			got := l.rdb.PTTL(t.Context(), l.keys.Rate(lane)).Val()
			if !about(got, want, began) {
				t.Errorf("Redis keeps the lane for %v after %s, want %v less the time since the first", got, after, want)
			}
		}
		mustReserve(t, l, slow)
		check("a turn", time.Minute+time.Second)
		if err := l.Hold(t.Context(), lane, time.Second); err != nil {
			t.Fatalf("Hold() = %v", err)
		}
		check("a hold that ends before the turn", time.Minute+time.Hour)
		if err := l.Hold(t.Context(), lane, time.Hour); err != nil {
			t.Fatalf("Hold() = %v", err)
		}
		check("a hold", time.Hour+time.Hour)
		if _, err := l.reserve(t.Context(), slow, anyTime); err != nil {
			t.Fatalf("asking for a turn: %v", err)
		}
		check("a turn behind the hold", time.Hour+time.Minute+time.Second)
	})
}

func TestLanesDoNotWaitForEachOther(t *testing.T) {
	eachRedis(t, func(t *testing.T, newLimiter func() *Limiter) {
		l := newLimiter()
		mustReserve(t, l, slow)
		other := slow
		other.Lane = "create"
		if got := mustReserve(t, l, other); got != 0 {
			t.Errorf("the wait in another lane = %v, want 0s", got)
		}
	})
}

func TestACallerThatLeavesStopsWaitingAndItsSlotIsWasted(t *testing.T) {
	eachRedis(t, func(t *testing.T, newLimiter func() *Limiter) {
		l := newLimiter()
		began := time.Now()
		mustReserve(t, l, slow)
		ctx, leave := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Wait(ctx, slow, anyTime) }()
		peertest.Eventually(t, 10*time.Second, "its slot to be taken", func() bool { return mustAhead(t, l) > slow.Interval })
		leave()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Wait() of a caller that left = %v, want %v", err, context.Canceled)
		}
		if got := mustReserve(t, l, slow); !about(got, 2*time.Minute, began) {
			t.Errorf("the next wait = %v, want 2m0s: slower for a moment, never faster", got)
		}
	})
}

func TestALimitOutOfBoundsIsRefused(t *testing.T) {
	t.Parallel()
	l := New(peertest.Redis(t).Client(), newKeys(t))
	for name, limit := range map[string]Limit{
		"no interval":            {lane, 0, 1},
		"an interval below a µs": {lane, 999, 1},
		"an interval back":       {lane, -time.Second, 1},
		"too long an interval":   {lane, time.Hour + 1, 1},
		"no burst":               {lane, time.Second, 0},
		"too large a burst":      {lane, time.Second, 1001},
	} {
		var late *NotInTimeError
		if err := l.Wait(t.Context(), limit, anyTime); err == nil || errors.As(err, &late) {
			t.Errorf("Wait() with %s = %v, want an error about the limit", name, err)
		}
	}
	for _, limit := range []Limit{{lane, time.Microsecond, 1}, {lane, time.Hour, 1000}} {
		if err := l.Wait(t.Context(), limit, anyTime); err != nil {
			t.Errorf("Wait() with %v = %v, want nil", limit, err)
		}
	}
}

func TestWithoutRedisNobodyGetsATurnAndWithANewOneItGoesOn(t *testing.T) {
	t.Parallel()
	server := peertest.RealRedis(t)
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1, DialerRetries: 1}) // says at once that nobody is there
	t.Cleanup(func() { rdb.Close() })
	l := New(rdb, newKeys(t))
	mustReserve(t, l, slow)
	server.Kill()
	var late *NotInTimeError
	if err := l.Wait(t.Context(), slow, anyTime); err == nil || errors.As(err, &late) {
		t.Errorf("Wait() without Redis = %v, want Redis's error", err)
	}
	if err := l.Hold(t.Context(), lane, time.Second); err == nil {
		t.Error("Hold() without Redis = nil, want an error")
	}
	if _, err := l.Ahead(t.Context(), lane); err == nil {
		t.Error("Ahead() without Redis = nil, want an error")
	}
	server.Start() // empty, and without the scripts
	peertest.Eventually(t, 10*time.Second, "Redis", func() bool {
		_, err := l.Ahead(t.Context(), lane)
		return err == nil
	})
	began := time.Now()
	for _, want := range []time.Duration{0, time.Minute} {
		if got := mustReserve(t, l, slow); !about(got, want, began) {
			t.Errorf("the wait with a new Redis = %v, want %v", got, want)
		}
	}
}

func TestAStalledRedisCostsNoMoreThanTheCallersPatience(t *testing.T) {
	t.Parallel()
	server := peertest.RealRedis(t)
	l := New(server.Client(), newKeys(t))
	server.Pause()
	defer server.Resume()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := l.Wait(ctx, slow, anyTime); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait() with a stalled Redis = %v, want %v", err, context.DeadlineExceeded)
	}
}
