package bridge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

// work takes batches and sends them until ctx ends; what it has taken by then is
// finished under hard.
func (b *Bridge) work(ctx, hard context.Context, p *pulse) {
	wait := newBackoff()
	for b.gate.wait(ctx, p) {
		bt, err := b.take(ctx, hard)
		if err != nil {
			b.failing.Store(true)
			b.noteRedis(ctx, takingRequests, err)
			wait.sleep(ctx)
			continue
		}
		wait.reset()
		if bt != nil || !b.unclear.Load() { // else another worker may be failing
			b.noteRedis(ctx, takingRequests, nil)
		}
		if bt != nil {
			b.failing.Store(false)
			bt.pulse = p
			b.send(ctx, hard, bt)
			b.finish(bt)
		}
	}
}

// takingRequests names what workers do, in the log.
const takingRequests = "taking requests"

// take reads and admits one batch, nil when nothing came. Workers take in turn,
// so that entries of a lane are admitted in the order in which they arrived; one
// reads while another admits. What was read when ctx ends is admitted under hard.
func (b *Bridge) take(ctx, hard context.Context) (*batch, error) {
	b.readMu.Lock()
	reading := true
	defer func() {
		if reading {
			b.readMu.Unlock()
		}
	}()
	if !b.gate.isOpen() || ctx.Err() != nil {
		return nil, nil
	}
	entries, careful, err := b.read(ctx)
	if err != nil || len(entries) == 0 {
		return nil, err
	}
	b.counts.read.Add(int64(len(entries)))
	b.seen.Read(len(entries))
	bt := b.newBatch(entries)
	bt.atOnce = !careful
	b.admitMu.Lock()
	defer b.admitMu.Unlock()
	b.readMu.Unlock()
	reading = false
	if b.outdated(bt.taken) {
		bt.unfinished = true
		b.finish(bt)
		return nil, nil
	}
	if careful {
		err = b.admitCarefully(hard, bt)
	} else {
		err = b.admit(hard, bt)
	}
	if err != nil {
		bt.unfinished = true
		b.finish(bt)
		return nil, err
	}
	return bt, nil
}

// outdated reports whether what was taken then may be claimed by another bridge
// before long, if it wasn't yet: it is to be read again, with care.
func (b *Bridge) outdated(taken time.Time) bool { return time.Since(taken) > b.cfg.ClaimIdle/2 }

// read returns entries, and whether others may have had them before, or since: this
// bridge may have stood still between the question and the answer. What may be
// pending for us unbeknownst to us comes first. The caller holds readMu.
func (b *Bridge) read(ctx context.Context) (entries []stream.Entry, careful bool, err error) {
	if err := b.rejoin(ctx); err != nil {
		return nil, false, err
	}
	if b.unclear.Swap(false) {
		entries, err = b.readOwn(ctx)
		if err != nil {
			b.unclear.Store(true)
		}
		if err != nil || len(entries) > 0 {
			return entries, true, err
		}
	}
	count := b.readCount()
	b.lot.reading()
	asked := time.Now()
	entries, err = b.stream.Read(ctx, b.consumer, count, readBlock)
	b.lot.saw(len(entries) == count)
	if err != nil {
		b.unclear.Store(true) // Redis may have given us entries that never arrived
		b.shaken.Store(true)
		return nil, false, err
	}
	if len(entries) == 0 {
		return nil, false, nil
	}
	b.size.saw(entries)
	first, err := tebra.ParseEntryID(entries[0].ID)
	if err != nil {
		return nil, false, err
	}
	if first.Compare(b.carefulUntil) > 0 && !b.outdated(asked.Add(readBlock)) {
		return entries, false, nil
	}
	return b.notHeld(entries), true, nil
}

// readCount returns how many entries to ask for: one while none can be admitted,
// so that trying whether they can again costs little. The caller holds readMu.
func (b *Bridge) readCount() int {
	if b.failing.Load() {
		return 1
	}
	return b.size.count(b.cfg.BatchSize)
}

