#!lua flags=allow-oom
-- Makes room in a Redis that is nearly full: forgets results that only answer equal requests, and tombstones. ARGV: how many of
-- each. Returns how many it forgot in all, then some payloads that nobody needs any more, for the caller to get rid of.
local number = tonumber(ARGV[1])
local tombstones = redis.call('ZRANGE', TOMBSTONES, 0, number - 1)
for _, id in ipairs(tombstones) do forget(id) end
local results = drop_cached(0, math.huge, number)
return {#tombstones + results, redis.call('LPOP', GARBAGE, 2 * number) or {}}
