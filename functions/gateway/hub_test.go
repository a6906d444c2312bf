package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

// newTestHub is a hub that reads nothing: the test delivers.
func newTestHub(t *testing.T) *hub {
	t.Helper()
	keys, err := tebra.NewKeys("hub")
	if err != nil {
		t.Fatal(err)
	}
	return newHub(nil, keys, 1000, 1000, slog.New(slog.DiscardHandler))
}

// joined adds a client that takes nothing.
func joined(t *testing.T, h *hub, user string) *client {
	t.Helper()
	c, _, err := h.join(user)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// some are n answers of a user, each of about size bytes.
func some(user string, n, size int) []*event {
	all := make([]*event, n)
	for i := range all {
		all[i] = &event{stream: ofResponses, id: tebra.EntryID{Millis: uint64(i) + 1}, fields: map[string]any{"userId": user, "data": padded(size)}}
	}
	return all
}

// TestAClientIsNotToldPastWhatItWasGiven: one that was let go comes back for what
// did not fit into its queue, even if it has taken all that did.
func TestAClientIsNotToldPastWhatItWasGiven(t *testing.T) {
	t.Parallel()
	h := newTestHub(t)
	c := joined(t, h, "alice")
	h.deliver(some("alice", queueLength+1, 10))
	if !c.letGo() {
		t.Fatal("a client whose queue is full stays")
	}
	for len(c.events) > 0 {
		h.took(c, <-c.events)
	}
	if at, all := h.seen(c); all {
		t.Errorf("seen() = %v, true for a client that was let go, want false", at)
	}
	s := &eventStream{g: &Gateway{hub: h}, client: c}
	if err := s.beat(); !errors.Is(err, errLetGo) {
		t.Errorf("beat() = %v, want %v", err, errLetGo)
	}
	if err := s.take(some("alice", 1, 10)[0]); !errors.Is(err, errLetGo) {
		t.Errorf("take() = %v, want %v: events before it may be missing", err, errLetGo)
	}
	h.leave(c)
	if h.held != 0 {
		t.Errorf("%d bytes are held for nobody", h.held)
	}
}

// TestOneReadNeverFillsAQueue: a client need not be faster than the reader is.
func TestOneReadNeverFillsAQueue(t *testing.T) {
	t.Parallel()
	h := newTestHub(t)
	c := joined(t, h, "alice")
	h.deliver(some("alice", streams*mostRead, 10))
	if c.letGo() {
		t.Errorf("a client was let go for %d events, as many as one read may have", streams*mostRead)
	}
}

// TestQueuesTogetherAreBounded in bytes: whoever has the most waiting is let go, and
// what waited for it at once.
func TestQueuesTogetherAreBounded(t *testing.T) {
	t.Parallel()
	h := newTestHub(t)
	h.budget = 100 << 10
	slow, quick := joined(t, h, "slow"), joined(t, h, "quick")
	h.deliver(some("slow", 9, 10<<10))
	h.deliver(some("quick", 2, 10<<10))
	if !slow.letGo() || quick.letGo() || len(quick.events) != 2 {
		t.Errorf("let go: slow %v, quick %v, which has %d events; want the slow one only, and 2", slow.letGo(), quick.letGo(), len(quick.events))
	}
	if h.held > h.budget || h.held != quick.held {
		t.Errorf("%d bytes are held, %d of them for the client that stayed", h.held, quick.held)
	}
	h.deliver(some("quick", 20, 10<<10))
	if !quick.letGo() || h.held != 0 {
		t.Errorf("a client over the bound alone: let go %v, %d bytes held; want true and 0", quick.letGo(), h.held)
	}
}

// TestReadsFollowTheSizeOfEntries, and begin low.
func TestReadsFollowTheSizeOfEntries(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t), func(f *fixture) {
		if f.g != nil {
			f.g.past.hub = newTestHub(t)
		}
	})
	p := f.g.past
	for i := range 24 {
		f.answer("bob", fmt.Sprint(i), padded(600<<10))
	}
	end, err := ends(t.Context(), f.rdb, p.keys)
	f.must(err)
	pages := &pages{past: p, client: joined(t, p.hub, "alice"), stream: ofResponses, count: firstPage, most: mostResponses, to: end[ofResponses]}
	for !pages.over() {
		f.must(pages.fill(t.Context()))
		if pages.count > 2 {
			t.Fatalf("next page = %d answers of 600 KB, want %d bytes at most", pages.count, pageBytes)
		}
	}
	h := newHub(f.rdb, f.keys, 1, 1, f.g.log)
	count, err := h.read(t.Context(), mostRead)
	f.must(err)
	if count*600<<10 > readBytes {
		t.Errorf("next read = %d answers of 600 KB, want %d bytes at most", count, readBytes)
	}
}

