package breaker

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// event is something that happens to one of two instances' breakers.
type event struct {
	breaker int
	calls   int // that end with ok
	ok      bool
	look    bool
	pass    time.Duration
}

func fail(n int) event               { return event{calls: n} }
func succeed(n int) event            { return event{calls: n, ok: true} }
func pass(d time.Duration) event     { return event{pass: d} }
func (e event) at(breaker int) event { e.breaker = breaker; return e }

// look is what [Breaker.Open] does every so often.
var look = event{look: true}

func TestItOpensWhenFailuresAreEnoughAndHalfOfAllCalls(t *testing.T) {
	tests := []struct {
		name     string
		events   []event
		want     State
		failures int // in the window, when it is closed
	}{
		{"nothing", nil, Closed, 0},
		{"successes alone", []event{succeed(1000), look, succeed(1)}, Closed, 0},
		{"one failure too few", []event{fail(2)}, Closed, 2},
		{"just enough failures", []event{fail(3)}, Open, 0},
		{"failures of two instances", []event{fail(1), fail(1).at(1), fail(1)}, Open, 0},
		{"half of all calls", []event{succeed(3), fail(3)}, Open, 0},
		{"just less than half", []event{succeed(4), fail(3)}, Closed, 3},
		{"half in the end", []event{succeed(4), fail(4)}, Open, 0},
		{"successes that another instance has told of", []event{succeed(4).at(1), look.at(1), fail(3)}, Closed, 3},
		{"successes that another instance tells with its failure", []event{succeed(4).at(1), fail(1).at(1), fail(2)}, Closed, 3},
		{"no success is told twice", []event{succeed(2), look, look, fail(3)}, Open, 0},
		{"failures that are still in the window", []event{fail(2), pass(5 * time.Second), fail(1)}, Open, 0},
		{"failures that left the window", []event{fail(2), pass(6 * time.Second), fail(1)}, Closed, 1},
		{"failures that leave one after the other", []event{fail(1), pass(3 * time.Second), fail(1), pass(3 * time.Second), fail(1)}, Closed, 2},
		{"told successes that left the window", []event{succeed(9), look, pass(6 * time.Second), fail(3)}, Open, 0},
		{"successes that left the window before they were told", []event{succeed(9), pass(6 * time.Second), fail(3)}, Open, 0},
		{"successes told late count for when they were", []event{succeed(9), pass(5 * time.Second), look, fail(2), pass(time.Second), fail(1)}, Open, 0},
		{"of successes told late, only those in the window", []event{succeed(9), pass(5 * time.Second), succeed(2), pass(time.Second), fail(3)}, Open, 0},
		{"successes kept for less than the window", []event{succeed(4), pass(5 * time.Second), fail(3)}, Closed, 3},
		{"failures that a clock set back left ahead", []event{fail(2), pass(-time.Hour), fail(1)}, Closed, 1},
	}
	eachRedis(t, func(t *testing.T, w *world) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				w := &world{t, w.rdb, w.keys, newClock()}
				w.rdb.Del(t.Context(), w.keys.Breaker())
				breakers := [2]*Breaker{w.breaker(), w.breaker()}
				for _, e := range test.events {
					w.record(breakers[e.breaker], e.ok, e.calls)
					if e.look {
						w.state(breakers[e.breaker])
					}
					w.clock.advance(e.pass)
				}
				got := w.state(w.breaker())
				if got.State != test.want || got.Failures != test.failures {
					t.Errorf("State() = %v with %d failures, want %v with %d", got.State, got.Failures, test.want, test.failures)
				}
			})
		}
	})
}

func TestOpenLastsUntilAProbeSucceeds(t *testing.T) {
	eachRedis(t, func(t *testing.T, w *world) {
		b, other := w.opened(), w.breaker()
		since := w.clock.now()
		if ttl := w.ttl(); ttl != -1 {
			t.Errorf("Redis keeps the open breaker for %v, want for ever", ttl)
		}
		w.clock.advance(rules.Interval - time.Millisecond)
		want := Snapshot{State: Open, Since: since, NextProbe: since.Add(rules.Interval), Opened: 1, At: w.clock.now()}
		if got := w.state(other); got != want {
			t.Errorf("State() just before the interval is over = %+v, want %+v", got, want)
		}
		if w.tryProbe(b) {
			t.Error("TryProbe() before the interval is over = true, want false")
		}
		w.clock.advance(time.Millisecond)
		if got := w.state(other).State; got != HalfOpen {
			t.Errorf("State() when the interval is over = %v, want %v", got, HalfOpen)
		}
		w.clock.advance(30 * 24 * time.Hour)
		if got := w.state(other).State; got != HalfOpen {
			t.Errorf("State() after 30 days without traffic = %v, want %v", got, HalfOpen)
		}
		w.probed(b, true)
		want = Snapshot{State: Closed, Opened: 1, At: w.clock.now()}
		if got := w.state(other); got != want {
			t.Errorf("State() after a successful probe = %+v, want %+v", got, want)
		}
		if ttl := w.ttl(); ttl <= 0 {
			t.Errorf("Redis keeps the closed breaker for %v, want an end", ttl)
		}
	})
}

