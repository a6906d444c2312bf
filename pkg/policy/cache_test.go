package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var errDown = errors.New("the source is down")

// scripted is a source whose answer a test can change, and that counts.
type scripted struct {
	mu    sync.Mutex
	roles []string
	err   error
	asked map[string]int
}

func (s *scripted) Roles(_ context.Context, userID string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked == nil {
		s.asked = make(map[string]int)
	}
	s.asked[userID]++
	return s.roles, s.err
}

func (s *scripted) answer(roles []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roles, s.err = roles, err
}

func (s *scripted) count(userID string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[userID]
}

// clock is a clock that stands until a test moves it.
type clock struct{ nanos atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(0, c.nanos.Load()) }
func (c *clock) advance(d time.Duration) { c.nanos.Add(int64(d)) }

func TestCacheUsesAnAnswerForItsTimeAndNotLonger(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		ttl  time.Duration
		err  error
		kept time.Duration
	}{
		"roles":                       {ttl: time.Minute, kept: time.Minute},
		"unknown":                     {ttl: time.Minute, err: ErrUnknownUser, kept: 10 * time.Second},
		"disabled":                    {ttl: time.Minute, err: ErrDisabledUser, kept: 10 * time.Second},
		"unusable, wrapped":           {ttl: time.Minute, err: fmt.Errorf("x: %w", ErrUnusableRoles), kept: 10 * time.Second},
		"unknown, with a shorter ttl": {ttl: 3 * time.Second, err: ErrUnknownUser, kept: 3 * time.Second},
		"down":                        {ttl: time.Minute, err: errDown, kept: 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var now clock
			source := &scripted{roles: []string{"a"}, err: tt.err}
			cache := NewCache(source, CacheConfig{TTL: tt.ttl, Now: now.now})
			ask := func() {
				t.Helper()
				if roles, err := cache.Roles(t.Context(), "ann"); !errors.Is(err, tt.err) || (err == nil && !slices.Equal(roles, []string{"a"})) {
					t.Errorf("Roles() = %v, %v, want the source's answer", roles, err)
				}
			}
			ask()
			if tt.kept > 0 {
				now.advance(tt.kept - 1)
				ask()
				if got := source.count("ann"); got != 1 {
					t.Errorf("within %v the source was asked %d times, want once", tt.kept, got)
				}
				now.advance(1)
			}
			ask()
			if got := source.count("ann"); got != 2 {
				t.Errorf("after %v the source was asked %d times, want twice", tt.kept, got)
			}
		})
	}
}

func TestCacheSeesAnOutageEnd(t *testing.T) {
	t.Parallel()
	source := &scripted{err: errDown}
	cache := NewCache(source, CacheConfig{TTL: time.Hour})
	if _, err := cache.Roles(t.Context(), "ann"); !errors.Is(err, errDown) {
		t.Fatalf("Roles() = %v, want %v", err, errDown)
	}
	source.answer([]string{"a"}, nil)
	if roles, err := cache.Roles(t.Context(), "ann"); err != nil || !slices.Equal(roles, []string{"a"}) {
		t.Errorf("Roles() after the outage = %v, %v, want [a]", roles, err)
	}
}

func TestCacheForgetsWhoWasAskedForLongestAgo(t *testing.T) {
	t.Parallel()
	source := &scripted{roles: []string{"a"}}
	cache := NewCache(source, CacheConfig{TTL: time.Hour, Size: 2})
	for _, user := range []string{"ann", "bob", "ann", "cid", "ann", "bob"} {
		if _, err := cache.Roles(t.Context(), user); err != nil {
			t.Fatal(err)
		}
	}
	for user, want := range map[string]int{"ann": 1, "bob": 2, "cid": 1} {
		if got := source.count(user); got != want {
			t.Errorf("the source was asked for %s %d times, want %d", user, got, want)
		}
	}
	if got := len(cache.entries); got != 2 || cache.recent.Len() != 2 {
		t.Errorf("the cache holds %d users and %d in order, want 2", got, cache.recent.Len())
	}
}

// gated is a source that answers nobody before it is told to.
type gated struct {
	open  chan struct{}
	asked atomic.Int32
	err   error
}

func (g *gated) Roles(ctx context.Context, _ string) ([]string, error) {
	g.asked.Add(1)
	select {
	case <-g.open:
		return []string{"a"}, g.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestCacheAsksOnceForAllWhoWait(t *testing.T) {
	t.Parallel()
	for _, want := range []error{nil, ErrUnknownUser, errDown} {
		synctest.Test(t, func(t *testing.T) {
			source := &gated{open: make(chan struct{}), err: want}
			cache := NewCache(source, CacheConfig{TTL: time.Minute})
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					if _, err := cache.Roles(t.Context(), "ann"); !errors.Is(err, want) {
						t.Errorf("Roles() = %v, want %v", err, want)
					}
				})
			}
			synctest.Wait()
			close(source.open)
			wg.Wait()
			if got := source.asked.Load(); got != 1 {
				t.Errorf("with %v the source was asked %d times, want once", want, got)
			}
			if len(cache.flights) != 0 {
				t.Errorf("%d questions are left over, want none", len(cache.flights))
			}
		})
	}
}

// The one who asks may be cancelled; that is no answer for those who wait.
func TestCacheOutlivesTheOneWhoAsked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		source := &gated{open: make(chan struct{})}
		cache := NewCache(source, CacheConfig{TTL: time.Minute})
		first, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := cache.Roles(first, "ann"); !errors.Is(err, context.Canceled) {
				t.Errorf("the one who was cancelled: Roles() = %v, want %v", err, context.Canceled)
			}
		})
		synctest.Wait()
		for range 5 {
			wg.Go(func() {
				if roles, err := cache.Roles(t.Context(), "ann"); err != nil || len(roles) != 1 {
					t.Errorf("one who waited: Roles() = %v, %v, want [a]", roles, err)
				}
			})
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(source.open)
		wg.Wait()
		if got := source.asked.Load(); got != 2 {
			t.Errorf("the source was asked %d times, want twice", got)
		}
	})
}

func TestCacheLetsOneGoWhoWaitsTooLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		source := &gated{open: make(chan struct{})}
		cache := NewCache(source, CacheConfig{TTL: time.Minute})
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = cache.Roles(t.Context(), "ann") })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := cache.Roles(ctx, "ann"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Roles() = %v, want %v", err, context.DeadlineExceeded)
		}
		close(source.open)
		wg.Wait()
	})
}

func TestCacheFreesThoseWhoWaitWhenTheSourcePanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		open := make(chan struct{})
		var asked atomic.Int32
		source := sourceFunc(func(context.Context, string) ([]string, error) {
			if asked.Add(1) == 1 {
				<-open
				panic("a bug")
			}
			return []string{"a"}, nil
		})
		cache := NewCache(source, CacheConfig{TTL: time.Minute})
		var wg sync.WaitGroup
		wg.Go(func() {
			defer func() {
				if recover() == nil {
					t.Error("Roles() returned, want the panic passed on")
				}
			}()
			_, _ = cache.Roles(t.Context(), "ann")
		})
		synctest.Wait()
		wg.Go(func() {
			if roles, err := cache.Roles(t.Context(), "ann"); err != nil || len(roles) != 1 {
				t.Errorf("one who waited: Roles() = %v, %v, want [a]", roles, err)
			}
		})
		synctest.Wait()
		close(open)
		wg.Wait()
	})
}
