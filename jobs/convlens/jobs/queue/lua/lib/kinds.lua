-- The kinds of jobs, by what they need more of than most: 'many' passes (or bytes), 'huge' or 'slow' images to decode, or 'one'
-- pass per image. Each kind has flows of its own. Messages of 'many' and 'huge' jobs have lists of their own, since consumers
-- limit them apart; those of 'slow' and 'one' share the list ''.

local LARGE_PIXELS, SLOW_PIXELS = 16000000, 2000000 -- as in image_formats.py: of a job, and of an image
local function job_kind(cost, images, pixels)
  cost, images, pixels = tonumber(cost), tonumber(images), tonumber(pixels or 0)
  if cost - math.floor(pixels / LARGE_PIXELS) > images then return 'many' end
  if pixels >= LARGE_PIXELS or pixels > SLOW_PIXELS * images then return 'huge' end
  return pixels > SLOW_PIXELS and 'slow' or 'one'
end

-- The kind of list that the messages of a flow are in.
local function list_kind(flow)
  local kind = string.match(flow, '^[^/]*/%d/(%a+)/')
  return (kind == 'many' or kind == 'huge') and kind or ''
end
