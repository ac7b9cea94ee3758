-- Erase a user and remember the deletion by the hash of the name.
-- KEYS: store, users, feed of recorded events, deleted users, and of the user interactions, impressions, known ids.
-- ARGV: id, name, hash, time of the deletion. Returns the number of erased events, the number of the deletion among all, and
-- whether Redis's files may still hold the name.
local before = redis.call('HGET', KEYS[4], ARGV[3])
local erased = redis.call('ZCARD', KEYS[5]) + redis.call('ZCARD', KEYS[6])
leave_feed(KEYS[3], redis.call('ZRANGE', KEYS[5], 0, -1))
-- No earlier event may return, even if its time is in the future or the clock has been set back.
local until_us = tonumber(ARGV[4])
for _, key in ipairs({KEYS[5], KEYS[6]}) do
  local newest = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')
  if newest[2] then
    until_us = math.max(until_us, tonumber(newest[2]))
  end
end
if before then
  until_us = math.max(until_us, tonumber(string.match(before, '^%d+')))
end
redis.call('DEL', KEYS[5], KEYS[6], KEYS[7])
local was_there = redis.call('ZREM', KEYS[2], ARGV[2]) == 1
local number
if before and not was_there then
  number = string.match(before, '%d+$')
else
  number = redis.call('HINCRBY', KEYS[1], 'deletions', 1)
end
redis.call('HSET', KEYS[4], ARGV[3], string.format('%.0f', until_us) .. ':' .. number)
if erased > 0 then
  redis.call('HINCRBY', KEYS[1], 'events', -erased)
end
return {erased, tonumber(number), (was_there or before) and 1 or 0}
