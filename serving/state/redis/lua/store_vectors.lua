-- Store the text vectors of item changes.
-- KEYS: store, items by revision, vectors. ARGV: id; of every change item, revision and vector. Items that have changed again
-- since are skipped.
for argument = 2, #ARGV, 3 do
  local revision = redis.call('ZSCORE', KEYS[2], ARGV[argument])
  if revision and string.format('%.0f', tonumber(revision)) == ARGV[argument + 1] then
    redis.call('HSET', KEYS[3], ARGV[argument], ARGV[argument + 2])
  end
end
return 0
