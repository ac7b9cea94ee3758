-- Store rows of a histories file, except those of deleted users and known events.
-- KEYS: as in record. ARGV: id, bound, number of users; of every user name, hash, number of rows; of every row time, id,
-- item, kind, whether it is an impression, and its JSON. Returns how many rows were of users that are not deleted, and how
-- many were stored.
local bound = tonumber(ARGV[2])

-- A file made from recorded events contains them again, to the second: those are duplicates.
local function was_recorded(events, happened, item, kind)
  local last = string.format('%.0f', tonumber(happened) + 999999)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', events, happened, last)) do
    local event = cjson.decode(member)
    if event[2] == item and event[3] == kind and type(event[4]) == 'string' then
      return true
    end
  end
  return false
end

local argument, taken, stored, kept = 4, 0, 0, 0
for user = 0, tonumber(ARGV[3]) - 1 do
  local interactions, impressions, known = KEYS[5 + 3 * user], KEYS[6 + 3 * user], KEYS[7 + 3 * user]
  local name, hash, rows = ARGV[argument], ARGV[argument + 1], tonumber(ARGV[argument + 2])
  argument = argument + 3
  if redis.call('HEXISTS', KEYS[4], hash) == 1 then
    argument = argument + 6 * rows
  else
    local recorded, new = redis.call('HEXISTS', known, 'recorded') == 1, 0
    taken = taken + rows
    for _ = 1, rows do
      local happened, id, item, kind = ARGV[argument], ARGV[argument + 1], ARGV[argument + 2], ARGV[argument + 3]
      local is_impression, member = ARGV[argument + 4] == '1', ARGV[argument + 5]
      local events = is_impression and impressions or interactions
      argument = argument + 6
      if redis.call('HEXISTS', known, mark(id)) == 0
        and not (recorded and was_recorded(events, happened, item, kind)) then
        redis.call('HSET', known, mark(id), '')
        redis.call('ZADD', events, happened, member)
        new = new + 1
      end
    end
    if new > 0 then
      redis.call('ZADD', KEYS[2], 0, name)
      stored = stored + new
      kept = kept + new - trim(interactions, known, KEYS[3], bound) - trim(impressions, known, nil, bound)
    end
  end
end
if kept ~= 0 then
  redis.call('HINCRBY', KEYS[1], 'events', kept)
end
return {taken, stored}
