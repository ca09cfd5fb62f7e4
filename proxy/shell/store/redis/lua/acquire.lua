-- Ask for the right to send the stored refresh token.
--
-- Arguments: ARGV[4] attempt, [5] holder, [6] gen and [7] rt as the caller read them, [8] life of the
--            lease and [9] of an intent, seconds.
-- Holds:     checked in this order, each with its answer.
-- Answers:   {'gone', …, reason} | {'changed', …, whole record} | {'held', …, record}
--            | {'failed', …, whole record}: an outcome for this token still binds everybody
--            | {'granted', …, whole record} with the lease taken and the intent added.

local attempt, holder, gen, rt = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local m = load()
if not m or m.z then return gone(m) end
if m.g ~= gen or m.r ~= rt then return whole('changed', m) end

if m.l and NOW < m.l[2] and m.l[1] ~= attempt then
  return {'held', text(NOW), 0, packed(m)}
end
if not holds(m, attempt) then
  local waits = m.o and m.o[3] == m.r and NOW < m.o[6]
  if is_dead(m) or waits then return whole('failed', m) end
end

local intents = {}
for _, intent in ipairs(m.n) do
  if intent[1] ~= attempt and NOW - intent[4] < tonumber(ARGV[9]) then intents[#intents + 1] = intent end
end
intents[#intents + 1] = {attempt, holder, m.r, NOW}
m.n = intents
m.l = {attempt, NOW + tonumber(ARGV[8])}
save(m)
return whole('granted', m)
