-- Put a session on a list: those of a user, or of a session at the OP. Written before the session is.
--
-- Keys:      KEYS[1] a sorted set that holds some lists together (few small keys weigh more than one): list
--            and session as its member, the session's absolute end as its score.
-- Arguments: ARGV[4] list and session, [5] the session's absolute end, Unix seconds.
-- Answers:   {'enlisted'}; what has ended by now is taken off.

redis.call('ZREMRANGEBYSCORE', KEY, '-inf', text(NOW))
redis.call('ZADD', KEY, text(tonumber(ARGV[5])), ARGV[4])
local latest = redis.call('ZREVRANGE', KEY, 0, 0, 'WITHSCORES')
redis.call('PEXPIRE', KEY, ttl_ms(tonumber(latest[2]) - NOW))
return {'enlisted', text(NOW), 0}
