#!lua flags=allow-oom
-- A worker says for a while more which models it was to serve and cannot, also to a full Redis. ARGV: ttl, serialized
-- RefusedModels. REFUSED has them by when the word expires, in seconds.
local now = clock()
redis.call('ZREMRANGEBYSCORE', P .. 'refused', '-inf', string.format('%.3f', now / 1000))
for i = 2, #ARGV do redis.call('ZADD', P .. 'refused', string.format('%.3f', (now + ARGV[1]) / 1000), ARGV[i]) end
return 1
