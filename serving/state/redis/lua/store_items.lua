-- Store item changes with the next revisions, all or nothing.
-- KEYS: store, contents, items by revision, deleted items by revision, vectors. ARGV: id; of every change item and content,
-- empty for a deleted item. Returns the last revision.
local revision = last_revision()
for argument = 2, #ARGV, 2 do
  revision = revision + 1
  store_item(KEYS[2], KEYS[3], KEYS[4], ARGV[argument], ARGV[argument + 1], string.format('%.0f', revision))
  redis.call('HDEL', KEYS[5], ARGV[argument])
end
return keep_revision(revision)