// notHeld returns the entries that this bridge doesn't hold. The others came
// again although it is at work on them; it looks again later whether they are
// still pending for it.
func (b *Bridge) notHeld(entries []stream.Entry) []stream.Entry {
	all := len(entries)
	entries = b.hand.without(entries, nil)
	if len(entries) < all {
		b.unclear.Store(true)
	}
	return entries
}

// readOwn returns entries that are pending for this consumer and that it doesn't
// hold. While there are more, it keeps the mark that something is unclear.
func (b *Bridge) readOwn(ctx context.Context) ([]stream.Entry, error) {
	after := "0-0"
	for {
		all, rest, err := b.ownNotHeld(ctx, after)
		if err != nil || len(all) == 0 {
			return nil, err
		}
		if len(rest) > 0 {
			b.unclear.Store(true)
			return rest, nil
		}
		after = all[len(all)-1].ID
	}
}

// ownNotHeld returns some of what is pending for this consumer above after, and
// what of that is in nobody's hand.
func (b *Bridge) ownNotHeld(ctx context.Context, after string) (all, rest []stream.Entry, err error) {
	b.taking.Lock()
	defer b.taking.Unlock()
	before := b.hand.held()
	all, err = b.stream.Own(ctx, b.consumer, after, b.readCount())
	if err != nil || len(all) == 0 {
		return nil, nil, err
	}
	return all, b.hand.without(slices.Clone(all), before), nil
}

// rejoin makes sure of the groups again when something went wrong with Redis
// since the last time: it may have been flushed, or another may have taken its
// place. After a failover, entries come again as new whose acknowledgement was
// lost, so nothing is read before this is done. The caller holds readMu.
func (b *Bridge) rejoin(ctx context.Context) error {
	if !b.shaken.Swap(false) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	_, err := b.stream.EnsureGroups(ctx)
	if err == nil {
		err = b.lanes.announce(ctx, b.deps.Redis, b.deps.Keys)
	}
	if err == nil {
		err = b.suspect(ctx)
	}
	if err != nil {
		b.shaken.Store(true)
	}
	return err
}

// noteRedis notes how something that needs Redis went: trouble is said when the
// first of all who use Redis meets it, and that it is over when the last of those
// who met it has succeeded.
func (b *Bridge) noteRedis(ctx context.Context, doing string, err error) {
	if err != nil && (!isReply(err) || stream.NoGroup(err)) {
		b.shaken.Store(true)
	}
	switch {
	case err == nil:
		b.notes.overFor("redis", doing)
	case ctx.Err() != nil: // the bridge stops
	case !stream.NoGroup(err):
		if !isReply(err) {
			b.shaken.Store(true) // who answers next may be another Redis
		}
		b.notes.troubleFor("redis", doing, redisTrouble(err), fmt.Errorf("%s: %w", doing, err))
	case doing == takingRequests: // others leave it to the workers to make the group again
		b.notes.troubleFor("redis", doing, "the consumer group is gone, as Redis was flushed or lost data; making it again from the first entry", err)
	}
}

// finish takes a batch out of the hand. What was not finished is still pending
// for this consumer, and is read again with care; not before it is out of the
// hand, or whoever looks would pass it over.
func (b *Bridge) finish(bt *batch) {
	b.hand.release(bt)
	if bt.unfinished {
		b.unclear.Store(true)
	}
}

// admit is the fast path, for entries that nobody has seen before.
func (b *Bridge) admit(ctx context.Context, bt *batch) error {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	return b.place(ctx, bt)
}

// place gives the items of a batch room or parks them, and tells everyone who was not
// told before that the request is pending.
func (b *Bridge) place(ctx context.Context, bt *batch) error {
	admissions, err := b.allot(ctx, bt)
	if err != nil {
		return err
	}
	if err := b.seatAll(ctx, admissions); err != nil {
		return err
	}
	bt.keepSeated()
	return nil
}

