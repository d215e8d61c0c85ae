#!lua flags=allow-oom
-- include: pools finish
-- Repairs the queue, within bounds: requeues jobs of silent workers, or ends them when their attempts are used up; ends jobs that
-- wait for weights which others replaced; makes Celery's lists as long as the queues; corrects counters.
-- KEYS: none. Options: limit (of each kind), max_attempts, lease (ms), result_ttl and answered_ttl (ms). Returns pool, number
-- pairs: how many messages were missing.
local limit, now, missing = options.limit, clock(), {}

-- Keys that are also read without a script, where nothing removes one of the wrong type.
local lists = {GARBAGE, POISONED, POISONED_INBOX}
for _, pool in ipairs(redis.call('ZRANGE', POOLS, 0, limit - 1)) do
  for _, kind in ipairs(LIST_KINDS) do lists[#lists + 1] = messages_key(pool, kind) end
end
for wanted, names in pairs({zset = {JOBS, RUNNING, DEADLINES, KEPT, TOMBSTONES, ANSWERED, POOLS, SINCE, RESULTS, CACHED, REFUSED},
                            hash = {USAGE, THROUGHPUT, IMAGES, UNSERVED}, set = {QUEUES},
                            list = lists}) do
  for _, name in ipairs(names) do
    local actual = redis.call('TYPE', name).ok
    if actual ~= 'none' and actual ~= wanted then
      redis.call('UNLINK', name)
      quarantine('key', name, 'is a ' .. actual .. ', not a ' .. wanted)
    end
  end
end

for _, id in ipairs(redis.call('ZRANGE', RUNNING, '-inf', text(now), 'BYSCORE', 'LIMIT', 0, limit)) do
  local attempts, flow, sequence, worker, state =
    unpack(redis.call('HMGET', job_key(id), 'attempts', 'flow', 'sequence', 'worker', 'state'))
  if state ~= STATE.RUNNING then
    redis.call('ZREM', RUNNING, id)
    if not state then discard(id) end
  elseif not (tonumber(attempts) and flow and tonumber(sequence)) then
    fail_damaged(id)
  elseif tonumber(attempts) >= options.max_attempts then
    local message = 'begun ' .. attempts .. ' times, and each time the worker fell silent; the last was ' .. (worker or 'unknown')
    finish(id, STATE.FAILED, {reason = 'ATTEMPTS_EXHAUSTED', message = message})
  else
    redis.call('ZREM', RUNNING, id)
    redis.call('HSET', job_key(id), 'token', '')
    enqueue(flow, id, sequence)
    set_state(id, STATE.QUEUED)
  end
end

-- True once a pool has had no worker for a lease while another pool serves the model. Before that its workers may be restarting,
-- or about to register again.
local function is_replaced(pool)
  if is_served(pool, now) or #other_pools(pool, now) == 0 then
    redis.call('HDEL', UNSERVED, pool)
    return false
  end
  local since = number(redis.call('HGET', UNSERVED, pool) or now)
  if since >= now then redis.call('HSET', UNSERVED, pool, text(now)) end -- new, or Redis' clock went back
  return now - since > options.lease
end

local function end_jobs_of(pool)
  local left = limit
  local failure = {reason = 'MODEL_CHANGED',
                   message = "the weights this job was validated for are not served any more; submit it again"}
  for _, flow in ipairs(redis.call('ZRANGE', flows_key(pool), 0, limit - 1)) do
    for _, id in ipairs(redis.call('ZRANGE', queued_key(flow), 0, left - 1)) do
      if redis.call('HGET', job_key(id), 'state') == STATE.QUEUED then
        finish(id, STATE.FAILED, failure)
        left = left - 1
      else
        dequeue(flow, id)
      end
    end
    if redis.call('EXISTS', queued_key(flow)) == 0 then redis.call('ZREM', flows_key(pool), flow) end
    if left <= 0 then break end
  end
end

for _, pool in ipairs(redis.call('SMEMBERS', QUEUES)) do
  if is_replaced(pool) then end_jobs_of(pool) end
  for _, flow in ipairs(redis.call('ZRANGE', flows_key(pool), 0, limit - 1)) do
    local id = redis.call('ZRANGE', queued_key(flow), 0, 0)[1]
    if id and redis.call('HGET', job_key(id), 'state') ~= STATE.QUEUED then dequeue(flow, id) end
  end
  local waiting, lost = repair_messages(pool, 5 * limit)
  if waiting == 0 then redis.call('SREM', QUEUES, pool) end
  if lost > 0 then missing[#missing + 1], missing[#missing + 2] = pool, lost end
end

-- Live jobs are those that have a deadline: their counter is set to that. Where there are none, nothing is held for them, and
-- where there are no results, none take bytes: so counters that would reject every job are removed.
local live = redis.call('ZCARD', DEADLINES)
local jobs = text(live - (usage_changes.jobs or 0))
if redis.call('HGET', USAGE, 'jobs') ~= jobs then redis.call('HSET', USAGE, 'jobs', jobs) end
if live == 0 then
  local cached = redis.call('ZCARD', CACHED)
  local is_empty = {image_bytes = true, pixels = true, result_bytes = redis.call('ZCARD', RESULTS) == cached,
                    cached_bytes = cached == 0}
  for _, field in ipairs(redis.call('HKEYS', USAGE)) do
    if is_empty[string.match(field, '^[^:]+')] and not usage_changes[field] then redis.call('HDEL', USAGE, field) end
  end
end
return missing
