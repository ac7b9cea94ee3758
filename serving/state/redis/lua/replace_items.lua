-- Store item changes with the next revisions, each only if its item is as the caller knows it.
-- KEYS: store, contents, items by revision, deleted items by revision, vectors. ARGV: id; of every change item, revision that
-- the caller knows (0: the item was never changed), content, and vector of its text (empty: none). Returns the last revision
-- (0 where nothing was stored) and the places, from 0, of the changes whose items are not as known.
local revision, others, stored = last_revision(), {}, false
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
    others[#others + 1] = (argument - 2) / 4
  end
end
return {stored and keep_revision(revision) or '0', others}
