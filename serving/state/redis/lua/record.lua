-- Store a batch of events, all or nothing.
-- KEYS: store, users, feed of recorded events, deleted users; then of every user interactions, impressions, known ids.
-- ARGV: id, bound, number of users, bound of the feed, number of preceding interactions stored with each event of the feed; of
-- every user name, hash, number of events; of every event time, id, item, kind, and its JSON without the rank. Returns one
-- letter per event: n(ew), k(nown), d(eleted user).
local bound, feed_bound, preceding, time = tonumber(ARGV[2]), tonumber(ARGV[4]), tonumber(ARGV[5]), redis.call('TIME')
-- Every event has a unique, monotonic arrival in microseconds, whatever the clock does: its rank among equal times, after
-- imported events, and its position in the feed.
local arrival = math.max(
  time[1] * 1000000 + time[2], tonumber(redis.call('HGET', KEYS[1], 'last_arrival') or 0) + 1
)
local outcomes, argument, number, stored = {}, 6, 0, 0

-- Items and kinds, in turn, of the newest interactions before a time and a member.
local function interactions_before(interactions, happened, member)
  local found = redis.call('ZREVRANGEBYSCORE', interactions, happened, '-inf', 'LIMIT', 0, preceding + 1)
  local before = {}
  for _, earlier in ipairs(found) do
    if earlier ~= member and #before < 2 * preceding then
      local event = cjson.decode(earlier)
      before[#before + 1], before[#before + 2] = event[2], event[3]
    end
  end
  return #before > 0 and cjson.encode(before) or '[]'
end

for user = 0, tonumber(ARGV[3]) - 1 do
  local interactions, impressions, known = KEYS[5 + 3 * user], KEYS[6 + 3 * user], KEYS[7 + 3 * user]
  local name, hash, events = ARGV[argument], ARGV[argument + 1], tonumber(ARGV[argument + 2])
  local deletion = redis.call('HGET', KEYS[4], hash)
  local deleted = deletion and tonumber(string.match(deletion, '^%d+')) or -1
  local new = 0
  argument = argument + 3
  for _ = 1, events do
    local happened, id, item = ARGV[argument], ARGV[argument + 1], ARGV[argument + 2]
    local kind, rest = ARGV[argument + 3], ARGV[argument + 4]
    argument, number = argument + 5, number + 1
    if tonumber(happened) <= deleted then
      outcomes[number] = 'd'
    elseif redis.call('HSETNX', known, mark(id), '') == 0 then
      outcomes[number] = 'k'
    else
      local digits = string.format('%.0f', arrival)
      local member = '["1' .. string.rep('0', 17 - #digits) .. digits .. '00000",' .. rest
      if kind == 'impression' then
        redis.call('ZADD', impressions, happened, member)
      else
        redis.call('ZADD', interactions, happened, member)
        local entry = '[' .. digits .. ',' .. cjson.encode({item, kind}) .. ',' .. happened .. ','
        redis.call('ZADD', KEYS[3], digits, entry .. interactions_before(interactions, happened, member) .. ']')
      end
      arrival = arrival + 1
      outcomes[number], new = 'n', new + 1
    end
  end
  if new > 0 then
    redis.call('ZADD', KEYS[2], 0, name)
    redis.call('HSET', known, 'recorded', '')
    stored = stored + new - trim(interactions, known, KEYS[3], bound) - trim(impressions, known, nil, bound)
    redis.call('HSET', KEYS[1], 'last_record_us', time[1] .. string.format('%06d', time[2]),
      'last_arrival', string.format('%.0f', arrival - 1))
  end
end
redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -1 - feed_bound)
if stored ~= 0 then
  redis.call('HINCRBY', KEYS[1], 'events', stored)
end
return table.concat(outcomes)
