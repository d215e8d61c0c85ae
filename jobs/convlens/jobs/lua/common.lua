-- What every script begins with: keys, time, and the one way a job ends. Times are milliseconds of Redis' own clock.
local P = 'convlens:'
local JOBS, RUNNING, DEADLINES, FORGET = P .. 'jobs', P .. 'running', P .. 'deadlines', P .. 'forget'
local LIVE, QUEUES, CLAIMED, GARBAGE = P .. 'live', P .. 'queues', P .. 'claimed', P .. 'garbage'
local QUEUED_, RUNNING_, SUCCEEDED_, FAILED_, CANCELLED_, EXPIRED_ = '1', '2', '3', '4', '5', '6'

local function key(id) return P .. 'job:' .. id end
local function queued(queue) return P .. 'queued:' .. queue end
local function text(number) return string.format('%.0f', number) end

local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function notify(id, state) redis.call('PUBLISH', P .. 'notices', id .. ' ' .. state) end

local function is_live(state) return state == QUEUED_ or state == RUNNING_ end

-- Ends a live job: the first final state wins, because callers come here only with live ones.
local function finish(id, now, state, reason, message, field, result_ttl, tombstone_ttl)
  local k = key(id)
  local r = redis.call('HMGET', k, 'queue', 'request')
  redis.call('HSET', k, 'state', state, 'ended', text(now), 'expires', text(now + result_ttl),
             'reason', reason, 'message', message, 'field', field)
  redis.call('ZREM', queued(r[1]), id)
  redis.call('ZREM', RUNNING, id)
  redis.call('ZREM', DEADLINES, id)
  redis.call('SREM', LIVE, id)
  redis.call('RPUSH', GARBAGE, r[2])
  redis.call('PEXPIRE', k, text(result_ttl + tombstone_ttl))
  redis.call('ZADD', FORGET, text(now + result_ttl + tombstone_ttl), id)
  notify(id, state)
end
