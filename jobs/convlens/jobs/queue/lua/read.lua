#!lua flags=no-writes
-- include: records
-- Reads a record. KEYS: none. Options: id. Returns Redis' time (ms), and the record, empty for an unknown id.
return {text(clock()), read_record(options.id)}
