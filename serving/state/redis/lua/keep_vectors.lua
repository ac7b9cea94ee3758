-- Keep vectors of texts beside the item changes that they belong to.
-- KEYS: store, items by revision, vectors. ARGV: id; of every change item, revision and vector. An item that has been changed
-- again since is left alone.
for argument = 2, #ARGV, 3 do
  local revision = redis.call('ZSCORE', KEYS[2], ARGV[argument])
  if revision and string.format('%.0f', tonumber(revision)) == ARGV[argument + 1] then
    redis.call('HSET', KEYS[3], ARGV[argument], ARGV[argument + 2])
  end
end
return 0
