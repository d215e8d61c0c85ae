-- Redis' clock, the only one that scripts read.
local time

-- Milliseconds since the epoch; the same during one script.
local function clock()
  if not time then
    local reply = redis.call('TIME')
    time = reply[1] * 1000 + math.floor(reply[2] / 1000)
  end
  return time
end
