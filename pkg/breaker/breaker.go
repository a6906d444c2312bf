package breaker

import (
	"cmp"
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
	// Window is over how long calls count, 6 ms to 1 h; 30 s.
	Window time.Duration
	// MinFailures is how many failures in the window it takes to open, at least
	// 1; 10.
	MinFailures int
	// Interval is the time between two probes, 1 ms to 1 h; 10 s.
	Interval time.Duration
	// CacheFor is how old an answer of [Breaker.Open] may be, above 0; 250 ms.
	CacheFor time.Duration
	// Now is the clock. Nil means that of the Redis server, so that all instances
	// have the same; what stays in the instance then goes by time.Now.
	Now func() time.Time
}

// parts is in how many parts the window slides.
const parts = 6

// longest bounds Window and Interval, well below how long Redis keeps a closed
// breaker's counts.
const longest = time.Hour

func (c Config) withDefaults() Config {
	c.Window = cmp.Or(c.Window, 30*time.Second)
	c.MinFailures = cmp.Or(c.MinFailures, 10)
	c.Interval = cmp.Or(c.Interval, 10*time.Second)
	c.CacheFor = cmp.Or(c.CacheFor, 250*time.Millisecond)
	return c
}

// check returns what is wrong with a complete c.
func (c Config) check() error {
	switch {
	case c.Window < parts*time.Millisecond || c.Window > longest:
		return fmt.Errorf("config: Window is %v: want %v to %v", c.Window, parts*time.Millisecond, longest)
	case c.MinFailures < 1:
		return fmt.Errorf("config: MinFailures is %d: want at least 1", c.MinFailures)
	case c.Interval < time.Millisecond || c.Interval > longest:
		return fmt.Errorf("config: Interval is %v: want 1ms to %v", c.Interval, longest)
	case c.CacheFor < 0:
		return fmt.Errorf("config: CacheFor is %v: want more than 0s", c.CacheFor)
	}
	return nil
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
// "opened", how often it opened. A closed breaker's hash expires after a day
// without calls, an open one's never.
//
// It looks at all of the hash, which has 14 fields at most.
//
//	KEYS  1 breaker
//	ARGV  1 what: look, record (a failure), take (the probe), ok or failed (the probe)
//	      2 now in milliseconds, "" for the server's clock
//	      3 milliseconds of a part of the window, 4 parts, 5 fewest failures,
//	      6 milliseconds between probes
//	      7 and on (look and record): successes to add, those of this part of the
//	      window first, then those of the part before, and so on; one for each part
//	returns {state as 0, 1 or 2; since; until; failures in the window; opened; now;
//	      1 if the probe was taken}
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
local day = 86400000
local function int(n) return string.format('%.0f', n) end

local function count(kind, index, n)
  if n < 1 then return end
  local name = kind .. int(index)
  hash[name] = redis.call('HINCRBY', key, name, int(n))
  redis.call('PEXPIRE', key, day)
end

-- Drops what has left the window, and what a clock that went back left ahead.
local function window()
  local failures, successes = 0, 0
  for name, n in pairs(hash) do
    local kind, index = string.match(name, '^([fs])(%d+)$')
    if kind then
      index = tonumber(index)
      if index <= at - parts or index > at then redis.call('HDEL', key, name)
      elseif kind == 'f' then failures = failures + tonumber(n)
      else successes = successes + tonumber(n) end
    end
  end
  return failures, successes
end

local function open()
  since, til, opened = now, now + interval, opened + 1
  redis.call('DEL', key)
  redis.call('HSET', key, 'since', int(since), 'until', int(til), 'opened', int(opened))
end

local function close()
  since, til = 0, 0
  redis.call('DEL', key)
  redis.call('HSET', key, 'opened', int(opened))
  redis.call('PEXPIRE', key, day)
end

local function probeIn(wait)
  til = now + wait
  redis.call('HSET', key, 'until', int(til))
end

if til > now + interval then probeIn(interval) end -- the clock went back

local failures, took = 0, 0
if since == 0 then
  if what == 'look' or what == 'record' then
    for ago = 0, parts - 1 do count('s', at - ago, tonumber(ARGV[7 + ago])) end
    if what == 'record' then count('f', at, 1) end
    local successes
    failures, successes = window()
    if what == 'record' and failures >= least and failures >= successes then
      failures = 0
      open()
    end
  end
elseif what == 'take' and now >= til then
  took = 1
  probeIn(interval)
elseif what == 'ok' then
  close()
elseif what == 'failed' then
  probeIn(interval)
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
	Opened    int       // how often it has opened since it last had no calls for a day
	At        time.Time // by the clock that decided
}

// Breaker is one instance's view of the shared breaker. It is safe for
// concurrent use.
type Breaker struct {
	rdb  redis.UniversalClient
	keys tebra.Keys
	cfg  Config

	untold tally // successes that Redis knows nothing of yet

	asking sync.Mutex // held by whoever refreshes the cache
	cache  atomic.Pointer[cached]
}

