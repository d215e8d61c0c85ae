-- The throughput: jobs that end per second, decaying over ten seconds. Rejected callers compute their retry delay from it.
local ended_jobs = 0 -- by this script

local function throughput(now)
  local r = redis.call('HMGET', THROUGHPUT, 'at', 'rate')
  return number(r[2]) * math.exp(math.min(0, number(r[1] or now) - now) / 10000)
end

-- Writes the jobs that this script has ended; called at the end of every script.
local function write_throughput()
  if ended_jobs == 0 then return end
  redis.call('HSET', THROUGHPUT, 'at', text(clock()), 'rate', tostring(throughput(clock()) + 0.1 * ended_jobs))
end
