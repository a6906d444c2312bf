package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

// TestNoInterleavingBreaksThePromises drives clients, bridges, workers, operators
// and accidents in random order against a ledger, and holds what the streams and
// the API have seen against the promises of DESIGN section 1 after every step. At the
// end everything that is under way is brought to rest, and what must be there is
// counted.
//
// Nothing but what rapid draws decides what happens: the seed that it prints runs
// a failure again.
func TestNoInterleavingBreaksThePromises(t *testing.T) {
	t.Parallel()
	rdb := peertest.Redis(t).Client()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, rdb)
		actions := w.actions()
		for range 6 { // what happens late needs more steps than one round has
			t.Repeat(actions)
		}
		w.drain(t)
	})
}

// An entry of the requests stream, and what the world knows of its way. Its
// correlation ID is its own, so that answers can be told apart.
type entry struct {
	d        Delivery
	req      request
	life     int  // how often Redis had been flushed when it came
	unread   bool // the bridge has not published and acknowledged it
	taken    bool // the bridge had it in hand before
	parked   bool
	replaced bool // replayed before it had an answer
	losses   int  // how often the record was lost: each may cost a second answer
	answers  int
	ended    bool // a terminal status was written
}

func (e *entry) id() string { return e.d.Envelope.EntryID }

// A message is a published entry in Pub/Sub.
type message struct {
	e     *entry
	d     Delivery
	acked bool
	dead  bool // in the dead letters, not yet settled
}

// A worker holds a claim and works on it.
type worker struct {
	m       *message
	c       *Claim
	until   int64 // when its lease ends
	lost    bool  // Redis lost the record that it holds
	started bool
	grant   int // which grant of the request it started under
}

// grant names one permission to call a write: its admission, or a replay that an
// operator forced.
type grant struct {
	hash string
	n    int
}

type world struct {
	*fixture
	calm     bool // Redis loses nothing
	life     int
	entries  []*entry
	messages []*message
	workers  []*worker
	grants   map[string]int  // the present grant of each request
	called   map[grant]bool  // a call under this grant may have had its effect
	copies   []func() string // commands that may come once more, late
	replayed map[string]string
	lastSeen map[string]string // of each stream
}

// actions returns what may happen, each as often as it is likely.
func (w *world) actions() map[string]func(*rapid.T) {
	actions := map[string]func(*rapid.T){"": w.check}
	for _, a := range []struct {
		name   string
		weight int
		do     func(*rapid.T)
	}{
		{"send", 2, w.send},
		{"admit", 3, w.admit},
		{"reject", 1, w.reject},
		{"deliver", 4, w.deliver},
		{"work", 9, w.work},
		{"duplicate", 1, w.duplicate},
		{"crash", 1, w.crash},
		{"pass time", 2, w.passTime},
		{"outwait", 1, w.outwait},
		{"unpark", 2, w.unpark},
		{"dead letter", 1, w.deadLetter},
		{"settle", 1, w.settleDead},
		{"sweep", 1, w.sweep},
		{"replay", 2, w.replay},
		{"late copy", 2, w.lateCopy},
		{"trim", 1, w.trim},
		{"accident", 1, w.accident},
	} {
		for i := range a.weight {
			actions[fmt.Sprintf("%s %d", a.name, i)] = a.do
		}
	}
	return actions
}

func newWorld(t *rapid.T, rdb *redis.Client) *world {
	if err := rdb.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, rdb)
	f.l.maxAnswered = 4 // so that the list overflows now and then
	return &world{
		fixture: f, calm: rapid.Bool().Draw(t, "calm"), grants: map[string]int{}, called: map[grant]bool{},
		replayed: map[string]string{}, lastSeen: map[string]string{},
	}
}

// pick draws one of those that fit, if any does. An action that finds none does
// nothing: rapid gives a test up that skips too many.
func pick[T any](t *rapid.T, what string, all []T, fits func(T) bool) (one T, found bool) {
	var fit []T
	for _, x := range all {
		if fits(x) {
			fit = append(fit, x)
		}
	}
	if len(fit) == 0 {
		return one, false
	}
	return fit[rapid.IntRange(0, len(fit)-1).Draw(t, what)], true
}

