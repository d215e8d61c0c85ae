#!lua flags=allow-oom
-- include: pools
-- Registers a worker for a model, also in a full Redis: otherwise every server would take the worker for gone.
-- KEYS: none. Options: worker, pool, ttl (ms), pool_memory (ms that an unserved pool is remembered), max_pools. ARGV[2]: the
-- model card. Returns the pool that new jobs go to, then pool, worker pairs: the other served pools of the model, each with one
-- of its workers.
-- New jobs go to the pool that was first served last. One whose workers only restart does not count as new: so POOLS and SINCE
-- outlive the workers.
local pool, ttl, now = options.pool, options.ttl, clock()
local expires = seconds(now + ttl)
redis.call('ZREMRANGEBYSCORE', serving_key(pool), '-inf', seconds(now))
redis.call('ZADD', serving_key(pool), expires, options.worker)
redis.call('PEXPIRE', serving_key(pool), ttl)
redis.call('SET', card_key(pool), ARGV[2], 'PX', ttl)
redis.call('ZADD', POOLS, 'GT', expires, pool)
redis.call('ZADD', SINCE, 'NX', seconds(now), pool)
redis.call('HDEL', UNSERVED, pool)

local function forget_pool(old)
  redis.call('ZREM', POOLS, old)
  redis.call('ZREM', SINCE, old)
  redis.call('HDEL', UNSERVED, old)
  if redis.call('SISMEMBER', QUEUES, old) == 1 then return end
  redis.call('DEL', tags_key(old))
  for _, kind in ipairs(LIST_KINDS) do redis.call('DEL', messages_key(old, kind), '_kombu.binding.' .. messages_key(old, kind)) end
end
local function forget_pools(expired_by, limit)
  for _, old in ipairs(redis.call('ZRANGE', POOLS, '-inf', seconds(expired_by), 'BYSCORE', 'LIMIT', 0, limit)) do
    forget_pool(old)
  end
end
forget_pools(now - options.pool_memory, 100)
forget_pools(now, math.max(0, redis.call('ZCARD', POOLS) - options.max_pools))

local reply, latest = {pool}, tonumber(redis.call('ZSCORE', SINCE, pool))
for _, other in ipairs(other_pools(pool, now)) do
  reply[#reply + 1], reply[#reply + 2] = other, redis.call('ZREVRANGE', serving_key(other), 0, 0)[1]
  local since = number(redis.call('ZSCORE', SINCE, other))
  if since > latest or since == latest and other > reply[1] then reply[1], latest = other, since end
end
return reply
