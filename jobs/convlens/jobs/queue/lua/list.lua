#!lua flags=no-writes
-- A bounded look at jobs, newest first. ARGV: tenant (empty: all jobs), the sequence to begin below (empty: the newest), how many
-- to look at, how many to find, the state wanted (empty: any), 1 where only jobs without a tenant are. Returns Redis' time in
-- milliseconds, how many it looked at, the last one's sequence, then id, record pairs.
local tenant, below, looks, wanted, state, alone = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6]
local jobs = tenant == '' and JOBS or jobs_of(tenant)
local page = redis.call('ZRANGE', jobs, below == '' and '+inf' or '(' .. below, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, looks,
                        'WITHSCORES')
local found, looked, last = {}, 0, below

-- What a job says of itself as a follower of another one.
local function state_of(id, r)
  if r[1] ~= QUEUED_ or not r[3] then return r[1] end
  local leader = redis.call('ZRANGE', group_of(r[3]), 0, 0)[1]
  return leader and redis.call('HGET', key(leader), 'state') or r[1]
end

for i = 1, #page, 2 do
  if #found >= 2 * wanted then break end
  local id = page[i]
  local r = redis.call('HMGET', key(id), 'state', 'tenant', 'group')
  looked, last = looked + 1, text(page[i + 1])
  if r[1] and (state == '' or state_of(id, r) == state) and (alone ~= '1' or (r[2] or '') == '') then
    found[#found + 1], found[#found + 2] = id, record(id)
  end
end
return {text(clock()), looked, last, unpack(found)}
