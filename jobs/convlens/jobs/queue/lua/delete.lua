#!lua flags=allow-oom
-- Forgets an ended job. ARGV: id, created, so that a job made anew under the id is left alone. Returns 1, or 0 while it is live.
local id, created = ARGV[1], ARGV[2]
local r = redis.call('HMGET', key(id), 'state', 'created', 'result', 'held')
if r[2] ~= created then return 1 end
if is_live(r[1]) then return 0 end
if r[3] then
  local refs = r[4] == '1' and release_result(r[3], clock()) or tonumber(redis.call('HGET', result_of(r[3]), 'refs') or 0)
  if refs <= 0 then
    drop_result(r[3])
    redis.call('RPUSH', GARBAGE, r[3])
  end
end
forget(id)
return 1
