package breaker

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/tebra"
)

// Config holds the breaker's rules. All instances must have the same. Zero values
// mean the defaults.
type Config struct {
	Window      time.Duration // over which calls count; 30 s
	MinFailures int           // below which it stays closed; 10
	Interval    time.Duration // between probes while it is open; 10 s
	CacheFor    time.Duration // how old an answer of Open may be; 250 ms
	Now         func() time.Time
}

// buckets is in how many parts the window slides.
const buckets = 6

func (c Config) withDefaults() Config {
	if c.Window == 0 {
		c.Window = 30 * time.Second
	}
	if c.MinFailures == 0 {
		c.MinFailures = 10
	}
	if c.Interval == 0 {
		c.Interval = 10 * time.Second
	}
	if c.CacheFor == 0 {
		c.CacheFor = 250 * time.Millisecond
	}
	return c
}

// State is what the breaker lets through.
type State int

// The states.
const (
	Closed   State = iota // everything
	Open                  // nothing
	HalfOpen              // one probe
)

func (s State) String() string {
	switch s {
	case Closed:
		return "closed"
	case Open:
		return "open"
	case HalfOpen:
		return "half-open"
	}
	return "State(" + strconv.Itoa(int(s)) + ")"
}

// script is the breaker's one script. The hash holds, while open, "since" and
// "until" (milliseconds: when it opened, and when the next probe is due), else
// for each part of the window "f<n>" and "s<n>", failures and successes; and
// "opened", how often it opened.
//
//	KEYS  1 breaker
//	ARGV  1 what: look, record, take, ok or failed
//	      2 now in milliseconds, "" for the server's clock
//	      3 milliseconds of a part of the window, 4 parts, 5 fewest failures,
//	      6 milliseconds between probes, 7 successes to add (record)
//	returns {state as 0, 1 or 2; since; until; failures in the window; opened; now; took}
var script = redis.NewScript(`
local key, what, now = KEYS[1], ARGV[1], tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
local part, parts, least, interval = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local at = math.floor(now / part)
local all, hash = redis.call('HGETALL', key), {}
for i = 1, #all, 2 do hash[all[i]] = all[i + 1] end
local since, til, opened = tonumber(hash['since'] or '0'), tonumber(hash['until'] or '0'), tonumber(hash['opened'] or '0')
local function int(n) return string.format('%.0f', n) end

local function window()
  local failures, successes = 0, 0
  for name, n in pairs(hash) do
    local kind, index = string.match(name, '^([fs])(%d+)$')
    if kind then
      if tonumber(index) <= at - parts then redis.call('HDEL', key, name)
      elseif kind == 'f' then failures = failures + tonumber(n)
      else successes = successes + tonumber(n) end
    end
  end
  return failures, successes
end

local function open()
  since, til, opened = now, now + interval, opened + 1
  redis.call('DEL', key)
  redis.call('HSET', key, 'since', int(since), 'until', int(til), 'opened', opened)
end

local function close()
  since, til = 0, 0
  redis.call('DEL', key)
  redis.call('HSET', key, 'opened', opened)
  redis.call('PEXPIRE', key, 86400000)
end

local failures, took = 0, 0
if what == 'record' and since == 0 then
  hash['f' .. at] = redis.call('HINCRBY', key, 'f' .. at, 1)
  hash['s' .. at] = redis.call('HINCRBY', key, 's' .. at, ARGV[7])
  redis.call('PEXPIRE', key, 86400000)
  local successes
  failures, successes = window()
  if failures >= least and failures >= successes then open() end
elseif what == 'take' and since > 0 and now >= til then
  til, took = now + interval, 1
  redis.call('HSET', key, 'until', int(til))
elseif what == 'ok' and since > 0 then
  close()
elseif what == 'failed' and since > 0 then
  til = now + interval
  redis.call('HSET', key, 'until', int(til))
elseif what == 'look' and since == 0 then
  failures = window()
end
local state = 0
if since > 0 then state = 1 end
if since > 0 and now >= til then state = 2 end
return {state, int(since), int(til), failures, opened, int(now), took}
`)

// Snapshot is what the breaker is at a moment of the Redis clock.
type Snapshot struct {
	State     State
	Since     time.Time // when it opened; zero while closed
	NextProbe time.Time // zero while closed
	Failures  int       // in the window, while closed
	Opened    int       // how often it has opened
	At        time.Time
}

// Breaker is one instance's view of the shared breaker. It is safe for
// concurrent use.
type Breaker struct {
	rdb  redis.UniversalClient
	keys tebra.Keys
	cfg  Config

	successes atomic.Int64 // not told Redis yet
	since     atomic.Int64 // unix nanoseconds of the first of them

	asking sync.Mutex // held by whoever refreshes the cache
	cache  atomic.Pointer[cached]
}

type cached struct {
	open bool
	at   time.Time
}

