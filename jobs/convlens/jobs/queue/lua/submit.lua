#!lua
-- include: waiters admission
-- Queues jobs, or finds the earlier ones with their ids. Without flags, so that a full Redis rejects it.
-- KEYS: none. Options:
--   jobs     a list of objects: see script_args() in new_job.py
--   leaving  a list of id, waiter pairs of calls that leave their jobs first
--   result_ttl, answered_ttl  ms
--   bounds   an object: see Bounds in admission.py
-- ARGV[2], …: the spec of each job. Returns for each job an outcome, the names of unused payloads, and details. Outcomes:
--   CREATED    details: flow, created, deadline, position; of the next four: the record
--   COALESCED  with an equal job under way
--   CACHED     succeeded at once, with the result of an equal job
--   EXISTS     the id is known, for an equal request
--   REPEATED   the client library has sent this call again
--   REUSED     the id is known, for another request
--   MISSING    an image is neither stored nor in the job's pack
--   REJECTED   details: see AdmissionRejected.from_script
local now = clock()

-- Where a job with this id exists: the reply, or nil if the job is to be created anew.
local function reply_of_known(job, known)
  local id, state, reason, fingerprint, nonce, keep, result, deadline = job.id, unpack(known)
  local unused = {job.pack}
  if fingerprint ~= job.fingerprint then return {'REUSED', unused, {}} end
  if nonce == job.nonce then
    return {'REPEATED', redis.call('EXISTS', pack_key(job.pack)) == 0 and unused or {}, read_record(id)}
  end
  local is_evicted = state == STATE.SUCCEEDED and keep == '0' and redis.call('EXISTS', result_key(result)) == 0
  if is_evicted or state == STATE.EXPIRED or reason == 'ABANDONED' or reason == 'MODEL_CHANGED' then return end
  keep_again(id)
  if is_live(state) and now + job.timeout > number(deadline) then -- a later call may have more time
    redis.call('HSET', job_key(id), 'deadline', text(now + job.timeout))
    redis.call('ZADD', DEADLINES, text(now + job.timeout), id)
  end
  if job.keep == 1 then redis.call('HSET', job_key(id), 'keep', '1') else join(id, job.nonce) end
  return {'EXISTS', unused, read_record(id)}
end

-- The result of an equal request, or the id of an equal job under way that starts no later than this one would.
local function find_equal(job)
  local value = job.fresh == 0 and redis.call('GET', dedup_key(job.pool, job.fingerprint))
  if not value then return end
  local name, bytes, header_size = string.match(value, '^(%S+) (%S+) (%S+)$')
  if name then
    local expires = number(redis.call('ZSCORE', RESULTS, name))
    if expires <= now + 1000 then return end
    return {name = name, bytes = number(bytes), header_size = number(header_size), cached = 1, expires = expires}
  end
  local state, priority = unpack(redis.call('HMGET', job_key(value), 'state', 'priority'))
  if state == STATE.RUNNING or state == STATE.QUEUED and number(priority) <= job.priority then return nil, value end
end

-- The next sequence number; behind the latest job where the counter was lost.
local function next_sequence()
  local sequence = redis.call('INCR', SEQUENCE)
  local latest = sequence == 1 and redis.call('ZREVRANGE', JOBS, 0, 0, 'WITHSCORES')[2]
  return text(latest and redis.call('INCRBY', SEQUENCE, text(math.min(number(latest), 2 ^ 52))) or sequence)
end

-- Pack and offset of each image by digest, and the offsets of those that only the job's own pack has; nil if one is missing.
local function find_images(job)
  local digests, offsets = {}, {}
  for i, image in ipairs(job.images) do digests[i] = image[1] end
  local places = stored_images(digests, now + job.timeout)
  for _, image in ipairs(job.images) do
    local digest, _, offset = unpack(image)
    if not places[digest] then
      if offset < 0 then return end
      places[digest], offsets[digest] = {pack = job.pack, offset = offset}, offset
    end
  end
  return places, offsets
