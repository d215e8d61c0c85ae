#!lua flags=no-writes
-- include: records
-- Lists jobs, newest first, within bounds.
-- KEYS: none. Options: tenant (empty: all jobs), before (the sequence number to go on below; empty: the newest), scan (the most
-- records to read), limit (the most to return), state (0: any), without_tenant (whether jobs of tenants are left out). Returns
-- Redis' time (ms), how many records were read, the sequence number of the last, then id, record pairs.
local before, wanted_state = options.before, options.state > 0 and text(options.state)
local index = options.tenant == '' and JOBS or tenant_jobs_key(options.tenant)
local page = redis.call('ZRANGE', index, before == '' and '+inf' or '(' .. before, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0,
                        options.scan, 'WITHSCORES')
local rows, scanned, last = {}, 0, before

-- The state that a job shows: of its primary, where it is coalesced.
local function shown_state(state, group)
  local primary = state == STATE.QUEUED and group and redis.call('ZRANGE', group_key(group), 0, 0)[1]
  return primary and redis.call('HGET', job_key(primary), 'state') or state
end

for i = 1, #page, 2 do
  if #rows >= 2 * options.limit then break end
  local id = page[i]
  local state, tenant, group = unpack(redis.call('HMGET', job_key(id), 'state', 'tenant', 'group'))
  scanned, last = scanned + 1, text(page[i + 1])
  if state and (not wanted_state or shown_state(state, group) == wanted_state) and
     not (options.without_tenant and (tenant or '') ~= '') then
    rows[#rows + 1], rows[#rows + 2] = id, read_record(id)
  end
end
return {text(clock()), scanned, last, unpack(rows)}
