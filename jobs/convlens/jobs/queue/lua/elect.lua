#!lua flags=allow-oom
-- Elects the server that reconciles: the first one to ask, as long as it asks again within the time.
-- KEYS: none. Options: server (a name), ttl (ms; 0 to step down). Returns 1 if this server is elected, else 0.
local elected = redis.call('GET', RECONCILER)
if elected and elected ~= options.server and redis.call('PTTL', RECONCILER) >= 0 then return 0 end -- one without a ttl is damaged
if options.ttl == 0 then redis.call('DEL', RECONCILER) else redis.call('SET', RECONCILER, options.server, 'PX', options.ttl) end
return 1
