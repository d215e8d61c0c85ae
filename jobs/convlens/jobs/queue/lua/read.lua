#!lua flags=no-writes
-- Records. ARGV: ids. Returns Redis' time in milliseconds, then each record, empty for an id that is not known.
local found = {text(clock())}
for _, id in ipairs(ARGV) do found[#found + 1] = record(id) end
return found
