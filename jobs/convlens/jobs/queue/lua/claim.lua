#!lua flags=allow-oom
-- include: finish
-- Claims the next jobs of a pool in fair order, for a consumer.
-- KEYS: none. Options:
--   pool, worker  names
--   lease         ms until the claim ends unless it is renewed
--   secret        of this claim: a job's token is the secret and its id; a repeated call returns what the first one claimed
--   permit        the kind of list that the consumer popped a message of, or 'none'
--   is_idle       whether the worker has no other job
--   images        the most images of jobs of the kinds one and slow; but one job may have more, and 0 claims none of these
--   many, huge    the most jobs of these kinds
--   result_ttl, answered_ttl  ms
-- Returns 1 if a suspect waits, else 0; then id, record pairs.
-- A suspect is a job whose worker fell silent, perhaps because of it. An idle worker claims it alone, so that no other job fails
-- with it again. While the next job is a suspect, a worker that is not idle claims nothing behind it.
local pool, secret, now = options.pool, options.secret, clock()
local images = options.images
local left = {many = options.many, huge = options.huge}
local claimed, skipped, suspect_waits = {0}, 0, false

for _, id in ipairs(redis.call('LRANGE', claim_key(secret), 0, -1)) do
  if redis.call('HGET', job_key(id), 'token') == secret .. '-' .. id then
    claimed[#claimed + 1], claimed[#claimed + 2] = id, read_record(id)
  end
end
if #claimed > 1 then return claimed end

local served_tag, ids, leases, claimed_by_list = nil, {}, {}, {}
while images > 0 or options.images == 0 and left.many + left.huge > 0 do
  local flow, tag = unpack(redis.call('ZRANGE', flows_key(pool), skipped, skipped, 'WITHSCORES'))
  if not flow or skipped == 1000 then break end
  local id = redis.call('ZRANGE', queued_key(flow), 0, 0)[1]
  local fields = id and redis.call('HMGET', job_key(id), 'state', 'deadline', 'cost', 'count', 'priority', 'attempts', 'pixels',
                                   'notify_changes')
  local state, deadline, cost, job_images, priority, attempts, pixels, notifies_changes = unpack(fields or {})
  if not id then
    redis.call('ZREM', flows_key(pool), flow)
    redis.call('HSET', tags_key(pool), flow, tag)
  elseif state ~= STATE.QUEUED then
    dequeue(flow, id)
    if not state then discard(id) end
  elseif not (tonumber(deadline) and tonumber(cost) and tonumber(job_images) and WEIGHTS[priority] and tonumber(attempts)) then
    dequeue(flow, id) -- which its record may not name
    fail_damaged(id)
  elseif tonumber(deadline) <= now then
    expire(id, 'queued')
  elseif (left[job_kind(cost, job_images, pixels)] or images) <= 0 then
    skipped = skipped + 1
  else
    local kind = job_kind(cost, job_images, pixels)
    local is_suspect, is_slow = tonumber(attempts) > 0, kind == 'slow' -- jobs behind a slow one would wait for its decoding
    if is_suspect and not (options.is_idle and #ids == 0) then
      suspect_waits = true
      break
    end
    if left[kind] then
      left[kind] = left[kind] - 1
    else
      images = images - tonumber(job_images)
      if (images < 0 or is_slow) and #ids > 0 then break end
      if is_slow then images = 0 end
    end
    if is_suspect then images, left.many, left.huge = 0, 0, 0 end
    redis.call('ZREM', queued_key(flow), id)
    claimed_by_list[list_kind(flow)] = (claimed_by_list[list_kind(flow)] or 0) + 1
    -- The tag served last never decreases, even where a flow that had been skipped is served.
    served_tag = math.max(served_tag or number(redis.call('HGET', tags_key(pool), '')), tonumber(tag))
    redis.call('ZADD', flows_key(pool), tonumber(tag) + tonumber(cost) / WEIGHTS[priority], flow)
    redis.call('HSET', job_key(id), 'state', STATE.RUNNING, 'token', secret .. '-' .. id, 'worker', options.worker, 'attempts',
               text(attempts + 1), 'started', text(now), 'progress', '')
    if notifies_changes then notify(id, STATE.RUNNING) end
    ids[#ids + 1] = id
    leases[#leases + 1], leases[#leases + 2] = text(now + options.lease), id
    claimed[#claimed + 1], claimed[#claimed + 2] = id, read_record(id)
  end
end
pop_messages(pool, claimed_by_list, options.permit)
if #ids > 0 then
  redis.call('HSET', tags_key(pool), '', served_tag)
  in_batches(leases, function(...) redis.call('ZADD', RUNNING, ...) end)
  in_batches(ids, function(...) redis.call('RPUSH', claim_key(secret), ...) end)
  redis.call('PEXPIRE', claim_key(secret), 60000)
end
claimed[1] = suspect_waits and 1 or 0
return claimed
