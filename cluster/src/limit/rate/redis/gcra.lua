-- GCRA for several limits of one request: all of them are charged, or none.
--
-- A key holds how far its client is ahead of the permitted pace (its debt) at a time of this
-- server. It is counted in units of which a microsecond pays off `drain` and one request costs
-- `unit`, all whole numbers: sums of them are exact below 2^53, where the time itself is until
-- the year 2255. An absent key owes nothing.
--
-- ARGV holds five values a key: drain, unit, capacity (the largest debt), the price of what is
-- asked for (0 only looks, below 0 gives back), and 1 if the limit only watches: it then refuses
-- nothing. Answers four numbers a key: limited, requests that fit, microseconds until the price
-- fits, and microseconds until nothing is owed. Limits on one key follow each other: the second finds
-- what the first has left.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local asks, stored = {}, {}
for i, key in ipairs(KEYS) do
  local at = 5 * i - 4
  local ask = {
    key = key, drain = tonumber(ARGV[at]), unit = tonumber(ARGV[at + 1]),
    capacity = tonumber(ARGV[at + 2]), price = tonumber(ARGV[at + 3]),
    watches = ARGV[at + 4] == '1', debt = 0, wait = 0,
  }
  asks[i] = ask
  if not stored[key] then
    local text = redis.pcall('GET', key)
    if type(text) == 'table' then return text end
    local since, debt, unit = string.match(text or '', '^(%d+) (%d+) ([1-9]%d*)$')
    stored[key] = since and { since = tonumber(since), debt = tonumber(debt), unit = tonumber(unit) }
      or { since = now, debt = 0, unit = ask.unit }
    -- The clock was set back. Written anew by it, the debt is paid off from now on; left as it is,
    -- a full key would be refused until the clock is there again, and not expire before.
    stored[key].changed = stored[key].since > now
  end
end

-- What is owed after each of them, and by each key in the end. Unless it `charges`, only what is
-- given back counts.
local function settle(charges)
  local keys, fits = {}, true
  for _, ask in ipairs(asks) do
    local state = keys[ask.key] or stored[ask.key]
    local debt = state.debt
    -- Another quota than the one it was counted by: as many requests stay used.
    if state.unit ~= ask.unit then debt = math.ceil(debt / state.unit * ask.unit) end
    -- A clock that was set back has paid nothing off, and takes nothing back.
    local paid = math.max(0, now - state.since) * ask.drain
    ask.debt = math.max(0, math.min(debt, ask.capacity) - paid)
    local over = ask.debt + ask.price - ask.capacity
    if charges and ask.price > 0 and over > 0 then
      ask.wait = math.ceil(over / ask.drain)
      fits = fits and ask.watches
    end
    local changes = ask.price < 0 or (charges and ask.price > 0 and ask.wait == 0)
    if changes then ask.debt = math.max(0, ask.debt + ask.price) end
    keys[ask.key] = {
      since = now, debt = ask.debt, unit = ask.unit, last = ask, changed = state.changed or changes,
    }
  end
  return fits, keys
end

local fits, keys = settle(true)
if not fits then keys = select(2, settle(false)) end
local answer = {}
for _, ask in ipairs(asks) do
  local state = keys[ask.key]
  if state.changed and state.last == ask then
    local done
    if ask.debt > 0 then
      -- Forgotten when it is paid off, and not a moment before: a millisecond of the server's
      -- clock may have begun already.
      local life = math.ceil(ask.debt / ask.drain / 1000) + 1
      local text = string.format('%.0f %.0f %.0f', now, ask.debt, ask.unit)
      done = redis.pcall('SET', ask.key, text, 'PX', string.format('%.0f', life))
    else
      done = redis.pcall('DEL', ask.key)
    end
    if type(done) == 'table' and done.err then return done end
  end
  answer[#answer + 1] = ask.wait > 0 and 1 or 0
  answer[#answer + 1] = math.max(0, math.floor((ask.capacity - ask.debt) / ask.unit))
  answer[#answer + 1] = ask.wait
  answer[#answer + 1] = math.ceil(ask.debt / ask.drain)
end
return answer