end

-- Writes a job's record, and adds it to the indexes of all jobs.
local function write_record(job, sequence, flow, fields)
  if job.keep == 0 then fields[#fields + 1], fields[#fields + 2] = 'waiter', job.nonce end
  redis.call('HSET', job_key(job.id), 'state', STATE.QUEUED, 'nonce', job.nonce, 'fingerprint', job.fingerprint, 'keep', job.keep,
             'model', job.model, 'flow', flow, 'tenant', job.tenant, 'priority', job.priority, 'count', #job.images,
             'cost', job.cost, 'request_id', job.request_id, 'sequence', sequence, 'created', text(now),
             'deadline', text(now + job.timeout), 'attempts', 0, unpack(fields))
  redis.call('ZADD', JOBS, sequence, job.id)
  if job.tenant ~= '' then redis.call('ZADD', tenant_jobs_key(job.tenant), sequence, job.id) end
  count('jobs', job.tenant, 1)
end

local function submit(job, spec)
  local id, tenant, unused = job.id, job.tenant, {job.pack}
  local known = redis.call('HMGET', job_key(id), 'state', 'reason', 'fingerprint', 'nonce', 'keep', 'result', 'deadline')
  local reply = known[1] and reply_of_known(job, known)
  if reply then return reply end
  local rejection = reject_record(tenant)
  if rejection then return {'REJECTED', unused, rejection} end

  local result, primary = find_equal(job)
  local places, new
  if not result then
    places, new = find_images(job)
    if not places then return {'MISSING', unused, {}} end
    rejection = reject_job(job, next(new) and job.pack_bytes or 0)
    if rejection then return {'REJECTED', unused, rejection} end
  end

  local sequence = next_sequence()
  local flow = table.concat({job.pool, job.priority, job_kind(job.cost, #job.images, job.pixels), tenant}, '/')
  if known[1] then forget(id) end
  if result then
    write_record(job, sequence, flow, {'images', '[]'})
    finish(id, STATE.SUCCEEDED, {}, result)
    return {'CACHED', unused, read_record(id)}
  end

  local images, refs = {}, {}
  for i, image in ipairs(job.images) do
    local place = places[image[1]]
    images[i] = {image[1], place.pack, place.offset, image[2]}
    refs[place.pack] = (refs[place.pack] or 0) + 1
  end
  write_record(job, sequence, flow, {'spec', spec, 'reserved', text(job.reserved), 'pixels', text(job.pixels),
                                     'record_bytes', text(job.record_bytes), 'images', cjson.encode(images)})
  if next(new) then
    store_pack(job.pack, job.pack_bytes, now + job.timeout + options.result_ttl / 2, refs[job.pack], new)
    refs[job.pack], unused = nil, {}
    count('image_bytes', tenant, job.pack_bytes)
  end
  for pack, number_of_images in pairs(refs) do redis.call('HINCRBY', pack_key(pack), 'refs', number_of_images) end
  count('image_bytes', tenant, job.record_bytes)
  count('result_bytes', tenant, job.reserved)
  count('pixels', tenant, job.pixels)
  redis.call('ZADD', DEADLINES, text(now + job.timeout), id)
  if primary then
    coalesce(id, sequence, primary)
    return {'COALESCED', unused, read_record(id)}
  end
  redis.call('SET', dedup_key(job.pool, job.fingerprint), id, 'PX', text(job.timeout + options.result_ttl))
  return {'CREATED', unused, {flow, text(now), text(now + job.timeout), text(enqueue(flow, id, sequence))}}
end

for _, waiter in ipairs(options.leaving) do leave(waiter[1], waiter[2]) end
if #options.leaving > 0 then trim_cache(1000) end
local replies = {}
for i, job in ipairs(options.jobs) do replies[i] = submit(job, ARGV[i + 1]) end
return replies