// command runs a command as a client does whose replies get lost: sometimes twice,
// which must be told the same, and sometimes once more much later.
func (w *world) command(t *rapid.T, name string, do func() string) string {
	first := do()
	if rapid.Bool().Draw(t, "lost reply") {
		if second := do(); second != first {
			t.Fatalf("%s resent after a lost reply = %s, want %s", name, second, first)
		}
	}
	w.copies = append(w.copies, do)
	w.copies = w.copies[max(0, len(w.copies)-24):]
	return first
}

// word makes an error comparable.
func word(err error) string {
	for _, known := range []error{ErrStale, ErrLeaseLost, ErrLeaseTooShort, ErrEntryGone} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return fmt.Sprint(err)
}

// requests is what clients send: a read, and a write whose ID they also use for
// another, by mistake.
var requests = []request{
	aRead,
	aWrite,
	aWrite,
	{id: aWrite.id, params: `{"q":2}`, write: true},
	{id: "w2", params: `{}`, write: true},
}

// A client sends a request, or sends it again.
func (w *world) send(t *rapid.T) {
	if len(w.entries) >= 12 {
		return
	}
	r := rapid.SampledFrom(requests).Draw(t, "request")
	w.entries = append(w.entries, &entry{d: w.arrive(r), req: r, life: w.life, unread: true})
}

// The bridge takes an entry. It may die before it has published, or before it
// has acknowledged, and then takes it again.
func (w *world) admit(t *rapid.T) {
	e, ok := pick(t, "unread entry", w.entries, func(e *entry) bool { return e.unread })
	if !ok {
		return
	}
	w.take(t, e, rapid.IntRange(0, 3).Draw(t, "dies"))
}

const (
	diesBeforePublishing   = 1
	diesBeforeAcknowledged = 2
)

func (w *world) take(t *rapid.T, e *entry, dies int) {
	if e.taken && (!w.pending(tebra.GroupBridge, e) || w.ended(e)) {
		w.acknowledge(tebra.GroupBridge, e)
		e.unread = false
		return
	}
	e.taken = true
	w.must(w.rdb.Do(w.t.Context(), "XCLAIM", w.keys.Requests(), tebra.GroupBridge, "b", 0, e.id(), "FORCE", "JUSTID").Err())
	w.grantAnew(e)
	e.d = w.fixture.admit(e.d)
	if dies == diesBeforePublishing {
		return
	}
	w.messages = append(w.messages, &message{e: e, d: e.d})
	if dies == diesBeforeAcknowledged {
		return
	}
	w.acknowledge(tebra.GroupBridge, e)
	e.unread = false
}

// A bridge of another configuration takes an entry, which another may have
// published before, and will not serve it.
func (w *world) reject(t *rapid.T) {
	e, ok := pick(t, "unread entry", w.entries, func(e *entry) bool { return e.unread })
	if !ok || (e.taken && !w.pending(tebra.GroupBridge, e)) {
		return
	}
	e.taken = true
	w.must(w.rdb.Do(w.t.Context(), "XCLAIM", w.keys.Requests(), tebra.GroupBridge, "b", 0, e.id(), "FORCE", "JUSTID").Err())
	answer := fail(tebra.TooLarge)
	answer.ID = w.l.newAnswerID()
	w.command(t, "reject", func() string {
		done, err := w.l.Reject(context.Background(), e.d.Envelope, answer)
		w.must(err)
		return fmt.Sprint(done)
	})
	if w.pending(tebra.GroupBridge, e) {
		t.Fatalf("entry %s is still in hand after its rejection", e.id())
	}
	e.unread = false
}

func (w *world) acknowledge(group string, e *entry) {
	w.must(w.rdb.XAck(w.t.Context(), w.keys.Requests(), group, e.id()).Err())
}

// pending tells whether the group still has the entry in hand or waiting.
func (w *world) pending(group string, e *entry) bool {
	found, err := w.rdb.XPendingExt(w.t.Context(), &redis.XPendingExtArgs{
		Stream: w.keys.Requests(), Group: group, Start: e.id(), End: e.id(), Count: 1,
	}).Result()
	w.must(err)
	return len(found) == 1
}

