-- include: results records
-- Admission: whether a new job stays within the bounds, in total and of its tenant, and within its tenant's rate. Functions
-- return nil for a job that does, else what AdmissionRejected.from_script reads.

-- Checks the number of known jobs. Records that nobody was promised are deleted to make space, the oldest first.
local function reject_record(tenant)
  local bound = options.bounds.known_jobs
  local share = bound * options.bounds.tenant_share
  local function make_space(index, owner, allowed, ...)
    local known = redis.call('ZCARD', index)
    for _ = 1, math.min(16, known + 1 - allowed) do
      local oldest
      for _, evictable in ipairs({...}) do oldest = oldest or redis.call('ZRANGE', evictable, 0, 0)[1] end
      if not oldest then
        return {'known_jobs', owner, text(known), '1', text(allowed), text(known), tostring(throughput(clock()))}
      end
      forget(oldest)
    end
  end
  return tenant ~= '' and make_space(tenant_jobs_key(tenant), ':' .. tenant, share, evictable_key(tenant)) or
         make_space(JOBS, '', bound, TOMBSTONES, ANSWERED)
end

-- Checks a tenant's rate. The key has the time at which all that the tenant has submitted is paid for; while that is less than a
-- burst ahead, a job of any cost is admitted, and paid for afterwards.
local function reject_rate(tenant, cost)
  local rate, burst, now = options.bounds.tenant_rate, options.bounds.tenant_burst, clock()
  if rate == 0 or tenant == '' then return end
  local paid = math.max(now, number(redis.call('GET', rate_key(tenant))))
  local wait = paid - now - burst
  if wait > 0 then return {'rate', ':' .. tenant, tostring(rate), tostring(wait)} end
  paid = paid + cost * 1000 / rate
  redis.call('SET', rate_key(tenant), string.format('%.3f', paid), 'PX', text(math.ceil(paid - now)))
end

-- Checks what a job needs, `new_bytes` of images included, and evicts cached results that are in its way.
local function reject_job(job, new_bytes)
  local tenant = job.tenant
  local needed = {jobs = 1, image_bytes = job.record_bytes + new_bytes, result_bytes = job.reserved, pixels = job.pixels}
  local fields = {'cached_bytes'}
  for counter in pairs(needed) do
    fields[#fields + 1], fields[#fields + 2] = counter, counter .. ':' .. tenant
  end
  local usage = read_usage(fields)
  local function rejection(counter, owner, allowed)
    return {counter, owner, text(usage[counter .. owner]), text(needed[counter]), text(allowed), text(usage.jobs),
            tostring(throughput(clock()))}
  end
  for _, counter in ipairs({'jobs', 'image_bytes', 'pixels', 'result_bytes'}) do
    local bound = options.bounds[counter]
    local share = bound * options.bounds.tenant_share
    if tenant ~= '' and usage[counter .. ':' .. tenant] + needed[counter] > share then
      return rejection(counter, ':' .. tenant, share)
    end
    if usage[counter] + needed[counter] > bound then return rejection(counter, '', bound) end
  end
  local rejected = reject_rate(tenant, job.cost)
  if rejected then return rejected end
  trim_cache(1000, usage, job.reserved)
end
