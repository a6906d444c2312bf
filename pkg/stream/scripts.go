package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"tebraproxy/pkg/tebra"
)

// admit tells those who asked for entries of one lane that they are pending, gives the
// first of the entries the room that the lane has left, and parks the others: all at
// once, so that nobody is told twice, and nobody after the end. What waits already goes
// first: while any is parked, all are.
//
// Only who has an entry in hand may do any of it. A bridge that stood still since it
// read an entry may find that another has claimed it, published it and acknowledged it:
// it may have its answer by now, and would be open or parked for good, or be said to be
// pending after its end. Where all came into hand at once and the first is there for so
// little time that nobody can have claimed it, nobody can have claimed the others: that
// spares a look at each.
//
// It is sent whole, because in a pipeline nothing can be sent again.
//
//	KEYS  1 open, 2 retrying (both of the lane), 3 requests, 4 status
//	ARGV  1 group bridge, 2 group parked, 3 consumer, 4 lane, 5 window, '' to give all of
//	      them room whatever waits, 6 for how many milliseconds nobody claims what came
//	      into hand at once, 0 where it did not, 7 the time as tebra.TimeFormat, then for
//	      each entry its ID, its arrival in milliseconds, and correlation ID (''
//	      where nobody is to be told), request ID, user and action
//	returns {how much of the lane's room is taken now, how many of the entries were given
//	room, then the place among the entries, from 0, of each that is no longer in the
//	consumer's hand}
const admit = `
local open, retrying, requests, status = unpack(KEYS)
local bridge, parked, consumer, lane, window, unclaimed, now = unpack(ARGV, 1, 7)
local call = redis.call
local function used() return math.max(call('ZCARD', open) - call('ZCARD', retrying), 0) end

local room = math.huge
if window ~= '' then
  room = tonumber(window) - used()
  if room > 0 and #call('XPENDING', requests, parked, '-', '+', 1, lane) > 0 then room = 0 end
end
local first = call('XPENDING', requests, bridge, ARGV[8], ARGV[8], 1, consumer)
local all = #first > 0 and first[1][3] < tonumber(unclaimed)
local seated, lost = {'ZADD', open, 'NX'}, {}
local wait = {'XCLAIM', requests, parked, lane, 0}
for i = 8, #ARGV, 6 do
  local id, correlation = ARGV[i], ARGV[i + 2]
  if not all and #call('XPENDING', requests, bridge, id, id, 1, consumer) == 0 then
    lost[#lost + 1] = (i - 8) / 6
  else
    if correlation ~= '' then
      call('XADD', status, '*', 'correlationId', correlation, 'requestId', ARGV[i + 3], 'status', 'pending',
        'timestamp', now, 'userId', ARGV[i + 4], 'action', ARGV[i + 5])
    end
    if room > 0 then
      room = room - 1
      seated[#seated + 1] = ARGV[i + 1]
      seated[#seated + 1] = id
    else
      wait[#wait + 1] = id
    end
  end
end
if #seated > 3 then call(unpack(seated)) end
if #wait > 5 then
  wait[#wait + 1] = 'FORCE'
  wait[#wait + 1] = 'JUSTID'
  local gone = call(unpack(wait))
  if #gone > 0 then call('XACK', requests, bridge, unpack(gone)) end
end
return {used(), (#seated - 3) / 2, unpack(lost)}
`

// ackOwn acknowledges entries, unless they are no longer in the consumer's hand:
// acknowledging might take one out of another's just before that one publishes it.
//
//	KEYS  1 requests
//	ARGV  1 group bridge, 2 consumer, then the entries' IDs
//	returns how many were acknowledged
var ackOwn = redis.NewScript(`
local requests, bridge, consumer = KEYS[1], ARGV[1], ARGV[2]
local ack = {'XACK', requests, bridge}
for i = 3, #ARGV do
  if #redis.call('XPENDING', requests, bridge, ARGV[i], ARGV[i], 1, consumer) > 0 then ack[#ack + 1] = ARGV[i] end
end
if #ack == 3 then return 0 end
return redis.call(unpack(ack))
`)

