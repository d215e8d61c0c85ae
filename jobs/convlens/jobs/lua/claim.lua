#!lua flags=allow-oom
-- Takes the jobs of a model whose turn it is, for a worker. ARGV: model, worker, lease, most jobs, most images, secret,
-- result_ttl, tombstone_ttl. Returns id, record pairs; a job's token is the secret and its id. One job is taken whatever
-- its images. A replay of the call finds what it took.
local model, worker, lease, most_jobs, room, secret = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]),
  tonumber(ARGV[5]), ARGV[6]
local ttls = {result = tonumber(ARGV[7]), tombstone = tonumber(ARGV[8])}
local now, taken = clock(), {}

for _, id in ipairs(redis.call('LRANGE', P .. 'claim:' .. secret, 0, -1)) do
  if redis.call('HGET', key(id), 'token') == secret .. '-' .. id then
    taken[#taken + 1] = id
    taken[#taken + 1] = record(id)
  end
end
if #taken > 0 then return taken end

while #taken < 2 * most_jobs do
  local flow, tag = unpack(redis.call('ZRANGE', flows(model), 0, 0, 'WITHSCORES'))
  if not flow then break end
  local id = redis.call('ZRANGE', queued(flow), 0, 0)[1]
  local r = id and redis.call('HMGET', key(id), 'state', 'deadline', 'cost', 'count', 'priority', 'watched')
  if not id then
    redis.call('ZREM', flows(model), flow)
    redis.call('HSET', tags(model), flow, tag)
  elseif r[1] ~= QUEUED_ then
    redis.call('ZREM', queued(flow), id)
  elseif tonumber(r[2]) <= now then
    finish(id, now, EXPIRED_, {reason = 'DEADLINE_EXCEEDED', message = 'the deadline passed while the job was queued'},
           nil, ttls)
  else
    room = room - tonumber(r[4])
    if room < 0 and #taken > 0 then break end
    redis.call('ZREM', queued(flow), id)
    redis.call('HSET', tags(model), '', tag)
    redis.call('ZADD', flows(model), tonumber(tag) + tonumber(r[3]) / WEIGHTS[r[5]], flow)
    redis.call('HSET', key(id), 'state', RUNNING_, 'token', secret .. '-' .. id, 'worker', worker, 'started', text(now),
               'progress', '')
    redis.call('HINCRBY', key(id), 'attempts', 1)
    redis.call('ZADD', RUNNING, text(now + lease), id)
    redis.call('RPUSH', P .. 'claim:' .. secret, id)
    if r[6] then notify(id, RUNNING_) end
    taken[#taken + 1] = id
    taken[#taken + 1] = record(id)
  end
end
if #taken > 0 then redis.call('PEXPIRE', P .. 'claim:' .. secret, 60000) end
return taken
