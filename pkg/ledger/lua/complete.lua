-- Answers the entry and settles the record.
--
-- KEYS  1 to 6 as in delivery.lua
-- ARGV  1 to 12 as in delivery.lua, 13 ID of the response, 14 error code, '' for success,
--       15 data or error text, 16 attempts, 17 fingerprint, 18 the message's epoch,
--       19 when it was admitted in ms
-- returns 'ok', or 'stale' when the claim is no longer the caller's
local id, code, body, attempts, print, epoch, admitted = unpack(ARGV, 13)
local f = redis.call('HMGET', record, 'state', 'token', 'a:' .. entry, 'verdict', 'answers', 'print', 'epoch', 'admitted', 'lease')
if f[3] then
  local by = string.match(f[3], '^%S+ (%S+) %S+$')
  return by == token and 'ok' or 'stale'
end
-- Without any record Redis lost it while we worked. Whoever waits still gets
-- the answer, and the new record keeps the call from being made again; it says
-- that it doesn't know what was before. So does one that a late copy of our claim
-- made after the loss: it says unknown, and we were told run.
if f[1] and f[2] ~= token then return 'stale' end

local answer = respond(id, code, body, tonumber(attempts))
local fields = {'state', 'done', 'entry', entry, 'outcome', code, 'answer', answer}
local function set(field, value)
  fields[#fields + 1] = field
  fields[#fields + 1] = value
end
if not f[1] or (f[4] == 'unknown' and code ~= 'outcome_unknown') then set('orphan', '1') end
if not f[6] and print ~= '' then set('print', print) end
if not f[7] then set('epoch', epoch) end
if not f[8] then set('admitted', admitted) end
remember(answer, 'answered', f[5], fields)
redis.call('HDEL', record, 'token', 'verdict', 'lease', 'started')
-- Within its lease a claim has put the record's end off far enough.
if tonumber(f[9] or 0) < now then keep() end
redis.call('ZREM', open, entry)
if not f[1] then redis.call('ZREM', retrying, entry) end -- else our claim took it out
return 'ok'
