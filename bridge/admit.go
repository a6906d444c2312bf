package bridge

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/ledger"
	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
)

// work takes batches and sends them until ctx ends; what it has taken by then is
// finished under hard.
func (b *Bridge) work(ctx, hard context.Context) {
	wait := newBackoff()
	for b.gate.wait(ctx) {
		bt, err := b.take(ctx)
		if err != nil {
			b.recoverFrom(ctx, err, wait)
			continue
		}
		wait.reset()
		b.notes.over("redis")
		if bt == nil {
			continue
		}
		b.send(ctx, hard, bt)
		b.hand.release(bt)
	}
}

// take reads and admits one batch, nil when nothing came. Workers take in turn,
// so that entries of a lane are admitted in the order in which they arrived; one
// reads while another admits.
func (b *Bridge) take(ctx context.Context) (*batch, error) {
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
	bt := b.newBatch(entries)
	b.admitMu.Lock()
	defer b.admitMu.Unlock()
	b.readMu.Unlock()
	reading = false
	if careful {
		err = b.admitCarefully(ctx, bt)
	} else {
		err = b.admit(ctx, bt)
	}
	if err != nil {
		b.letGo(bt)
		return nil, err
	}
	return bt, nil
}

// read returns entries, and whether they may have been here before. What may be
// pending for us unbeknownst to us comes first. The caller holds readMu.
func (b *Bridge) read(ctx context.Context) (entries []stream.Entry, careful bool, err error) {
	if b.unclear.Swap(false) {
		entries, err = b.readOwn(ctx)
		if err != nil {
			b.unclear.Store(true)
		}
		if err != nil || len(entries) > 0 {
			return entries, true, err
		}
	}
	entries, err = b.stream.Read(ctx, b.consumer, b.size.count(b.cfg.BatchSize), readBlock)
	if err != nil {
		b.unclear.Store(true) // Redis may have given us entries that never arrived
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
	return entries, first.Compare(b.carefulUntil) <= 0, nil
}

// readOwn returns entries that are pending for this consumer and that it doesn't
// hold. While there are more, it keeps the mark that something is unclear.
func (b *Bridge) readOwn(ctx context.Context) ([]stream.Entry, error) {
	after := "0-0"
	for {
		all, err := b.stream.Own(ctx, b.consumer, after, b.size.count(b.cfg.BatchSize))
		if err != nil || len(all) == 0 {
			return nil, err
		}
		after = all[len(all)-1].ID
		if rest := b.hand.without(all); len(rest) > 0 {
			b.unclear.Store(true)
			return rest, nil
		}
	}
}

// recoverFrom says what is wrong, mends what can be mended, and waits.
func (b *Bridge) recoverFrom(ctx context.Context, err error, wait *backoff) {
	if ctx.Err() != nil {
		return
	}
	if stream.NoGroup(err) {
		b.log.Warn("the consumer group is gone: Redis was flushed or lost data; making it again from the first entry", "error", err)
	} else {
		b.notes.trouble("redis", "Redis can't be used; trying again", err)
	}
	wait.sleep(ctx)
	b.readMu.Lock()
	defer b.readMu.Unlock()
	// After a failover, entries come again as new whose acknowledgement was lost.
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	if _, err := b.stream.EnsureGroups(ctx); err != nil {
		return
	}
	if err := b.lanes.announce(ctx, b.deps.Redis, b.deps.Keys); err != nil {
		return
	}
	if err := b.suspect(ctx); err != nil {
		b.unclear.Store(true)
	}
}

// troubled notes an error of one of the goroutines beside the workers, unless
// it is only that the bridge stops.
func (b *Bridge) troubled(doing string, err error) {
	if stream.NoGroup(err) {
		return // the workers make it again
	}
	b.notes.trouble("redis", "Redis can't be used; trying again", fmt.Errorf("%s: %w", doing, err))
}

// letGo leaves a batch pending for this consumer, to be read again with care.
func (b *Bridge) letGo(bt *batch) {
	b.unclear.Store(true)
	b.hand.release(bt)
}

// admit is the fast path, for entries that nobody has seen before.
func (b *Bridge) admit(ctx context.Context, bt *batch) error {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	if err := b.seat(ctx, bt.items); err != nil {
		return err
	}
	if err := b.note(ctx, bt.items); err != nil {
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
	if err := b.settleAnswered(ctx, bt); err != nil {
		return err
	}
	if err := b.findOpen(ctx, bt.items); err != nil {
		return err
	}
	if err := b.seat(ctx, bt.items); err != nil {
		return err
	}
	if err := b.note(ctx, bt.items); err != nil {
		return err
	}
	bt.keepSeated()
	return nil
}

// settleAnswered moves the entries that have their answer out of the items.
func (b *Bridge) settleAnswered(ctx context.Context, bt *batch) error {
	refs := make([]ledger.Ref, len(bt.items))
	for i, it := range bt.items {
		refs[i] = ledger.Ref{Hash: it.envelope.Ledger, EntryID: it.entryID()}
	}
	standings, err := b.deps.Ledger.Lookup(ctx, refs)
	if err != nil {
		return err
	}
	rest := bt.items[:0]
	for i, it := range bt.items {
		switch standings[i] {
		case ledger.AnsweredHere, ledger.SupersededHere:
			bt.settled = append(bt.settled, it.entryID())
			continue
		case ledger.Begun:
			it.known = true
		}
		rest = append(rest, it)
	}
	bt.items = rest
	return nil
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
			items[i].known, items[i].seated = true, true
		} else if !errors.Is(scores[i].Err(), redis.Nil) {
			return fmt.Errorf("looking for open entries: %w", scores[i].Err())
		}
	}
	return nil
}

