package bridge

import (
	"context"
	"strings"
	"sync"
	"time"

	"tebraproxy/pkg/stream"
)

// Bounds of the lot.
const (
	lotMost    = 50_000  // entries
	lotBytes   = 8 << 20 // of their texts
	lotAge     = time.Second
	lotPoll    = 10 * time.Millisecond
	lotBlocked = 50 * time.Millisecond // a read that is under way for longer waits for something to come
)

// lot holds entries that can only be parked, and are not yet. Parking costs Redis
// twice what reading does. So while there is more to read, reading goes first: a
// request of another lane that stands behind a burst is found, and published,
// before the burst is put away.
//
// What is in the lot is in this bridge's hand. It is parked as soon as reading has
// caught up, or the lot is half full, or after a second. It is safe
// for concurrent use.
type lot struct {
	now func() time.Time

	mu      sync.Mutex
	groups  []*lotGroup // oldest first
	lanes   map[string]int
	entries int
	bytes   int
	behind  bool      // the last read found as much as it asked for
	asked   time.Time // when the read began that is under way, else zero
	wake    chan struct{}
}

// lotGroup is what one batch had for one lane.
type lotGroup struct {
	lane  string
	batch *batch        // held, for its IDs
	seats []stream.Seat // copies of their texts, so that the reply that they came in can be forgotten
	bytes int
	since time.Time
}

func (l *lot) init() { l.now, l.lanes, l.wake = time.Now, map[string]int{}, make(chan struct{}, 1) }

// has reports whether something of a lane is in the lot.
func (l *lot) has(lane string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lanes[lane] > 0
}

// add takes a group, unless the lot is full.
func (l *lot) add(g *lotGroup) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.entries+len(g.batch.ids) > lotMost || l.bytes+g.bytes > lotBytes {
		return false
	}
	l.groups = append(l.groups, g)
	l.lanes[g.lane] += len(g.batch.ids)
	l.entries += len(g.batch.ids)
	l.bytes += g.bytes
	l.signal()
	return true
}

// reading notes that a read begins.
func (l *lot) reading() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = l.now()
}

// saw notes whether reading is behind: it found as much as it asked for.
func (l *lot) saw(behind bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.behind, l.asked = behind, time.Time{}
	if !behind && len(l.groups) > 0 {
		l.signal()
	}
}

// signal wakes the parker; the caller holds mu.
func (l *lot) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// due returns the oldest group, if it is time to park it, and else how long to
// wait for a signal.
func (l *lot) due() (*lotGroup, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.groups) == 0 {
		return nil, time.Second
	}
	g := l.groups[0]
	if l.isBehind() && l.entries < lotMost/2 && l.bytes < lotBytes/2 && l.now().Sub(g.since) < lotAge {
		return nil, lotPoll
	}
	return g, 0
}

// isBehind reports whether there is more to read. A read that takes long finds
// nothing. The caller holds mu.
func (l *lot) isBehind() bool {
	return l.behind && (l.asked.IsZero() || l.now().Sub(l.asked) < lotBlocked)
}

// done takes the oldest group out.
func (l *lot) done() {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.groups[0]
	l.groups[0] = nil
	l.groups = l.groups[1:]
	l.lanes[g.lane] -= len(g.batch.ids)
	l.entries -= len(g.batch.ids)
	l.bytes -= g.bytes
}

// deferParking puts items that must wait for their lane into the lot, or reports
// false when that is full.
func (b *Bridge) deferParking(lane string, items []*item, atOnce bool) bool {
	g := &lotGroup{lane: lane, since: b.lot.now(), seats: seats(items), batch: &batch{ids: make([]string, len(items)), atOnce: atOnce}}
	for i := range g.seats {
		seat := &g.seats[i]
		n := &seat.Notice
		for _, text := range [...]*string{&seat.EntryID, &n.CorrelationID, &n.RequestID, &n.UserID, &n.Action} {
			*text = strings.Clone(*text)
			g.bytes += len(*text)
		}
		g.batch.ids[i] = seat.EntryID
	}
	b.hand.hold(g.batch)
	if !b.lot.add(g) {
		b.hand.release(g.batch)
		return false
	}
	return true
}

// parkLot parks what is in the lot when it is due, until ctx ends. What is in it
// then is still pending for this bridge, which gives it back.
func (b *Bridge) parkLot(ctx context.Context, p *pulse) {
	retry := newBackoff()
	for ctx.Err() == nil {
		p.beat()
		g, pause := b.lot.due()
		if g == nil {
			b.lot.await(ctx, pause)
			continue
		}
		old := b.outdated(g.since)
		var err error
		if !old {
			err = b.parkGroup(ctx, g)
			b.noteRedis(ctx, "parking requests", err)
		}
		b.lot.done()
		g.batch.unfinished = err != nil || old
		b.finish(g.batch)
		if err == nil {
			retry.reset()
			continue
		}
		retry.sleep(ctx)
	}
}

// await waits for a signal, at most so long.
func (l *lot) await(ctx context.Context, most time.Duration) {
	t := time.NewTimer(most)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-l.wake:
	case <-t.C:
	}
}

// parkGroup parks a group, and tells everyone who was not told before that the request
// is pending.
func (b *Bridge) parkGroup(ctx context.Context, g *lotGroup) error {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	p := stream.Admission{Lane: g.lane, Unclaimed: b.unclaimed(g.batch.atOnce), Seats: g.seats}
	if err := b.stream.Admit(ctx, b.consumer, b.clock.now(), []*stream.Admission{&p}); err != nil {
		return err
	}
	b.sayLost(p.Lost())
	b.lanes.justParked(g.lane)
	return nil
}
