-- Spend a sign-in flow.
--
-- Keys:      KEYS[1] the flow.
-- Arguments: ARGV[4] how long it stays spent, seconds, [5] random id of this call.
-- Answers:   {'spent'} for the first call and its own repetition | {'spent before'}.

local before = redis.call('GET', KEY)
if before then
  local spender = string.match(before, '^(%S+) ')
  local until_ = tonumber(string.match(before, ' (%S+)$'))
  if NOW < until_ then return {spender == ARGV[5] and 'spent' or 'spent before', text(NOW), 0} end
end
local keep_s = tonumber(ARGV[4])
redis.call('SET', KEY, ARGV[5] .. ' ' .. text(NOW + keep_s), 'PX', ttl_ms(keep_s))
return {'spent', text(NOW), 0}