// fill takes the oldest entries that wait for a lane into a consumer's hand, as
// many as there is room for, and makes them open. It leaves out those that are in
// a bridge's hand as well (a function parked them again before that bridge could
// acknowledge them): its late XACK would take them out of every hand.
//
//	KEYS  1 open, 2 retrying (both of the lane), 3 requests
//	ARGV  1 group parked, 2 group bridge, 3 lane, 4 window, 5 consumer, 6 how many
//	      to look at, at most
//	returns {entries as XRANGE gives them, IDs that are no longer in the stream};
//	the latter stay parked until [Stream.Discard] takes them out, and take no room
var fill = redis.NewScript(`
local room = tonumber(ARGV[4]) - math.max(redis.call('ZCARD', KEYS[1]) - redis.call('ZCARD', KEYS[2]), 0)
if room <= 0 then return {{}, {}} end
local waiting = redis.call('XPENDING', KEYS[3], ARGV[1], '-', '+', ARGV[6], ARGV[3])
if #waiting == 0 then return {{}, {}} end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local entries, gone, ids = {}, {}, {}
local claim = {'XCLAIM', KEYS[3], ARGV[2], ARGV[5], 0}
for _, p in ipairs(waiting) do
  if #entries == room then break end
  local id = p[1]
  local found = redis.call('XRANGE', KEYS[3], id, id)
  if #redis.call('XPENDING', KEYS[3], ARGV[2], id, id, 1) > 0 then -- a bridge has it
  elseif #found == 1 then
    entries[#entries + 1] = found[1]
    ids[#ids + 1] = id
    claim[#claim + 1] = id
    local millis = math.min(tonumber(string.match(id, '^%d+')), now)
    redis.call('ZADD', KEYS[1], 'NX', string.format('%.0f', millis), id)
  else
    gone[#gone + 1] = id
  end
end
if #entries > 0 then
  claim[#claim + 1] = 'FORCE'
  claim[#claim + 1] = 'JUSTID'
  redis.call(unpack(claim))
  redis.call('XACK', KEYS[3], ARGV[1], unpack(ids))
end
return {entries, gone}
`)

// autoClaim takes over what its holder has shown no sign of life about. It is
// not XAUTOCLAIM, which takes what is no longer in the stream out of the pending
// list: a bridge that dies before it has told anybody would be the last to know.
//
//	KEYS  1 requests
//	ARGV  1 group, 2 consumer, 3 idle for at least, in milliseconds, 4 first ID,
//	      5 at most
//	returns {ID of the last one looked at, "" when there are no more; entries as
//	XRANGE gives them; IDs that are no longer in the stream, which stay pending
//	for whom they were until [Stream.Discard] takes them out}
var autoClaim = redis.NewScript(`
local idle = redis.call('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[3], ARGV[4], '+', ARGV[5])
local entries, gone = {}, {}
local claim = {'XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0}
for _, p in ipairs(idle) do
  local found = redis.call('XRANGE', KEYS[1], p[1], p[1])
  if #found == 1 then
    entries[#entries + 1] = found[1]
    claim[#claim + 1] = p[1]
  else
    gone[#gone + 1] = p[1]
  end
end
if #entries > 0 then
  claim[#claim + 1] = 'JUSTID'
  redis.call(unpack(claim))
end
local last = ''
if #idle == tonumber(ARGV[5]) then last = idle[#idle][1] end
return {last, entries, gone}
`)

// giveBack marks entries in a consumer's hand as idle for long. Those that are no
// longer in the stream it leaves alone: XCLAIM would take them out of the pending
// list, and nobody would learn of them.
//
//	KEYS  1 requests
//	ARGV  1 group, 2 consumer, 3 idle for, in milliseconds, then the entries' IDs
//	returns how many were marked
var giveBack = redis.NewScript(`
local claim = {'XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0}
for i = 4, #ARGV do
  if #redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i]) == 1 then claim[#claim + 1] = ARGV[i] end
end
if #claim == 5 then return 0 end
claim[#claim + 1] = 'IDLE'
claim[#claim + 1] = ARGV[3]
claim[#claim + 1] = 'JUSTID'
return #redis.call(unpack(claim))
`)