// ended asks the ledger whether e needs nothing more.
func (w *world) ended(e *entry) bool {
	s, err := w.l.Lookup(w.t.Context(), []Ref{{Hash: e.d.Envelope.Ledger, EntryID: e.id()}})
	w.must(err)
	return s[0] == AnsweredHere || s[0] == SupersededHere
}

// grantAnew notes that an admission without a record makes one: whoever sends a
// request after Redis lost it may have it called.
func (w *world) grantAnew(e *entry) {
	known, err := w.rdb.HExists(w.t.Context(), w.keys.Ledger(e.d.Envelope.Ledger), "state").Result()
	w.must(err)
	if !known {
		w.grants[e.d.Envelope.Ledger]++
	}
}

// Pub/Sub delivers.
func (w *world) deliver(t *rapid.T) {
	m, ok := pick(t, "message", w.messages, func(m *message) bool { return !m.acked && !m.dead })
	if ok {
		w.process(t, m)
	}
}

// Pub/Sub delivers once more what was acknowledged, or is being worked on.
func (w *world) duplicate(t *rapid.T) {
	m, ok := pick(t, "message", w.messages, func(*message) bool { return true })
	if ok {
		w.process(t, m)
	}
}

func (w *world) process(t *rapid.T, m *message) {
	c := w.claimFor(t, m.d, "call")
	switch c.Verdict {
	case Run:
		w.checkRun(t, m.d)
		w.employ(t, m, c)
	case Unknown:
		w.employ(t, m, c)
	case Busy:
	default:
		m.acked = true
	}
}

// employ notes who holds a claim. While its lease lasts nobody else does, unless
// Redis lost the record.
func (w *world) employ(t *rapid.T, m *message, c *Claim) *worker {
	w.checkAlone(t, m, nil)
	k := &worker{m: m, c: c, until: w.now.Load() + c.Lease.Milliseconds()}
	w.workers = append(w.workers, k)
	return k
}

// checkAlone: nobody but self holds a lease on the message's request.
func (w *world) checkAlone(t *rapid.T, m *message, self *worker) {
	for _, other := range w.workers {
		if other == self || other.lost || other.until <= w.now.Load() {
			continue
		}
		if other.c.Delivery.Envelope.Ledger == m.d.Envelope.Ledger {
			t.Fatalf("entry %s is claimed or started under the lease of entry %s", m.e.id(), other.m.e.id())
		}
	}
}

func (w *world) claimFor(t *rapid.T, d Delivery, mode string) *Claim {
	token, answer := w.l.newToken(), w.l.newAnswerID()
	var first *Claim
	w.command(t, "claim", func() string {
		c, err := w.l.claim(context.Background(), d, mode, token, answer)
		w.must(err)
		if first == nil {
			first = c
		}
		return fmt.Sprintf("%s, attempt %d, lease %v, last %s", c.Verdict, c.Attempt, c.Lease, c.LastCode)
	})
	return first
}

// checkRun: a write is never run again once a call may have been made, nor
// in another life of Redis than its own.
func (w *world) checkRun(t *rapid.T, d Delivery) {
	if !d.Write {
		return
	}
	if w.called[w.grantOf(d)] {
		t.Fatalf("entry %s may run, though a call of its request may have been made", d.Envelope.EntryID)
	}
	if epoch := w.rdb.Get(w.t.Context(), w.keys.Epoch()).Val(); epoch != d.Envelope.Epoch {
		t.Fatalf("entry %s of epoch %s may run in epoch %s", d.Envelope.EntryID, d.Envelope.Epoch, epoch)
	}
}

func (w *world) grantOf(d Delivery) grant {
	return grant{d.Envelope.Ledger, w.grants[d.Envelope.Ledger]}
}

// A worker does the next thing.
func (w *world) work(t *rapid.T) {
	k, ok := pick(t, "worker", w.workers, func(*worker) bool { return true })
	if !ok {
		return
	}
	switch {
	case k.c.Verdict == Unknown:
		w.workUnknown(t, k)
	case k.c.Delivery.Write && !k.started:
		w.workBefore(t, k)
	default:
		w.call(t, k)
	}
}

