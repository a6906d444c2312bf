package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

// TestEventsHaveTheFormOfTheExistingProxy.
func TestEventsHaveTheFormOfTheExistingProxy(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t), nil)
	f.say("alice", "before") // a new stream begins at the present
	l := f.listen("alice", "")
	ready, err := l.next()
	f.must(err)
	if ready.event != "ready" || l.last == "" {
		t.Errorf("first event = %+v with id %q, want ready with a position", ready, l.last)
	}
	entry := f.answer("alice", "r1", `{"text":"<ä>\nx"}`)
	got, err := l.next()
	f.must(err)
	u := got.update
	if got.event != "" || u.Type != "update" || u.ID != entry || u.Stream != f.keys.Responses() || u.Timestamp == "" {
		t.Errorf("event = %+v, want an update of %s, entry %s", got, f.keys.Responses(), entry)
	}
	if u.Data["status"] != "success" || u.Data["correlationId"] != "r1" || u.Data["data"] != `{"text":"<ä>\nx"}` {
		t.Errorf("data = %v, want the flat fields of the answer", u.Data)
	}
}

// TestUsersNeverSeeEachOthersEvents, nor those that are nobody's.
func TestUsersNeverSeeEachOthersEvents(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t), nil)
	alice, bob := f.listen("alice", ""), f.listen("bob", "")
	f.must(f.rdb.XAdd(t.Context(), xadd(f.keys.Responses(), "status", "error", "userId", "")).Err())
	f.must(f.rdb.XAdd(t.Context(), xadd(f.keys.Responses(), "status", "error")).Err())
	var want [2][]string
	for i := range 50 {
		user := [2]string{"alice", "bob"}[i%2]
		want[i%2] = append(want[i%2], f.say(user, fmt.Sprint(i)), f.answer(user, fmt.Sprint(i), "1"))
	}
	for i, l := range []*listener{alice, bob} {
		if got := l.updates(50); !slices.Equal(sorted(got), sorted(want[i])) {
			t.Errorf("client %d got %v, want %v", i, got, want[i])
		}
		past := f.listen([]string{"alice", "bob"}[i], "status:0-0,responses:0-0")
		if got := past.updates(50); !slices.Equal(sorted(got), sorted(want[i])) {
			t.Errorf("client %d resumed to %v, want %v", i, got, want[i])
		}
	}
}

func sorted(ids []string) []string { return slices.Sorted(slices.Values(ids)) }

// TestResumingLosesAndRepeatsNothing: a client that leaves at random, mid-stream or
// long before, while others' events and its own are written all the time, on
// either of two instances, gets each event once, each stream's in order.
func TestResumingLosesAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	one := newFixture(t, server, nil)
	two := newFixture(t, server, func(f *fixture) { f.cfg.Prefix = one.cfg.Prefix })
	const total = 1500
	type written struct{ status, responses []string }
	done := make(chan written, 1)
	first := one.listen("alice", "")
	if _, err := first.next(); err != nil {
		t.Fatal(err)
	}
	last := first.last
	first.close()
	go func() {
		var w written
		for i := range total {
			one.say("bob", "x")
			if i%3 == 0 {
				w.responses = append(w.responses, one.answer("alice", fmt.Sprint(i), "1"))
			} else {
				w.status = append(w.status, one.say("alice", fmt.Sprint(i)))
			}
		}
		done <- w
	}()
	got := map[string][]string{}
	for n := 0; n < total; {
		f := []*fixture{one, two}[rand.IntN(2)]
		l := f.listen("alice", last)
		timer := time.AfterFunc(patience, l.close)
		for range 1 + rand.IntN(60) {
			r, err := l.next()
			if err != nil {
				t.Fatalf("after %d of %d: %v", n, total, err)
			}
			if r.event == "reset" {
				t.Fatal("reset, though nothing was trimmed")
			}
			if r.update.Type == "update" {
				got[r.update.Stream] = append(got[r.update.Stream], r.update.ID)
				n++
			}
			if last = l.last; n == total {
				break
			}
		}
		timer.Stop()
		l.close()
	}
	w := <-done
	if !slices.Equal(got[one.keys.Status()], w.status) || !slices.Equal(got[one.keys.Responses()], w.responses) {
		t.Errorf("got %d statuses and %d answers, not the %d and %d that were written, in order",
			len(got[one.keys.Status()]), len(got[one.keys.Responses()]), len(w.status), len(w.responses))
	}
}

