-- Results, who holds them, and those that only answer equal requests any more.

-- A result is a hash: bytes (with the header), tenant, refs (the records that answer with it), same (the key by which equal
-- requests find it). Forgets one, and returns how many bytes less are cached; its payload's name is the caller's to get rid of.
local function drop_result(name)
  local r = redis.call('HMGET', result_of(name), 'bytes', 'tenant', 'same')
  redis.call('ZREM', RESULTS, name)
  if not r[1] then return 0 end
  local cached = redis.call('ZREM', CACHED, name) == 1
  local size = number(r[1])
  if cached then count('cached_bytes', nil, -size) else count('result_bytes', r[2], -size) end
  redis.call('DEL', result_of(name))
  if r[3] and string.match(redis.call('GET', r[3]) or '', '^%S+') == name then redis.call('DEL', r[3]) end
  return cached and size or 0
end

-- Records hold the result that they answer with. One that no record holds any more was got by its callers, and only answers
-- equal requests until its room is needed: it is cached.
local function hold_result(name)
  redis.call('HINCRBY', result_of(name), 'refs', 1)
  if redis.call('ZREM', CACHED, name) == 1 then
    local r = redis.call('HMGET', result_of(name), 'bytes', 'tenant')
    count('cached_bytes', nil, -number(r[1]))
    count('result_bytes', r[2], number(r[1]))
  end
end

-- Returns how many hold it still.
local function release_result(name, now)
  local r = redis.call('HMGET', result_of(name), 'bytes', 'tenant')
  if not r[1] then return 0 end
  local held = redis.call('HINCRBY', result_of(name), 'refs', -1)
  if held == 0 then
    redis.call('ZADD', CACHED, text(now), name)
    count('result_bytes', r[2], -number(r[1]))
    count('cached_bytes', nil, number(r[1]))
  end
  return held
end

-- Forgets up to `most` cached results, the oldest first, while `excess` bytes or `surplus` results are too many. Returns how
-- many it forgot.
local function drop_cached(excess, surplus, most)
  for dropped = 0, most - 1 do
    local oldest = (excess > 0 or surplus > dropped) and redis.call('ZRANGE', CACHED, 0, 0)[1]
    if not oldest then return dropped end
    excess = excess - drop_result(oldest)
    redis.call('RPUSH', GARBAGE, oldest)
  end
  return most
end

-- Holds cached results to their share of the bytes of results, where `wanted` bytes are to be reserved, and to the number of
-- jobs that may be known. `bounds` has cached_bytes, result_bytes, known_jobs; `load` at least the first two.
local function trim_cache(bounds, load, wanted, most)
  local excess = load.cached_bytes - math.min(bounds.cached_bytes, bounds.result_bytes - load.result_bytes - wanted)
  return drop_cached(excess, redis.call('ZCARD', CACHED) - bounds.known_jobs, most)
end
