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
	return newHub(nil, keys, 1000, 1000, false, slog.New(slog.DiscardHandler))
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

// TestNoAnswerOvertakesItsStatus that is written while the reader is between the two
// streams: a call that has its answer is told of no state any more.
func TestNoAnswerOvertakesItsStatus(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	f := newFixture(t, server, nil)
	f.say("alice", "r0")
	reader := server.Client()
	h := newHub(reader, f.keys, 1, 1, false, f.g.log)
	if _, err := h.behind(t.Context()); err != nil { // Redis knows the script from now on
		t.Fatal(err)
	}
	reader.AddHook(peertest.AfterFirst(func() {
		f.say("alice", "r1")
		f.answer("alice", "r1", "1")
	}))
	told := map[string]bool{}
	for len(told) < 2 {
		events, err := h.behind(t.Context())
		f.must(err)
		for _, e := range events {
			id := text(e.fields["requestId"])
			if e.stream == ofStatus {
				told[id] = true
			} else if !told[id] {
				t.Errorf("the answer of %s came before its status", id)
			}
		}
		h.deliver(events)
	}
}

// TestNoReadIsMuchLargerThanItMayBe, even when answers are large all of a sudden.
func TestNoReadIsMuchLargerThanItMayBe(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t), nil)
	const small, large, size = 2 * mostRead, 12, 1 << 20
	for i := range small {
		f.answer("alice", fmt.Sprint(i), "1")
	}
	for i := range large {
		f.answer("alice", fmt.Sprint(small+i), padded(size))
	}
	h := newHub(f.rdb, f.keys, 1, 1, false, f.g.log)
	c := joined(t, h, "alice")
	var read, most int
	for {
		events, err := h.behind(t.Context())
		f.must(err)
		if len(events) == 0 {
			break
		}
		bytes := 0
		for _, e := range events {
			bytes += len(text(e.fields["data"]))
		}
		read, most = read+len(events), max(most, bytes)
		if len(events) > mostRead || bytes >= readBytes+size {
			t.Errorf("one read has %d entries of %d bytes, want at most %d and %d beside the last", len(events), bytes, mostRead, readBytes)
		}
		h.deliver(events)
		for len(c.events) > 0 {
			h.took(c, <-c.events)
		}
	}
	if read != small+large || most < size {
		t.Errorf("read %d entries, at most %d bytes at once; want %d, and the large ones among them", read, most, small+large)
	}
	p := f.g.past
	h = newTestHub(t)
	p.hub = h
	end, err := ends(t.Context(), f.rdb, p.keys)
	f.must(err)
	pages := &pages{past: p, client: joined(t, h, "alice"), stream: ofResponses, to: end[ofResponses]}
	for read = 0; !pages.over(); {
		f.must(pages.fill(t.Context()))
		if held := h.held; len(pages.events) > mostPage || held >= pageBytes+2*size {
			t.Errorf("one page has %d entries of %d bytes, want at most %d and %d beside the last", len(pages.events), held, mostPage, pageBytes)
		}
		read += len(pages.events)
		for len(pages.events) > 0 {
			f.must(pages.emit(func(*event) error { return nil }))
		}
	}
	if read != small+large {
		t.Errorf("the pages had %d entries, want %d", read, small+large)
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

// TestFindingOutWhatIsLostWaitsForTheTurn: after an outage everybody asks at once, and
// each answer may come with large entries.
func TestFindingOutWhatIsLostWaitsForTheTurn(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t), nil)
	f.say("alice", "r1")
	p := f.g.past
	for range mostReaders {
		p.turn <- struct{}{}
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, _, err := p.lost(ctx, position{}); !errors.Is(err, context.Canceled) {
		t.Errorf("lost() while all turns are taken = %v, want it to wait until its client leaves", err)
	}
	<-p.turn
	if _, lost, err := p.lost(t.Context(), position{}); lost || err != nil {
		t.Errorf("lost() = %v, %v in its turn, want false", lost, err)
	}
	if got := len(p.turn); got != mostReaders-1 {
		t.Errorf("%d turns are taken after it, want %d", got, mostReaders-1)
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
