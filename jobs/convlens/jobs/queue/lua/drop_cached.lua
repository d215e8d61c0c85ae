#!lua flags=allow-oom
-- Forgets cached results of so many bytes, the oldest first, for room in a folder of payloads that is full. ARGV: bytes. Returns
-- payloads that nobody needs any more for the caller to get rid of: theirs, and some that waited in GARBAGE.
local dropped = drop_cached(tonumber(ARGV[1]), 0, 1000)
return redis.call('LPOP', GARBAGE, 1000 + dropped) or {}
