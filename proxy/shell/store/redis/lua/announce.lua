-- Say what this replica opens, and hear what the others said.
--
-- Keys:      KEYS[1] a hash: replica → until when it counts, then what it said.
-- Arguments: ARGV[4] replica, [5] its words, separated by spaces, [6] how long they count, seconds.
-- Answers:   {'announced', now, 0, words of one live replica, …}; the silent ones are forgotten.

local keep_s = tonumber(ARGV[6])
redis.call('HSET', KEY, ARGV[4], text(NOW + keep_s) .. ' ' .. ARGV[5])
redis.call('PEXPIRE', KEY, ttl_ms(keep_s))
local answer = {'announced', text(NOW), 0}
local all = redis.call('HGETALL', KEY)
for i = 1, #all, 2 do
  local till, words = string.match(all[i + 1], '^(%S+) (.*)$')
  if NOW < tonumber(till) then
    answer[#answer + 1] = words
  else
    redis.call('HDEL', KEY, all[i])
  end
end
return answer
