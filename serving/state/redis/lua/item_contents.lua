-- Read the newest changes of items.
-- KEYS: store, contents, items by revision, vectors. ARGV: id; items. Returns revision (0: never changed), content and vector
-- (empty: none) of each in turn.
local found = {}
for argument = 2, #ARGV do
  local item = ARGV[argument]
  found[#found + 1] = string.format('%.0f', tonumber(redis.call('ZSCORE', KEYS[3], item) or '0'))
  found[#found + 1] = redis.call('HGET', KEYS[2], item) or ''
  found[#found + 1] = redis.call('HGET', KEYS[4], item) or ''
end
return found
