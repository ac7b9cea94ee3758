-- Store item changes with the next revisions, each only if its item has not changed since the caller read it.
-- KEYS: store, contents, items by revision, deleted items by revision, vectors. ARGV: id; of every change item, revision as
-- read (0: never changed), content, and vector of its text (empty: none). Returns the last revision (0 where nothing was
-- stored) and the positions, from 0, of the conflicting changes.
local revision, conflicts, stored = last_revision(), {}, false
for argument = 2, #ARGV, 4 do
  local item = ARGV[argument]
  local known = redis.call('ZSCORE', KEYS[3], item)
  if string.format('%.0f', tonumber(known or '0')) == ARGV[argument + 1] then
    revision, stored = revision + 1, true
    store_item(KEYS[2], KEYS[3], KEYS[4], item, ARGV[argument + 2], string.format('%.0f', revision))
    if ARGV[argument + 3] == '' then
      redis.call('HDEL', KEYS[5], item)
    else
      redis.call('HSET', KEYS[5], item, ARGV[argument + 3])
    end
  else
    conflicts[#conflicts + 1] = (argument - 2) / 4
  end
end
return {stored and keep_revision(revision) or '0', conflicts}
