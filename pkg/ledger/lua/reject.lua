-- Answers an entry that will not be served, without a claim: it is no request, or
-- Pub/Sub will not carry it. An entry that was a request to somebody else and is
-- under way, or has its answer, is only taken out of every hand. The record's own
-- run stays as it is, unless it was made for this entry and nobody has begun it.
--
-- KEYS  1 to 6 as in delivery.lua
-- ARGV  1 to 12 as in delivery.lua, 13 ID of the response, 14 error code, 15 error text
-- returns 'ok'; 'answered', 'superseded', or 'begun': somebody answers or has answered
local code = ARGV[14]
local f = redis.call('HMGET', record, 'state', 'entry', 'evicted', 'a:' .. entry, 'r:' .. entry, 'answers')
local state, worked, evicted, answered, replayed = f[1], f[2], f[3], f[4], f[5]

-- An entry that left the list of answered ones was acknowledged with that, and one
-- that was published and has no answer is open.
local function forgotten()
  return evicted and not redis.call('ZSCORE', open, entry)
    and #redis.call('XPENDING', requests, bridge, entry, entry, 1) == 0
    and #redis.call('XPENDING', requests, parked, entry, entry, 1) == 0
end

local function drop()
  redis.call('XACK', requests, bridge, entry)
  redis.call('XACK', requests, parked, entry)
end

local verdict = 'ok'
if answered then
  if string.match(answered, '^%S+ (%S+) %S+$') ~= token then verdict = 'answered' end
elseif replayed then
  verdict = 'superseded'
elseif forgotten() then
  verdict = 'answered'
elseif state and state ~= 'admitted' and worked == entry then
  drop()
  return 'begun'
else
  local answer = respond(ARGV[13], code, ARGV[15], 0)
  local made = state and worked == entry
  remember(answer, 'rejected', f[6], made and {'state', 'done', 'outcome', code, 'answer', answer} or {})
  keep()
end
close()
drop()
return verdict
