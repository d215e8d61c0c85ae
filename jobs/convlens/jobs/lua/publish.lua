#!lua flags=allow-oom
-- A worker says that it serves a model for a while more, also to a full Redis: else every front would take it for gone. ARGV:
-- the worker, the model's name, digest and card, ttl. Returns a live worker that serves other weights under that name, or
-- nothing. Scores are seconds.
local worker, model, digest, card, ttl = unpack(ARGV)
local serving, published = P .. 'serving:' .. model, P .. 'card:' .. model
local now = clock() / 1000
local ends = string.format('%.3f', now + ttl / 1000)
redis.call('ZREMRANGEBYSCORE', serving, '-inf', string.format('%.3f', now))
local known = redis.call('GET', published)
if known and not string.find(known, digest, 1, true) then -- a card holds its digest
  for _, other in ipairs(redis.call('ZRANGE', serving, 0, 1)) do
    if other ~= worker then return other end
  end
end
redis.call('SET', published, card, 'PX', ttl)
redis.call('ZADD', serving, ends, worker)
redis.call('PEXPIRE', serving, ttl)
redis.call('ZADD', P .. 'models', 'GT', ends, model)