// discard acknowledges an entry that nobody can be told about.
//
//	KEYS  1 requests, 2 open (of the lane)
//	ARGV  1 group bridge, 2 group parked, 3 entry ID
//	returns 1 if it was there to be acknowledged, else 0
var discard = redis.NewScript(`
local pending = 0
for i = 1, 2 do -- miniredis's XACK doesn't count entries that are no longer in the stream
  pending = pending + #redis.call('XPENDING', KEYS[1], ARGV[i], ARGV[3], ARGV[3], 1)
  redis.call('XACK', KEYS[1], ARGV[i], ARGV[3])
end
redis.call('ZREM', KEYS[2], ARGV[3])
return pending > 0 and 1 or 0
`)

// leave removes a consumer unless something is pending for it.
//
//	KEYS  1 requests
//	ARGV  1 group, 2 consumer
//	returns 1 if it was removed, else 0
var leave = redis.NewScript(`
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
`)

// horizon finds how far the requests stream may be trimmed: the lowest ID that
// is unread, in hand, parked or open.
//
//	KEYS  1 requests, then the open set of every lane
//	ARGV  1 group bridge, 2 group parked
//	returns IDs, the lowest of which must stay
var horizon = redis.NewScript(`
local ids = {}
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local info = {}
  for i = 1, #group, 2 do info[group[i]] = group[i + 1] end
  if info['name'] == ARGV[1] then ids[#ids + 1] = info['last-delivered-id'] end
end
if #ids == 0 then return {'0-0'} end
for i = 1, 2 do
  local pending = redis.call('XPENDING', KEYS[1], ARGV[i])
  if pending[1] > 0 then ids[#ids + 1] = pending[2] end
end
for i = 2, #KEYS do
  local oldest = redis.call('ZRANGE', KEYS[i], 0, 0, 'WITHSCORES')
  if #oldest == 2 then ids[#ids + 1] = string.format('%.0f-0', tonumber(oldest[2])) end
end
return ids
`)

// Seat is an entry that wants room in its lane, and who is to be told that it is
// pending: nobody where Notice is zero.
type Seat struct {
	EntryID string
	Arrival time.Time
	Notice  Notice
}

// Notice is what a status says of the request that it is about.
type Notice struct{ CorrelationID, RequestID, UserID, Action string }

// Seating is what became of an entry that wanted room in its lane.
type Seating int

// The seatings.
const (
	// Lost: the entry is no longer in the consumer's hand. Another bridge has claimed
	// it, and sees to it, or has seen to it. Nobody was told anything.
	Lost Seating = iota - 1
	// Waits: it was parked, and thereby left the consumer's hand.
	Waits
	// Seated: it is open, and stays in the consumer's hand.
	Seated
)

// AllSeated is the window in which everything finds room, whatever waits already.
const AllSeated = -1

// Admission is entries of one lane for [Stream.Admit], and what became of them.
type Admission struct {
	Lane string
	// Window is how many of the lane's requests may be open: 0 parks all of the seats,
	// AllSeated parks none.
	Window int
	// Unclaimed is for how long nobody claims an entry that came into a hand, or 0
	// unless all of the seats did at once; it is less than any bridge's CLAIM_IDLE.
	Unclaimed time.Duration
	Seats     []Seat // 1 to 1,000

	Seatings []Seating // of each of the seats
	Used     int       // how much of the lane's room is taken now
}

