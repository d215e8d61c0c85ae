#!lua flags=allow-oom
-- Registers a worker for a model for a while more, also in a full Redis: else every server would take it for gone. ARGV:
-- worker, pool, card, ttl, how long a pool is remembered that nobody serves, how many are. Returns the pool that new jobs go to,
-- then pool, worker pairs: the other pools of the model that are served, and a worker of each. Scores are seconds.
--
-- POOLS has pools by when the last word of their workers expires, SINCE by when they were first served. New jobs go to the pool
-- that came last, and one whose workers only restart is no newcomer: so both outlive the workers.
local worker, pool, card, ttl, remembered, most = unpack(ARGV)
local now = clock()
local function seconds(milliseconds) return string.format('%.3f', milliseconds / 1000) end
local expires = seconds(now + ttl)
redis.call('ZREMRANGEBYSCORE', serving(pool), '-inf', seconds(now))
redis.call('ZADD', serving(pool), expires, worker)
redis.call('PEXPIRE', serving(pool), ttl)
redis.call('SET', P .. 'card:' .. pool, card, 'PX', ttl)
redis.call('ZADD', POOLS, 'GT', expires, pool)
redis.call('ZADD', SINCE, 'NX', seconds(now), pool)
redis.call('HDEL', UNSERVED, pool)

local function forget(old)
  redis.call('ZREM', POOLS, old)
  redis.call('ZREM', SINCE, old)
  redis.call('HDEL', UNSERVED, old)
  if redis.call('SISMEMBER', QUEUES, old) == 0 then
    redis.call('DEL', tags(old))
    for _, kind in ipairs(KINDS) do redis.call('DEL', messages(old, kind), '_kombu.binding.' .. messages(old, kind)) end
  end
end
local function forget_some(until_when, number)
  for _, old in ipairs(redis.call('ZRANGE', POOLS, '-inf', seconds(until_when), 'BYSCORE', 'LIMIT', 0, number)) do forget(old) end
end
forget_some(now - remembered, 100)
forget_some(now, math.max(0, redis.call('ZCARD', POOLS) - most))

local told, latest = {pool}, tonumber(redis.call('ZSCORE', SINCE, pool))
for _, other in ipairs(other_pools(pool, now)) do
  told[#told + 1] = other
  told[#told + 1] = redis.call('ZREVRANGE', serving(other), 0, 0)[1]
  local since = number(redis.call('ZSCORE', SINCE, other))
  if since > latest or since == latest and other > told[1] then told[1], latest = other, since end
end
return told