// New returns a breaker. It does not talk to Redis, nor own the client.
func New(rdb redis.UniversalClient, keys tebra.Keys, cfg Config) *Breaker {
	return &Breaker{rdb: rdb, keys: keys, cfg: cfg.withDefaults()}
}

// Record notes how a call ended: ok unless the API as a whole failed. Successes
// are counted here and go to Redis with the next failure, so that a success costs
// no round trip. After a failure it returns the state, after a success Closed.
func (b *Breaker) Record(ctx context.Context, ok bool) (State, error) {
	if ok {
		b.countSuccess()
		return Closed, nil
	}
	snapshot, _, err := b.run(ctx, "record", b.takeSuccesses())
	if err != nil {
		return Closed, err
	}
	return snapshot.State, nil
}

// countSuccess forgets successes that are older than the window, about: those
// say nothing about now.
func (b *Breaker) countSuccess() {
	now := time.Now().UnixNano()
	if now-b.since.Load() > int64(b.cfg.Window) {
		b.since.Store(now)
		b.successes.Store(0)
	}
	b.successes.Add(1)
}

func (b *Breaker) takeSuccesses() int64 {
	n := b.successes.Swap(0)
	if time.Now().UnixNano()-b.since.Swap(0) > int64(b.cfg.Window) {
		return 0
	}
	return n
}

// Probed notes how a probe ended: a success closes the breaker, a failure begins
// another interval. While the breaker is closed it changes nothing.
func (b *Breaker) Probed(ctx context.Context, ok bool) error {
	what := "failed"
	if ok {
		what = "ok"
	}
	_, _, err := b.run(ctx, what, 0)
	return err
}

// State returns what Redis says now.
func (b *Breaker) State(ctx context.Context) (Snapshot, error) {
	snapshot, _, err := b.run(ctx, "look", 0)
	return snapshot, err
}

// TryProbe reports whether the caller is to send the probe of this interval: one
// of all that ask is, and only while the breaker is half-open.
func (b *Breaker) TryProbe(ctx context.Context) (bool, error) {
	_, took, err := b.run(ctx, "take", 0)
	return took, err
}

// openTimeout bounds what a look at the breaker may cost a request.
const openTimeout = 500 * time.Millisecond

// Open reports whether requests must wait, for hot paths: from a cache, which one
// caller at a time refreshes. Without Redis it reports false (DESIGN section 9).
func (b *Breaker) Open(ctx context.Context) bool {
	c := b.cache.Load()
	if c != nil && time.Since(c.at) < b.cfg.CacheFor {
		return c.open
	}
	if c != nil && !b.asking.TryLock() {
		return c.open // somebody asks already
	}
	if c == nil {
		b.asking.Lock()
	}
	defer b.asking.Unlock()
	if c := b.cache.Load(); c != nil && time.Since(c.at) < b.cfg.CacheFor {
		return c.open
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if _, err := b.State(ctx); err != nil {
		b.remember(false)
	}
	return b.cache.Load().open
}

func (b *Breaker) remember(open bool) { b.cache.Store(&cached{open: open, at: time.Now()}) }

func (b *Breaker) run(ctx context.Context, what string, successes int64) (Snapshot, bool, error) {
	now := ""
	if b.cfg.Now != nil {
		now = strconv.FormatInt(b.cfg.Now().UnixMilli(), 10)
	}
	reply, err := script.Run(ctx, b.rdb, []string{b.keys.Breaker()}, what, now,
		(b.cfg.Window / buckets).Milliseconds(), buckets, b.cfg.MinFailures, b.cfg.Interval.Milliseconds(), successes).Slice()
	if err != nil {
		return Snapshot{}, false, fmt.Errorf("asking the breaker: %w", err)
	}
	snapshot, took, err := parse(reply)
	if err != nil {
		return Snapshot{}, false, fmt.Errorf("asking the breaker: %w", err)
	}
	b.remember(snapshot.State != Closed)
	return snapshot, took, nil
}

// parse reads the script's reply, whose large numbers come as text.
func parse(reply []any) (s Snapshot, took bool, err error) {
	if len(reply) != 7 {
		return s, false, fmt.Errorf("unexpected reply of %d parts", len(reply))
	}
	var n [7]int64
	for i, part := range reply {
		switch v := part.(type) {
		case int64:
			n[i] = v
		case string:
			if n[i], err = strconv.ParseInt(v, 10, 64); err != nil {
				return s, false, fmt.Errorf("unexpected reply: part %d is no number", i+1)
			}
		default:
			return s, false, fmt.Errorf("unexpected reply: part %d is no number", i+1)
		}
	}
	s = Snapshot{State: State(n[0]), Failures: int(n[3]), Opened: int(n[4]), At: time.UnixMilli(n[5])}
	if n[1] > 0 {
		s.Since, s.NextProbe = time.UnixMilli(n[1]), time.UnixMilli(n[2])
	}
	return s, n[6] == 1, nil
}
