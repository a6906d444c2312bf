package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"tebraproxy/bridge/internal/fleet"
	"tebraproxy/pkg/peertest"
)

// The faults.
const (
	kill   = "kill -9"
	stop   = "SIGTERM"
	freeze = "SIGSTOP"
)

// schedule breaks parts of a fleet at random.
type schedule struct {
	t     *testing.T
	fleet *fleet.Fleet
	rng   *rand.Rand
	every time.Duration // between two faults, on average
	began time.Time

	wg   sync.WaitGroup
	mu   sync.Mutex
	busy map[*peertest.Process]bool
	log  []string
}

func newSchedule(t *testing.T, f *fleet.Fleet, rng *rand.Rand, every time.Duration) *schedule {
	return &schedule{t: t, fleet: f, rng: rng, every: every, began: time.Now(), busy: map[*peertest.Process]bool{}}
}

// note keeps a line of what was done, for the report of a failure.
func (s *schedule) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.log = append(s.log, fmt.Sprintf("%s +%6.2fs  %s", now.UTC().Format("15:04:05.000"), now.Sub(s.began).Seconds(), fmt.Sprintf(format, args...)))
}

// run breaks one thing after another until ctx ends, and returns once everything
// runs again. It belongs to the test's own goroutine, as Redis's methods do.
func (s *schedule) run(ctx context.Context) {
	defer s.wg.Wait()
	for ctx.Err() == nil {
		pause(ctx, time.Duration(s.rng.ExpFloat64()*float64(s.every)))
		if ctx.Err() != nil {
			return
		}
		s.one()
	}
}

// one breaks one part. What is decided by chance is decided here, so that it
// depends on the seed alone.
func (s *schedule) one() {
	what, down := s.fault()
	if s.rng.IntN(8) == 0 {
		s.breakRedis(what, min(down, 3*time.Second))
		return
	}
	victims := append(append([]*peertest.Process(nil), s.fleet.Bridges...), s.fleet.Processors...)
	victims = append(victims, s.fleet.Recorders...)
	victim := victims[s.rng.IntN(len(victims))]
	if !s.take(victim) {
		return
	}
	s.wg.Go(func() {
		defer s.give(victim)
		s.breakPart(victim, what, down)
	})
}

// longPause outlasts a ledger's lease, CLAIM_IDLE and the acknowledgement deadline:
// who was taken for dead comes back.
const longPause = ledgerLease + 2*time.Second

// fault returns a fault, and for how long it lasts.
func (s *schedule) fault() (what string, down time.Duration) {
	down = time.Duration(100+s.rng.IntN(1400)) * time.Millisecond
	roll := s.rng.Float64()
	switch {
	case roll < 0.45:
		return kill, down
	case roll < 0.70:
		return stop, down
	case roll < 0.93:
		return freeze, 3 * down
	default:
		return freeze, longPause
	}
}

func (s *schedule) take(p *peertest.Process) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[p] {
		return false
	}
	s.busy[p] = true
	return true
}

func (s *schedule) give(p *peertest.Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, p)
}

func (s *schedule) breakPart(p *peertest.Process, what string, down time.Duration) {
	if !p.Running() {
		s.t.Errorf("%s had ended by itself (%s); its log is %s", p.Name(), p.Exit(), p.LogFile())
		s.check(p.Start(context.Background()))
		return
	}
	s.note("%s %s for %v", what, p.Name(), down)
	switch what {
	case kill:
		s.check(p.Kill())
	case stop:
		s.check(p.Stop())
	case freeze:
		s.check(p.Pause())
		lasts(down)
		s.check(p.Resume())
		s.note("%s goes on", p.Name())
		return
	}
	lasts(down)
	s.check(p.Start(context.Background()))
	s.note("%s runs again", p.Name())
}

// lasts is a fault's time, in which nothing is waited for.
func lasts(down time.Duration) { time.Sleep(down) }

func (s *schedule) check(err error) {
	if err != nil {
		s.t.Error(err)
	}
}

func (s *schedule) breakRedis(what string, down time.Duration) {
	s.note("%s redis for %v", what, down)
	switch what {
	case kill:
		s.fleet.Redis.Kill()
	case stop:
		s.fleet.Redis.Stop()
	case freeze:
		s.fleet.Redis.Pause()
		lasts(down)
		s.fleet.Redis.Resume()
		s.note("redis goes on")
		return
	}
	lasts(down)
	s.fleet.Redis.Start()
	s.note("redis runs again")
}

// outage has the API down for so long: nobody listens, and what it was at is cut
// off.
func (s *schedule) outage(down time.Duration) {
	s.note("the API is down for %v", down)
	s.check(s.fleet.API.Kill())
	lasts(down)
	s.check(s.fleet.API.Start(context.Background()))
	s.note("the API is back")
}
