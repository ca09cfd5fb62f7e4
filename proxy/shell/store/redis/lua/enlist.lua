-- Put a session on a list: those of a user, or of a session at the OP. Written before the session is.
--
-- Keys:      KEYS[1] the list: a sorted set, the end of each session as its score.
-- Arguments: ARGV[4] the session's key, [5] its absolute end, Unix seconds.
-- Answers:   {'enlisted'}; what has ended by now is taken off.

local last = tonumber(ARGV[5])
redis.call('ZREMRANGEBYSCORE', KEY, '-inf', text(NOW))
redis.call('ZADD', KEY, text(last), ARGV[4])
local latest = redis.call('ZREVRANGE', KEY, 0, 0, 'WITHSCORES')
redis.call('PEXPIRE', KEY, ttl_ms(tonumber(latest[2]) - NOW))
return {'enlisted', text(NOW), 0}
