-- Read the oldest item changes after a revision, one per item.
-- KEYS: store, contents, items by revision, vectors. ARGV: id, revision, number. Returns item, revision, content and vector
-- (empty where there is none) in turn.
local found = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[3])
local changes = {}
for place = 1, #found, 2 do
  changes[#changes + 1] = found[place]
  changes[#changes + 1] = string.format('%.0f', tonumber(found[place + 1]))
  changes[#changes + 1] = redis.call('HGET', KEYS[2], found[place])
  changes[#changes + 1] = redis.call('HGET', KEYS[4], found[place]) or ''
end
return changes
