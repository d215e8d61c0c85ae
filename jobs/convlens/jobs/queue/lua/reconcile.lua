#!lua flags=allow-oom
-- One bounded look at what went wrong. ARGV: limit, max_attempts, lease, result_ttl, answered_ttl. Gives jobs of silent workers
-- back to their queues or, when their attempts are used up, ends them, ends jobs that wait for weights that gave way to others,
-- and makes Celery's lists as long as the queues. Returns pool, number pairs: how many messages were missing.
local limit, max_attempts, lease = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local ttls = {result = tonumber(ARGV[4]), answered = tonumber(ARGV[5])}
local now, missing = clock(), {}

-- Keys that are read without a script too, where nothing sets aside those of another type.
for kind, names in pairs({zset = {JOBS, RUNNING, DEADLINES, KEPT, TOMBSTONES, ANSWERED, POOLS, SINCE, RESULTS, CACHED,
                                  P .. 'refused'},
                          hash = {LOAD, DRAIN, IMAGES, UNSERVED}, set = {QUEUES},
                          list = {GARBAGE, P .. 'poisoned', POISONED_INBOX}}) do
  for _, name in ipairs(names) do
    local found = redis.call('TYPE', name).ok
    if found ~= 'none' and found ~= kind then
      redis.call('UNLINK', name)
      set_aside('key', name, 'is a ' .. found .. ', not a ' .. kind)
    end
  end
end

local function due(zset) return redis.call('ZRANGE', zset, '-inf', text(now), 'BYSCORE', 'LIMIT', 0, limit) end

for _, id in ipairs(due(RUNNING)) do
  local r = redis.call('HMGET', key(id), 'attempts', 'flow', 'sequence', 'worker', 'state')
  if r[5] ~= RUNNING_ then
    redis.call('ZREM', RUNNING, id)
    if not r[5] then discard(id) end
  elseif not (tonumber(r[1]) and r[2] and tonumber(r[3])) then
    finish(id, now, FAILED_, {reason = 'INTERNAL', message = "the job's record is damaged; submit the job again"}, nil, ttls)
    set_aside('record', id, 'is damaged')
  elseif tonumber(r[1]) >= max_attempts then
    local message = 'begun ' .. r[1] .. ' times, and each time the worker fell silent; the last was ' .. (r[4] or 'unknown')
    finish(id, now, FAILED_, {reason = 'ATTEMPTS_EXHAUSTED', message = message}, nil, ttls)
  else
    redis.call('ZREM', RUNNING, id)
    redis.call('HSET', key(id), 'token', '')
    enqueue(r[2], id, r[3])
    set_state(id, QUEUED_)
  end
end

-- Nobody computes a pool's jobs any more when none of its workers is there and the model is served by another pool. A worker may
-- only be restarting, or all may be about to say again that they are there: so this must have been so for a lease.
local function is_replaced(pool)
  if is_served(pool, now) or #other_pools(pool, now) == 0 then
    redis.call('HDEL', UNSERVED, pool)
    return false
  end
  local since = number(redis.call('HGET', UNSERVED, pool) or now)
  if since >= now then redis.call('HSET', UNSERVED, pool, text(now)) end -- new, or of a time that Redis' clock went back from
  return now - since > lease
end

local function end_replaced(pool)
  local left = limit
  local why = {reason = 'MODEL_CHANGED',
               message = "the weights this job was validated for are not served any more; submit it again"}
  for _, flow in ipairs(redis.call('ZRANGE', flows(pool), 0, limit - 1)) do
    for _, id in ipairs(redis.call('ZRANGE', queued(flow), 0, left - 1)) do
      if redis.call('HGET', key(id), 'state') == QUEUED_ then
        finish(id, now, FAILED_, why, nil, ttls)
        left = left - 1
      else
        dequeue(flow, id)
      end
    end
    if redis.call('EXISTS', queued(flow)) == 0 then redis.call('ZREM', flows(pool), flow) end
    if left <= 0 then break end
  end
end

for _, pool in ipairs(redis.call('SMEMBERS', QUEUES)) do
  if is_replaced(pool) then end_replaced(pool) end
  for _, flow in ipairs(redis.call('ZRANGE', flows(pool), 0, limit - 1)) do
    local id = redis.call('ZRANGE', queued(flow), 0, 0)[1]
    if id and redis.call('HGET', key(id), 'state') ~= QUEUED_ then dequeue(flow, id) end
  end
  local waiting, lost = repair_messages(pool, 5 * limit)
  if waiting == 0 then redis.call('SREM', QUEUES, pool) end
  if lost > 0 then missing[#missing + 1], missing[#missing + 2] = pool, lost end
end

-- Live jobs are those that have a deadline: their count is put right, should it have been lost. Where there are none, nothing is
-- held for them; and where no results are there, none take bytes: so a counter that refuses everybody is put right, too.
local live = redis.call('ZCARD', DEADLINES)
local counted = text(live - (more.jobs or 0))
if redis.call('HGET', LOAD, 'jobs') ~= counted then redis.call('HSET', LOAD, 'jobs', counted) end
if live == 0 then
  local empty = {image_bytes = true, pixels = true, result_bytes = redis.call('ZCARD', RESULTS) == redis.call('ZCARD', CACHED),
                 cached_bytes = redis.call('ZCARD', CACHED) == 0}
  for _, field in ipairs(redis.call('HKEYS', LOAD)) do
    local what = string.match(field, '^[^:]+')
    if empty[what] and not more[field] then redis.call('HDEL', LOAD, field) end
  end
end
return missing
