package breaker

import (
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tebraproxy/pkg/peertest"
)

// model is the breaker as a list of calls, in one process.
type model struct {
	told         []call
	untold       [2][]call // successes, by instance
	since, until time.Time // zero while closed
	opened       int
}

type call struct {
	part int64
	ok   bool
}

func (m *model) isOpen() bool { return !m.since.IsZero() }

// count returns the failures and successes in the window that ends with part.
func (m *model) count(part int64) (failures, ok int) {
	for _, c := range m.told {
		switch {
		case c.part <= part-parts:
		case c.ok:
			ok++
		default:
			failures++
		}
	}
	return failures, ok
}

func (m *model) tell(instance int) {
	if !m.isOpen() {
		m.told = append(m.told, m.untold[instance]...)
	}
	m.untold[instance] = nil
}

func (m *model) fail(instance int, now time.Time, part int64) {
	m.tell(instance)
	if m.isOpen() {
		return
	}
	m.told = append(m.told, call{part, false})
	if failures, ok := m.count(part); failures >= rules.MinFailures && failures >= ok {
		m.since, m.until, m.told = now, now.Add(rules.Interval), nil
		m.opened++
	}
}

func (m *model) take(now time.Time) bool {
	if !m.isOpen() || now.Before(m.until) {
		return false
	}
	m.until = now.Add(rules.Interval)
	return true
}

func (m *model) probed(ok bool, now time.Time) {
	if !m.isOpen() {
		return
	}
	if ok {
		m.since, m.until = time.Time{}, time.Time{}
		return
	}
	m.until = now.Add(rules.Interval)
}

func (m *model) snapshot(now time.Time, part int64) Snapshot {
	s := Snapshot{Since: m.since, NextProbe: m.until, Opened: m.opened, At: now}
	s.Failures, _ = m.count(part)
	if m.isOpen() {
		s.State = Open
		if !now.Before(m.until) {
			s.State = HalfOpen
		}
	}
	return s
}

func TestAnyOrderOfEventsGivesWhatTheModelSays(t *testing.T) {
	t.Parallel()
	rdb := peertest.Redis(t).Client()
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{t, rdb, newKeys(t, "tebra"), newClock()}
		rdb.Del(t.Context(), w.keys.Breaker())
		breakers := [2]*Breaker{w.breaker(), w.breaker()}
		m := &model{}
		instance := rapid.IntRange(0, 1)
		rt.Repeat(map[string]func(*rapid.T){
			"succeed": func(rt *rapid.T) {
				i := instance.Draw(rt, "instance")
				w.record(breakers[i], true, 1)
				m.untold[i] = append(m.untold[i], call{breakers[i].part(), true})
			},
			"fail": func(rt *rapid.T) {
				i := instance.Draw(rt, "instance")
				got := w.record(breakers[i], false, 1)
				m.fail(i, w.clock.now(), breakers[i].part())
				if want := m.snapshot(w.clock.now(), breakers[i].part()).State; got != want {
					rt.Fatalf("Record(false) = %v, want %v", got, want)
				}
			},
			"look": func(rt *rapid.T) {
				i := instance.Draw(rt, "instance")
				w.state(breakers[i])
				m.tell(i)
			},
			"take": func(rt *rapid.T) {
				got, want := w.tryProbe(breakers[instance.Draw(rt, "instance")]), m.take(w.clock.now())
				if got != want {
					rt.Fatalf("TryProbe() = %v, want %v", got, want)
				}
			},
			"probed": func(rt *rapid.T) {
				ok := rapid.Bool().Draw(rt, "ok")
				w.probed(breakers[instance.Draw(rt, "instance")], ok)
				m.probed(ok, w.clock.now())
			},
			"pass": func(rt *rapid.T) {
				w.clock.advance(time.Duration(rapid.IntRange(1, 12_000).Draw(rt, "ms")) * time.Millisecond)
			},
			"": func(rt *rapid.T) {
				observer := w.breaker() // has nothing to tell
				got, want := w.state(observer), m.snapshot(w.clock.now(), observer.part())
				if got != want {
					rt.Fatalf("State() = %+v, want %+v", got, want)
				}
			},
		})
	})
}

func TestNoSuccessIsLostOrCountedTwiceByTheTally(t *testing.T) {
	t.Parallel()
	const adders, each = 8, 1000
	var counted tally
	var wg sync.WaitGroup
	for range adders {
		wg.Go(func() {
			for range each {
				counted.add(7)
			}
		})
	}
	var taken int64
	wg.Go(func() {
		for range each {
			taken += counted.take(7)[0]
		}
	})
	wg.Wait()
	if taken += counted.take(7)[0]; taken != adders*each {
		t.Errorf("%d successes taken, want the %d that were added", taken, adders*each)
	}
}
