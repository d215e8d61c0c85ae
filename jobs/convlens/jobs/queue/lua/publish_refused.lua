#!lua flags=allow-oom
-- include: pools
-- Publishes the models that a worker refuses to serve, also in a full Redis.
-- KEYS: none. Options: ttl (ms). ARGV[2], …: serialized RefusedModels. Returns 1.
redis.call('ZREMRANGEBYSCORE', REFUSED, '-inf', seconds(clock()))
for i = 2, #ARGV do redis.call('ZADD', REFUSED, seconds(clock() + options.ttl), ARGV[i]) end
return 1
