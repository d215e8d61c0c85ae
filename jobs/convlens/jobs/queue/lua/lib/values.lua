-- Conversions: Redis' strings to Lua numbers and back, long tables to calls with many arguments.

-- The number in a field that may be missing or damaged.
local function number(value) return tonumber(value or 0) or 0 end

-- An integer as Redis reads it; never -0.
local function text(value) return string.format('%.0f', value == 0 and 0 or value) end

-- Calls `use` with up to a thousand values at a time, since Lua's stack is bounded.
local function in_batches(values, use)
  for first = 1, #values, 1000 do use(unpack(values, first, math.min(first + 999, #values))) end
end