type cached struct {
	open bool
	at   time.Time
}

// New returns a breaker. It does not talk to Redis, nor own the client, which must
// hold to its callers' deadlines (go-redis's ContextTimeoutEnabled). It panics when
// cfg is out of bounds: no user's input gets into it.
func New(rdb redis.UniversalClient, keys tebra.Keys, cfg Config) *Breaker {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		panic("breaker: " + err.Error())
	}
	return &Breaker{rdb: rdb, keys: keys, cfg: cfg}
}

// Record notes how a call ended: ok unless the API as a whole failed. Successes
// are counted here and go to Redis with this instance's next failure or look at
// the breaker, so that a success costs no round trip. After a failure it returns
// the state, after a success Closed.
//
// While the breaker is open it changes nothing: calls that were under way then say
// nothing that is not known, and only a probe closes it.
func (b *Breaker) Record(ctx context.Context, ok bool) (State, error) {
	if ok {
		b.untold.add(b.part())
		return Closed, nil
	}
	snapshot, _, err := b.run(ctx, "record")
	if err != nil {
		return Closed, err
	}
	return snapshot.State, nil
}

// Probed notes how a probe ended: a success closes the breaker and forgets what
// was counted, a failure begins another interval. While the breaker is closed it
// changes nothing.
func (b *Breaker) Probed(ctx context.Context, ok bool) error {
	what := "failed"
	if ok {
		what = "ok"
	}
	_, _, err := b.run(ctx, what)
	return err
}

// State returns what Redis says now.
func (b *Breaker) State(ctx context.Context) (Snapshot, error) {
	snapshot, _, err := b.run(ctx, "look")
	return snapshot, err
}

// TryProbe reports whether the caller is to send the probe of this interval: one
// of all that ask is, and only while the breaker is half-open. Taking it begins
// the next interval. After an error nobody may have it, until then.
func (b *Breaker) TryProbe(ctx context.Context) (bool, error) {
	_, took, err := b.run(ctx, "take")
	return took, err
}

// openTimeout bounds what a look at the breaker may cost a request.
const openTimeout = 500 * time.Millisecond

// Open reports whether requests must wait, for hot paths: from a cache, which one
// caller at a time refreshes while the others go by what is in it. Without Redis
// it reports false (DESIGN section 9).
//
// It takes openTimeout at the longest, whatever ctx says: for the caller that
// refreshes, and before the first answer for all.
func (b *Breaker) Open(ctx context.Context) bool {
	seen := b.cache.Load()
	if seen != nil && b.now().Sub(seen.at) < b.cfg.CacheFor {
		return seen.open
	}
	if seen == nil {
		b.asking.Lock()
	} else if !b.asking.TryLock() {
		return seen.open // somebody asks already
	}
	defer b.asking.Unlock()
	if latest := b.cache.Load(); latest != seen {
		return latest.open // somebody asked meanwhile
	}
	// The answer is for everybody, so it must not depend on this caller's staying.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), openTimeout)
	defer cancel()
	snapshot, err := b.State(ctx)
	if err != nil {
		b.remember(false)
		return false
	}
	return snapshot.State != Closed
}

func (b *Breaker) remember(open bool) { b.cache.Store(&cached{open: open, at: b.now()}) }

// now is the instance's own clock.
func (b *Breaker) now() time.Time {
	if b.cfg.Now != nil {
		return b.cfg.Now()
	}
	return time.Now()
}

// partLength is how much of the window slides at once.
func (b *Breaker) partLength() int64 { return (b.cfg.Window / parts).Milliseconds() }

// part is the part of the window that it is now.
func (b *Breaker) part() int64 { return b.now().UnixMilli() / b.partLength() }

// run runs the script. Successes that get lost with an error are not told again:
// neither are the failures of that time.
func (b *Breaker) run(ctx context.Context, what string) (Snapshot, bool, error) {
	reply, err := script.Run(ctx, b.rdb, []string{b.keys.Breaker()}, b.args(what)...).Slice()
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

func (b *Breaker) args(what string) []any {
	now := ""
	if b.cfg.Now != nil {
		now = strconv.FormatInt(b.cfg.Now().UnixMilli(), 10)
	}
	args := []any{what, now, b.partLength(), parts, b.cfg.MinFailures, b.cfg.Interval.Milliseconds()}
	if what != "look" && what != "record" {
		return args
	}
	for _, n := range b.untold.take(b.part()) {
		args = append(args, n)
	}
	return args
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
	if n[0] < int64(Closed) || n[0] > int64(HalfOpen) {
		return s, false, fmt.Errorf("unexpected reply: there is no state %d", n[0])
	}
	s = Snapshot{State: State(n[0]), Failures: int(n[3]), Opened: int(n[4]), At: time.UnixMilli(n[5])}
	if n[1] > 0 {
		s.Since, s.NextProbe = time.UnixMilli(n[1]), time.UnixMilli(n[2])
	}
	return s, n[6] == 1, nil
}
