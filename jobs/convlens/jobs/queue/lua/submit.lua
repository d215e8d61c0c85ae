#!lua
-- Writes records, or finds the earlier ones of the same ids. Without flags: refused when Redis is full.
-- ARGV: the jobs, who leaves which, and what holds for all of them as JSON (see Producer.submit), then the jobs' specs. Returns
-- for each job the outcome, the names of payloads that nobody needs, then what is told of it: mostly the record. Outcomes:
-- CREATED, with flow, created, deadline, position; FOLLOWS (an equal
-- job under way), ANSWERED (by an equal one's result), EXISTS (the id), AGAIN (this very call came before), REUSED (the id, by
-- another request), GONE (an image is neither stored nor in the job's pack), FULL with what Full.from_script reads.
local asked, now, answers = cjson.decode(ARGV[1]), clock(), {}

-- Makes room for one more record, in all and of a tenant: those go that nobody was promised, the oldest first. Returns what Full
-- reads where there are none.
local function no_room(tenant)
  local allowed = asked.bounds.known_jobs
  local share = allowed * asked.tenant_share
  local function no_room_in(index, of, most, ...)
    local known = redis.call('ZCARD', index)
    for _ = 1, math.min(16, known + 1 - most) do
      local oldest
      for _, it in ipairs({...}) do oldest = oldest or redis.call('ZRANGE', it, 0, 0)[1] end
      if not oldest then return {'known_jobs', of, text(known), '1', text(most), text(known), tostring(drain_rate(now))} end
      forget(oldest)
    end
  end
  return tenant ~= '' and no_room_in(jobs_of(tenant), ':' .. tenant, share, droppable(tenant)) or
         no_room_in(JOBS, '', allowed, TOMBSTONES, ANSWERED)
end

local function submit(job, spec)
  local id, tenant, unused, ours = job.id, job.tenant, {}, {job.pack}
  local k = key(id)
  local ttls = {result = asked.result_ttl, answered = asked.answered_ttl}

  local old = redis.call('HMGET', k, 'state', 'reason', 'fingerprint', 'nonce', 'keep', 'result', 'deadline')
  if old[1] then
    if old[3] ~= job.fingerprint then return {'REUSED', ours, {}} end
    if old[4] == job.nonce then -- sent again by the client library
      return {'AGAIN', redis.call('EXISTS', pack_of(job.pack)) == 0 and ours or {}, record(id)}
    end
    local dropped = old[1] == SUCCEEDED_ and old[5] == '0' and redis.call('EXISTS', result_of(old[6])) == 0
    if not (old[1] == EXPIRED_ or old[2] == 'ABANDONED' or old[2] == 'MODEL_CHANGED' or dropped) then -- these are made anew
      want_again(id)
      if is_live(old[1]) and now + job.timeout > number(old[7]) then -- who comes later may have more time
        redis.call('HSET', k, 'deadline', text(now + job.timeout))
        redis.call('ZADD', DEADLINES, text(now + job.timeout), id)
      end
      if job.keep == 1 then redis.call('HSET', k, 'keep', '1') else join(id, job.nonce) end
      return {'EXISTS', ours, record(id)}
    end
  end
  local full = no_room(tenant)
  if full then return {'FULL', ours, full} end

  -- An equal request may be answered already, or be under way no later than this one would be.
  local leader, answered = nil, nil
  if job.fresh == 0 then
    leader = redis.call('GET', same(job.pool, job.fingerprint))
    local name, bytes, header_size = string.match(leader or '', '^(%S+) (%S+) (%S+)$')
    local l = leader and not name and redis.call('HMGET', key(leader), 'state', 'priority')
    if name and number(redis.call('ZSCORE', RESULTS, name)) > now + 1000 then
      answered = {result = name, result_bytes = number(bytes), header_size = number(header_size), cached = 1}
    elseif not (l and (l[1] == RUNNING_ or l[1] == QUEUED_ and number(l[2]) <= job.priority)) then
      leader = nil
    end
  end

  local found, new = {}, {} -- where images are, and where in the job's pack those are that nobody has stored
  if not answered then
    local digests = {}
    for i, image in ipairs(job.images) do digests[i] = image[1] end
    found = stored_images(digests, now + job.timeout)
    for _, image in ipairs(job.images) do
      local digest, offset = image[1], image[3]
      if not found[digest] then
        if offset < 0 then return {'GONE', ours, {}} end
        found[digest] = {pack = job.pack, offset = offset}
        new[digest] = offset
      end
    end
    local wanted = {jobs = 1, image_bytes = job.record_bytes + (next(new) and job.pack_bytes or 0), result_bytes = job.reserved,
                    pixels = job.pixels}
    local fields = {'cached_bytes'}
    for what in pairs(wanted) do
      fields[#fields + 1] = what
      fields[#fields + 1] = what .. ':' .. tenant
    end
    local load = load_of(fields)
    local function full(what, of, allowed)
      return {'FULL', ours, {what, of, text(load[what .. of]), text(wanted[what]), text(allowed),
                             text(load.jobs), tostring(drain_rate(now))}}
    end
    for _, what in ipairs({'jobs', 'image_bytes', 'pixels', 'result_bytes'}) do
      local allowed = asked.bounds[what]
      local share = allowed * asked.tenant_share
      if tenant ~= '' and load[what .. ':' .. tenant] + wanted[what] > share then
        return full(what, ':' .. tenant, share)
      end
      if load[what] + wanted[what] > allowed then return full(what, '', allowed) end
    end
    -- A tenant's rate: all that it asked for will have been paid for at that time. While that is no further off than its
    -- burst, a job of any cost is admitted, so that one of more than a burst may be asked for, too, and is paid for afterwards.
    if asked.tenant_rate > 0 and tenant ~= '' then
      local paid = math.max(now, number(redis.call('GET', P .. 'paid:' .. tenant)))
      local wait = paid - now - asked.tenant_burst
      if wait > 0 then return {'FULL', ours, {'rate', ':' .. tenant, tostring(asked.tenant_rate), tostring(wait)}} end
      paid = paid + job.cost * 1000 / asked.tenant_rate
      redis.call('SET', P .. 'paid:' .. tenant, string.format('%.3f', paid), 'PX', text(math.ceil(paid - now)))
    end
    trim_cache(asked.bounds, load, job.reserved, 1000)
  end

  local sequence = redis.call('INCR', P .. 'sequence')
  if sequence == 1 then -- the first job there is, or the counter was lost: it goes on behind the latest
    local latest = redis.call('ZREVRANGE', JOBS, 0, 0, 'WITHSCORES')[2]
    if latest then sequence = redis.call('INCRBY', P .. 'sequence', text(math.min(number(latest), 2 ^ 52))) end
  end
  local flow = table.concat({job.pool, job.priority, kind(job.cost, #job.images, job.pixels), tenant}, '/')
  if old[1] then forget(id) end
  local images, held = {}, {}
  for i, image in ipairs(answered and {} or job.images) do
    local place = found[image[1]]
    images[i] = {image[1], place.pack, place.offset, image[2]}
    held[place.pack] = (held[place.pack] or 0) + 1
  end
  redis.call('HSET', k, 'state', QUEUED_, 'nonce', job.nonce, 'fingerprint', job.fingerprint, 'keep', job.keep,
             'model', job.model, 'flow', flow, 'tenant', tenant, 'priority', job.priority,
             'count', #job.images, 'cost', job.cost, 'request_id', job.request_id, 'sequence', text(sequence), 'created',
             text(now), 'deadline', text(now + job.timeout), 'attempts', 0,
             'spec', answered and '' or spec, 'reserved', answered and 0 or text(job.reserved),
             'pixels', answered and 0 or text(job.pixels), 'record_bytes', answered and 0 or text(job.record_bytes),
             'images', answered and '[]' or cjson.encode(images), unpack(job.keep == 0 and {'waiter', job.nonce} or {}))
  redis.call('ZADD', JOBS, text(sequence), id)
  if tenant ~= '' then redis.call('ZADD', jobs_of(tenant), text(sequence), id) end
  count('jobs', tenant, 1)

  if answered then
    unused = ours
    ttls.result = tonumber(redis.call('ZSCORE', RESULTS, answered.result)) - now
    finish(id, now, SUCCEEDED_, {}, answered, ttls)
    return {'ANSWERED', unused, record(id)}
  end

  if next(new) then
    store_pack(job.pack, job.pack_bytes, now + job.timeout + asked.result_ttl / 2, held[job.pack], new)
    held[job.pack] = nil
    count('image_bytes', tenant, job.pack_bytes)
  else
    unused[#unused + 1] = job.pack
  end
  for pack, number in pairs(held) do redis.call('HINCRBY', pack_of(pack), 'held', number) end
  count('image_bytes', tenant, job.record_bytes)
  count('result_bytes', tenant, job.reserved)
  count('pixels', tenant, job.pixels)
  redis.call('ZADD', DEADLINES, text(now + job.timeout), id)
  if leader then
    local l = redis.call('HMGET', key(leader), 'group', 'sequence')
    local group = l[1] or text(sequence)
    if not l[1] then
      redis.call('HSET', key(leader), 'group', group)
      redis.call('ZADD', group_of(group), l[2], leader)
    end
    redis.call('HSET', k, 'group', group)
    redis.call('ZADD', group_of(group), text(sequence), id)
    return {'FOLLOWS', unused, record(id)}
  end
  redis.call('SET', same(job.pool, job.fingerprint), id, 'PX', text(job.timeout + asked.result_ttl))
  local position = enqueue(flow, id, text(sequence))
  return {'CREATED', unused, {flow, text(now), text(now + job.timeout), text(position)}}
end

for _, it in ipairs(asked.leaving) do
  leave(it[1], it[2], now, {result = asked.result_ttl, answered = asked.answered_ttl})
end
if #asked.leaving > 0 then trim_cache(asked.bounds, load_of({'cached_bytes', 'result_bytes'}), 0, 1000) end
for i, job in ipairs(asked.jobs) do answers[i] = submit(job, ARGV[i + 1]) end
return answers