// workUnknown answers, or gives up.
func (w *world) workUnknown(t *rapid.T, k *worker) {
	if rapid.IntRange(0, 3).Draw(t, "dead letter fails") == 0 {
		w.release(t, k)
		return
	}
	w.complete(t, k, fail(tebra.OutcomeUnknown))
}

// workBefore is what happens before a write is sent.
func (w *world) workBefore(t *rapid.T, k *worker) {
	switch rapid.IntRange(0, 7).Draw(t, "before the call") {
	case 0:
		w.release(t, k)
	case 1:
		w.return_(t, k)
	case 2:
		w.complete(t, k, fail(tebra.Expired))
	default:
		w.start(t, k)
	}
}

func (w *world) start(t *rapid.T, k *worker) {
	k.c.starts++
	at := *k.c
	got := w.command(t, "start", func() string {
		return word(w.l.start(context.Background(), w.rdb, &at, testNeed))
	})
	if got != "<nil>" {
		w.release(t, k)
		return
	}
	if rapid.IntRange(0, 4).Draw(t, "replicas missing") == 0 {
		w.unstart(t, at)
		return
	}
	w.checkAlone(t, k.m, k)
	k.started, k.grant = true, w.grants[k.c.Delivery.Envelope.Ledger]
}

func (w *world) unstart(t *rapid.T, at Claim) {
	w.command(t, "unstart", func() string {
		return word(w.l.run(context.Background(), w.rdb, unstartScript, &at, nil, at.starts).Err())
	})
}

// call makes the API call. It may have its effect and be answered, have it and
// not be answered, be refused, or not be made at all.
func (w *world) call(t *rapid.T, k *worker) {
	d := k.c.Delivery
	outcome := rapid.SampledFrom([]string{"effect", "effect", "no answer", "refused", "not made"}).Draw(t, "outcome")
	if d.Write && (outcome == "effect" || outcome == "no answer") {
		w.effect(t, k)
	}
	switch outcome {
	case "effect":
		w.complete(t, k, tebra.Response{Data: json.RawMessage(`"` + d.Fingerprint + `"`)})
	case "no answer":
		if !d.Write {
			w.release(t, k)
			return
		}
		w.complete(t, k, fail(tebra.OutcomeUnknown))
	case "refused":
		w.complete(t, k, fail(tebra.Rejected))
	default:
		w.release(t, k)
	}
}

// effect: no grant is used twice.
func (w *world) effect(t *rapid.T, k *worker) {
	g := grant{k.c.Delivery.Envelope.Ledger, k.grant}
	if w.called[g] {
		t.Fatalf("entry %s was called a second time", k.c.Delivery.Envelope.EntryID)
	}
	w.called[g] = true
	if rapid.IntRange(0, 3).Draw(t, "crashes after the call") == 0 {
		w.leave(k)
	}
}

func (w *world) leave(k *worker) {
	w.workers = slices.DeleteFunc(w.workers, func(other *worker) bool { return other == k })
}

func (w *world) works(k *worker) bool { return slices.Contains(w.workers, k) }

func (w *world) complete(t *rapid.T, k *worker, resp tebra.Response) {
	if !w.works(k) {
		return
	}
	w.leave(k)
	at, answer := *k.c, w.l.newAnswerID()
	got := w.command(t, "complete", func() string {
		return word(w.l.complete(context.Background(), &at, resp, answer))
	})
	if got == "<nil>" {
		k.m.acked = true
	}
}

func (w *world) release(t *rapid.T, k *worker) {
	w.leave(k)
	at := *k.c
	w.command(t, "release", func() string {
		return word(w.l.Release(context.Background(), &at, tebra.Unavailable))
	})
}

func (w *world) return_(t *rapid.T, k *worker) {
	at := *k.c
	got := w.command(t, "return", func() string {
		return word(w.l.Return(context.Background(), &at, tebra.Unavailable))
	})
	switch got {
	case "<nil>":
		k.m.acked, k.m.e.parked = true, true
		w.leave(k)
	case ErrEntryGone.Error():
		w.release(t, k)
	default:
		w.leave(k)
	}
}

// A worker dies.
func (w *world) crash(t *rapid.T) {
	k, ok := pick(t, "worker", w.workers, func(*worker) bool { return true })
	if ok {
		w.leave(k)
	}
}

