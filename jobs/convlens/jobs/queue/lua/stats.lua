#!lua flags=no-writes
-- Reads what is held and what waits.
-- KEYS: none. Options: none. Returns the live jobs, the bytes of images, of results and of cached results; then for each pool
-- with waiting jobs its name, how many wait, and the age of the oldest (ms).
local now, stats = clock(), redis.call('HMGET', USAGE, 'jobs', 'image_bytes', 'result_bytes', 'cached_bytes')
for i = 1, 4 do stats[i] = text(number(stats[i])) end
for _, pool in ipairs(redis.call('SMEMBERS', QUEUES)) do
  local jobs, oldest = 0, now
  for _, flow in ipairs(redis.call('ZRANGE', flows_key(pool), 0, -1)) do
    local id = redis.call('ZRANGE', queued_key(flow), 0, 0)[1]
    jobs = jobs + redis.call('ZCARD', queued_key(flow))
    oldest = math.min(oldest, tonumber(id and redis.call('HGET', job_key(id), 'created') or now) or now)
  end
  for _, value in ipairs({pool, text(jobs), text(now - oldest)}) do stats[#stats + 1] = value end
end
return stats
