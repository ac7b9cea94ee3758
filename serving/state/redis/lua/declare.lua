-- Declare attributes of items with the next revisions, all or nothing.
-- KEYS: store, attributes, attributes by revision. ARGV: id; of every attribute name and type. Returns the last revision, and
-- names and types of attributes already declared with another type.
local conflicts = {}
for argument = 2, #ARGV, 2 do
  local known = redis.call('HGET', KEYS[2], ARGV[argument])
  if known and known ~= ARGV[argument + 1] then
    conflicts[#conflicts + 1] = ARGV[argument]
    conflicts[#conflicts + 1] = known
  end
end
if #conflicts > 0 then
  return {'0', conflicts}
end
local revision = last_revision()
for argument = 2, #ARGV, 2 do
  if redis.call('HSETNX', KEYS[2], ARGV[argument], ARGV[argument + 1]) == 1 then
    revision = revision + 1
    redis.call('ZADD', KEYS[3], string.format('%.0f', revision), ARGV[argument])
    keep_revision(revision)
  end
end
return {redis.call('HGET', KEYS[1], 'revision') or '0', conflicts}
