-- Persist a reply of the OP. The lease is not asked for: a slow holder saves the only valid token.
--
-- Arguments: ARGV[4] attempt, [5] fingerprint of the consumed token, [6] gen as acquired, [7] new tokens,
--            [8] fingerprint of the new token, [9] due, [10] outcome.
-- Holds:     the stored token is the consumed one, `gen` the acquired one, and there is no tombstone.
-- Answers:   {'committed', …, whole record}: written, or found to have landed (`gen` = attempt)
--            | {'gone', …, reason} | {'changed', …, whole record}; own lease and intent are gone either way.

local attempt, consumed, acquired = ARGV[4], ARGV[5], ARGV[6]
local m = load()
if not m then return gone(m) end
if m.g == attempt then return whole('committed', m) end
if m.z then return gone(m) end

press_on(m)
local held = let_go(m, attempt, true)
if m.r ~= consumed or m.g ~= acquired then
  if held then save(m) end
  return whole('changed', m)
end
m.g, m.r, m.d, m.o = attempt, ARGV[8], tonumber(ARGV[9]), cmsgpack.unpack(ARGV[10])
if m.x == consumed then m.x = nil end
save(m, ARGV[7])
changed()
return whole('committed', m, 1)
