-- Read a list of sessions.
--
-- Keys:      KEYS[1] the sorted set that holds it (see enlist.lua).
-- Arguments: ARGV[4] the list.
-- Answers:   {'listed', now, 0, session, …} of those whose absolute end has not come.

local list = ARGV[4]
local answer = {'listed', text(NOW), 0}
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEY, '(' .. text(NOW), '+inf')) do
  if string.sub(member, 1, #list) == list then answer[#answer + 1] = string.sub(member, #list + 1) end
end
return answer
