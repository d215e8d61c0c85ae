-- The counters of what is held (USAGE), in total and per tenant: jobs, image_bytes, pixels, result_bytes; and cached_bytes.
-- What a script adds is written once, at its end.
local usage_changes = {}

-- Adds to a counter, and to that of the tenant if there is one.
local function count(counter, tenant, amount)
  usage_changes[counter] = (usage_changes[counter] or 0) + amount
  if tenant and tenant ~= '' then
    local field = counter .. ':' .. tenant
    usage_changes[field] = (usage_changes[field] or 0) + amount
  end
end

-- The values of counters by name, with what this script has added.
local function read_usage(fields)
  local usage = {}
  for i, value in ipairs(redis.call('HMGET', USAGE, unpack(fields))) do
    usage[fields[i]] = number(value) + (usage_changes[fields[i]] or 0)
  end
  return usage
end

-- Writes what this script has added; called at the end of every script.
local function write_usage()
  for field, amount in pairs(usage_changes) do
    local left = amount ~= 0 and redis.call('HINCRBY', USAGE, field, text(amount)) or 1
    if left < 0 or left == 0 and string.find(field, ':', 1, true) then redis.call('HDEL', USAGE, field) end -- < 0: it was lost
  end
end
