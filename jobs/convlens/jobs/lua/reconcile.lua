#!lua flags=allow-oom
-- One bounded look at what went wrong. ARGV: limit, grace, max_attempts, result_ttl, tombstone_ttl.
-- Expires what is past its deadline, gives jobs of silent workers back to their queue or, when their attempts are used
-- up, ends them, and returns the ids to be published again.
local limit, grace, max_attempts = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local result_ttl, tombstone_ttl = tonumber(ARGV[4]), tonumber(ARGV[5])
local now, publish = clock(), {}

for _, id in ipairs(redis.call('ZRANGE', DEADLINES, '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)) do
  local where = redis.call('HGET', key(id), 'state') == QUEUED_ and 'queued' or 'running'
  finish(id, now, EXPIRED_, 'DEADLINE_EXCEEDED', 'the deadline passed while the job was ' .. where, '', result_ttl,
         tombstone_ttl)
end

local function republish(id)
  redis.call('HSET', key(id), 'published', text(now))
  publish[#publish + 1] = id
end

for _, id in ipairs(redis.call('ZRANGE', RUNNING, '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)) do
  local r = redis.call('HMGET', key(id), 'attempts', 'queue', 'sequence', 'worker')
  if tonumber(r[1]) >= max_attempts then
    finish(id, now, FAILED_, 'ATTEMPTS_EXHAUSTED',
           'begun ' .. r[1] .. ' times, and each time the worker fell silent; the last was ' .. r[4], '', result_ttl,
           tombstone_ttl)
  else
    redis.call('ZREM', RUNNING, id)
    redis.call('HSET', key(id), 'state', QUEUED_, 'token', '')
    redis.call('ZADD', queued(r[2]), r[3], id)
    notify(id, QUEUED_)
    republish(id)
  end
end

-- A message is lost when its queue is empty and its job still waits, or when later ones have long been taken.
for _, queue in ipairs(redis.call('SMEMBERS', QUEUES)) do
  local seen = now
  if redis.call('LLEN', queue) > 0 then seen = tonumber(redis.call('HGET', CLAIMED, queue) or 0) end
  for _, id in ipairs(redis.call('ZRANGE', queued(queue), 0, limit - 1)) do
    if tonumber(redis.call('HGET', key(id), 'published')) < seen - grace then republish(id) end
  end
end

for _, id in ipairs(redis.call('ZRANGE', FORGET, '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)) do
  redis.call('ZREM', JOBS, id)
  redis.call('ZREM', FORGET, id)
end
return publish
