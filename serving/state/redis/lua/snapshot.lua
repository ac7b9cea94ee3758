-- Read the state for one request, consistently.
-- KEYS: store, deleted items by revision, and of the user (if there is one) interactions and impressions.
-- ARGV: id, revision that the caller has applied, number of events, upper bound of the time, whether to include impressions.
-- Returns the acknowledged revision, the items deleted since the caller's, and interactions and impressions as JSON, latest first.
local function latest(events)
  local found = redis.call('ZREVRANGEBYSCORE', events, ARGV[4], '-inf', 'LIMIT', 0, ARGV[3])
  return '[' .. table.concat(found, ',') .. ']'
end

return {
  redis.call('HGET', KEYS[1], 'acknowledged') or '0',
  redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[2], '+inf'),
  KEYS[3] and latest(KEYS[3]) or '[]',
  KEYS[3] and ARGV[5] == '1' and latest(KEYS[4]) or '[]',
}
