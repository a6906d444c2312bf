-- Takes back a start after which the call was not made. A copy of this command
-- that comes late finds another start's number, and leaves that start alone.
--
-- KEYS  1 to 6 as in delivery.lua
-- ARGV  1 to 12 as in delivery.lua, 13 the start's number
-- returns 'ok'
local f = redis.call('HMGET', record, 'token', 'started')
if f[1] == token and f[2] == ARGV[13] then redis.call('HDEL', record, 'started') end
return 'ok'
