-- Answers the entry and settles the record.
--
-- KEYS  1 to 4 as in delivery.lua, 5 responses stream
-- ARGV  1 to 10 as in delivery.lua, 11 ID of the response, 12 error code, '' for success,
--       13 data or error text, 14 attempts, 15 fingerprint, 16 the message's epoch,
--       17 when it was admitted in ms
-- returns 'ok', or 'stale' when the claim is no longer the caller's
local responses, code = KEYS[5], ARGV[12]
local f = redis.call('HMGET', record, 'state', 'token', 'a:' .. entry)
if f[3] then
  local by = string.match(f[3], '^%S+ (%S+) %S+$')
  return by == token and 'ok' or 'stale'
end
-- Without any record Redis lost it while we worked. Whoever waits still gets
-- the answer, and the new record keeps the call from being made again.
if f[1] and f[2] ~= token then return 'stale' end

local answer = respond(responses, ARGV[11], code, ARGV[13], tonumber(ARGV[14]))
redis.call('HSET', record, 'state', 'done', 'entry', entry, 'outcome', code, 'answer', answer)
if ARGV[15] ~= '' then redis.call('HSETNX', record, 'print', ARGV[15]) end
redis.call('HSETNX', record, 'epoch', ARGV[16])
redis.call('HSETNX', record, 'admitted', ARGV[17])
redis.call('HDEL', record, 'token', 'verdict', 'lease', 'started')
remember(answer, 'answered')
keep()
close()
return 'ok'
