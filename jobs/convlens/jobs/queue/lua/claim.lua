#!lua flags=allow-oom
-- Claims the next jobs of a pool in fair order, for a consumer. ARGV: pool, worker, lease, secret, permit (the kind of list that
-- the consumer popped a message of, or none), 1 from a worker that is idle, the most images of jobs of the kinds one and slow,
-- the most jobs of many passes, the most huge jobs, result_ttl, answered_ttl.
-- Returns 1 or 0, then id, record pairs; a job's token is the secret and its id. One job is taken whatever its images, but none
-- for 0. A replay of the call finds what it took.
-- A job that was begun before and whose worker fell silent is a suspect: it may have been the reason. It is taken by itself, by
-- an idle worker, so that no other job can fall with it a second time; when it is in turn and the worker is not idle, nothing
-- behind it is taken, and the first value returned is 1.
local pool, worker, lease, secret, permit = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local is_idle, images = ARGV[6] == '1', tonumber(ARGV[7])
local left = {many = tonumber(ARGV[8]), huge = tonumber(ARGV[9])}
local ttls = {result = tonumber(ARGV[10]), answered = tonumber(ARGV[11])}
local now, taken, skipped, suspect_waits = clock(), {0}, 0, false

for _, id in ipairs(redis.call('LRANGE', P .. 'claim:' .. secret, 0, -1)) do
  if redis.call('HGET', key(id), 'token') == secret .. '-' .. id then
    taken[#taken + 1] = id
    taken[#taken + 1] = record(id)
  end
end
if #taken > 1 then return taken end

local served, ids, leases, by_list = nil, {}, {}, {}
local most = images
while images > 0 or most == 0 and left.many + left.huge > 0 do
  local flow, tag = unpack(redis.call('ZRANGE', flows(pool), skipped, skipped, 'WITHSCORES'))
  if not flow or skipped == 1000 then break end
  local id = redis.call('ZRANGE', queued(flow), 0, 0)[1]
  local r = id and redis.call('HMGET', key(id), 'state', 'deadline', 'cost', 'count', 'priority', 'attempts', 'watched',
                                   'pixels')
  if not id then
    redis.call('ZREM', flows(pool), flow)
    redis.call('HSET', tags(pool), flow, tag)
  elseif r[1] ~= QUEUED_ then
    dequeue(flow, id)
    if not r[1] then discard(id) end
  elseif not (tonumber(r[2]) and tonumber(r[3]) and tonumber(r[4]) and WEIGHTS[r[5]] and tonumber(r[6])) then
    dequeue(flow, id) -- which its record may not name
    finish(id, now, FAILED_, {reason = 'INTERNAL', message = "the job's record is damaged; submit the job again"}, nil, ttls)
    set_aside('record', id, 'is damaged')
  elseif tonumber(r[2]) <= now then
    finish(id, now, EXPIRED_, {reason = 'DEADLINE_EXCEEDED', message = 'the deadline passed while the job was queued'},
           nil, ttls)
  elseif (left[kind(r[3], r[4], r[8])] or images) <= 0 then
    skipped = skipped + 1
  else
    local what = kind(r[3], r[4], r[8])
    local is_suspect, is_slow = tonumber(r[6]) > 0, what == 'slow' -- those behind a slow one would wait until it is decoded
    if is_suspect and not (is_idle and #ids == 0) then
      suspect_waits = true
      break
    end
    if left[what] then
      left[what] = left[what] - 1
    else
      images = images - tonumber(r[4])
      if (images < 0 or is_slow) and #ids > 0 then break end
      if is_slow then images = 0 end
    end
    if is_suspect then images, left.many, left.huge = 0, 0, 0 end
    redis.call('ZREM', queued(flow), id)
    by_list[list_kind(flow)] = (by_list[list_kind(flow)] or 0) + 1
    -- One that had been skipped turns nothing back.
    served = math.max(served or number(redis.call('HGET', tags(pool), '')), tonumber(tag))
    redis.call('ZADD', flows(pool), tonumber(tag) + tonumber(r[3]) / WEIGHTS[r[5]], flow)
    redis.call('HSET', key(id), 'state', RUNNING_, 'token', secret .. '-' .. id, 'worker', worker, 'attempts',
               text(r[6] + 1), 'started', text(now), 'progress', '')
    if r[7] then notify(id, RUNNING_) end
    ids[#ids + 1] = id
    leases[#leases + 1], leases[#leases + 2] = text(now + lease), id
    taken[#taken + 1], taken[#taken + 2] = id, record(id)
  end
end
pop_messages(pool, by_list, permit)
if #ids > 0 then
  redis.call('HSET', tags(pool), '', served)
  in_pieces(leases, function(...) redis.call('ZADD', RUNNING, ...) end)
  in_pieces(ids, function(...) redis.call('RPUSH', P .. 'claim:' .. secret, ...) end)
  redis.call('PEXPIRE', P .. 'claim:' .. secret, 60000)
end
taken[1] = suspect_waits and 1 or 0
return taken
