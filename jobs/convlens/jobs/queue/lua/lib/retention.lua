-- include: results
-- Retention of ended jobs: which fields outlive a job's end, when its record goes, and how it goes.

-- The fields that an ended record keeps, and those that it has while its result is there. Live jobs alone need the others.
local LASTING = {'fingerprint', 'keep', 'model', 'tenant', 'priority', 'count', 'request_id', 'created', 'deadline', 'attempts',
                 'started', 'progress'}
local WITH_RESULT = {'waiter', 'more_waiters', 'nonce', 'flow', 'token', unpack(LASTING)}

-- Deletes the record of an ended job.
local function forget(id)
  local tenant = redis.call('HGET', job_key(id), 'tenant') or ''
  redis.call('DEL', job_key(id), waiters_key(id))
  for _, index in ipairs({JOBS, KEPT, TOMBSTONES, ANSWERED}) do redis.call('ZREM', index, id) end
  if tenant ~= '' then
    redis.call('ZREM', tenant_jobs_key(tenant), id)
    redis.call('ZREM', evictable_key(tenant), id)
  end
end

-- Removes a job that has no record from all indexes.
local function discard(id)
  for _, index in ipairs({JOBS, RUNNING, DEADLINES, KEPT, TOMBSTONES, ANSWERED}) do redis.call('ZREM', index, id) end
  quarantine('job', id, 'has no record')
end

-- Makes an ended record evictable: it goes `ttl` milliseconds from now, or sooner where others need the space. `index` is
-- TOMBSTONES or ANSWERED.
local function make_evictable(id, index, tenant, ended_at, ttl)
  redis.call('ZREM', KEPT, id)
  redis.call('ZADD', index, text(clock() + ttl), id)
  if tenant ~= '' then redis.call('ZADD', evictable_key(tenant), ended_at, id) end
end
