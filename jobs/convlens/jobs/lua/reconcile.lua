#!lua flags=allow-oom
-- One bounded look at what went wrong. ARGV: limit, grace, max_attempts, result_ttl, tombstone_ttl, then model, queue pairs.
-- Expires what is past its deadline, gives jobs of silent workers back to their queues or, when their attempts are used
-- up, ends them, forgets what has outlived its time, and returns model, number pairs of jobs to be announced again.
local limit, grace, max_attempts = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local ttls = {result = tonumber(ARGV[4]), tombstone = tonumber(ARGV[5])}
local now, again = clock(), {}

local function due(zset) return redis.call('ZRANGE', zset, '-inf', text(now), 'BYSCORE', 'LIMIT', 0, limit) end

for _, id in ipairs(due(DEADLINES)) do
  local where = redis.call('HGET', key(id), 'state') == QUEUED_ and 'queued' or 'running'
  finish(id, now, EXPIRED_, {reason = 'DEADLINE_EXCEEDED', message = 'the deadline passed while the job was ' .. where},
         nil, ttls)
end

for _, id in ipairs(due(RUNNING)) do
  local r = redis.call('HMGET', key(id), 'attempts', 'model', 'flow', 'sequence', 'worker', 'count')
  if tonumber(r[1]) >= max_attempts then
    local message = 'begun ' .. r[1] .. ' times, and each time the worker fell silent; the last was ' .. r[5]
    finish(id, now, FAILED_, {reason = 'ATTEMPTS_EXHAUSTED', message = message}, nil, ttls)
  else
    redis.call('ZREM', RUNNING, id)
    redis.call('HSET', key(id), 'token', '', 'queued', '0')
    enqueue(r[2], r[3], id, r[4], r[6], now)
    tell(id, QUEUED_)
  end
end

-- A message is lost when none is under way, no hand is awake, and a job has waited for longer than a message takes.
for i = 6, #ARGV, 2 do
  local model, old, waiting = ARGV[i], nil, 0
  for _, flow in ipairs(redis.call('ZRANGE', flows(model), 0, limit - 1)) do
    local id = redis.call('ZRANGE', queued(flow), 0, 0)[1]
    waiting = waiting + redis.call('ZCARD', queued(flow))
    if id and tonumber(redis.call('HGET', key(id), 'queued') or 0) < now - grace then old = id end
  end
  redis.call('ZREMRANGEBYSCORE', awake(model), '-inf', text(now))
  redis.call('ZREMRANGEBYSCORE', awake(model), text(now + 10000), '+inf') -- of a time that Redis' clock went back from
  if waiting == 0 then
    redis.call('SREM', QUEUES, model)
  elseif old and expected(model, ARGV[i + 1], now) == 0 then
    redis.call('HSET', key(old), 'queued', text(now))
    again[#again + 1] = model
    again[#again + 1] = waiting
  end
end

for _, name in ipairs(due(RESULTS)) do
  drop_result(name)
  redis.call('RPUSH', GARBAGE, name)
end
for _, id in ipairs(due(FORGET)) do
  local tenant = redis.call('HGET', key(id), 'tenant')
  redis.call('DEL', key(id))
  redis.call('ZREM', JOBS, id)
  redis.call('ZREM', jobs_of(tenant or ''), id)
  redis.call('ZREM', FORGET, id)
end
return again
