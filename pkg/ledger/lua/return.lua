-- Puts the entry back into its lane's waiting line in Redis.
--
-- KEYS  1 to 4 as in delivery.lua, 5 requests stream
-- ARGV  1 to 10 as in delivery.lua, 11 error code, 12 lane, 13 group parked
-- returns 'ok'; 'stale', the claim is no longer the caller's; or 'gone', the entry is
--         no longer in the stream
local requests, code = KEYS[5], ARGV[11]
local f = redis.call('HMGET', record, 'token', 'past', 'verdict', 'attempts')
if f[2] == token then return 'ok' end
if f[1] ~= token or f[3] ~= 'run' then return 'stale' end
-- Before Redis 7.0 XCLAIM doesn't tell whether the entry is still there.
if #redis.call('XRANGE', requests, entry, entry) == 0 then return 'gone' end
redis.call('XCLAIM', requests, ARGV[13], ARGV[12], 0, entry, 'FORCE', 'JUSTID')
local attempts = math.max(tonumber(f[4] or 0) - 1, 0)
redis.call('HSET', record, 'state', 'admitted', 'past', token, 'code', code, 'attempts', whole(attempts))
redis.call('HDEL', record, 'token', 'verdict', 'lease', 'started')
say('pending', attempts, code)
keep()
close()
return 'ok'
