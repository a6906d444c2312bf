-- Makes the records of writes, all in the present life of Redis. What is on
-- record already is left alone.
--
-- KEYS  1 epoch, then each write's record
-- ARGV  1 time in ms, '' for the server's, 2 LEDGER_TTL in ms, 3 what a new epoch begins
--       with, then for each write its stream entry and its fingerprint
-- returns {epoch, then for each write '1' if another admission's record was there, else '0'}
local now, ttl = clock(ARGV[1]), ARGV[2]
local epoch = present(KEYS[1], ARGV[3])
local reply = {epoch}
for i = 2, #KEYS do
  local entry, print = ARGV[2 * i], ARGV[2 * i + 1]
  local f = redis.call('HMGET', KEYS[i], 'state', 'entry', 'lease')
  if not f[1] then
    redis.call('HSET', KEYS[i], 'state', 'admitted', 'entry', entry, 'print', print,
      'epoch', epoch, 'admitted', whole(now))
  end
  -- A claim has put the end off further, and complete.lua relies on it.
  if tonumber(f[3] or 0) < now then redis.call('PEXPIRE', KEYS[i], ttl) end
  local ours = not f[1] or (f[1] == 'admitted' and f[2] == entry)
  reply[i] = ours and '0' or '1'
end
return reply
