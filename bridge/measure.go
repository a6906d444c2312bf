package bridge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/stream"
	"tebraproxy/pkg/tebra"
	"tebraproxy/pkg/telemetry"
)

// measure looks at everything that waits, for the heartbeat and the metrics. It
// reads counts and the oldest of each kind, never the entries.
func (b *Bridge) measure(ctx context.Context, waiting stream.Waiting) (telemetry.State, error) {
	lanes, err := b.lanes.all(ctx, b.deps.Redis, b.deps.Keys)
	if err != nil {
		return telemetry.State{}, err
	}
	now, requests := b.clock.now(), b.deps.Keys.Requests()
	pipe := b.deps.Redis.Pipeline()
	length := pipe.XLen(ctx, requests)
	inHand := pipe.XPending(ctx, requests, tebra.GroupBridge)
	parked := pipe.XPending(ctx, requests, tebra.GroupParked)
	looks := make([]laneLook, len(lanes))
	for i, lane := range lanes {
		looks[i] = b.lookAtLane(ctx, pipe, lane)
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) && !stream.NoGroup(err) {
		return telemetry.State{}, fmt.Errorf("measuring what waits: %w", err)
	}
	s := telemetry.State{
		Stream: length.Val(), Lag: waiting.Lag, UnreadOldest: ageOf(waiting.Oldest, now),
		Pending: waiting.InHand, Lanes: make(map[string]telemetry.LaneState, len(lanes)),
		BreakerOpen: b.gate.breakerOpen.Load(), PubSubDown: b.gate.pubsubDown.Load(),
	}
	if pending := inHand.Val(); pending != nil && pending.Count > 0 {
		s.PendingOldest = ageOf(pending.Lower, now)
	}
	waits := map[string]int64{}
	if pending := parked.Val(); pending != nil {
		waits = pending.Consumers
	}
	for i, lane := range lanes {
		s.Lanes[lane] = looks[i].state(waits[lane], now)
	}
	return s, nil
}

// laneLook is what Redis is asked about one lane.
type laneLook struct {
	open, retrying *redis.IntCmd
	oldest         *redis.ZSliceCmd
}

func (b *Bridge) lookAtLane(ctx context.Context, pipe redis.Pipeliner, lane string) laneLook {
	open := b.deps.Keys.Open(lane)
	return laneLook{
		open: pipe.ZCard(ctx, open), retrying: pipe.ZCard(ctx, b.deps.Keys.Retrying(lane)),
		oldest: pipe.ZRangeWithScores(ctx, open, 0, 0),
	}
}

func (l laneLook) state(parked int64, now time.Time) telemetry.LaneState {
	s := telemetry.LaneState{Parked: parked, Open: l.open.Val(), Retrying: l.retrying.Val()}
	if first := l.oldest.Val(); len(first) > 0 {
		s.Oldest = max(0, now.Sub(time.UnixMilli(int64(first[0].Score))))
	}
	return s
}

// ageOf returns how long ago an entry came in, 0 for none.
func ageOf(entryID string, now time.Time) time.Duration {
	id, err := tebra.ParseEntryID(entryID)
	if err != nil {
		return 0
	}
	return max(0, now.Sub(id.Arrival(now)))
}
