-- What every script about one delivery begins with. Scripts go on with their own
-- KEYS from 7 and ARGV from 13.
--
-- KEYS  1 the request's record, 2 open:<lane>, 3 retrying:<lane>, 4 status stream,
--       5 responses stream, 6 requests stream
-- ARGV  1 time in ms, '' for the server's, 2 how long records last in ms:
--       LEDGER_TTL and a lease, 3 the caller's token,
--       4 the delivery's stream entry, 5 request ID, 6 correlation ID, 7 user, 8 action,
--       9 arrival in ms, 10 how many answered entries a record lists, 11 group bridge,
--       12 group parked
local record, open, retrying, status, responses, requests = unpack(KEYS)
local given, ttl, token, entry, requestId, correlationId, userId, action, arrival, mostAnswered, bridge, parked = unpack(ARGV)
local now = clock(given)
arrival = tonumber(arrival)

-- rfc3339 writes a time as tebra.TimeFormat does. The date is Howard Hinnant's
-- "civil from days": scripts have no library for it. %d drops what is behind the point.
local function rfc3339(at)
  local floor, ms = math.floor, at % 1000
  local s = (at - ms) / 1000 % 86400
  local z = (at - ms - s * 1000) / 86400000 + 719468
  local doe = z % 146097
  local yoe = floor((doe - floor(doe / 1460) + floor(doe / 36524) - floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + floor(yoe / 4) - floor(yoe / 100))
  local mp = floor((5 * doy + 2) / 153)
  local day = doy - floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + (z - doe) / 146097 * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, day, s / 3600, s % 3600 / 60, s % 60, ms)
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
  local more = {}
  if attempt > 0 then more = {'attempt', whole(attempt)} end
  if code ~= '' then
    more[#more + 1] = 'errorCode'
    more[#more + 1] = code
  end
  redis.call('XADD', status, '*', 'correlationId', correlationId, 'requestId', requestId, 'status', state,
    'timestamp', stamp(), 'userId', userId, 'action', action, unpack(more))
end
