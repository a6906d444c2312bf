package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"tebraproxy/pkg/tebra"
)

// client is the side of an application: it puts requests on the stream and reads
// what comes back. A client is for one series of requests, of a given number.
type client struct {
	rdb    *redis.Client
	keys   tebra.Keys
	series string // what correlation IDs begin with, nobody else's
	fields func(n int) []string

	sent []atomic.Int64 // when each was added, Unix nanoseconds
	took []atomic.Int64 // nanoseconds until the answer was read
	seen []atomic.Int32 // answers to each

	late     time.Duration // the most by which a request was behind its time
	added    atomic.Int64
	answered atomic.Int64 // requests with an answer
	failed   atomic.Int64 // of those, with an error
	last     atomic.Int64 // when the last first answer came, Unix nanoseconds
}

// newClient returns a client of n requests. fields returns the n-th without its
// correlation ID.
func newClient(rdb *redis.Client, keys tebra.Keys, series string, n int, fields func(n int) []string) *client {
	return &client{
		rdb: rdb, keys: keys, series: series + "-", fields: fields,
		sent: make([]atomic.Int64, n), took: make([]atomic.Int64, n), seen: make([]atomic.Int32, n),
	}
}

func (c *client) size() int { return len(c.sent) }

// entry returns the n-th request as the stream holds it.
func (c *client) entry(n int) []string {
	return append(c.fields(n), "correlationId", c.series+strconv.Itoa(n), "timestamp", "2026-11-23T08:00:00.000Z")
}

// listen reads answers until ctx ends. It begins with those that come after the
// call of the function.
func (c *client) listen(ctx context.Context, then func(n int)) (wait func() error, err error) {
	from, err := c.lastAnswer(ctx)
	if err != nil {
		return nil, err
	}
	var g errgroup.Group
	g.Go(func() error {
		for ctx.Err() == nil {
			streams, err := c.rdb.XRead(ctx, &redis.XReadArgs{Streams: []string{c.keys.Responses(), from}, Count: 1000, Block: time.Second}).Result()
			if errors.Is(err, redis.Nil) {
				continue
			}
			if err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return fmt.Errorf("reading answers: %w", err)
			}
			now := time.Now()
			for _, m := range streams[0].Messages {
				from = m.ID
				if n, ok := c.take(m, now); ok && then != nil {
					then(n)
				}
			}
		}
		return nil
	})
	return g.Wait, nil
}

func (c *client) lastAnswer(ctx context.Context) (string, error) {
	last, err := c.rdb.XRevRangeN(ctx, c.keys.Responses(), "+", "-", 1).Result()
	if err != nil {
		return "", fmt.Errorf("looking for the last answer: %w", err)
	}
	if len(last) == 0 {
		return "0", nil
	}
	return last[0].ID, nil
}

// take notes an answer; ok says that it is the first to a request of this client.
func (c *client) take(m redis.XMessage, now time.Time) (n int, ok bool) {
	correlation, _ := m.Values["correlationId"].(string)
	number, ours := strings.CutPrefix(correlation, c.series)
	n, err := strconv.Atoi(number)
	if !ours || err != nil || n < 0 || n >= c.size() {
		return 0, false
	}
	if c.seen[n].Add(1) > 1 {
		return n, false
	}
	c.took[n].Store(now.UnixNano() - c.sent[n].Load())
	c.last.Store(now.UnixNano())
	if m.Values["status"] != string(tebra.Success) {
		c.failed.Add(1)
	}
	c.answered.Add(1)
	return n, true
}

// mostUnderWay bounds what one open loop has under way.
const mostUnderWay = 4096

// openLoop issues n requests at a rate (a second), at times that chance decides, as
// many independent users' clients do (a Poisson process), and that no answer and no
// reply moves: what is slow meets as many requests as before. It returns when all
// have been issued, or when ctx ends, and the most by which one was late.
func openLoop(ctx context.Context, n int, rate float64, seed uint64, issue func(n int) error) (late time.Duration, err error) {
	rng := rand.New(rand.NewPCG(seed, 0))
	var g errgroup.Group
	g.SetLimit(mostUnderWay)
	due := time.Now()
	for i := range n {
		due = due.Add(time.Duration(rng.ExpFloat64() / rate * float64(time.Second)))
		if !sleepUntil(ctx, due) {
			break
		}
		late = max(late, time.Since(due))
		g.Go(func() error { return issue(i) })
	}
	return late, g.Wait()
}

