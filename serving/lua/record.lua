-- Store a batch of events, all or nothing.
-- KEYS: store, users, counts by item, deleted users; then of every user deeds, impressions, known ids.
-- ARGV: id, bound, number of users; of every user name, hash, number of events; of every event time, id, item, whether it
-- is an impression, and its JSON behind the place. Returns one letter per event: n(ew), k(nown), d(eleted user).
local bound, time = tonumber(ARGV[2]), redis.call('TIME')
-- Among equal times recorded events come after imported ones, in the order of their arrival at this Redis.
local arrival = string.format('1%011d%06d', time[1], time[2])
local outcomes, argument, number, stored = {}, 4, 0, 0
for user = 0, tonumber(ARGV[3]) - 1 do
  local deeds, impressions, known = KEYS[5 + 3 * user], KEYS[6 + 3 * user], KEYS[7 + 3 * user]
  local name, hash, events = ARGV[argument], ARGV[argument + 1], tonumber(ARGV[argument + 2])
  local deletion = redis.call('HGET', KEYS[4], hash)
  local deleted = deletion and tonumber(string.match(deletion, '^%d+')) or -1
  local new = 0
  argument = argument + 3
  for _ = 1, events do
    local happened, id, item = ARGV[argument], ARGV[argument + 1], ARGV[argument + 2]
    local is_impression, rest = ARGV[argument + 3] == '1', ARGV[argument + 4]
    argument, number = argument + 5, number + 1
    if tonumber(happened) <= deleted then
      outcomes[number] = 'd'
    elseif redis.call('HSETNX', known, mark(id), '') == 0 then
      outcomes[number] = 'k'
    else
      local member = '["' .. arrival .. string.format('%05d', number) .. '",' .. rest
      redis.call('ZADD', is_impression and impressions or deeds, happened, member)
      if not is_impression then
        count_item(KEYS[3], item, 1)
      end
      outcomes[number], new = 'n', new + 1
    end
  end
  if new > 0 then
    redis.call('ZADD', KEYS[2], 0, name)
    redis.call('HSET', known, 'recorded', '')
    stored = stored + new - trim(deeds, known, KEYS[3], bound) - trim(impressions, known, nil, bound)
    redis.call('HSET', KEYS[1], 'last_record_us', time[1] .. string.format('%06d', time[2]))
  end
end
if stored ~= 0 then
  redis.call('HINCRBY', KEYS[1], 'events', stored)
end
return table.concat(outcomes)
