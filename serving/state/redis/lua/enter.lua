-- Create the store described by KEYS[1] unless it exists; return its description. ARGV: format, id and salt of a new one.
if redis.call('HSETNX', KEYS[1], 'id', ARGV[2]) == 1 then
  redis.call('HSET', KEYS[1], 'format', ARGV[1], 'salt', ARGV[3])
end
return redis.call('HMGET', KEYS[1], 'format', 'id', 'salt')