func (w *world) passTime(t *rapid.T) {
	w.advance(time.Duration(rapid.SampledFrom([]int{1, 60, 130, 150, 500}).Draw(t, "seconds")) * time.Second)
}

// outwait: whoever is told busy is told something else once the lease is over.
func (w *world) outwait(t *rapid.T) {
	m, ok := pick(t, "message", w.messages, func(*message) bool { return true })
	if !ok {
		return
	}
	c := w.claimFor(t, m.d, "settle")
	if c.Verdict != Busy {
		w.settled(t, m, c)
		return
	}
	w.advance(c.Lease)
	again := w.claimFor(t, m.d, "settle")
	if again.Verdict == Busy {
		t.Fatalf("entry %s is still busy after its lease of %v", m.d.Envelope.EntryID, c.Lease)
	}
	w.settled(t, m, again)
}

// The bridge takes a parked entry up again.
func (w *world) unpark(t *rapid.T) {
	e, ok := pick(t, "parked entry", w.entries, func(e *entry) bool { return e.parked })
	if ok {
		w.takeUp(e)
	}
}

func (w *world) takeUp(e *entry) {
	e.parked = false
	if !w.pending(tebra.GroupParked, e) {
		return
	}
	w.acknowledge(tebra.GroupParked, e)
	if w.ended(e) {
		return
	}
	var err error
	e.d.Envelope.Epoch, err = w.l.Epoch(w.t.Context())
	w.must(err)
	w.must(w.rdb.ZAddNX(w.t.Context(), w.keys.Open(tebra.DefaultLane), redis.Z{Score: 1, Member: e.id()}).Err())
	w.messages = append(w.messages, &message{e: e, d: e.d})
}

// Pub/Sub gives a message up.
func (w *world) deadLetter(t *rapid.T) {
	m, ok := pick(t, "message", w.messages, func(m *message) bool { return !m.acked && !m.dead })
	if !ok {
		return
	}
	m.dead = true
}

// RecordDeadLetter answers for it.
func (w *world) settleDead(t *rapid.T) {
	m, ok := pick(t, "dead letter", w.messages, func(m *message) bool { return m.dead })
	if !ok {
		return
	}
	w.settled(t, m, w.claimFor(t, m.d, "settle"))
}

// The bridge's sweep answers for an entry that is open.
func (w *world) sweep(t *rapid.T) {
	e, ok := pick(t, "entry", w.entries, func(e *entry) bool { return e.d.Envelope.Epoch != "" && !e.parked && !e.unread })
	if !ok {
		return
	}
	w.settled(t, &message{e: e, d: e.d}, w.claimFor(t, e.d, "settle"))
}

// settled ends what Settle said, at once or, if whoever asked dies, never.
func (w *world) settled(t *rapid.T, m *message, c *Claim) {
	if !c.Verdict.Held() {
		m.dead = m.dead && c.Verdict == Busy
		m.acked = m.acked || c.Verdict != Busy
		return
	}
	if rapid.IntRange(0, 3).Draw(t, "settler dies") == 0 {
		return
	}
	k := w.employ(t, m, c)
	if c.Verdict == Unknown {
		w.complete(t, k, fail(tebra.OutcomeUnknown))
	} else {
		w.complete(t, k, fail(tebra.DeadLettered))
	}
	m.dead = m.dead && !m.acked
}

// An operator replays an entry's dead letter.
func (w *world) replay(t *rapid.T) {
	e, ok := pick(t, "entry", w.entries, func(e *entry) bool { return e.d.Envelope.Epoch != "" })
	if !ok {
		return
	}
	force := rapid.IntRange(0, 3).Draw(t, "force") == 0
	wish := replayOf(e.d, e.req, force)
	w.seq += 100
	wish.Request.CorrelationID = fmt.Sprintf("c%d", w.seq)
	token := w.l.newToken()
	resend := func() (Replayed, error) { return w.l.replay(context.Background(), wish, token, false) }
	got, err := resend()
	var refused *RefusedError
	if errors.As(err, &refused) {
		return
	}
	life, losses := w.life, e.losses
	again := w.command(t, "replay", func() string {
		if life != w.life || losses != e.losses {
			return "" // it would be another replay
		}
		return fmt.Sprint(resend())
	})
	if want := fmt.Sprint(got, err); again != want {
		t.Fatalf("Replay() resent = %s, want %s", again, want)
	}
	w.must(err)
	w.replayDone(t, e, wish, got)
}

