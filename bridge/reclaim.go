package bridge

import (
	"context"
	"time"

	"tebraproxy/pkg/tebra"
)

// reclaim takes over, now and then until ctx ends, what other bridges held when
// they died (DESIGN section 5.7).
func (b *Bridge) reclaim(ctx, hard context.Context, p *pulse) {
	every := min(max(b.cfg.ClaimIdle/5, 100*time.Millisecond), 15*time.Second)
	for b.gate.wait(ctx, p) {
		err := b.reclaimAll(ctx, hard, p)
		b.noteRedis(ctx, "claiming idle entries", err)
		pause := every
		if err != nil {
			pause = min(every, heartbeatEvery)
		}
		sleep(ctx, pause)
	}
}

// reclaimAll goes once through everything pending, a batch at a time.
func (b *Bridge) reclaimAll(ctx, hard context.Context, p *pulse) error {
	cursor := "0-0"
	for b.gate.isOpen() && ctx.Err() == nil {
		p.beat()
		next, err := b.reclaimBatch(ctx, hard, p, cursor)
		if err != nil || next == "0-0" {
			return err
		}
		cursor = next
	}
	return nil
}

func (b *Bridge) reclaimBatch(ctx, hard context.Context, p *pulse, cursor string) (next string, err error) {
	bt, next, err := b.takeIdle(ctx, cursor)
	if bt == nil {
		return next, err
	}
	defer b.finish(bt)
	bt.pulse = p
	if err := b.admitClaimed(ctx, bt); err != nil {
		bt.unfinished = true
		return "", err
	}
	b.send(ctx, hard, bt)
	return next, nil
}

// admitClaimed admits in turn with the workers. Its turn ends even if it panics: the
// bridge waits for them before it stops.
func (b *Bridge) admitClaimed(ctx context.Context, bt *batch) error {
	b.admitMu.Lock()
	defer b.admitMu.Unlock()
	return b.admitCarefully(ctx, bt)
}

// takeIdle takes a batch of what was idle into the hand, nil if there is nothing
// to do, and returns where to go on.
func (b *Bridge) takeIdle(ctx context.Context, cursor string) (bt *batch, next string, err error) {
	b.taking.RLock()
	defer b.taking.RUnlock()
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	before := b.hand.held()
	entries, gone, next, err := b.stream.AutoClaim(ctx, b.consumer, b.cfg.ClaimIdle, cursor, b.claimSize.count(b.cfg.BatchSize))
	if err != nil {
		b.unclear.Store(true) // it may have been done, and they are ours now
		return nil, "", err
	}
	b.claimSize.saw(entries)
	entries, gone = b.hand.without(entries, before), b.hand.withoutIDs(gone, before)
	if len(entries) == 0 && len(gone) == 0 {
		return nil, next, nil
	}
	b.log.Info("claimed idle entries", "entries", len(entries), "trimmed", len(gone))
	b.counts.claimed.Add(int64(len(entries)))
	b.seen.Claimed(len(entries))
	bt = b.newBatch(entries)
	bt.gone(gone)
	return bt, next, nil
}

// forgetIdle is how long a bridge must have been silent, with nothing pending,
// for its name to be removed.
func (b *Bridge) forgetIdle() time.Duration { return 2 * b.cfg.ClaimIdle }

// forgetDead removes the names of bridges that are gone. Redis itself would keep
// them for ever (FACTS: redis #11567), and removing one that has entries pending
// would lose those: the script looks again.
func (b *Bridge) forgetDead(ctx context.Context) error {
	consumers, err := b.stream.Consumers(ctx, tebra.GroupBridge)
	if err != nil {
		return err
	}
	for _, c := range consumers {
		if c.Name == b.consumer || c.Pending > 0 || c.Idle < b.forgetIdle() {
			continue
		}
		left, err := b.stream.Leave(ctx, c.Name)
		if err != nil {
			return err
		}
		if left {
			b.log.Info("removed the name of a bridge that is gone", "gone", c.Name)
		}
	}
	return nil
}
