-- Stored images. Images that come together are one pack: a hash with the offset of each image by digest, how many images of
-- live jobs it serves (`refs`), its size, and when its payload may be gone. IMAGES has the latest pack of each digest. A pack
-- whose last reference goes is deleted. No script deletes payloads: their names go to GARBAGE, or to the caller.

-- Pack and offset of each of these images that is stored until `needed_until`, by digest.
local function stored_images(digests, needed_until)
  local places = {}
  in_batches(digests, function(...)
    local batch = {...}
    for i, pack in ipairs(redis.call('HMGET', IMAGES, ...)) do
      local place = pack and redis.call('HMGET', pack_key(pack), 'expires', batch[i])
      if place and tonumber(place[2]) and number(place[1]) >= needed_until then
        places[batch[i]] = {pack = pack, offset = tonumber(place[2])}
      end
    end
  end)
  return places
end

-- Writes a pack of `bytes` bytes with the offsets of its images by digest.
local function store_pack(pack, bytes, expires, refs, offsets)
  local fields, latest = {'bytes', text(bytes), 'expires', text(expires), 'refs', refs}, {}
  for digest, offset in pairs(offsets) do
    fields[#fields + 1], fields[#fields + 2] = digest, text(offset)
    latest[#latest + 1], latest[#latest + 2] = digest, pack
  end
  in_batches(fields, function(...) redis.call('HSET', pack_key(pack), ...) end)
  in_batches(latest, function(...) redis.call('HSET', IMAGES, ...) end)
end

local function delete_pack(pack, tenant)
  local digests, bytes, fields = {}, 0, redis.call('HGETALL', pack_key(pack))
  for i = 1, #fields, 2 do
    if fields[i] == 'bytes' then
      bytes = number(fields[i + 1])
    elseif fields[i] ~= 'refs' and fields[i] ~= 'expires' then
      digests[#digests + 1] = fields[i]
    end
  end
  in_batches(digests, function(...)
    local batch, own = {...}, {}
    for i, latest in ipairs(redis.call('HMGET', IMAGES, ...)) do
      if latest == pack then own[#own + 1] = batch[i] end
    end
    if #own > 0 then redis.call('HDEL', IMAGES, unpack(own)) end
  end)
  count('image_bytes', tenant, -bytes)
  redis.call('DEL', pack_key(pack))
  redis.call('RPUSH', GARBAGE, pack)
end

-- Releases the images of a job that ends; `images` is the field of its record.
local function release_images(images, tenant)
  if not images or images == '[]' then return end
  local refs = {}
  local is_valid = pcall(function()
    for _, image in ipairs(cjson.decode(images)) do refs[image[2]] = (refs[image[2]] or 0) + 1 end
  end)
  if not is_valid then return quarantine('images', images, 'is no list of images') end
  for pack, released in pairs(refs) do
    if redis.call('HINCRBY', pack_key(pack), 'refs', -released) <= 0 then delete_pack(pack, tenant) end
  end
end
