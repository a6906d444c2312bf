package bridge

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/policy"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

// windowSpan is how much of a limited lane may be published ahead of its rate:
// little enough that a function's wait for its turn ends well within RATE_WAIT
// (DESIGN sections 5.5 and 6.3).
const windowSpan = 30 * time.Second

// laneBook knows the lanes: their windows, which of them have entries parked, and
// how much room lane default seems to have. It is safe for concurrent use.
type laneBook struct {
	policy  *policy.Policy
	windows map[string]int // of limited lanes
	most    int            // the window of any other

	mu     sync.Mutex
	parked map[string]bool // lanes where something may wait
	room   map[string]int  // of lanes without a limit, as last seen
	wake   chan struct{}
}

func (l *laneBook) init(p *policy.Policy, maxInFlight int) {
	l.policy, l.most = p, maxInFlight
	l.windows, l.parked, l.room = map[string]int{}, map[string]bool{}, map[string]int{}
	l.wake = make(chan struct{}, 1)
	for _, lane := range p.Lanes() {
		if lane.Limited() {
			l.windows[lane.Name] = max(lane.Burst, min(maxInFlight, int(windowSpan/lane.Interval)))
		}
	}
}

// window returns how many of a lane's requests may be open at a time, and
// whether that holds exactly.
func (l *laneBook) window(lane string) (n int, exact bool) {
	if n, ok := l.windows[lane]; ok {
		return n, true
	}
	return l.most, false
}

// names returns all lanes of the policy, lane default among them.
func (l *laneBook) names() []string {
	names := []string{tebra.DefaultLane}
	for _, lane := range l.policy.Lanes() {
		if lane.Name != tebra.DefaultLane {
			names = append(names, lane.Name)
		}
	}
	return names
}

// announce adds the policy's lanes to the set of all lanes ever used.
func (l *laneBook) announce(ctx context.Context, rdb redis.UniversalClient, keys tebra.Keys) error {
	if err := rdb.SAdd(ctx, keys.Lanes(), l.names()).Err(); err != nil {
		return fmt.Errorf("noting the lanes: %w", err)
	}
	return nil
}

// all returns every lane that was ever used, for those who look after what a
// changed policy left behind.
func (l *laneBook) all(ctx context.Context, rdb redis.UniversalClient, keys tebra.Keys) ([]string, error) {
	known, err := rdb.SMembers(ctx, keys.Lanes()).Result()
	if err != nil {
		return nil, fmt.Errorf("reading the lanes: %w", err)
	}
	lanes := append(l.names(), known...)
	slices.Sort(lanes)
	return slices.Compact(lanes), nil
}

// claimRoom takes up to n places in a lane without a limit from the room that it
// seemed to have. It may overshoot by a batch a bridge, which costs nothing.
func (l *laneBook) claimRoom(lane string, n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	room, seen := l.room[lane]
	if !seen {
		room = l.most
	}
	if l.parked[lane] {
		room = 0 // who waits already goes first
	}
	given := max(0, min(n, room))
	l.room[lane] = room - given
	return given
}

// hasParked reports whether something seems to wait for a lane.
func (l *laneBook) hasParked(lane string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.parked[lane]
}

// sawRoom notes how many of a lane's requests are open.
func (l *laneBook) sawRoom(lane string, used int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.room[lane] = l.most - used
}

// claimRoom is [laneBook.claimRoom], but asks Redis before it finds too little
// room: what was last seen of the lane may be long ago, and answered since.
func (b *Bridge) claimRoom(ctx context.Context, lane string, n int) (int, error) {
	given := b.lanes.claimRoom(lane, n)
	if given == n || b.lanes.hasParked(lane) {
		return given, nil
	}
	pipe := b.deps.Redis.Pipeline()
	open, retrying := pipe.ZCard(ctx, b.deps.Keys.Open(lane)), pipe.ZCard(ctx, b.deps.Keys.Retrying(lane))
	if _, err := pipe.Exec(ctx); err != nil {
		return 0, fmt.Errorf("asking how much room lane %s has: %w", lane, err)
	}
	b.lanes.sawRoom(lane, int(open.Val()-retrying.Val())+given)
	return given + b.lanes.claimRoom(lane, n-given), nil
}

// noteParked notes whether something waits for a lane.
func (l *laneBook) noteParked(lane string, waits bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parked[lane] = waits
}

// justParked notes that something was parked, and wakes the filler.
func (l *laneBook) justParked(lane string) {
	l.noteParked(lane, true)
	l.rouse()
}

