-- Gives a claim back, so that the request is tried again. What is unknown stays so.
--
-- KEYS  1 to 6 as in delivery.lua
-- ARGV  1 to 12 as in delivery.lua, 13 error code
-- returns 'ok', or 'stale' when the claim is no longer the caller's
local code = ARGV[13]
local f = redis.call('HMGET', record, 'token', 'past', 'verdict', 'attempts')
if f[2] == token then return 'ok' end
if f[1] ~= token then return 'stale' end
redis.call('HSET', record, 'state', 'retrying', 'past', token, 'code', code)
redis.call('HDEL', record, 'token', 'verdict', 'lease')
if f[3] == 'run' then redis.call('HDEL', record, 'started') end
redis.call('ZADD', retrying, whole(now), entry)
say('pending', tonumber(f[4] or 0), code)
keep()
return 'ok'