// TestWhoReadsThePastSlowlyHoldsUpNobody.
func TestWhoReadsThePastSlowlyHoldsUpNobody(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t), nil)
	p, h := f.g.past, f.g.hub
	for i := range 3 {
		f.say("alice", fmt.Sprint(i))
		f.answer("alice", fmt.Sprint(i), "1")
	}
	end, err := ends(t.Context(), f.rdb, p.keys)
	f.must(err)
	<-h.ready
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	read := func(emit func(*event) error) error {
		c := joined(t, h, "alice")
		defer h.leave(c)
		return p.read(ctx, c, position{}, end, emit, func(position) error { return nil })
	}
	hold, stuck, done := make(chan struct{}), make(chan struct{}), make(chan error)
	const slow = mostReaders + 1
	for range slow {
		go func() {
			first := true
			done <- read(func(*event) error {
				if first {
					stuck <- struct{}{}
					<-hold
				}
				first = false
				return nil
			})
		}()
	}
	for range slow {
		select {
		case <-stuck:
		case <-ctx.Done():
			t.Error("clients that are slow to take what they missed hold up others")
		}
	}
	got := 0
	if err := read(func(*event) error { got++; return nil }); err != nil || got != 6 {
		t.Errorf("read beside slow clients: %d events, %v; want 6", got, err)
	}
	close(hold)
	for range slow {
		f.must(<-done)
	}
}

// TestWaitingForTheTurn is for those who missed something, and ends when the hub
// lets the client go.
func TestWaitingForTheTurn(t *testing.T) {
	t.Parallel()
	h := newTestHub(t)
	keys, err := tebra.NewKeys("hub")
	if err != nil {
		t.Fatal(err)
	}
	p := newPast(redis.NewClient(&redis.Options{}), keys, h) // it is never called
	defer p.rdb.Close()
	for range mostReaders {
		p.turn <- struct{}{}
	}
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	c := joined(t, h, "alice")
	read := func(to position) error {
		return p.read(ctx, c, position{}, to, func(*event) error { return nil }, func(position) error { return nil })
	}
	if err := read(position{}); err != nil {
		t.Errorf("read of nothing = %v, want no wait", err)
	}
	timer := time.AfterFunc(time.Millisecond, func() { h.leave(c) })
	defer timer.Stop()
	if err := read(position{{Millis: 1}, {Millis: 1}}); !errors.Is(err, errLetGo) {
		t.Errorf("read of a client that is let go = %v, want %v", err, errLetGo)
	}
}

// TestConnectingCountsForTheRate: streams are not free.
func TestConnectingCountsForTheRate(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t), func(f *fixture) { f.cfg.UserRate = 2 })
	f.listen("alice", "").close()
	f.listen("alice", "").close()
	if got := f.do(http.MethodGet, "/v1/events", "alice", ""); got.StatusCode != http.StatusTooManyRequests || got.Header.Get("Retry-After") == "" {
		t.Errorf("third stream in a moment = %d, Retry-After %q, want 429 and seconds", got.StatusCode, got.Header.Get("Retry-After"))
	}
}
