-- respond writes the entry's terminal answer as tebra.Response does, and its
-- status, and returns the answer's stream ID. body is the data of a success
-- (code '') or the text of an error.
local function respond(id, code, body, attempts)
  local state, what, more = 'success', 'data', {}
  if code ~= '' then state, what, more = 'error', 'error', {'errorCode', code} end
  say(state, attempts, code)
  return redis.call('XADD', responses, '*', 'id', id, 'requestId', requestId, 'correlationId', correlationId,
    'status', state, what, body, 'timestamp', stamp(), 'duration', whole(math.max(now - arrival, 0)),
    'attempts', whole(attempts), 'userId', userId, 'action', action, unpack(more))
end

-- remember lists the entry as answered: by which answer, by whom, and how, so
-- that the same caller asking again is told the same. listed is how many the record
-- lists so far, and fields what else it is to say from now on: each call of a
-- command costs a script more than a few fields. Over the bound the oldest entry
-- leaves the list, and then must not come from the stream again.
local function remember(answer, how, listed, fields)
  listed = tonumber(listed or 0) + 1
  redis.call('HSET', record, 'answers', whole(listed), 'a:' .. entry, answer .. ' ' .. token .. ' ' .. how, unpack(fields))
  if listed <= tonumber(mostAnswered) then return end
  -- before orders stream IDs, which don't fit into a Lua number.
  local function before(a, b)
    local am, as = string.match(a, '^(%d+)-?(%d*)$')
    local bm, bs = string.match(b, '^(%d+)-?(%d*)$')
    if am ~= bm then return #am < #bm or (#am == #bm and am < bm) end
    return #as < #bs or (#as == #bs and as < bs)
  end
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
