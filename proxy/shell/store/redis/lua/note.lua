-- Remember that something happened now.
--
-- Keys:      KEYS[1] the note.
-- Arguments: ARGV[4] how long it is remembered, seconds.
-- Answers:   {'noted', now, 0, when}.

local keep_s = tonumber(ARGV[4])
redis.call('SET', KEY, text(NOW) .. ' ' .. text(NOW + keep_s), 'PX', ttl_ms(keep_s))
return {'noted', text(NOW), 0, text(NOW)}
