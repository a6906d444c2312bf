-- Puts a dead letter's request back on the stream, and notes which entry
-- follows which.
--
-- KEYS  1 the request's record, 2 open:<lane>, 3 retrying:<lane>, 4 requests stream, 5 epoch
-- ARGV  1 time in ms, '' for the server's, 2 LEDGER_TTL in ms, 3 the caller's token, 4 the
--       dead letter's stream entry, 5 fingerprint, 6 '1' for a write, 7 '1' to force,
--       8 what a new epoch begins with, 9 how many replays a record lists, 10 '1' to only
--       say what would be done and change nothing, then the fields of the new entry
-- returns {'replayed' or 'already', the new entry}, {'would', ''}, or {a reason to
--       refuse, ''}
local record, open, retrying, requests, epochKey = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local now, ttl, token, old, print = clock(ARGV[1]), ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local write, force, most = ARGV[6] == '1', ARGV[7] == '1', tonumber(ARGV[9])
local looking = ARGV[10] == '1'

local f = redis.call('HMGET', record, 'state', 'entry', 'print', 'token', 'lease', 'started', 'outcome',
  'evicted', 'replays', 'a:' .. old, 'r:' .. old, 'orphan')
local state, worked, known, holder, until_ = f[1], f[2], f[3] or '', f[4], tonumber(f[5] or 0)
local started, outcome, replays, orphan = f[6], f[7], tonumber(f[9] or 0), f[12]
local isOpen = redis.call('ZSCORE', open, old)
local answered = f[10] or (f[8] and not isOpen)

-- unsettled tells whether the dead letter's entry, or a run of its request, has
-- yet to come to its end.
local function unsettled()
  if state then return state ~= 'done' or not answered end
  return isOpen
end

-- risky tells whether a call may have been made of which nobody learned.
local function risky()
  return write and (not state or orphan or started or (state == 'done' and outcome == 'outcome_unknown'))
end

if f[11] then
  local new, by = string.match(f[11], '^(%S+) (%S+)$')
  return {by == token and 'replayed' or 'already', new}
end
if known ~= '' and known ~= print then return {'differs', ''} end
if known == '' and state and worked ~= old then return {'differs', ''} end
if state == 'done' and outcome == '' then return {'succeeded', ''} end
if holder and until_ > now then return {'leased', ''} end
if replays >= most then return {'too_often', ''} end
if not force and risky() then return {'needs_force', ''} end
if not force and unsettled() then return {'unsettled', ''} end
if looking then return {'would', ''} end

local epoch = present(epochKey, ARGV[8])
local new = redis.call('XADD', requests, '*', unpack(ARGV, 11))
-- The record goes back to admitted, not the entry: whichever entry of the request
-- comes first uses up this one grant, and the others repeat its answer.
redis.call('HSET', record, 'state', 'admitted', 'entry', new, 'print', print, 'attempts', '0',
  'epoch', epoch, 'r:' .. old, new .. ' ' .. token, 'replayedAs', new)
redis.call('HSETNX', record, 'admitted', whole(now))
redis.call('HINCRBY', record, 'replays', 1)
redis.call('HDEL', record, 'token', 'verdict', 'lease', 'started', 'code', 'orphan')
redis.call('PEXPIRE', record, ttl)
redis.call('ZREM', open, old)
redis.call('ZREM', retrying, old)
return {'replayed', new}
