-- Read the oldest changes after a revision: of items, one per item, and declared attributes.
-- KEYS: store, contents, items by revision, vectors, attributes, attributes by revision. ARGV: id, revision, number. Returns of
-- items name, revision, content and vector (empty where there is none) in turn, and of attributes name, revision and type.
local function later(order)
  return redis.call('ZRANGEBYSCORE', order, '(' .. ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[3])
end

local items, attributes, found = {}, {}, later(KEYS[3])
for index = 1, #found, 2 do
  items[#items + 1] = found[index]
  items[#items + 1] = string.format('%.0f', tonumber(found[index + 1]))
  items[#items + 1] = redis.call('HGET', KEYS[2], found[index])
  items[#items + 1] = redis.call('HGET', KEYS[4], found[index]) or ''
end
found = later(KEYS[6])
for index = 1, #found, 2 do
  attributes[#attributes + 1] = found[index]
  attributes[#attributes + 1] = string.format('%.0f', tonumber(found[index + 1]))
  attributes[#attributes + 1] = redis.call('HGET', KEYS[5], found[index])
end
return {items, attributes}
