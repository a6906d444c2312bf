-- What every script about one delivery begins with. Scripts go on with their own
-- KEYS from 7 and ARGV from 13.
--
-- KEYS  1 the request's record, 2 open:<lane>, 3 retrying:<lane>, 4 status stream,
--       5 responses stream, 6 requests stream
-- ARGV  1 time in ms, '' for the server's, 2 LEDGER_TTL in ms, 3 the caller's token,
--       4 the delivery's stream entry, 5 request ID, 6 correlation ID, 7 user, 8 action,
--       9 arrival in ms, 10 how many answered entries a record lists, 11 group bridge,
--       12 group parked
local record, open, retrying = KEYS[1], KEYS[2], KEYS[3]
local status, responses, requests = KEYS[4], KEYS[5], KEYS[6]
local now, ttl = clock(ARGV[1]), ARGV[2]
local token, entry = ARGV[3], ARGV[4]
local requestId, correlationId, userId, action = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local arrival, mostAnswered = tonumber(ARGV[9]), tonumber(ARGV[10])
local bridge, parked = ARGV[11], ARGV[12]

-- rfc3339 writes a time as tebra.TimeFormat does. The date is Howard Hinnant's
-- "civil from days": scripts have no library for it.
local function rfc3339(at)
  local s = math.floor(at / 1000)
  local z = math.floor(s / 86400) + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day = doy - math.floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, day,
    math.floor(s / 3600) % 24, math.floor(s / 60) % 60, s % 60, at % 1000)
end

-- stamp is now as a stream carries it.
local stamped
local function stamp()
  stamped = stamped or rfc3339(now)
  return stamped
end

-- keep puts the record's end off once more.
local function keep() redis.call('PEXPIRE', record, ttl) end

-- close takes the entry out of what its lane counts.
local function close()
  redis.call('ZREM', open, entry)
  redis.call('ZREM', retrying, entry)
end

-- say writes a status update as tebra.StatusUpdate does. attempt 0 and code ''
-- are left out.
local function say(state, attempt, code)
  local fields = {'correlationId', correlationId, 'requestId', requestId, 'status', state,
    'timestamp', stamp(), 'userId', userId, 'action', action}
  if attempt > 0 then
    fields[#fields + 1] = 'attempt'
    fields[#fields + 1] = whole(attempt)
  end
  if code ~= '' then
    fields[#fields + 1] = 'errorCode'
    fields[#fields + 1] = code
  end
  redis.call('XADD', status, '*', unpack(fields))
end

-- respond writes the entry's terminal answer as tebra.Response does, and its
-- status, and returns the answer's stream ID. body is the data of a success
-- (code '') or the text of an error.
local function respond(id, code, body, attempts)
  local state = code == '' and 'success' or 'error'
  local fields = {'id', id, 'requestId', requestId, 'correlationId', correlationId, 'status', state}
  if code == '' then
    fields[#fields + 1] = 'data'
    fields[#fields + 1] = body
  else
    fields[#fields + 1] = 'error'
    fields[#fields + 1] = body
    fields[#fields + 1] = 'errorCode'
    fields[#fields + 1] = code
  end
  say(state, attempts, code)
  for _, field in ipairs({'timestamp', stamp(), 'duration', whole(math.max(now - arrival, 0)),
    'attempts', whole(attempts), 'userId', userId, 'action', action}) do
    fields[#fields + 1] = field
  end
  return redis.call('XADD', responses, '*', unpack(fields))
end

-- before orders stream IDs, which don't fit into a Lua number.
local function before(a, b)
  local am, as = string.match(a, '^(%d+)-?(%d*)$')
  local bm, bs = string.match(b, '^(%d+)-?(%d*)$')
  if am ~= bm then return #am < #bm or (#am == #bm and am < bm) end
  return #as < #bs or (#as == #bs and as < bs)
end

-- remember lists the entry as answered: by which answer, by whom, and how, so
-- that the same caller asking again is told the same. listed is how many the record
-- lists so far, and fields what else it is to say from now on: each call of a
-- command costs a script more than a few fields. Over the bound the oldest entry
-- leaves the list, and then must not come from the stream again.
local function remember(answer, how, listed, fields)
  listed = tonumber(listed or 0) + 1
  fields[#fields + 1] = 'answers'
  fields[#fields + 1] = whole(listed)
  fields[#fields + 1] = 'a:' .. entry
  fields[#fields + 1] = answer .. ' ' .. token .. ' ' .. how
  redis.call('HSET', record, unpack(fields))
  if listed <= mostAnswered then return end
  local oldest
  for _, field in ipairs(redis.call('HKEYS', record)) do
    local id = string.match(field, '^a:(.+)$')
    if id and id ~= entry and (not oldest or before(id, oldest)) then oldest = id end
  end
  if not oldest then return end
  redis.call('HDEL', record, 'a:' .. oldest)
  redis.call('HSET', record, 'answers', whole(listed - 1), 'evicted', '1')
  redis.call('XACK', requests, bridge, oldest)
  redis.call('XACK', requests, parked, oldest)
end
