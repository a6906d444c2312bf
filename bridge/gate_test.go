package bridge

import (
	"testing"
	"time"

	"tebraproxy/pkg/breaker"
	"tebraproxy/pkg/peertest"
	"tebraproxy/pkg/tebra"
)

// fastBreaker is a breaker that opens at the second failure and asks for a probe
// every so often.
func (b *bundle) fastBreaker(interval time.Duration) *breaker.Breaker {
	return breaker.New(b.rdb, b.keys, breaker.Config{MinFailures: 2, Interval: interval})
}

// startWith starts a bridge that goes by a breaker with that interval.
func (b *bundle) startWith(interval time.Duration, more ...string) *running {
	b.Helper()
	r := b.assemble(more...)
	r.deps.Breaker = b.fastBreaker(interval)
	r.begin(b.T)
	return r
}

// trip opens the breaker.
func (b *bundle) trip(br *breaker.Breaker) {
	b.Helper()
	for range 2 {
		if _, err := br.Record(b.Context(), false); err != nil {
			b.Fatalf("Record() = %v", err)
		}
	}
}

// waitGate waits until a bridge's gate is open, or shut.
func (b *bundle) waitGate(r *running, open bool) {
	b.Helper()
	peertest.Eventually(b.T, wait, "the gate to follow the breaker", func() bool { return r.gate.isOpen() == open })
}

func TestWhileTheBreakerIsOpenNothingIsReadOrPublished(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const interval = 300 * time.Millisecond
	br := b.fastBreaker(interval)
	bridges := []*running{b.startWith(interval), b.startWith(interval), b.startWith(interval)}
	b.waitPublished(b.add(5, "quick"))
	b.waitSettled()
	b.trip(br)
	opened := time.Now()
	for _, r := range bridges {
		b.waitGate(r, false)
	}
	// A read that was under way when the breaker opened may take a few more.
	first := b.add(1, "quick")
	readBefore := func() (n int64) {
		for _, r := range bridges {
			n += r.counts.read.Load()
		}
		return n
	}
	peertest.Eventually(t, wait, "reads that were under way to end", func() bool { return time.Since(opened) > readBlock+breakerPoll })
	before := readBefore()
	ids := append(first, b.add(100, "quick")...)
	ids = append(ids, b.add(10, "slow")...)
	peertest.Eventually(t, wait, "a few probes", func() bool { return b.sink.probes() >= 4 })
	if got := readBefore(); got != before {
		t.Errorf("%d entries were read while the breaker was open, want none", got-before)
	}
	if got := len(b.sink.requests()); got != 5 {
		t.Errorf("%d requests were published while the breaker was open, want none", got-5)
	}
	if most := int(time.Since(opened)/interval) + 1; b.sink.probes() > most {
		t.Errorf("%d probes by three bridges in %v, want at most %d: one an interval", b.sink.probes(), time.Since(opened), most)
	}
	for _, r := range bridges {
		if got := r.gate.reason(); got != "breaker" {
			t.Errorf("the gate's reason is %q, want breaker", got)
		}
	}

	if err := br.Probed(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	closed := time.Now()
	peertest.Eventually(t, wait, "the flow to go on", func() bool { return len(b.sink.requests()) > 5 })
	if took := time.Since(closed); took > time.Second {
		t.Errorf("the flow went on %v after the breaker had closed, want within a second", took)
	}
	b.waitPublished(ids)
	b.checkPromises(ids)
	b.checkNobodyToldTwice()
}

func TestAProbeSaysThatItIsOneAndAFailedOneKeepsTheGateShut(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const interval = 200 * time.Millisecond
	br := b.fastBreaker(interval)
	b.trip(br)
	r := b.startWith(interval)
	ids := b.add(10, "quick")
	for want := 1; want <= 3; want++ {
		peertest.Eventually(t, wait, "a probe", func() bool { return b.sink.probes() >= want })
		if err := br.Probed(t.Context(), false); err != nil {
			t.Fatal(err)
		}
	}
	b.waitGate(r, false)
	if got := len(b.sink.requests()); got != 0 {
		t.Errorf("%d requests were published, want none", got)
	}
	b.sink.mu.Lock()
	probe := b.sink.messages[requestsTopic][0]
	b.sink.mu.Unlock()
	env, err := tebra.ParseEnvelope(probe.Attributes)
	if err != nil || !env.Probe || env.AdmittedAt.IsZero() || string(probe.Data) != "{}" {
		t.Errorf("probe = %v, %v, want a probe with its time and an empty object", probe, err)
	}
	if err := br.Probed(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	b.checkPromises(ids)
}

func TestWhatWasReadJustWhenTheBreakerOpenedIsParked(t *testing.T) {
	t.Parallel()
	for name, admit := range map[string]func(*Bridge, *testing.T, *batch) error{
		"fast":    func(b *Bridge, t *testing.T, bt *batch) error { return b.admit(t.Context(), bt) },
		"careful": func(b *Bridge, t *testing.T, bt *batch) error { return b.admitCarefully(t.Context(), bt) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			r := b.assemble()
			if err := r.enter(t.Context()); err != nil {
				t.Fatal(err)
			}
			ids := append(b.add(10, "quick"), b.add(40, "slow")...)
			entries, err := r.stream.Read(t.Context(), r.Consumer(), 100, time.Second)
			if err != nil || len(entries) != len(ids) {
				t.Fatalf("Read() = %d entries, %v, want %d", len(entries), err, len(ids))
			}
			bt := r.newBatch(entries)
			r.gate.breakerOpen.Store(true)
			if err := admit(r.Bridge, t, bt); err != nil {
				t.Fatalf("admit: %v", err)
			}
			r.finish(bt)
			if len(bt.items) != 0 {
				t.Errorf("%d items are to be published, want none", len(bt.items))
			}
			if w := b.waiting(); w.Parked != int64(len(ids)) || w.InHand != 0 {
				t.Errorf("waiting = %+v, want all %d parked", w, len(ids))
			}
			if got := b.open("slow") + b.open(tebra.DefaultLane); got != 0 {
				t.Errorf("%d are open, want none", got)
			}
			r.begin(t) // the breaker in Redis is closed
			b.answerPublished("slow", time.Millisecond)
			b.checkPromises(ids)
			b.checkNobodyToldTwice()
		})
	}
}

func TestParkedRequestsStayParkedWhileTheBreakerIsOpen(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const interval = 200 * time.Millisecond
	br := b.fastBreaker(interval)
	r := b.startWith(interval)
	ids := b.add(slowWindow+20, "slow")
	b.waitPublished(ids[:slowWindow])
	peertest.Eventually(t, wait, "the rest to be parked", func() bool { return b.waiting().Parked == 20 })
	b.trip(br)
	b.waitGate(r, false)
	b.answer("slow", ids[:slowWindow]...)
	probes := b.sink.probes()
	peertest.Eventually(t, wait, "a few probes", func() bool { return b.sink.probes() >= probes+3 })
	if got := len(b.sink.requests()); got != slowWindow {
		t.Errorf("%d parked requests were published while the breaker was open, want none", got-slowWindow)
	}
	if err := br.Probed(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	closed := time.Now()
	peertest.Eventually(t, wait, "the flow to go on", func() bool { return len(b.sink.requests()) > 5 })
	if took := time.Since(closed); took > time.Second {
		t.Errorf("the flow went on %v after the breaker had closed, want within a second", took)
	}
	b.waitPublished(ids)
}
