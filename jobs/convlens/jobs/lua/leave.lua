#!lua flags=allow-oom
-- One waiter less for each of some jobs. ARGV: result_ttl, tombstone_ttl, then ids.
local ttls = {result = tonumber(ARGV[1]), tombstone = tonumber(ARGV[2])}
for i = 3, #ARGV do leave(ARGV[i], clock(), ttls) end
return 1