func (w *world) replayDone(t *rapid.T, e *entry, wish Replay, got Replayed) {
	id := e.id()
	if got.Already {
		if want := w.replayed[id]; want != got.EntryID {
			t.Fatalf("Replay(%s) found entry %s, want %s", id, got.EntryID, want)
		}
		return
	}
	if e.req.write && !wish.Force && w.called[w.grantOf(e.d)] {
		t.Fatalf("Replay(%s) without force, though a call may have been made", id)
	}
	if wish.Force {
		w.grants[e.d.Envelope.Ledger]++
	}
	w.replayed[id] = got.EntryID
	w.count(t)
	e.replaced = e.answers == 0
	d := w.delivery(e.req, got.EntryID, wish.Request.CorrelationID)
	w.entries = append(w.entries, &entry{d: d, req: e.req, life: w.life, unread: true})
}

// A copy of an earlier command reaches Redis late. Nobody reads its reply.
func (w *world) lateCopy(t *rapid.T) {
	do, ok := pick(t, "command", w.copies, func(func() string) bool { return true })
	if ok {
		do()
	}
}

// Others trim the streams.
func (w *world) trim(t *rapid.T) {
	if rapid.Bool().Draw(t, "answers") {
		w.count(t)
		w.must(w.rdb.XTrimMaxLen(w.t.Context(), w.keys.Responses(), 1).Err())
		return
	}
	e, ok := pick(t, "entry", w.entries, func(e *entry) bool { return !e.unread && !e.parked })
	if !ok {
		return
	}
	w.must(w.rdb.XDel(w.t.Context(), w.keys.Requests(), e.id()).Err())
}

// Redis loses what it had.
func (w *world) accident(t *rapid.T) {
	if w.calm {
		return
	}
	switch rapid.IntRange(0, 4).Draw(t, "accident") {
	case 0:
		w.loseEverything(t)
	case 1:
		w.must(w.rdb.Del(w.t.Context(), w.keys.Epoch()).Err())
	case 2, 3:
		w.loseRecord(t)
	}
}

func (w *world) loseEverything(t *rapid.T) {
	w.count(t)
	w.flush()
	w.life++
	w.lastSeen = map[string]string{}
	w.replayed = map[string]string{}
	for _, e := range w.entries {
		e.unread, e.parked, e.answers, e.ended = false, false, 0, false
	}
	for _, k := range w.workers {
		k.lost = true
	}
}

func (w *world) loseRecord(t *rapid.T) {
	lost, ok := pick(t, "entry", w.entries, func(*entry) bool { return true })
	if !ok {
		return
	}
	w.must(w.rdb.Del(w.t.Context(), w.keys.Ledger(lost.d.Envelope.Ledger)).Err())
	for _, e := range w.entries {
		if e.d.Envelope.Ledger == lost.d.Envelope.Ledger {
			e.losses++
			delete(w.replayed, e.id())
		}
	}
	for _, k := range w.workers {
		k.lost = k.lost || k.c.Delivery.Envelope.Ledger == lost.d.Envelope.Ledger
	}
}

// check holds what the streams say against the promises.
func (w *world) check(t *rapid.T) {
	w.count(t)
	for _, e := range w.entries {
		if e.answers > 1+e.losses {
			t.Fatalf("entry %s has %d terminal answers, want at most %d", e.id(), e.answers, 1+e.losses)
		}
		if e.replaced && e.life == w.life && e.answers > e.losses {
			t.Fatalf("entry %s has an answer, though another takes its place", e.id())
		}
	}
}

