-- present returns the epoch, and begins one where there is none. The time in it
-- keeps a command that is sent again after Redis lost its data from giving the
-- new life the old one's name.
local function present(key, candidate)
  local epoch = redis.call('GET', key)
  if epoch then return epoch end
  local t = redis.call('TIME')
  epoch = candidate .. '-' .. t[1] .. '-' .. t[2]
  redis.call('SET', key, epoch)
  return epoch
end
