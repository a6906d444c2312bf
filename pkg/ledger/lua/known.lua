-- Goes on with the claim of a delivery whose request has a record.
local worked, known, holder, held, until_ = f[2], f[3] or '', f[4], f[5], tonumber(f[6] or 0)
local outcome, answer, past, evicted = f[10] or '', f[11], f[13], f[14]
local answered, replayed, listed = f[15], f[16], f[18]

-- refuse answers the entry with error duplicate and leaves the record's own run
-- and outcome alone.
local function refuse()
  remember(respond(responseId, 'duplicate', duplicate, 0), 'conflict', listed, {})
  close()
  return reply('conflict', 0)
end

-- repeat_ gives the entry the answer that is on record.
local function repeat_()
  local found = answer and redis.call('XRANGE', responses, answer, answer) or {}
  if #found == 0 then return refuse() end
  local old = {}
  for i = 1, #found[1][2], 2 do old[found[1][2][i]] = found[1][2][i + 1] end
  local body = outcome == '' and old['data'] or old['error']
  remember(respond(responseId, outcome, body or '', tonumber(old['attempts'] or 0)), 'repeated', listed, {})
  close()
  return reply('repeated', 0)
end

-- same tells whether this entry asks for what the record is about. Where one of
-- the two can't be read, only the very entry that the record is about does.
local function same()
  if print ~= '' and known ~= '' then return print == known end
  return worked == entry
end

if answered then
  close()
  local by, how = string.match(answered, '^%S+ (%S+) (%S+)$')
  return reply(by == token and how or 'answered', 0)
end
if replayed then
  close()
  return reply('superseded', 0)
end
-- The list of answered entries has overflowed. An entry that has no answer is
-- open: it is so from its admission until the very script that answers it.
if evicted and not redis.call('ZSCORE', open, entry) then
  close()
  return reply('answered', 0)
end
if state and not same() then return refuse() end
if state == 'done' then return repeat_() end
if holder == token then return reply(held, until_ - now) end
if past == token then return reply('busy', 0) end
if holder and until_ > now then return reply('busy', until_ - now) end
return take()