// TestWhatIsNoLongerKeptIsSaid: with a reset where entries were trimmed or Redis
// was emptied, and without one where all is still there.
func TestWhatIsNoLongerKeptIsSaid(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.RealRedis(t), nil)
	kept := f.say("alice", "r0")
	middle := f.say("alice", "r1")
	f.answer("alice", "r1", "1")
	first := func(last string) string {
		l := f.listen("alice", last)
		defer l.close()
		r, err := l.next()
		f.must(err)
		return r.event
	}
	whole := "status:" + kept + ",responses:0-0"
	if got := first(whole); got != "ready" {
		t.Errorf("first event = %q while all is kept, want ready", got)
	}
	f.must(f.rdb.XTrimMinID(t.Context(), f.keys.Status(), after(t, middle)).Err())
	if got := first(whole); got != "reset" {
		t.Errorf("first event = %q after a trim, want reset", got)
	}
	if got := first("status:" + middle + ",responses:0-0"); got != "ready" {
		t.Errorf("first event = %q for a client that had all that was trimmed, want ready", got)
	}
	f.must(f.rdb.Del(t.Context(), f.keys.Status(), f.keys.Responses()).Err())
	if got := first(whole); got != "reset" {
		t.Errorf("first event = %q after Redis was emptied, want reset", got)
	}
	if status := f.do(http.MethodGet, "/v1/events", "alice", "", "Last-Event-ID", "nonsense").StatusCode; status != 400 {
		t.Errorf("Last-Event-ID nonsense = %d, want 400", status)
	}
}

func after(t *testing.T, id string) string {
	t.Helper()
	parsed, err := tebra.ParseEntryID(id)
	if err != nil {
		t.Fatal(err)
	}
	parsed.Seq++
	return parsed.String()
}

// TestASlowReaderIsDroppedAndGetsAllItMissed when it comes back.
func TestASlowReaderIsDroppedAndGetsAllItMissed(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t), nil)
	slow, quick := f.listen("alice", ""), f.listen("alice", "")
	ready, err := slow.next()
	if err != nil || ready.event != "ready" {
		t.Fatalf("first event = %+v, %v", ready, err)
	}
	const n = 300
	var want []string
	for i := range n { // far more than the queue and what lies in between hold
		want = append(want, f.answer("alice", fmt.Sprint(i), padded(100<<10)))
		if got := quick.updates(1); got[0] != want[i] {
			t.Fatalf("the quick reader got %s, want %s", got[0], want[i])
		}
	}
	peertest.Eventually(t, patience, "the slow reader's end", func() bool {
		f.g.hub.mu.Lock()
		defer f.g.hub.mu.Unlock()
		return len(f.g.hub.clients["alice"]) == 1
	})
	var got []string
	for {
		r, err := slow.next()
		if err != nil {
			break
		}
		if r.update.Type == "update" {
			got = append(got, r.update.ID)
		}
	}
	if len(got) == n {
		t.Fatal("the slow reader was never dropped")
	}
	again := f.listen("alice", slow.last)
	if got = append(got, again.updates(n-len(got))...); !slices.Equal(got, want) {
		t.Errorf("the slow reader got %d events in the end, not the %d in order", len(got), n)
	}
}

// TestAQuietStreamShowsThatItLives, and moves the client's position on, so that it
// need not read again what concerned others.
func TestAQuietStreamShowsThatItLives(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t), func(f *fixture) {
		if f.g != nil {
			f.g.heartbeat = 20 * time.Millisecond
		}
	})
	l := f.listen("alice", "")
	entry := f.say("bob", "r1")
	timer := time.AfterFunc(patience, l.close)
	defer timer.Stop()
	for !strings.Contains(l.last, "status:"+entry) {
		r, err := l.next()
		f.must(err)
		if r.update.Type == "update" {
			t.Fatalf("alice got bob's event %v", r.update)
		}
	}
}

// TestAStreamEndsWithItsToken: when it expires, and when it is revoked.
func TestAStreamEndsWithItsToken(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	expiring := newFixture(t, server, func(f *fixture) { f.tokens.expires = 50 * time.Millisecond })
	revoked := newFixture(t, server, func(f *fixture) {
		if f.g != nil {
			f.g.recheck = 20 * time.Millisecond
		}
	})
	lasting := newFixture(t, server, func(f *fixture) { f.cfg.StreamTime = 50 * time.Millisecond })
	for name, f := range map[string]*fixture{"expired": expiring, "revoked": revoked, "old": lasting} {
		l := f.listen("alice", "")
		f.tokens.revoked.Store(true)
		timer := time.AfterFunc(patience, func() { t.Errorf("%s: the stream goes on", name); l.close() })
		var err error
		for err == nil {
			_, err = l.next()
		}
		timer.Stop()
		if err != io.EOF {
			t.Errorf("%s: the stream ended with %v, want a clean end", name, err)
		}
	}
}

