-- Close the own intent, store how it went, give the lease back.
--
-- Arguments: ARGV[4] attempt, [5] outcome or "", [6] "1" to give the lease back.
-- Holds:     the outcome is stored only while the own lease is held, about the stored token, and never
--            over the verdict on a dead one.
-- Answers:   {'done'}.

local attempt = ARGV[4]
local m = load()
if not m or m.z then return {'done', text(NOW), 0} end

local told, wrote = 0, false
if ARGV[5] ~= '' then
  local outcome = cmsgpack.unpack(ARGV[5])
  if outcome[3] == m.r and not is_dead(m) and holds(m, attempt) and not same(m.o, outcome) then
    m.o, told, wrote = outcome, 1, true
  end
end
if let_go(m, attempt, ARGV[6] == '1') or wrote then
  press_on(m)
  save(m)
end
if told == 1 then changed() end
return {'done', text(NOW), told}
