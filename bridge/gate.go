package bridge

import (
	"context"
	"sync/atomic"
	"time"

	"tebraproxy/pkg/breaker"
	"tebraproxy/pkg/tebra"
)

// gate says whether requests may be read and published: not while the breaker is
// open, and not while Pub/Sub can't be used. It is safe for concurrent use.
type gate struct {
	breakerOpen atomic.Bool
	pubsubDown  atomic.Bool
}

// gatePoll is how often those who wait look whether the gate is open.
const gatePoll = 20 * time.Millisecond

// isOpen reports whether the breaker lets requests through.
func (g *gate) isOpen() bool { return !g.breakerOpen.Load() }

// publishing notes whether the last try at publishing succeeded.
func (g *gate) publishing(ok bool) { g.pubsubDown.Store(!ok) }

// wait returns once nothing is in the way of reading, or false when ctx ends.
// Trouble with Pub/Sub alone lets one look through every so often, because only
// a try can tell that it is over; who holds requests already keeps trying.
func (g *gate) wait(ctx context.Context, p *pulse) bool {
	for waited := time.Duration(0); ctx.Err() == nil; waited += gatePoll {
		p.beat()
		if g.isOpen() && (!g.pubsubDown.Load() || waited >= pubsubRetry) {
			return true
		}
		sleep(ctx, gatePoll)
	}
	return false
}

// pubsubRetry is how long a worker without requests waits before it takes some
// although Pub/Sub was last seen down.
const pubsubRetry = 2 * time.Second

// reason says why the gate is shut, "" when it is open.
func (g *gate) reason() string {
	switch {
	case g.breakerOpen.Load():
		return "breaker"
	case g.pubsubDown.Load():
		return "pubsub"
	default:
		return ""
	}
}

// breakerPoll is how often a bridge reads the breaker: often enough that the
// flow goes on within a second of its closing.
const breakerPoll = 200 * time.Millisecond

// watchBreaker follows the breaker until ctx ends, and sends the probe when it is
// this bridge's turn. Without Redis there is nothing to read or publish either.
func (b *Bridge) watchBreaker(ctx context.Context, p *pulse) {
	for ctx.Err() == nil {
		p.beat()
		b.lookAtBreaker(ctx)
		sleep(ctx, breakerPoll)
	}
}

func (b *Bridge) lookAtBreaker(ctx context.Context) {
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	now, err := b.followBreaker(ctx)
	b.noteRedis(outer, "reading the breaker", err)
	if err != nil || now != breaker.HalfOpen {
		return
	}
	if err := b.probe(ctx); err != nil {
		b.notes.trouble("probe", "the probe could not be sent; trying again", err)
		return
	}
	b.notes.over("probe")
}

// followBreaker opens or shuts the gate as the breaker says.
func (b *Bridge) followBreaker(ctx context.Context) (breaker.State, error) {
	now, err := b.deps.Breaker.State(ctx)
	if err != nil {
		return breaker.Closed, err
	}
	shut := now.State != breaker.Closed
	if was := b.gate.breakerOpen.Swap(shut); was == shut {
		return now.State, nil
	}
	b.seen.BreakerChanged(shut)
	if shut {
		b.log.Warn("the API is in trouble: nothing is read or published until a probe succeeds", "breaker", now.State.String())
	} else {
		b.log.Info("the API is back: reading and publishing go on")
		b.lanes.rouse()
	}
	return now.State, nil
}

// probe asks one function to try the API, if no other bridge does.
func (b *Bridge) probe(ctx context.Context) error {
	mine, err := b.deps.Breaker.TryProbe(ctx)
	if err != nil || !mine {
		return err
	}
	return b.deps.Requests.One(ctx, []byte("{}"), tebra.Envelope{Probe: true, AdmittedAt: b.clock.now()})
}