func TestStreamsAreLimited(t *testing.T) {
	t.Parallel()
	f := newFixture(t, peertest.Redis(t), func(f *fixture) { f.cfg.MaxStreams, f.cfg.MaxUserStreams = 3, 2 })
	f.listen("alice", "")
	second := f.listen("alice", "")
	if got := f.do(http.MethodGet, "/v1/events", "alice", "").StatusCode; got != http.StatusTooManyRequests {
		t.Errorf("third stream of a user = %d, want 429", got)
	}
	f.listen("bob", "")
	if got := f.do(http.MethodGet, "/v1/events", "carol", "").StatusCode; got != http.StatusServiceUnavailable {
		t.Errorf("fourth stream of the instance = %d, want 503", got)
	}
	second.close()
	peertest.Eventually(t, patience, "the place of a client that left", func() bool {
		return f.do(http.MethodGet, "/v1/events", "carol", "").StatusCode == http.StatusOK
	})
}

// TestARedisThatGoesAwayEndsNoStream, and what is written after it is back comes.
func TestARedisThatGoesAwayEndsNoStream(t *testing.T) {
	t.Parallel()
	server := peertest.RealRedis(t, peertest.WithArgs("--appendonly", "yes", "--appendfsync", "always"))
	f := newFixture(t, server, nil)
	l := f.listen("alice", "")
	want := []string{f.say("alice", "r1")}
	got := l.updates(1)
	server.Kill()
	if status, _, code := f.post("alice", `{"action":"health"}`); status != 503 || code != "unavailable" {
		t.Errorf("POST without Redis = %d %s, want 503 unavailable", status, code)
	}
	server.Start()
	want = append(want, f.say("alice", "r2"), f.answer("alice", "r2", "1"))
	if got = append(got, l.updates(2)...); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestStoppingEndsStreams, so that the server can stop.
func TestStoppingEndsStreams(t *testing.T) {
	t.Parallel()
	server := peertest.Redis(t)
	f := newFixture(t, server, nil)
	g, err := New(f.cfg, Deps{Redis: server.Client(), Verifier: f.tokens, Log: f.g.log})
	f.must(err)
	ctx, stop := context.WithCancel(t.Context())
	h := g.hub
	ran := make(chan struct{})
	go func() { defer close(ran); h.run(ctx) }()
	<-h.ready
	c, _, err := h.join("alice")
	f.must(err)
	stop()
	<-c.gone
	<-ran
	if _, _, err := h.join("alice"); err != errStopping {
		t.Errorf("join() = %v, want %v", err, errStopping)
	}
	h.leave(c)
}

// slowWriter takes so many bytes a second, and nothing after its deadline.
type slowWriter struct {
	http.ResponseWriter
	rate     int
	deadline time.Time
}

func (w *slowWriter) SetWriteDeadline(at time.Time) error { w.deadline = at; return nil }

func (w *slowWriter) Write(p []byte) (int, error) {
	time.Sleep(time.Duration(len(p)) * time.Second / time.Duration(w.rate))
	if time.Now().After(w.deadline) {
		return 0, os.ErrDeadlineExceeded
	}
	return len(p), nil
}

func (w *slowWriter) FlushError() error {
	if time.Now().After(w.deadline) {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// TestAClientIsGivenItsTimeAlsoWhenRedisTookLong for a page of what it missed.
func TestAClientIsGivenItsTimeAlsoWhenRedisTookLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &slowWriter{rate: 1 << 20}
		s := &eventStream{w: w, rc: http.NewResponseController(w)}
		if err := s.write(&event{id: tebra.EntryID{Millis: 1}, data: []byte("data: 1\n\n")}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * writeTimeout) // for the next page, of a clock that costs nothing
		if err := s.flush(); err != nil {
			t.Errorf("flush() = %v, want nil: the client was not slow", err)
		}
	})
}

// TestALargeAnswerGetsThroughToASlowClient, which it would otherwise keep from
// everything behind it for ever, but not to one that hardly takes anything.
func TestALargeAnswerGetsThroughToASlowClient(t *testing.T) {
	t.Parallel()
	for rate, want := range map[int]error{30_000: nil, 10_000: os.ErrDeadlineExceeded} {
		synctest.Test(t, func(t *testing.T) {
			w := &slowWriter{rate: rate}
			s := &eventStream{w: w, rc: http.NewResponseController(w)}
			err := s.write(&event{id: tebra.EntryID{Millis: 1}, data: make([]byte, 8<<20)})
			if !errors.Is(err, want) {
				t.Errorf("8 MiB at %d bytes/s = %v, want %v", rate, err, want)
			}
		})
	}
}
