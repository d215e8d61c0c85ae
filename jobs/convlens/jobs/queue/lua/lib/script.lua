-- What every script begins with: its options, conversions, Redis' clock.

-- The named options of a call: every script takes them as one JSON object in ARGV[1]. Bytes that JSON cannot carry (job specs,
-- model cards) follow as ARGV[2], ARGV[3], … No script has KEYS, since it computes key names from what it reads.
local options = cjson.decode(ARGV[1])

-- The number in a field that may be missing or damaged.
local function number(value) return tonumber(value or 0) or 0 end

-- An integer as Redis reads it; never -0.
local function text(value) return string.format('%.0f', value == 0 and 0 or value) end

-- Calls `use` with up to a thousand values at a time, since Lua's stack is bounded.
local function in_batches(values, use)
  for first = 1, #values, 1000 do use(unpack(values, first, math.min(first + 999, #values))) end
end

local time
-- Milliseconds since the epoch by Redis' clock, the only one that scripts read; the same during one script.
local function clock()
  if not time then
    local reply = redis.call('TIME')
    time = reply[1] * 1000 + math.floor(reply[2] / 1000)
  end
  return time
end