func TestAProbeThatFailsBeginsAnotherInterval(t *testing.T) {
	eachRedis(t, func(t *testing.T, w *world) {
		b := w.opened()
		since := w.clock.now()
		for range 3 {
			w.clock.advance(rules.Interval)
			if !w.tryProbe(b) {
				t.Fatal("TryProbe() when the interval is over = false, want true")
			}
			w.clock.advance(4 * time.Second) // the probe takes that long
			w.probed(b, false)
			got, next := w.state(b), w.clock.now().Add(rules.Interval)
			if got.State != Open || !got.NextProbe.Equal(next) || !got.Since.Equal(since) || w.ttl() != -1 {
				t.Errorf("after a failed probe: %+v, kept for %v, want %v since %v with the next probe at %v, for ever",
					got, w.ttl(), Open, since, next)
			}
		}
	})
}

func TestAClosedBreakerHasForgottenWhatOpenedIt(t *testing.T) {
	eachRedis(t, func(t *testing.T, w *world) {
		b := w.opened()
		w.probed(b, true)
		if got := w.record(b, false, rules.MinFailures-1); got != Closed {
			t.Errorf("Record(false) one time too few after closing = %v, want %v", got, Closed)
		}
		if got := w.record(b, false, 1); got != Open {
			t.Errorf("Record(false) often enough after closing = %v, want %v", got, Open)
		}
		if got := w.state(b).Opened; got != 2 {
			t.Errorf("State().Opened = %d, want 2", got)
		}
	})
}

func TestCallsThatEndWhileItIsOpenChangeNothing(t *testing.T) {
	eachRedis(t, func(t *testing.T, w *world) {
		b := w.opened()
		want := w.state(b)
		if got := w.record(b, false, 20); got != Open {
			t.Errorf("Record(false) while open = %v, want %v", got, Open)
		}
		w.record(b, true, 20)
		if got := w.state(b); got != want {
			t.Errorf("State() after calls that were under way = %+v, want %+v", got, want)
		}
		w.clock.advance(rules.Interval)
		if got := w.record(b, false, 1); got != HalfOpen {
			t.Errorf("Record(false) while half-open = %v, want %v", got, HalfOpen)
		}
		w.probed(b, true)
		if got := w.state(b).Failures; got != 0 {
			t.Errorf("failures on record after closing = %d, want 0", got)
		}
	})
}

func TestWhileClosedThereIsNothingToProbe(t *testing.T) {
	eachRedis(t, func(t *testing.T, w *world) {
		b := w.breaker()
		w.record(b, false, rules.MinFailures-1)
		want := w.state(b)
		if w.tryProbe(b) {
			t.Error("TryProbe() while closed = true, want false")
		}
		w.probed(b, true)
		w.probed(b, false)
		if got := w.state(b); got != want {
			t.Errorf("State() after late probes = %+v, want %+v", got, want)
		}
	})
}

func TestOneCallerTakesTheProbeOfAnInterval(t *testing.T) {
	eachRedis(t, func(t *testing.T, w *world) {
		w.opened()
		for range 3 {
			w.clock.advance(rules.Interval)
			var winners atomic.Int32
			var wg sync.WaitGroup
			for range 20 {
				b := w.breaker()
				wg.Go(func() {
					mine, err := b.TryProbe(t.Context())
					if err != nil {
						t.Errorf("TryProbe() = %v", err)
					}
					if mine {
						winners.Add(1)
					}
				})
			}
			wg.Wait()
			if got := winners.Load(); got != 1 {
				t.Errorf("%d of 20 callers were to send the probe, want 1", got)
			}
		}
	})
}

func TestAProbeWhoseTakerDiedIsDueAgainAnIntervalLater(t *testing.T) {
	eachRedis(t, func(t *testing.T, w *world) {
		b := w.opened()
		w.clock.advance(rules.Interval)
		if first, second := w.tryProbe(b), w.tryProbe(w.breaker()); !first || second {
			t.Fatalf("TryProbe() twice = %v, %v, want true, false", first, second)
		}
		w.clock.advance(rules.Interval - time.Millisecond)
		if w.tryProbe(b) {
			t.Error("TryProbe() before the next interval is over = true, want false")
		}
		w.clock.advance(time.Millisecond)
		if !w.tryProbe(b) {
			t.Error("TryProbe() when the next interval is over = false, want true")
		}
	})
}

func TestAClockSetBackDelaysTheProbeByAnIntervalAtMost(t *testing.T) {
	eachRedis(t, func(t *testing.T, w *world) {
		b := w.opened()
		w.clock.advance(-time.Hour)
		if got, want := w.state(b).NextProbe, w.clock.now().Add(rules.Interval); !got.Equal(want) {
			t.Errorf("next probe after the clock was set back: %v, want %v", got, want)
		}
		w.clock.advance(rules.Interval)
		if !w.tryProbe(b) {
			t.Error("TryProbe() an interval later = false, want true")
		}
	})
}

