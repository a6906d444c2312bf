package bridge

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sethvargo/go-retry"

	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/stream"
)

// hand knows which entries this bridge holds at the moment, so that what it
// reads again or claims is never worked on twice at once. It holds whole
// batches: nothing is done per entry until somebody asks.
type hand struct {
	mu      sync.Mutex
	batches map[*batch]struct{}
}

func (h *hand) init() { h.batches = map[*batch]struct{}{} }

// hold notes a batch until release.
func (h *hand) hold(b *batch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.batches[b] = struct{}{}
}

func (h *hand) release(b *batch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.batches, b)
}

func (h *hand) empty() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.batches) == 0
}

// without returns the entries that are in no batch that is held, and were in none
// before Redis was asked for them: those may have been acknowledged since.
func (h *hand) without(entries []stream.Entry, before map[string]bool) []stream.Entry {
	if len(entries) == 0 {
		return nil
	}
	held := h.held()
	return slices.DeleteFunc(entries, func(e stream.Entry) bool { return held[e.ID] || before[e.ID] })
}

// withoutIDs is without for IDs.
func (h *hand) withoutIDs(ids []string, before map[string]bool) []string {
	if len(ids) == 0 {
		return nil
	}
	held := h.held()
	return slices.DeleteFunc(ids, func(id string) bool { return held[id] || before[id] })
}

// held returns the IDs of what is held now.
func (h *hand) held() map[string]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	held := map[string]bool{}
	for b := range h.batches {
		for _, id := range b.ids {
			held[id] = true
		}
	}
	return held
}

// sizes remembers how large entries have been lately, to ask for no more at a
// time than is good.
type sizes struct {
	average float64 // 0 before the first
	assumed int     // until then
}

func (s *sizes) saw(entries []stream.Entry) {
	if len(entries) == 0 {
		return
	}
	bytes := 0
	for _, e := range entries {
		bytes += entryBytes(e)
	}
	mean := float64(bytes) / float64(len(entries))
	if s.average == 0 || mean > s.average {
		s.average = mean // growth is believed at once, shrinking slowly
		return
	}
	s.average += (mean - s.average) / 8
}

// count returns how many entries to ask for, at most most.
func (s *sizes) count(most int) int {
	size := s.average
	if size == 0 {
		size = float64(s.assumed)
	}
	return max(1, min(most, int(batchBytes/size)))
}

func entryBytes(e stream.Entry) int {
	n := len(e.ID)
	for _, f := range e.Fields {
		n += len(f)
	}
	return n
}

// clock is the Redis server's clock, as this machine's plus a difference that is
// measured now and then.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.offset.Load())) }

// set measures the difference; half the round trip is taken off.
func (c *clock) set(ctx context.Context, s *stream.Stream) error {
	before := time.Now()
	redis, err := s.Now(ctx)
	if err != nil {
		return err
	}
	middle := before.Add(time.Since(before) / 2)
	c.offset.Store(int64(redis.Sub(middle)))
	return nil
}

// epochCache keeps the epoch for a moment. Reads carry it only for the record;
// for writes the ledger is asked each time (DESIGN section 8).
type epochCache struct {
	mu    sync.Mutex
	value string
	at    time.Time
}

const epochAge = time.Second

func (e *epochCache) get(ctx context.Context, l *ledger.Ledger) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.value != "" && time.Since(e.at) < epochAge {
		return e.value, nil
	}
	value, err := l.Epoch(ctx)
	if err != nil {
		return "", err
	}
	e.value, e.at = value, time.Now()
	return value, nil
}

// backoff is how long to wait between tries: 50 ms at first, doubling to 5 s,
// give or take a quarter. It is not safe for concurrent use.
type backoff struct{ steps retry.Backoff }

func newBackoff() *backoff {
	b := &backoff{}
	b.reset()
	return b
}

// sleep waits for the next step and reports whether ctx is still alive.
func (b *backoff) sleep(ctx context.Context) bool {
	d, _ := b.steps.Next() // it never asks to stop
	return sleep(ctx, d)
}

func (b *backoff) reset() {
	b.steps = retry.WithCappedDuration(5*time.Second, retry.WithJitterPercent(25, retry.NewExponential(50*time.Millisecond)))
}

// sleep waits for d and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// episodes logs trouble that lasts once when it begins, then at most once a
// minute with a count, and once when it is over, for all who have it. Trouble that
// comes and goes is said no oftener than that.
type episodes struct {
	log  *slog.Logger
	mu   sync.Mutex
	open map[string]*episode
}

type episode struct {
	since, logged time.Time
	times         int
	who           map[string]bool // has it; a few names, fixed in the code
	last          error
	said          bool // that it goes on; then its end is said, too
}

// repeatAfter is how often trouble that lasts is logged again.
const repeatAfter = time.Minute

// trouble notes one more error of a kind. Kinds are few and fixed in the code.
func (e *episodes) trouble(kind, text string, err error) { e.troubleFor(kind, "", text, err) }

// over notes that a kind of trouble has ended.
func (e *episodes) over(kind string) { e.overFor(kind, "") }

// troubleFor notes one more error of a kind, which who met.
func (e *episodes) troubleFor(kind, who, text string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.open == nil {
		e.open = map[string]*episode{}
	}
	now := time.Now()
	ep := e.open[kind]
	if ep == nil {
		ep = &episode{who: map[string]bool{}}
		e.open[kind] = ep
	}
	if len(ep.who) == 0 { // it begins, or comes back: then it counts on
		ep.since = now
	}
	ep.times++
	ep.last = err
	ep.who[who] = true
	if !ep.logged.IsZero() && now.Sub(ep.logged) < repeatAfter {
		return
	}
	ep.logged, ep.said = now, true
	e.log.Warn(text, "trouble", kind, "error", err, "times", ep.times, "since", ep.since)
}

// current returns what is wrong now, a line for each kind, sorted.
func (e *episodes) current() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var lines []string
	for kind, ep := range e.open {
		if len(ep.who) == 0 {
			continue
		}
		lines = append(lines, fmt.Sprintf("%s, %d times since %s: %v", kind, ep.times, ep.since.Format(time.RFC3339), ep.last))
	}
	slices.Sort(lines)
	return lines
}

// overFor notes that a kind of trouble has ended for who; once it has for all who
// met it, it is over.
func (e *episodes) overFor(kind, who string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ep := e.open[kind]
	if ep == nil || !ep.who[who] {
		return
	}
	delete(ep.who, who)
	if len(ep.who) > 0 || !ep.said {
		return
	}
	ep.said = false
	e.log.Info("trouble is over", "trouble", kind, "times", ep.times, "lasted", time.Since(ep.since).Round(time.Millisecond))
	ep.times = 0
}
