package rate

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/tebra"
)

// The key is a hash of two times in microseconds of the Redis clock: "free", when
// the next slot would begin if none of the burst were left, and "held", before
// which none begins. It expires when both are over, and after a hold an hour later,
// so that a burst has to fill up again from there.
//
// reserve takes the next free slot, if it comes soon enough.
//
//	KEYS  1 rate
//	ARGV  1 interval, 2 burst, 3 longest wait; times in microseconds
//	returns {1, how long to wait for the slot}, or {0, how much longer than the
//	longest wait it would be}
var reserve = redis.NewScript(`
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local interval, burst, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local saved = redis.call('HMGET', KEYS[1], 'free', 'held')
local ahead = (burst - 1) * interval
local held = tonumber(saved[2] or '0')
local free = math.max(now, tonumber(saved[1] or '0'), held + ahead) -- a hold leaves nothing of the burst
local wait = math.max(0, free - ahead - now)
if wait > most then return {0, wait - most} end
local after = free + interval
redis.call('HSET', KEYS[1], 'free', string.format('%.0f', after))
redis.call('PEXPIRE', KEYS[1], math.ceil((after - now) / 1000) + 1000)
return {1, wait}
`)

// hold keeps a lane's slots back for a while. A shorter one changes nothing.
//
//	KEYS  1 rate
//	ARGV  1 how long, in microseconds
//	returns 1
var hold = redis.NewScript(`
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local saved = redis.call('HMGET', KEYS[1], 'free', 'held')
local free, held = tonumber(saved[1] or '0'), math.max(now + tonumber(ARGV[1]), tonumber(saved[2] or '0'))
redis.call('HSET', KEYS[1], 'held', string.format('%.0f', held))
redis.call('PEXPIRE', KEYS[1], math.ceil((math.max(free, held) - now) / 1000) + 3600000)
return 1
`)

// ahead tells how far ahead of now a lane is taken or held.
//
//	KEYS  1 rate
//	returns how far, in microseconds, 0 if it is not
var ahead = redis.NewScript(`
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local saved = redis.call('HMGET', KEYS[1], 'free', 'held')
return math.max(0, tonumber(saved[1] or '0') - now, tonumber(saved[2] or '0') - now)
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
// Interval. Whoever asks for turns in a lane must give the same one.
type Limit struct {
	Lane     string
	Interval time.Duration // 1 µs to 1 h, to the microsecond
	Burst    int           // 1 to 1000
}

// Bounds of a limit, within which the scripts' numbers stay exact.
const (
	maxInterval = time.Hour
	maxBurst    = 1000
)

func (l Limit) check() error {
	switch {
	case l.Interval < time.Microsecond || l.Interval > maxInterval:
		return fmt.Errorf("the interval is %v: want %v to %v", l.Interval, time.Microsecond, maxInterval)
	case l.Burst < 1 || l.Burst > maxBurst:
		return fmt.Errorf("the burst is %d: want 1 to %d", l.Burst, maxBurst)
	}
	return nil
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
// that would take longer than most. Any other error is Redis's, ctx's, or about a
// limit out of bounds. It takes one round trip. A caller that leaves while waiting
// wastes its slot, so does a lost reply: the lane is then slower for a moment,
// never faster.
//
// Slots are exactly Interval apart by the Redis clock. How far apart the calls
// reach the API depends on the network besides; the margin is in the interval
// (FACTS, Tebra's limits). A Redis that loses its data forgets the turns that it
// has given out, so that for as long as those last a lane may be twice as fast. One
// whose clock goes back makes a lane wait that much longer, once.
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
	if err := limit.check(); err != nil {
		return 0, fmt.Errorf("asking for a turn in lane %s: %w", limit.Lane, err)
	}
	reply, err := reserve.Run(ctx, l.rdb, []string{l.keys.Rate(limit.Lane)},
		limit.Interval.Microseconds(), limit.Burst, max(0, most.Microseconds())).Int64Slice()
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

// Hold gives out no turn in a lane for d from now on, and after it one every
// Interval: the API asked for that with Retry-After. A burst fills up again from
// the hold's end, or is full an hour after it. Turns that were given out before
// stay. A d of 0 or less changes nothing.
func (l *Limiter) Hold(ctx context.Context, lane string, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	if err := hold.Run(ctx, l.rdb, []string{l.keys.Rate(lane)}, d.Microseconds()).Err(); err != nil {
		return fmt.Errorf("holding lane %s: %w", lane, err)
	}
	return nil
}

// Ahead returns for how long from now on turns in a lane are taken or held back,
// 0 if none is. In a lane with a burst some are free all the same.
func (l *Limiter) Ahead(ctx context.Context, lane string) (time.Duration, error) {
	micros, err := ahead.Run(ctx, l.rdb, []string{l.keys.Rate(lane)}).Int64()
	if err != nil {
		return 0, fmt.Errorf("looking at the rate of lane %s: %w", lane, err)
	}
	return time.Duration(micros) * time.Microsecond, nil
}
