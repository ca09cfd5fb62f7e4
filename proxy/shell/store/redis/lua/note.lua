-- Remember that something happened. It only moves forward.
--
-- Keys:      KEYS[1] the note.
-- Arguments: ARGV[4] how long it is remembered from now, seconds, [5] when it happened, 0 = now.
-- Answers:   {'noted', now, 0, when}.

local keep_s, at = tonumber(ARGV[4]), tonumber(ARGV[5])
if at == 0 then at = NOW end
local before, until_ = string.match(redis.call('GET', KEY) or '', '^(%S+) (%S+)$')
if until_ and NOW < tonumber(until_) then at = math.max(at, tonumber(before)) end
redis.call('SET', KEY, text(at) .. ' ' .. text(NOW + keep_s), 'PX', ttl_ms(keep_s))
return {'noted', text(NOW), 0, text(at)}