// send adds all requests in an open loop.
func (c *client) send(ctx context.Context, rate float64, seed uint64) error {
	late, err := openLoop(ctx, c.size(), rate, seed, func(n int) error { return c.add(ctx, c.rdb, n, time.Now()) })
	c.late = late
	return err
}

// keepWaiting adds requests so that about so many are unanswered at a time, until ctx
// ends or there are no more.
func (c *client) keepWaiting(ctx context.Context, unanswered int) error {
	for n := 0; n < c.size() && ctx.Err() == nil; {
		room := unanswered - (n - int(c.answered.Load()))
		if room <= unanswered/10 {
			sleepUntil(ctx, time.Now().Add(2*time.Millisecond))
			continue
		}
		until := min(n+min(room, 1000), c.size())
		if err := c.addSome(n, until); err != nil {
			return err
		}
		n = until
	}
	return nil
}

// adder is a client of Redis or a pipeline of it.
type adder interface {
	XAdd(context.Context, *redis.XAddArgs) *redis.StringCmd
}

func (c *client) add(ctx context.Context, to adder, n int, now time.Time) error {
	c.sent[n].Store(now.UnixNano())
	if err := to.XAdd(ctx, &redis.XAddArgs{Stream: c.keys.Requests(), Values: c.entry(n)}).Err(); err != nil {
		return fmt.Errorf("adding request %d: %w", n, err)
	}
	c.added.Add(1)
	return nil
}

// addAll adds all requests as fast as it can.
func (c *client) addAll() error {
	const batch = 1000
	for from := 0; from < c.size(); from += batch {
		if err := c.addSome(from, min(from+batch, c.size())); err != nil {
			return err
		}
	}
	return nil
}

// addSome adds requests in one go, which no context breaks off.
func (c *client) addSome(from, until int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	pipe, now := c.rdb.Pipeline(), time.Now()
	for n := from; n < until; n++ {
		if err := c.add(ctx, pipe, n, now); err != nil {
			return err
		}
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("adding requests: %w", err)
	}
	return nil
}

// await waits until so many requests are answered, at most for patience.
func (c *client) await(ctx context.Context, answered int, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for c.answered.Load() < int64(answered) {
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d requests are answered after %v", c.answered.Load(), answered, patience)
		}
		if !sleepUntil(ctx, time.Now().Add(20*time.Millisecond)) {
			return ctx.Err()
		}
	}
	return nil
}

// wrong returns how many requests have no answer, and how many more than one.
func (c *client) wrong() (none, several int) {
	for n := range int(c.added.Load()) {
		switch got := c.seen[n].Load(); {
		case got == 0:
			none++
		case got > 1:
			several++
		}
	}
	return none, several
}

// latencies returns those of the requests from first to before last that are
// answered, sorted.
func (c *client) latencies(first, last int) []time.Duration {
	var all []time.Duration
	for n := first; n < last; n++ {
		if c.seen[n].Load() > 0 {
			all = append(all, time.Duration(c.took[n].Load()))
		}
	}
	slices.Sort(all)
	return all
}

// quantile returns the q-th of sorted values, 0 for none.
func quantile[T any](sorted []T, q float64) T {
	var zero T
	if len(sorted) == 0 {
		return zero
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// sleepUntil waits, and reports whether ctx has not ended before.
func sleepUntil(ctx context.Context, due time.Time) bool {
	d := time.Until(due)
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func TestAnswersAreCountedByRequest(t *testing.T) {
	t.Parallel()
	c := newClient(nil, tebra.Keys{}, "a", 3, nil)
	c.added.Store(3)
	answer := func(correlation, status string) {
		c.take(redis.XMessage{Values: map[string]any{"correlationId": correlation, "status": status}}, time.Now())
	}
	for _, correlation := range []string{"a-0", "a-2", "a-2", "a-3", "a-x", "b-1", "a--1", ""} {
		answer(correlation, "error")
	}
	none, several := c.wrong()
	if got := [...]int{int(c.answered.Load()), int(c.failed.Load()), none, several}; got != [...]int{2, 2, 1, 1} {
		t.Errorf("answered, failed, unanswered, answered twice = %v, want 2, 2, 1, 1", got)
	}
}

func TestAQuantileIsOneOfTheValues(t *testing.T) {
	t.Parallel()
	values := []int{1, 2, 3, 4}
	for q, want := range map[float64]int{0: 1, 0.5: 3, 0.99: 4, 1: 4} {
		if got := quantile(values, q); got != want {
			t.Errorf("quantile(%v, %v) = %d, want %d", values, q, got, want)
		}
	}
	if got := quantile([]int(nil), 0.5); got != 0 {
		t.Errorf("quantile of nothing = %d, want 0", got)
	}
}
