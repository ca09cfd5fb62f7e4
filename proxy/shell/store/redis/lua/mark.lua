-- Write a not-before mark: sessions that began earlier are over. It only moves forward.
--
-- Keys:      KEYS[1] the mark (everybody's, a user's, or the time of the newest user's).
-- Arguments: ARGV[4] when, Unix seconds, or "" = now, [5] how long it counts, seconds, [6] what to tell,
--            or "" = nothing: the mark's time is put behind it.
-- Answers:   {'marked', now, told, the mark's time}.

local at = ARGV[4] ~= '' and tonumber(ARGV[4]) or NOW
local before = tonumber(redis.call('GET', KEY) or '0')
if before < at then
  redis.call('SET', KEY, text(at), 'PX', ttl_ms(at + tonumber(ARGV[5]) - NOW))
else
  at = before
end
if ARGV[6] ~= '' then tell(ARGV[6] .. ' ' .. text(at)) end
return {'marked', text(NOW), 1, text(at)}
