-- Counters, written once at the end of each script. USAGE is what is held, in total and per tenant: jobs, image_bytes, pixels,
-- result_bytes; and cached_bytes. THROUGHPUT is jobs that end per second, decaying over ten seconds, from which the retry delay of
-- rejected callers is computed.
local usage_changes, ended_jobs = {}, 0 -- by this script

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

local function throughput(now)
  local r = redis.call('HMGET', THROUGHPUT, 'at', 'rate')
  return number(r[2]) * math.exp(math.min(0, number(r[1] or now) - now) / 10000)
end

-- Writes what this script has added; called at the end of every script.
local function write_counters()
  for field, amount in pairs(usage_changes) do
    local left = amount ~= 0 and redis.call('HINCRBY', USAGE, field, text(amount)) or 1
    if left < 0 or left == 0 and string.find(field, ':', 1, true) then redis.call('HDEL', USAGE, field) end -- < 0: it was lost
  end
  if ended_jobs > 0 then
    redis.call('HSET', THROUGHPUT, 'at', text(clock()), 'rate', tostring(throughput(clock()) + 0.1 * ended_jobs))
  end
end
