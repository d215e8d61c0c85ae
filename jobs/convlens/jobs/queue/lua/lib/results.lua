-- Results: a hash with the bytes (header included), the tenant, the records that refer to it (`refs`), and the key by which
-- equal requests find it (`dedup_key`). One without references is cached: it answers equal requests until it is evicted.

-- Deletes a result and returns how many cached bytes that frees; the caller disposes of its payload.
local function delete_result(name)
  local r = redis.call('HMGET', result_key(name), 'bytes', 'tenant', 'dedup_key')
  redis.call('ZREM', RESULTS, name)
  if not r[1] then return 0 end
  local is_cached = redis.call('ZREM', CACHED, name) == 1
  local size = number(r[1])
  if is_cached then count('cached_bytes', nil, -size) else count('result_bytes', r[2], -size) end
  redis.call('DEL', result_key(name))
  if r[3] and string.match(redis.call('GET', r[3]) or '', '^%S+') == name then redis.call('DEL', r[3]) end
  return is_cached and size or 0
end

-- Adds a record's reference.
local function hold_result(name)
  redis.call('HINCRBY', result_key(name), 'refs', 1)
  if redis.call('ZREM', CACHED, name) == 1 then
    local r = redis.call('HMGET', result_key(name), 'bytes', 'tenant')
    count('cached_bytes', nil, -number(r[1]))
    count('result_bytes', r[2], number(r[1]))
  end
end

-- Removes a record's reference, and returns how many are left.
local function release_result(name)
  local r = redis.call('HMGET', result_key(name), 'bytes', 'tenant')
  if not r[1] then return 0 end
  local refs = redis.call('HINCRBY', result_key(name), 'refs', -1)
  if refs == 0 then
    redis.call('ZADD', CACHED, text(clock()), name)
    count('result_bytes', r[2], -number(r[1]))
    count('cached_bytes', nil, number(r[1]))
  end
  return refs
end

-- Deletes up to `limit` cached results, the oldest first, while there are `excess_bytes` or `excess_results` too many. Returns
-- how many it deleted.
local function evict_cached(excess_bytes, excess_results, limit)
  for evicted = 0, limit - 1 do
    local oldest = (excess_bytes > 0 or excess_results > evicted) and redis.call('ZRANGE', CACHED, 0, 0)[1]
    if not oldest then return evicted end
    excess_bytes = excess_bytes - delete_result(oldest)
    redis.call('RPUSH', GARBAGE, oldest)
  end
  return limit
end

-- Holds cached results within options.bounds where `reserved` more bytes of results are to be admitted. `usage` has at least
-- cached_bytes and result_bytes, and is read where it is nil.
local function trim_cache(limit, usage, reserved)
  local bounds = options.bounds
  usage = usage or read_usage({'cached_bytes', 'result_bytes'})
  local excess = usage.cached_bytes - math.min(bounds.cached_bytes, bounds.result_bytes - usage.result_bytes - (reserved or 0))
  return evict_cached(excess, redis.call('ZCARD', CACHED) - bounds.known_jobs, limit)
end
