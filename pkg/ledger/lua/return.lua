-- Puts the entry back into its lane's waiting line in Redis.
--
-- KEYS  1 to 6 as in delivery.lua
-- ARGV  1 to 12 as in delivery.lua, 13 error code, 14 lane,
--       15 '1' when a call was begun, which then counts as an attempt
-- returns 'ok'; 'stale', the claim is no longer the caller's; or 'gone', the entry is
--         no longer in the stream
local code = ARGV[13]
local f = redis.call('HMGET', record, 'token', 'past', 'verdict', 'attempts')
if f[2] == token then return 'ok' end
if f[1] ~= token or f[3] ~= 'run' then return 'stale' end
-- Before Redis 7.0 XCLAIM doesn't tell whether the entry is still there.
if #redis.call('XRANGE', requests, entry, entry) == 0 then return 'gone' end
redis.call('XCLAIM', requests, parked, ARGV[14], 0, entry, 'FORCE', 'JUSTID')
local attempts = tonumber(f[4] or 0)
if ARGV[15] == '' then attempts = math.max(attempts - 1, 0) end
redis.call('HSET', record, 'state', 'admitted', 'past', token, 'code', code, 'attempts', whole(attempts))
redis.call('HDEL', record, 'token', 'verdict', 'lease', 'started')
say('pending', attempts, code)
keep()
close()
return 'ok'
