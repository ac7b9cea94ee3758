-- Store item changes with the next revisions, all or nothing.
-- KEYS: store, contents, items by revision, deleted items by revision, vectors. ARGV: id; of every change item and content
-- as JSON, empty for a deleted item. Returns the last revision.
--
-- Revisions are microseconds of this Redis's clock, or the last one plus 1 where that is more. So even a Redis that lost its
-- latest changes (a failover) does not give a revision out again that replicas have applied with another content.
local time = redis.call('TIME')
local last = tonumber(redis.call('HGET', KEYS[1], 'revision') or '0')
local revision = math.max(last, tonumber(time[1]) * 1000000 + tonumber(time[2]) - 1)
for argument = 2, #ARGV, 2 do
  local item, content = ARGV[argument], ARGV[argument + 1]
  revision = revision + 1
  local number = string.format('%.0f', revision)
  redis.call('HSET', KEYS[2], item, content)
  redis.call('HDEL', KEYS[5], item)
  redis.call('ZADD', KEYS[3], number, item)
  if content == '' then
    redis.call('ZADD', KEYS[4], number, item)
  else
    redis.call('ZREM', KEYS[4], item)
  end
end
redis.call('HSET', KEYS[1], 'revision', string.format('%.0f', revision))
return string.format('%.0f', revision)
