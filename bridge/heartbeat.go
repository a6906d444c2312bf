package bridge

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/tebra"
)

// Heartbeat is what a bridge last said of itself.
type Heartbeat struct {
	Consumer    string
	Version     string
	Started, At time.Time // by the Redis clock
	Read        int64     // entries, since it started
	Published   int64
	Rejected    int64
	Claimed     int64  // taken over from other bridges
	Gate        string // why it reads nothing at the moment, "" if it reads
	Memory      uint64 // bytes
	CPU         time.Duration
}

// forgetHeartbeat takes back that this bridge lives.
func (b *Bridge) forgetHeartbeat(ctx context.Context) error {
	pipe := b.deps.Redis.Pipeline()
	pipe.Del(ctx, b.deps.Keys.Heartbeat(b.consumer))
	pipe.ZRem(ctx, b.deps.Keys.Bridges(), b.consumer)
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("taking the heartbeat back: %w", err)
	}
	return nil
}

// maxBridges bounds how many bridges are asked for: far more than one Redis feeds.
const maxBridges = 1000

// Heartbeats returns the bridges that live, the one that was heard last first, and
// when any was last heard, zero for never. It takes two round trips and changes
// nothing.
func Heartbeats(ctx context.Context, rdb redis.UniversalClient, keys tebra.Keys) (alive []Heartbeat, last time.Time, err error) {
	heard, err := rdb.ZRevRangeWithScores(ctx, keys.Bridges(), 0, maxBridges-1).Result()
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("listing the bridges: %w", err)
	}
	if len(heard) == 0 {
		return nil, time.Time{}, nil
	}
	beats := make([]*redis.MapStringStringCmd, len(heard))
	_, err = rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, h := range heard {
			consumer, _ := h.Member.(string)
			beats[i] = p.HGetAll(ctx, keys.Heartbeat(consumer))
		}
		return nil
	})
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("reading heartbeats: %w", err)
	}
	for _, beat := range beats {
		if fields := beat.Val(); len(fields) > 0 { // else its TTL is over
			alive = append(alive, parseHeartbeat(fields))
		}
	}
	return alive, time.UnixMilli(int64(heard[0].Score)), nil
}

// parseHeartbeat reads what [Bridge.heartbeat] wrote. What another version wrote
// otherwise is zero.
func parseHeartbeat(f map[string]string) Heartbeat {
	number := func(name string) int64 {
		n, err := strconv.ParseInt(f[name], 10, 64)
		if err != nil {
			return 0
		}
		return n
	}
	return Heartbeat{
		Consumer: f["consumer"], Version: f["version"],
		Started: time.UnixMilli(number("started")), At: time.UnixMilli(number("at")),
		Read: number("read"), Published: number("published"), Rejected: number("rejected"), Claimed: number("claimed"),
		Gate: f["gate"], Memory: uint64(max(0, number("memory"))), CPU: time.Duration(number("cpuMillis")) * time.Millisecond,
	}
}
