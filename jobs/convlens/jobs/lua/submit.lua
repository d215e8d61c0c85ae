#!lua
-- Writes a record, or finds the earlier one of the same id. Without flags: refused when Redis is full.
-- ARGV: id, fingerprint, max_jobs, timeout, keep, model, queue, priority, images, request, request_size, request_crc,
--       request_id. Returns CREATED, EXISTS, REUSED or FULL.
local id, fingerprint, max_jobs, timeout, keep, model, queue, priority, images, request, size, crc, request_id =
  unpack(ARGV)
local k = key(id)
local old = redis.call('HMGET', k, 'state', 'reason', 'fingerprint', 'request')
if old[1] then
  if old[3] ~= fingerprint then return 'REUSED' end
  if old[4] == request then return 'CREATED' end -- this very call, sent again by the client library
  if not (old[1] == CANCELLED_ and old[2] == 'ABANDONED') then
    if keep == '1' then redis.call('HSET', k, 'keep', '1') else redis.call('HINCRBY', k, 'waiters', 1) end
    return 'EXISTS'
  end
end
if redis.call('SCARD', LIVE) >= tonumber(max_jobs) then return 'FULL' end
local now = clock()
local sequence = redis.call('INCR', P .. 'sequence')
redis.call('DEL', k)
redis.call('HSET', k, 'state', QUEUED_, 'fingerprint', fingerprint, 'keep', keep, 'waiters', 1 - tonumber(keep),
           'model', model, 'queue', queue, 'priority', priority, 'images', images, 'request', request,
           'request_size', size, 'request_crc', crc, 'request_id', request_id, 'sequence', text(sequence),
           'created', text(now), 'published', text(now), 'deadline', text(now + timeout), 'attempts', 0)
redis.call('SADD', LIVE, id)
redis.call('SADD', QUEUES, queue)
redis.call('ZADD', queued(queue), text(sequence), id)
redis.call('ZADD', DEADLINES, text(now + timeout), id)
redis.call('ZADD', JOBS, text(sequence), id)
redis.call('ZREM', FORGET, id)
notify(id, QUEUED_)
return 'CREATED'
