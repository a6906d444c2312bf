-- Marks a write as started, just before it is sent.
--
-- KEYS  1 to 6 as in delivery.lua
-- ARGV  1 to 12 as in delivery.lua, 13 how long the call can take in ms, 14 how many
--       times the holder has started, this one counted
-- returns 'ok'; 'lost', the lease is another's or nobody's; or 'short', it ends too soon
local need, start = tonumber(ARGV[13]), tonumber(ARGV[14])
local f = redis.call('HMGET', record, 'token', 'verdict', 'lease', 'started')
local left = tonumber(f[3] or 0) - now
if f[1] ~= token or f[2] ~= 'run' or left <= 0 then return 'lost' end
if left < need then return 'short' end
if tonumber(f[4] or 0) < start then redis.call('HSET', record, 'started', whole(start)) end
keep()
return 'ok'
