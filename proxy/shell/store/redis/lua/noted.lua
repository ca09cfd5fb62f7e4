-- Ask when something happened.
--
-- Keys:      KEYS[1] the note (see note.lua).
-- Answers:   {'noted', now, 0, when} | {'unknown', now, 0, '0'}.

local note = redis.call('GET', KEY)
if note then
  local at, until_ = string.match(note, '^(%S+) (%S+)$')
  if until_ and NOW < tonumber(until_) then return {'noted', text(NOW), 0, at} end
end
return {'unknown', text(NOW), 0, '0'}