// seat gives the items room in their lanes as far as there is any, and parks the
// others. While the gate is shut, there is none.
func (b *Bridge) seat(ctx context.Context, items []item) error {
	byLane := map[string][]*item{}
	for i := range items {
		if it := &items[i]; !it.seated {
			byLane[it.envelope.Lane] = append(byLane[it.envelope.Lane], it)
		}
	}
	for lane, waiting := range byLane {
		given, err := b.seatLane(ctx, lane, waiting)
		if err != nil {
			return err
		}
		for _, it := range waiting[:given] {
			it.seated = true
		}
		if given < len(waiting) {
			b.lanes.setParked(lane, true)
		}
	}
	return nil
}

func (b *Bridge) seatLane(ctx context.Context, lane string, items []*item) (given int, err error) {
	window, exact := b.lanes.window(lane)
	if !b.gate.isOpen() {
		return 0, b.park(ctx, lane, items)
	}
	if exact {
		return b.stream.Reserve(ctx, lane, window, seats(items))
	}
	given = b.lanes.claimRoom(lane, len(items))
	return given, b.park(ctx, lane, items[given:])
}

func (b *Bridge) park(ctx context.Context, lane string, items []*item) error {
	ids := make([]string, len(items))
	for i, it := range items {
		ids[i] = it.entryID()
	}
	return b.stream.Park(ctx, lane, ids)
}

// note makes seated items of lanes without a limit open and tells everyone who
// was not told before that the request is pending, in one round trip. (Reserve
// has made those of limited lanes open.)
func (b *Bridge) note(ctx context.Context, items []item) error {
	if len(items) == 0 {
		return nil
	}
	pipe := b.deps.Redis.Pipeline()
	open := map[string][]redis.Z{}
	for i := range items {
		it := &items[i]
		lane := it.envelope.Lane
		if _, exact := b.lanes.window(lane); it.seated && !exact {
			open[lane] = append(open[lane], redis.Z{Score: float64(it.arrival.UnixMilli()), Member: it.entryID()})
		}
	}
	used := map[string][2]*redis.IntCmd{}
	for lane, members := range open {
		pipe.ZAddNX(ctx, b.deps.Keys.Open(lane), members...)
		used[lane] = [2]*redis.IntCmd{pipe.ZCard(ctx, b.deps.Keys.Open(lane)), pipe.ZCard(ctx, b.deps.Keys.Retrying(lane))}
	}
	b.tellPending(ctx, pipe, items)
	if pipe.Len() == 0 {
		return nil
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("admitting %d entries: %w", len(items), err)
	}
	for lane, n := range used {
		b.lanes.sawRoom(lane, int(n[0].Val()-n[1].Val()))
	}
	return nil
}

// tellPending adds a status to pipe for each item that nobody was told about: the
// fields of [tebra.StatusUpdate], spelt out, because this is half of what a bridge
// asks of Redis. Pointers spare a copy of each string.
func (b *Bridge) tellPending(ctx context.Context, pipe redis.Pipeliner, items []item) {
	const perItem = 15
	now, args := tebra.FormatTime(b.clock.now()), make([]any, 0, perItem*len(items))
	for i := range items {
		it := &items[i]
		if it.known {
			continue
		}
		start := len(args)
		args = append(args, "XADD", &b.statusKey, "*",
			"correlationId", &it.request.CorrelationID, "requestId", &it.request.ID,
			"status", string(tebra.Pending), "timestamp", &now,
			"userId", &it.request.UserID, "action", &it.request.Action)
		_ = pipe.Process(ctx, redis.NewStringCmd(ctx, args[start:]...)) // it only queues
	}
}

// keepSeated drops the items that were parked: they are in no bridge's hand now.
func (bt *batch) keepSeated() {
	kept := bt.items[:0]
	for _, it := range bt.items {
		if it.seated {
			kept = append(kept, it)
		}
	}
	bt.items = kept
}
