package rate

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/tebra"
)

// reserve takes the next free slot, if it comes soon enough. The key holds the
// time at which the next slot would begin if none of the burst were left, in
// microseconds of the Redis clock.
//
//	KEYS  1 rate
//	ARGV  1 interval, 2 burst, 3 longest wait; times in microseconds
//	returns {1, how long to wait for the slot}, or {0, how much longer than the
//	longest wait it would be}
var reserve = redis.NewScript(`
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local interval, burst, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local free = math.max(now, tonumber(redis.call('GET', KEYS[1]) or '0'))
local wait = math.max(0, free - (burst - 1) * interval - now)
if wait > most then return {0, wait - most} end
local after = free + interval
redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000) + 1000)
return {1, wait}
`)

// hold keeps a lane's slots back for a while.
//
//	KEYS  1 rate
//	ARGV  1 how long, in microseconds
//	returns 1
var hold = redis.NewScript(`
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local free = math.max(now + tonumber(ARGV[1]), tonumber(redis.call('GET', KEYS[1]) or '0'))
redis.call('SET', KEYS[1], string.format('%.0f', free), 'PX', math.ceil((free - now) / 1000) + 1000)
return 1
`)

// NotInTimeError says that a turn would not come within the longest wait. No
// slot was taken.
type NotInTimeError struct {
	RetryAfter time.Duration // when a slot may come within reach
}

func (e *NotInTimeError) Error() string {
	return fmt.Sprintf("the lane is busy: no turn in time; ask again in %v", e.RetryAfter)
}

// Limit is a lane's rate: Burst calls at once after a pause, and then one every
// Interval.
type Limit struct {
	Lane     string
	Interval time.Duration // above 0, to the microsecond
	Burst    int           // at least 1
}

// Limiter gives out turns. It is safe for concurrent use.
type Limiter struct {
	rdb  redis.UniversalClient
	keys tebra.Keys
}

// New returns a limiter. It does not talk to Redis, nor own the client.
func New(rdb redis.UniversalClient, keys tebra.Keys) *Limiter {
	return &Limiter{rdb: rdb, keys: keys}
}

// Wait returns when it is the caller's turn, or at once with a [*NotInTimeError] if
// that would take longer than most. Any other error is Redis's or ctx's. It takes
// one round trip. A caller that leaves while waiting wastes its slot, so does a
// lost reply: the lane is then slower for a moment, never faster.
//
// Slots are exactly Interval apart by the Redis clock. How far apart the calls
// reach the API depends on the network besides; the margin is in the interval
// (FACTS, Tebra's limits).
func (l *Limiter) Wait(ctx context.Context, limit Limit, most time.Duration) error {
	wait, err := l.reserve(ctx, limit, most)
	if err != nil || wait == 0 {
		return err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *Limiter) reserve(ctx context.Context, limit Limit, most time.Duration) (time.Duration, error) {
	reply, err := reserve.Run(ctx, l.rdb, []string{l.keys.Rate(limit.Lane)},
		limit.Interval.Microseconds(), limit.Burst, most.Microseconds()).Int64Slice()
	if err != nil {
		return 0, fmt.Errorf("asking for a turn in lane %s: %w", limit.Lane, err)
	}
	if len(reply) != 2 {
		return 0, fmt.Errorf("asking for a turn in lane %s: unexpected reply of %d parts", limit.Lane, len(reply))
	}
	d := time.Duration(reply[1]) * time.Microsecond
	if reply[0] == 0 {
		return 0, &NotInTimeError{RetryAfter: d}
	}
	return d, nil
}

// Hold gives out no turn in a lane for d from now on: the API asked for that with
// Retry-After.
func (l *Limiter) Hold(ctx context.Context, lane string, d time.Duration) error {
	if err := hold.Run(ctx, l.rdb, []string{l.keys.Rate(lane)}, d.Microseconds()).Err(); err != nil {
		return fmt.Errorf("holding lane %s: %w", lane, err)
	}
	return nil
}

// Ahead returns how far ahead turns in a lane are taken, 0 if the next is free now.
func (l *Limiter) Ahead(ctx context.Context, lane string) (time.Duration, error) {
	pipe := l.rdb.Pipeline()
	clock, taken := pipe.Time(ctx), pipe.Get(ctx, l.keys.Rate(lane))
	if _, err := pipe.Exec(ctx); err != nil && err != redis.Nil {
		return 0, fmt.Errorf("looking at the rate of lane %s: %w", lane, err)
	}
	micros, err := strconv.ParseInt(taken.Val(), 10, 64)
	if err != nil { // nothing is taken
		return 0, nil
	}
	return max(0, time.UnixMicro(micros).Sub(clock.Val())), nil
}