// Admit tells those who asked for entries in consumer's hand that these are pending,
// as of the Redis clock's time at, gives the first of each lane's room, as many as fit
// into its window, and parks the others. What is no longer in consumer's hand stays
// as it is. Each admission is done as a whole or not at all; after an error, some may have
// been. It takes one round trip.
func (s *Stream) Admit(ctx context.Context, consumer string, at time.Time, admissions []*Admission) error {
	if len(admissions) == 0 {
		return nil
	}
	now, pipe := tebra.FormatTime(at), s.rdb.Pipeline()
	cmds := make([]*redis.Cmd, len(admissions))
	for i, p := range admissions {
		keys := []string{s.keys.Open(p.Lane), s.keys.Retrying(p.Lane), s.keys.Requests(), s.keys.Status()}
		cmds[i] = pipe.Eval(ctx, admit, keys, p.args(consumer, now)...)
	}
	_, err := pipe.Exec(ctx)
	for i, p := range admissions {
		if err == nil {
			err = p.read(cmds[i])
		}
	}
	if err != nil {
		return fmt.Errorf("admitting entries to %d lanes: %w", len(admissions), err)
	}
	return nil
}

// args returns the arguments of the script. Pointers spare a copy of each string.
func (p *Admission) args(consumer, now string) []any {
	window := ""
	if p.Window != AllSeated {
		window = strconv.Itoa(p.Window)
	}
	args := append(make([]any, 0, 7+6*len(p.Seats)),
		tebra.GroupBridge, tebra.GroupParked, consumer, p.Lane, window, p.Unclaimed.Milliseconds(), now)
	for i := range p.Seats {
		seat := &p.Seats[i]
		args = append(args, &seat.EntryID, seat.Arrival.UnixMilli(),
			&seat.Notice.CorrelationID, &seat.Notice.RequestID, &seat.Notice.UserID, &seat.Notice.Action)
	}
	return args
}

// read takes over the script's reply.
func (p *Admission) read(cmd *redis.Cmd) error {
	reply, err := cmd.Int64Slice()
	if err != nil {
		return err
	}
	if len(reply) < 2 {
		return fmt.Errorf("%w: not how much room is taken and given", errReply)
	}
	p.Used, p.Seatings = int(reply[0]), make([]Seating, len(p.Seats))
	given, lost := reply[1], reply[2:]
	for i := range p.Seatings {
		switch {
		case len(lost) > 0 && lost[0] == int64(i):
			p.Seatings[i], lost = Lost, lost[1:]
		case given > 0:
			p.Seatings[i] = Seated
			given--
		}
	}
	if given > 0 || len(lost) > 0 {
		return fmt.Errorf("%w: more seatings than entries", errReply)
	}
	return nil
}

// Lost returns how many of the seats are no longer in the consumer's hand.
func (p *Admission) Lost() (n int) {
	for _, seating := range p.Seatings {
		if seating == Lost {
			n++
		}
	}
	return n
}

// AckOwn takes entries out of consumer's hand for good, and leaves those alone that
// are in another's. It costs Redis several times what [Stream.Ack] does. It may be
// repeated. At most 1,000 entries a call.
func (s *Stream) AckOwn(ctx context.Context, consumer string, ids []string) error {
	args := append(make([]any, 0, 2+len(ids)), tebra.GroupBridge, consumer)
	for _, id := range ids {
		args = append(args, id)
	}
	if err := ackOwn.Run(ctx, s.rdb, []string{s.keys.Requests()}, args...).Err(); err != nil {
		return fmt.Errorf("acknowledging what is left in hand of %d entries of %s: %w", len(ids), s.keys.Requests(), err)
	}
	return nil
}

// Fill takes up to most (at most 1,000) of the entries that wait for a lane into
// consumer's hand, oldest first, as far as its window has room. They are open
// then. gone are IDs that waited but were trimmed by others meanwhile: they are
// returned again until [Stream.Discard] takes them out.
func (s *Stream) Fill(ctx context.Context, lane string, window int, consumer string, most int) (entries []Entry, gone []string, err error) {
	keys := []string{s.keys.Open(lane), s.keys.Retrying(lane), s.keys.Requests()}
	raw, err := s.evalRaw(ctx, fill, keys, tebra.GroupParked, tebra.GroupBridge, lane, window, consumer, most)
	if err == nil {
		entries, gone, err = parseFill(raw)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("filling lane %s: %w", lane, err)
	}
	return entries, gone, nil
}

