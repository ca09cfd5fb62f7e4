-- Read a list of sessions.
--
-- Keys:    KEYS[1] the list.
-- Answers: {'listed', now, 0, key, …} of those whose absolute end has not come.

local answer = {'listed', text(NOW), 0}
for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEY, '(' .. text(NOW), '+inf')) do
  answer[#answer + 1] = key
end
return answer
