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
-- fits, and microseconds until nothing is owed.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local limits, fits = {}, true
for i, key in ipairs(KEYS) do
  local at = 5 * i - 4
  local limit = {
    drain = tonumber(ARGV[at]), unit = tonumber(ARGV[at + 1]), capacity = tonumber(ARGV[at + 2]),
    price = tonumber(ARGV[at + 3]), debt = 0, wait = 0,
  }
  local stored = redis.pcall('GET', key)
  if type(stored) == 'table' then return stored end
  local since, debt, unit = string.match(stored or '', '^(%d+) (%d+) ([1-9]%d*)$')
  if since then
    debt, unit = tonumber(debt), tonumber(unit)
    -- Another quota than the one it was counted by: as many requests stay used.
    if unit ~= limit.unit then debt = math.ceil(debt / unit * limit.unit) end
    -- A clock that was set back has paid nothing off, and takes nothing back.
    local paid = math.max(0, now - since) * limit.drain
    limit.debt = math.max(0, math.min(debt, limit.capacity) - paid)
  end
  limit.after = math.max(0, limit.debt + limit.price)
  local over = limit.debt + limit.price - limit.capacity
  if limit.price > 0 and over > 0 then
    limit.wait = math.ceil(over / limit.drain)
    if ARGV[at + 4] ~= '1' then fits = false end
  end
  limits[i] = limit
end
local answer = {}
for i, limit in ipairs(limits) do
  if limit.price < 0 or (fits and limit.price > 0 and limit.wait == 0) then
    limit.debt = limit.after
    local done
    if limit.debt > 0 then
      -- Forgotten when it is paid off, and not a moment before: a millisecond of the server's
      -- clock may have begun already.
      local life = math.ceil(limit.debt / limit.drain / 1000) + 1
      local state = string.format('%.0f %.0f %.0f', now, limit.debt, limit.unit)
      done = redis.pcall('SET', KEYS[i], state, 'PX', string.format('%.0f', life))
    else
      done = redis.pcall('DEL', KEYS[i])
    end
    if type(done) == 'table' and done.err then return done end
  end
  answer[#answer + 1] = limit.wait > 0 and 1 or 0
  answer[#answer + 1] = math.max(0, math.floor((limit.capacity - limit.debt) / limit.unit))
  answer[#answer + 1] = limit.wait
  answer[#answer + 1] = math.ceil(limit.debt / limit.drain)
end
return answer
