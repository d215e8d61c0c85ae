#!lua flags=no-writes
-- What is held, and the queues. Returns live jobs, bytes of images, results and cached results, then for each pool with
-- jobs that wait: its name, how many, the age of the oldest in milliseconds.
local now, told = clock(), redis.call('HMGET', LOAD, 'jobs', 'image_bytes', 'result_bytes', 'cached_bytes')
for i = 1, 4 do told[i] = text(number(told[i])) end
for _, pool in ipairs(redis.call('SMEMBERS', QUEUES)) do
  local jobs, oldest = 0, now
  for _, flow in ipairs(redis.call('ZRANGE', flows(pool), 0, -1)) do
    local id = redis.call('ZRANGE', queued(flow), 0, 0)[1]
    jobs = jobs + redis.call('ZCARD', queued(flow))
    oldest = math.min(oldest, tonumber(id and redis.call('HGET', key(id), 'created') or now) or now)
  end
  for _, it in ipairs({pool, text(jobs), text(now - oldest)}) do told[#told + 1] = it end
end
return told