// count reads what is new on the streams.
func (w *world) count(t *rapid.T) {
	byCorrelation := map[string]*entry{}
	for _, e := range w.entries {
		byCorrelation[e.d.Envelope.CorrelationID] = e
	}
	w.each(w.keys.Status(), func(m map[string]string) {
		s, err := tebra.ParseStatus(m)
		w.must(err)
		e := byCorrelation[s.CorrelationID]
		if e.ended && e.losses == 0 {
			t.Fatalf("entry %s is %s after its end", e.id(), s.State)
		}
		e.ended = s.State.Terminal()
	})
	w.each(w.keys.Responses(), func(m map[string]string) {
		r, err := tebra.ParseResponse(m)
		w.must(err)
		e := byCorrelation[r.CorrelationID]
		e.answers++
		if r.State() == tebra.Success && string(r.Data) != `"`+e.d.Fingerprint+`"` {
			t.Fatalf("entry %s was told the answer to another request", e.id())
		}
	})
}

func (w *world) each(stream string, see func(map[string]string)) {
	from := "-"
	if last := w.lastSeen[stream]; last != "" {
		from = "(" + last
	}
	found, err := w.rdb.XRange(w.t.Context(), stream, from, "+").Result()
	w.must(err)
	for _, x := range found {
		see(fields(x))
		w.lastSeen[stream] = x.ID
	}
}

// drain brings everything to rest: all who work die, and then nothing goes
// wrong any more.
func (w *world) drain(t *rapid.T) {
	w.workers = nil
	for range 4 {
		w.expire()
		w.round(t)
		w.check(t)
		if w.quiet() {
			w.sweepLost(t)
			w.checkEnd(t)
			return
		}
	}
	t.Fatal("there is no end to it")
}

// round lets everybody do once what is to be done.
func (w *world) round(t *rapid.T) {
	for _, e := range w.entries {
		if e.unread {
			w.take(t, e, 0)
		}
		if e.parked {
			w.takeUp(e)
		}
	}
	for _, m := range w.messages {
		if m.dead {
			w.finish(t, m, "settle", fail(tebra.DeadLettered))
		} else if !m.acked {
			w.finish(t, m, "call", tebra.Response{Data: json.RawMessage(`"` + m.d.Fingerprint + `"`)})
		}
	}
}

// finish brings a message to its end, unless it is busy.
func (w *world) finish(t *rapid.T, m *message, mode string, resp tebra.Response) {
	c, err := w.l.claim(w.t.Context(), m.d, mode, w.l.newToken(), w.l.newAnswerID())
	w.must(err)
	if c.Verdict == Busy {
		return
	}
	m.acked, m.dead = true, false
	if c.Verdict == Unknown {
		resp = fail(tebra.OutcomeUnknown)
	}
	if c.Verdict == Run && mode == "call" {
		w.checkRun(t, m.d)
		w.must(w.l.Start(w.t.Context(), c, testNeed))
		w.called[w.grantOf(m.d)] = true
	}
	if c.Verdict.Held() {
		w.must(w.l.Complete(w.t.Context(), c, resp))
	}
}

// sweepLost answers what is open of entries that Redis lost: their messages may
// have been acknowledged before. No other entry needs the sweep.
func (w *world) sweepLost(t *rapid.T) {
	for _, e := range w.entries {
		if (e.life != w.life || e.losses > 0) && w.isOpen(e.d) {
			w.finish(t, &message{e: e, d: e.d}, "settle", fail(tebra.NoAnswer))
		}
	}
	w.check(t)
}

func (w *world) quiet() bool {
	busy := slices.ContainsFunc(w.messages, func(m *message) bool { return m.dead || !m.acked })
	return !busy && !slices.ContainsFunc(w.entries, func(e *entry) bool { return e.unread || e.parked })
}

// checkEnd: whatever Redis did not lose has its answer, or another entry has it
// in its place, and no place in a lane is taken.
func (w *world) checkEnd(t *rapid.T) {
	for _, e := range w.entries {
		if e.life == w.life && !e.replaced && e.answers == 0 {
			t.Fatalf("entry %s has no answer at the end", e.id())
		}
	}
	for _, key := range []string{w.keys.Open(tebra.DefaultLane), w.keys.Retrying(tebra.DefaultLane)} {
		left, err := w.rdb.ZRange(w.t.Context(), key, 0, -1).Result()
		w.must(err)
		if len(left) > 0 {
			t.Fatalf("%s holds %v at the end, want nothing", key, left)
		}
	}
}
