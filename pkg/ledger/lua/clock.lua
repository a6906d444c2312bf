-- The Redis server's clock decides. A test gives its own time instead of ''.
local function clock(given)
  if given ~= '' then return tonumber(given) end
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

-- Lua would write a number this large as 1.7e+12.
local function whole(n) return string.format('%.0f', n) end

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
