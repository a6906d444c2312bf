-- Claims a delivery, or answers it where the record already knows the answer.
--
-- KEYS  1 to 6 as in delivery.lua, 7 epoch
-- ARGV  1 to 12 as in delivery.lua, 13 'call' or 'settle', 14 fingerprint, '' when the
--       body can't be read, 15 '1' for a write, 16 the message's epoch, 17 when it was
--       admitted in ms, 18 lease in ms, 19 ID for a response written here, 20 the text
--       of error duplicate
-- returns {verdict, attempts, what is left of the lease in ms, last error code, age in ms}
local epochKey = KEYS[7]
local calling, print, write, epoch = ARGV[13] == 'call', ARGV[14], ARGV[15] == '1', ARGV[16]
local admitted, lease, responseId, duplicate = ARGV[17], tonumber(ARGV[18]), ARGV[19], ARGV[20]

-- Most claims are a read's first: it has no record yet, and to ask which fields a
-- key lacks costs more than to ask whether it is there.
local f = redis.call('EXISTS', record) == 0 and {} or redis.call('HMGET', record, 'state', 'entry', 'print',
  'token', 'verdict', 'lease', 'attempts', 'started', 'epoch', 'outcome', 'answer', 'code', 'past', 'evicted',
  'a:' .. entry, 'r:' .. entry, 'admitted', 'answers')
local state, worked, known, holder, held = f[1], f[2], f[3] or '', f[4], f[5]
local until_, attempts, started = tonumber(f[6] or 0), tonumber(f[7] or 0), f[8]
local born, outcome, answer, code, past = f[9], f[10] or '', f[11], f[12] or '', f[13]
local evicted, answered, replayed, since, listed = f[14], f[15], f[16], f[17], f[18]

local function reply(verdict, left)
  if state then keep() end
  return {verdict, whole(attempts), whole(math.max(left, 0)), code, whole(math.max(now - arrival, 0))}
end

-- refuse answers the entry with error duplicate and leaves the record's own run
-- and outcome alone.
local function refuse()
  remember(respond(responseId, 'duplicate', duplicate, 0), 'conflict', listed, {})
  close()
  return reply('conflict', 0)
end

-- repeat_ gives the entry the answer that is on record.
local function repeat_()
  local found = answer and redis.call('XRANGE', responses, answer, answer) or {}
  if #found == 0 then return refuse() end
  local old = {}
  for i = 1, #found[1][2], 2 do old[found[1][2][i]] = found[1][2][i + 1] end
  local body = outcome == '' and old['data'] or old['error']
  remember(respond(responseId, outcome, body or '', tonumber(old['attempts'] or 0)), 'repeated', listed, {})
  close()
  return reply('repeated', 0)
end

-- same tells whether this entry asks for what the record is about. Where one of
-- the two can't be read, only the very entry that the record is about does.
local function same()
  if print ~= '' and known ~= '' then return print == known end
  return worked == entry
end

-- unknown tells whether a call may have been made of which nobody will learn.
-- Without a record there is no epoch that could be the message's.
local function unknown()
  if started then return true end
  return write and (born ~= epoch or redis.call('GET', epochKey) ~= epoch)
end

if answered then
  close()
  local by, how = string.match(answered, '^%S+ (%S+) (%S+)$')
  return reply(by == token and how or 'answered', 0)
end
if replayed then
  close()
  return reply('superseded', 0)
end
-- The list of answered entries has overflowed. An entry that has no answer is
-- open: it is so from its admission until the very script that answers it.
if evicted and not redis.call('ZSCORE', open, entry) then
  close()
  return reply('answered', 0)
end
if state and not same() then return refuse() end
if state == 'done' then return repeat_() end
if holder == token then return reply(held, until_ - now) end
if past == token then return reply('busy', 0) end
if holder and until_ > now then return reply('busy', until_ - now) end

local verdict = unknown() and 'unknown' or 'run'
local counted = calling and verdict == 'run'
if counted then attempts = attempts + 1 end
local fields = {'state', 'running', 'entry', entry, 'token', token, 'verdict', verdict,
  'lease', whole(now + lease), 'attempts', whole(attempts)}
local function set(field, value)
  fields[#fields + 1] = field
  fields[#fields + 1] = value
end
if verdict == 'unknown' and not started then set('started', '1') end
if known == '' and print ~= '' then set('print', print) end
if not born then set('epoch', epoch) end
if not since then set('admitted', admitted) end
redis.call('HSET', record, unpack(fields))
redis.call('ZREM', retrying, entry)
redis.call('ZADD', open, 'NX', whole(arrival), entry)
if counted then say('processing', attempts, '') end
state = 'running'
return reply(verdict, lease)
