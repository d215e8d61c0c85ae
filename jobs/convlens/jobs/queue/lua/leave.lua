#!lua flags=allow-oom
-- Waiters leave their jobs. ARGV: result_ttl, answered_ttl, cached_bytes, result_bytes, known_jobs (see trim_cache), then id,
-- waiter pairs. Returns some payloads that nobody needs any more, for the caller to get rid of.
local ttls = {result = tonumber(ARGV[1]), answered = tonumber(ARGV[2])}
local bounds = {cached_bytes = tonumber(ARGV[3]), result_bytes = tonumber(ARGV[4]), known_jobs = tonumber(ARGV[5])}
for i = 6, #ARGV, 2 do leave(ARGV[i], ARGV[i + 1], clock(), ttls) end
trim_cache(bounds, load_of({'cached_bytes', 'result_bytes'}), 0, #ARGV)
return redis.call('LPOP', GARBAGE, #ARGV) or {}
