-- Claims a delivery, or answers it where the record already knows the answer
-- (known.lua, which follows).
--
-- KEYS  1 to 6 as in delivery.lua, 7 epoch
-- ARGV  1 to 12 as in delivery.lua, 13 'call' or 'settle', 14 fingerprint, '' when the
--       body can't be read, 15 '1' for a write, 16 the message's epoch, 17 when it was
--       admitted in ms, 18 lease in ms, 19 ID for a response written here, 20 the text
--       of error duplicate
-- returns words with a space between: verdict, attempts, what is left of the lease in
--         ms, age in ms, last error code, which may be empty
local epochKey = KEYS[7]
local mode, print, write, epoch, admitted, lease, responseId, duplicate = unpack(ARGV, 13)
lease = tonumber(lease)

-- Most claims are a read's first: it has no record yet, and to ask which fields a
-- key lacks costs more than to ask whether it is there.
local recorded = redis.call('EXISTS', record) == 1
local f = recorded and redis.call('HMGET', record, 'state', 'entry', 'print',
  'token', 'verdict', 'lease', 'attempts', 'started', 'epoch', 'outcome', 'answer', 'code', 'past', 'evicted',
  'a:' .. entry, 'r:' .. entry, 'admitted', 'answers') or {}
local state, attempts, code = f[1], tonumber(f[7] or 0), f[12] or ''

local function reply(verdict, left)
  if state then keep() end
  return string.format('%s %d %d %d %s', verdict, attempts, math.max(left, 0), math.max(now - arrival, 0), code)
end

-- take gives the caller the lease. The verdict is unknown where a call may have been
-- made of which nobody will learn. Without a record there is no epoch that could be
-- the message's.
local function take()
  local known, started, born, since = f[3] or '', f[8], f[9], f[17]
  local unknown = started or write == '1' and (born ~= epoch or redis.call('GET', epochKey) ~= epoch)
  local verdict, more = 'run', {}
  if unknown then verdict, more = 'unknown', {'started', started or '1'} end
  if known == '' and print ~= '' then
    more[#more + 1] = 'print'
    more[#more + 1] = print
  end
  local counted = mode == 'call' and not unknown
  if counted then attempts = attempts + 1 end
  redis.call('HSET', record, 'state', 'running', 'entry', entry, 'token', token, 'verdict', verdict,
    'lease', whole(now + lease), 'attempts', whole(attempts), 'epoch', born or epoch, 'admitted', since or admitted,
    unpack(more))
  redis.call('ZREM', retrying, entry)
  redis.call('ZADD', open, 'NX', whole(arrival), entry)
  if counted then say('processing', attempts, '') end
  state = 'running'
  return reply(verdict, lease)
end

if not recorded then return take() end
