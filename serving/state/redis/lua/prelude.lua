-- Prepended to every other script. KEYS[1] is the hash that describes the store, ARGV[1] the store's id: a Redis that has lost
-- its data has another id, and the caller's user hashes are invalid in it.
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then
  return redis.error_reply('STOREGONE the data of this store is gone')
end

-- A stored event is JSON: [rank among equal times, item, kind, event id, time in microseconds, exposure ...].
-- Imported events have a running number instead of the id, which is made from the rest; see serving/state/redis/events.py.
local function event_id(event)
  if type(event[4]) == 'string' then
    return event[4]
  end
  local second = string.format('%.0f', math.floor(event[5] / 1000000))
  return table.concat({'import:' .. event[2], event[3], second, string.format('%.0f', event[4])}, '\31')
end

-- Short hash of an event's id, for deduplication.
local function mark(id)
  return string.sub(redis.sha1hex(id), 1, 16)
end

-- Remove events from the feed by the arrival that is part of their rank; imported ones are not in it.
local function leave_feed(feed, members)
  for _, member in ipairs(members) do
    local arrival = string.match(cjson.decode(member)[1], '^1(%d+)%d%d%d%d%d$')
    if arrival then
      redis.call('ZREMRANGEBYSCORE', feed, arrival, arrival)
    end
  end
end

-- Drop the oldest events beyond a bound (0: no bound); returns their number. Impressions are not in the feed: pass nil.
local function trim(events, known, feed, bound)
  local excess = bound > 0 and redis.call('ZCARD', events) - bound or 0
  if excess <= 0 then
    return 0
  end
  local dropped = redis.call('ZRANGE', events, 0, excess - 1)
  for _, member in ipairs(dropped) do
    redis.call('HDEL', known, mark(event_id(cjson.decode(member))))
  end
  if feed then
    leave_feed(feed, dropped)
  end
  redis.call('ZREMRANGEBYRANK', events, 0, excess - 1)
  return excess
end

-- The next revision of the items, before 1 is added. Revisions are microseconds of this Redis's clock, or the last one plus 1
-- where that is more. So even a Redis that lost its latest changes (a failover) does not reuse a revision that replicas have
-- applied with other content.
local function last_revision()
  local time = redis.call('TIME')
  local last = tonumber(redis.call('HGET', KEYS[1], 'revision') or '0')
  return math.max(last, tonumber(time[1]) * 1000000 + tonumber(time[2]) - 1)
end

local function keep_revision(revision)
  local number = string.format('%.0f', revision)
  redis.call('HSET', KEYS[1], 'revision', number)
  return number
end

-- Store an item's newest content, empty for a deleted one.
local function store_item(contents, order, deleted, item, content, number)
  redis.call('HSET', contents, item, content)
  redis.call('ZADD', order, number, item)
  if content == '' then
    redis.call('ZADD', deleted, number, item)
  else
    redis.call('ZREM', deleted, item)
  end
end