// The other tests set the clock: this is the one that goes by the server's.
func TestWithoutAClockItGoesByThatOfRedis(t *testing.T) {
	eachRedis(t, func(t *testing.T, w *world) {
		cfg := rules
		cfg.Interval = time.Millisecond
		b := New(w.rdb, w.keys, cfg)
		before := w.rdb.Time(t.Context()).Val().Truncate(time.Millisecond)
		w.record(b, false, rules.MinFailures)
		got, after := w.state(b), w.rdb.Time(t.Context()).Val()
		if got.Since.Before(before) || got.At.Before(got.Since) || got.At.After(after) {
			t.Errorf("State() = %+v, want times between %v and %v", got, before, after)
		}
	})
}

func TestRulesOutOfBoundsAreRefused(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		cfg  Config
		want string // what the panic names, "" if there is none
	}{
		"the defaults":                {Config{}, ""},
		"the least of everything":     {Config{Window: 6 * time.Millisecond, MinFailures: 1, Interval: time.Millisecond, CacheFor: 1}, ""},
		"the longest of everything":   {Config{Window: time.Hour, Interval: time.Hour}, ""},
		"a window without parts":      {Config{Window: 5 * time.Millisecond}, "Window"},
		"a window that is too long":   {Config{Window: time.Hour + 1}, "Window"},
		"a window back in time":       {Config{Window: -time.Second}, "Window"},
		"no failure needed":           {Config{MinFailures: -1}, "MinFailures"},
		"no interval to speak of":     {Config{Interval: time.Millisecond - 1}, "Interval"},
		"an interval that is eternal": {Config{Interval: 2 * time.Hour}, "Interval"},
		"a cache back in time":        {Config{CacheFor: -1}, "CacheFor"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			defer func() {
				got, _ := recover().(string)
				if !strings.Contains(got, test.want) || (got == "") != (test.want == "") {
					t.Errorf("New(%+v) panics with %q, want something about %q", test.cfg, got, test.want)
				}
			}()
			New(nil, newKeys(t, "tebra"), test.cfg)
		})
	}
}

func TestStatesHaveNames(t *testing.T) {
	t.Parallel()
	for state, want := range map[State]string{Closed: "closed", Open: "open", HalfOpen: "half-open", 7: "State(7)"} {
		if got := state.String(); got != want {
			t.Errorf("State(%d).String() = %q, want %q", int(state), got, want)
		}
	}
}

func TestParseReadsRepliesAndRefusesOddOnes(t *testing.T) {
	t.Parallel()
	open := Snapshot{State: Open, Since: time.UnixMilli(10), NextProbe: time.UnixMilli(20), Opened: 4, At: time.UnixMilli(15)}
	tests := []struct {
		name  string
		reply []any
		want  Snapshot
		took  bool
		fails bool
	}{
		{"open", []any{int64(1), "10", "20", int64(0), int64(4), "15", int64(0)}, open, false, false},
		{"the probe taken", []any{int64(1), "10", "20", int64(0), int64(4), "15", int64(1)}, open, true, false},
		{"closed", []any{int64(0), "0", "0", int64(3), int64(4), "15", int64(0)},
			Snapshot{Failures: 3, Opened: 4, At: time.UnixMilli(15)}, false, false},
		{"nothing", nil, Snapshot{}, false, true},
		{"too short", []any{int64(1), "10", "20"}, Snapshot{}, false, true},
		{"too long", []any{int64(1), "10", "20", int64(0), int64(4), "15", int64(0), int64(0)}, Snapshot{}, false, true},
		{"text that is no number", []any{int64(1), "ten", "20", int64(0), int64(4), "15", int64(0)}, Snapshot{}, false, true},
		{"a number too large", []any{int64(1), "99999999999999999999", "20", int64(0), int64(4), "15", int64(0)}, Snapshot{}, false, true},
		{"nil in it", []any{int64(1), nil, "20", int64(0), int64(4), "15", int64(0)}, Snapshot{}, false, true},
		{"an unknown state", []any{int64(3), "10", "20", int64(0), int64(4), "15", int64(0)}, Snapshot{}, false, true},
		{"a negative state", []any{int64(-1), "10", "20", int64(0), int64(4), "15", int64(0)}, Snapshot{}, false, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, took, err := parse(test.reply)
			if (err != nil) != test.fails {
				t.Fatalf("parse(%v) = %v, want an error: %v", test.reply, err, test.fails)
			}
			if !test.fails && (got != test.want || took != test.took) {
				t.Errorf("parse(%v) = %+v, %v, want %+v, %v", test.reply, got, took, test.want, test.took)
			}
		})
	}
}