// rouse wakes the filler.
func (l *laneBook) rouse() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *laneBook) parkedLanes() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lanes []string
	for lane, waits := range l.parked {
		if waits {
			lanes = append(lanes, lane)
		}
	}
	slices.Sort(lanes)
	return lanes
}

// Pace of the filler: it asks again at once while it finds room, else ever more
// seldom, so that room is filled within a second of its coming free.
const (
	fillSoon = 10 * time.Millisecond
	fillLate = 500 * time.Millisecond
)

// fillLanes moves what is parked into room that came free, until ctx ends.
func (b *Bridge) fillLanes(ctx, hard context.Context, p *pulse) {
	pause := fillLate
	for {
		p.beat()
		filled, err := b.fillAll(ctx, hard, p)
		b.noteRedis(ctx, "filling lanes", err)
		pause = min(2*pause, fillLate)
		if filled > 0 {
			pause = fillSoon
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-b.lanes.wake:
			pause = fillSoon
			sleep(ctx, fillSoon)
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// fillAll fills the lanes' room, a batch of each lane in turn, so that much room
// in one delays no other, and returns how many entries it took out of parking. A
// lane that fails does not keep the others waiting.
func (b *Bridge) fillAll(ctx, hard context.Context, p *pulse) (filled int, failed error) {
	if err := b.findParked(ctx); err != nil {
		return 0, err
	}
	for lanes := b.lanes.parkedLanes(); len(lanes) > 0; {
		var more []string
		for _, lane := range lanes {
			if !b.gate.isOpen() || ctx.Err() != nil {
				return filled, failed
			}
			n, full, err := b.fillLane(ctx, hard, p, lane)
			if err != nil {
				failed = err
			}
			filled += n
			if full {
				more = append(more, lane)
			}
		}
		lanes = more
	}
	return filled, failed
}

// findParked asks Redis which lanes have entries parked: functions park too, and
// so do other bridges.
func (b *Bridge) findParked(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	consumers, err := b.stream.Consumers(ctx, tebra.GroupParked)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, c := range consumers {
		seen[c.Name] = true
		b.lanes.noteParked(c.Name, c.Pending > 0)
	}
	for _, lane := range b.lanes.parkedLanes() {
		if !seen[lane] {
			b.lanes.noteParked(lane, false)
		}
	}
	return nil
}

// fillLane publishes one batch of what a lane has parked, and reports how many
// entries that were, and whether there may be room for more.
func (b *Bridge) fillLane(ctx, hard context.Context, p *pulse, lane string) (n int, full bool, err error) {
	window, _ := b.lanes.window(lane)
	most := b.fillSize.count(b.cfg.BatchSize)
	batch, n, full, err := b.takeParked(ctx, lane, window, most)
	if batch == nil {
		return 0, false, err
	}
	defer b.finish(batch)
	batch.pulse = p
	b.send(ctx, hard, batch)
	return n, full, nil
}

// takeParked takes a batch of what a lane has parked into the hand, nil if there
// is nothing to do.
func (b *Bridge) takeParked(ctx context.Context, lane string, window, most int) (bt *batch, n int, full bool, err error) {
	b.taking.RLock()
	defer b.taking.RUnlock()
	fillCtx, cancel := context.WithTimeout(ctx, redisTimeout)
	entries, gone, err := b.stream.Fill(fillCtx, lane, window, b.consumer, most)
	cancel()
	if err != nil {
		b.unclear.Store(true) // the script may have run
		return nil, 0, false, err
	}
	gone = b.hand.withoutIDs(gone, nil)
	if len(entries)+len(gone) == 0 {
		return nil, 0, false, nil
	}
	b.fillSize.saw(entries)
	bt = b.newBatch(entries)
	bt.gone(gone)
	bt.inLane(lane)
	return bt, len(entries), len(entries) > 0 && len(entries)+len(gone) == most, nil
}

// inLane says where the entries of a batch have their room, whatever the policy
// says now.
func (bt *batch) inLane(lane string) {
	for i := range bt.items {
		bt.items[i].envelope.Lane = lane
	}
	for i := range bt.rejects {
		bt.rejects[i].letter.envelope.Lane = lane
	}
}

// seats returns the seats of items.
func seats(items []*item) []stream.Seat {
	s := make([]stream.Seat, len(items))
	for i, it := range items {
		s[i] = stream.Seat{EntryID: it.entryID(), Arrival: it.arrival}
		if r := &it.request; !it.known {
			s[i].Notice = stream.Notice{CorrelationID: r.CorrelationID, RequestID: r.ID, UserID: r.UserID, Action: r.Action}
		}
	}
	return s
}