// admitCarefully is the path for entries that may have been here before: the
// ledger is asked first, and the open sets. What is answered is only
// acknowledged, what is open keeps its place, and nobody whose request is on
// record is told pending once more (DESIGN section 5.3).
func (b *Bridge) admitCarefully(ctx context.Context, bt *batch) error {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	over, err := b.settleAnswered(ctx, bt)
	if err != nil {
		return err
	}
	if err := b.closeAnswered(ctx, over); err != nil {
		return err
	}
	if err := b.findOpen(ctx, bt.items); err != nil {
		return err
	}
	return b.place(ctx, bt)
}

// settleAnswered moves the entries that have their answer out of the items, and
// returns their IDs.
func (b *Bridge) settleAnswered(ctx context.Context, bt *batch) (over []string, err error) {
	refs := make([]ledger.Ref, 0, len(bt.items)+len(bt.rejects))
	for i := range bt.items {
		refs = append(refs, ledger.Ref{Hash: bt.items[i].envelope.Ledger, EntryID: bt.items[i].entryID()})
	}
	for i := range bt.rejects {
		e := &bt.rejects[i].letter.envelope
		refs = append(refs, ledger.Ref{Hash: e.Ledger, EntryID: e.EntryID})
	}
	standings, err := b.deps.Ledger.Lookup(ctx, refs)
	if err != nil {
		return nil, err
	}
	for i, standing := range standings {
		if standing == ledger.AnsweredHere || standing == ledger.SupersededHere {
			over = append(over, refs[i].EntryID)
		}
	}
	rest := bt.items[:0]
	for i, it := range bt.items {
		switch standings[i] {
		case ledger.AnsweredHere, ledger.SupersededHere:
			bt.settled = append(bt.settled, it.entryID())
			continue
		case ledger.Begun, ledger.Returned:
			it.known = true
		}
		rest = append(rest, it)
	}
	spared := standings[len(bt.items):]
	bt.items = rest
	bt.spareServed(spared)
	return over, nil
}

// closeAnswered makes sure that entries which have their answer are open in no lane.
// Who had one in hand may have made it open again just after it was answered, and
// died before it could publish it once more: then no function closes it.
func (b *Bridge) closeAnswered(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	lanes, err := b.lanes.all(ctx, b.deps.Redis, b.deps.Keys)
	if err != nil {
		return err
	}
	pipe := b.deps.Redis.Pipeline()
	for _, lane := range lanes {
		pipe.ZRem(ctx, b.deps.Keys.Open(lane), ids)
		pipe.ZRem(ctx, b.deps.Keys.Retrying(lane), ids)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("closing %d entries that have their answer: %w", len(ids), err)
	}
	return nil
}

// spareServed takes those out of the rejects that were a request to whoever saw
// them first, a bridge with another MAX_REQUEST_BYTES say: what a function has
// begun has its answer or will get it, and is only acknowledged.
func (bt *batch) spareServed(standings []ledger.Standing) {
	rest := bt.rejects[:0]
	for i, r := range bt.rejects {
		switch standings[i] {
		case ledger.AnsweredHere, ledger.SupersededHere, ledger.Begun:
			bt.settled = append(bt.settled, r.entryID)
		default:
			rest = append(rest, r)
		}
	}
	bt.rejects = rest
}

// findOpen marks the items that are open already as known and seated.
func (b *Bridge) findOpen(ctx context.Context, items []item) error {
	pipe := b.deps.Redis.Pipeline()
	scores := make([]*redis.FloatCmd, len(items))
	for i := range items {
		scores[i] = pipe.ZScore(ctx, b.deps.Keys.Open(items[i].envelope.Lane), items[i].entryID())
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("looking for open entries: %w", err)
	}
	for i := range items {
		if scores[i].Err() == nil {
			items[i].known, items[i].seated = true, true // who is open was told before
		} else if !errors.Is(scores[i].Err(), redis.Nil) {
			return fmt.Errorf("looking for open entries: %w", scores[i].Err())
		}
	}
	return nil
}

// admission is what Redis is asked for items of one lane.
type admission struct {
	stream.Admission
	items []*item
}

