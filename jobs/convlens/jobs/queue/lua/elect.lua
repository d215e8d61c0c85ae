#!lua flags=allow-oom
-- Who reconciles: the server that asked first, while it asks again within ttl. ARGV: a server, ttl. With a ttl of 0 a server
-- steps down. Returns 1 when it is this one, else 0.
local elected = redis.call('GET', P .. 'reconciler')
if elected and elected ~= ARGV[1] and redis.call('PTTL', P .. 'reconciler') >= 0 then return 0 end -- no server writes one for ever
if ARGV[2] == '0' then redis.call('DEL', P .. 'reconciler') else redis.call('SET', P .. 'reconciler', ARGV[1], 'PX', ARGV[2]) end
return 1