// evalRaw runs a script and returns its reply unparsed.
func (s *Stream) evalRaw(ctx context.Context, script *redis.Script, keys []string, args ...any) ([]byte, error) {
	call := make([]any, 0, 3+len(keys)+len(args))
	call = append(call, "EVALSHA", script.Hash(), len(keys))
	for _, k := range keys {
		call = append(call, k)
	}
	call = append(call, args...)
	raw, err := s.rdb.DoRaw(ctx, call...).Result()
	if err != nil || !strings.HasPrefix(string(raw[:min(len(raw), 9)]), "-NOSCRIPT") {
		return raw, err
	}
	if err := script.Load(ctx, s.rdb).Err(); err != nil {
		return nil, err
	}
	return s.rdb.DoRaw(ctx, call...).Result()
}

// Discard acknowledges an entry, in hand or parked, that nobody can be told
// about, gives its room in the lane back, should it have any, and reports whether
// it was the one to acknowledge it.
func (s *Stream) Discard(ctx context.Context, id, lane string) (bool, error) {
	done, err := discard.Run(ctx, s.rdb, []string{s.keys.Requests(), s.keys.Open(lane)}, tebra.GroupBridge, tebra.GroupParked, id).Bool()
	if err != nil {
		return false, fmt.Errorf("discarding entry %s: %w", id, err)
	}
	return done, nil
}

// Leave removes a consumer from group bridge unless something is pending for it,
// and reports whether it did.
func (s *Stream) Leave(ctx context.Context, consumer string) (bool, error) {
	left, err := leave.Run(ctx, s.rdb, []string{s.keys.Requests()}, tebra.GroupBridge, consumer).Bool()
	if err != nil {
		return false, fmt.Errorf("removing consumer %s: %w", consumer, err)
	}
	return left, nil
}

// TrimRequests removes entries that were added before the given time, except
// what is unread, in hand, parked or open in one of lanes, and all that came
// after the oldest of those.
func (s *Stream) TrimRequests(ctx context.Context, before time.Time, lanes []string) error {
	keys := make([]string, 0, 1+len(lanes))
	keys = append(keys, s.keys.Requests())
	for _, lane := range lanes {
		keys = append(keys, s.keys.Open(lane))
	}
	needed, err := horizon.Run(ctx, s.rdb, keys, tebra.GroupBridge, tebra.GroupParked).StringSlice()
	if err != nil {
		return fmt.Errorf("finding how far %s may be trimmed: %w", s.keys.Requests(), err)
	}
	limit := tebra.EntryID{Millis: uint64(max(before.UnixMilli(), 0))}
	for _, s := range needed {
		id, err := tebra.ParseEntryID(s)
		if err != nil {
			return err
		}
		if id.Compare(limit) < 0 {
			limit = id
		}
	}
	return s.trim(ctx, s.keys.Requests(), limit)
}

// TrimAnswers removes answers and statuses that were added before the given time.
func (s *Stream) TrimAnswers(ctx context.Context, before time.Time) error {
	limit := tebra.EntryID{Millis: uint64(max(before.UnixMilli(), 0))}
	return errors.Join(s.trim(ctx, s.keys.Responses(), limit), s.trim(ctx, s.keys.Status(), limit))
}

// trim removes a stream's entries below limit: first whole nodes, a bounded
// number a call so that Redis never stands still for long, then the few that are
// left to the exact limit, since what is in them should not outlive it.
func (s *Stream) trim(ctx context.Context, key string, limit tebra.EntryID) error {
	const perCall = 10_000
	for {
		n, err := s.rdb.XTrimMinIDApprox(ctx, key, limit.String(), perCall).Result()
		if err != nil {
			return fmt.Errorf("trimming %s: %w", key, err)
		}
		if n == 0 {
			break
		}
	}
	if err := s.rdb.XTrimMinID(ctx, key, limit.String()).Err(); err != nil {
		return fmt.Errorf("trimming %s: %w", key, err)
	}
	return nil
}