// allot says what Redis is to be asked for the items of a batch. Lanes without a limit
// have the room that this bridge knows of; of the others Redis knows. While the gate is
// shut, there is no room. What can only be parked goes into the lot, unless that is full.
func (b *Bridge) allot(ctx context.Context, bt *batch) ([]*admission, error) {
	var admissions []*admission
	ask := func(lane string, window int, items []*item) {
		if len(items) > 0 {
			admissions = append(admissions, &admission{items: items, Admission: stream.Admission{
				Lane: lane, Window: window, Unclaimed: b.unclaimed(bt.atOnce), Seats: seats(items)}})
		}
	}
	for lane, l := range bt.byLane() {
		window, exact := b.lanes.window(lane)
		if !exact {
			ask(lane, stream.AllSeated, l.seated) // may be another bridge's by now
		}
		waiting := l.waiting
		switch {
		case len(waiting) == 0:
		case b.mustWait(lane) && b.deferParking(lane, waiting, bt.atOnce):
		case !b.gate.isOpen():
			ask(lane, 0, waiting)
		case exact:
			ask(lane, window, waiting)
		default:
			given, err := b.claimRoom(ctx, lane, len(waiting))
			if err != nil {
				return nil, err
			}
			ask(lane, stream.AllSeated, waiting[:given])
			ask(lane, 0, waiting[given:])
		}
	}
	return admissions, nil
}

// laneItems are the items of one lane: those that have room, and those that want it.
type laneItems struct{ seated, waiting []*item }

func (bt *batch) byLane() map[string]*laneItems {
	lanes := map[string]*laneItems{}
	for i := range bt.items {
		it := &bt.items[i]
		l := lanes[it.envelope.Lane]
		if l == nil {
			l = &laneItems{}
			lanes[it.envelope.Lane] = l
		}
		if it.seated {
			l.seated = append(l.seated, it)
		} else {
			l.waiting = append(l.waiting, it)
		}
	}
	return lanes
}

// unclaimed is for how long nobody claims what came into hand, if it did at once.
func (b *Bridge) unclaimed(atOnce bool) time.Duration {
	if atOnce {
		return b.cfg.ClaimIdle / 2
	}
	return 0
}

// seatAll asks Redis, and notes what became of the items.
func (b *Bridge) seatAll(ctx context.Context, admissions []*admission) error {
	asked := make([]*stream.Admission, len(admissions))
	for i, p := range admissions {
		asked[i] = &p.Admission
		if p.Window == 0 {
			b.lanes.justParked(p.Lane)
		}
	}
	if err := b.stream.Admit(ctx, b.consumer, b.clock.now(), asked); err != nil {
		return err
	}
	lost := 0
	for _, p := range admissions {
		for i, it := range p.items {
			it.seated = p.Seatings[i] == stream.Seated
			if p.Seatings[i] == stream.Waits {
				b.lanes.justParked(p.Lane)
			}
		}
		lost += p.Lost()
		if _, exact := b.lanes.window(p.Lane); !exact {
			b.lanes.sawRoom(p.Lane, p.Used)
		}
	}
	b.sayLost(lost)
	return nil
}

// sayLost notes that entries that this bridge was about to give room to are another's
// by now: it was so slow that they were claimed. It leaves them alone.
func (b *Bridge) sayLost(entries int) {
	if entries > 0 {
		b.log.Warn("another bridge has claimed what this one was slow to admit", "entries", entries)
	}
}

// mustWait reports whether others of the lane wait already, so that there is no
// room for more, as far as this bridge knows.
func (b *Bridge) mustWait(lane string) bool { return b.lanes.hasParked(lane) || b.lot.has(lane) }

// keepSeated drops the items that were parked, which are in no bridge's hand now, and
// those that are in another's.
func (bt *batch) keepSeated() {
	kept := bt.items[:0]
	for _, it := range bt.items {
		if it.seated {
			kept = append(kept, it)
		}
	}
	bt.items = kept
}
