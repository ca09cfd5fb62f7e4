-- Extend the own lease from now.
--
-- Arguments: ARGV[4] attempt, [5] life of the lease, seconds.
-- Holds:     the lease is still held by this attempt.
-- Answers:   {'ours'} | {'lost'}: nothing changed.

local m = load()
if not m or m.z or not holds(m, ARGV[4]) then return {'lost', text(NOW), 0} end
m.l = {ARGV[4], NOW + tonumber(ARGV[5])}
save(m)
return {'ours', text(NOW), 0}
