-- Mark the stored token dead: a verdict on a token, never on a session.
--
-- Arguments: ARGV[4] attempt, [5] gen as acquired, [6] outcome, [7] life of an intent, seconds.
-- Holds:     `gen` and the token still are what the verdict speaks of, and nobody else may still come
--            back with the token's successor (an intent whose holder is known to be gone cannot).
-- Answers:   {'gone', …, reason} | {'changed', …, whole record} | {'unresolved', …, whole record}
--            | {'condemned', …, whole record}; the record stays.

local attempt, outcome = ARGV[4], cmsgpack.unpack(ARGV[6])
local m = load()
if not m or m.z then return gone(m) end
if m.g ~= ARGV[5] or m.r ~= outcome[3] then return whole('changed', m) end
for _, intent in ipairs(m.n) do
  local other = intent[1] ~= attempt and intent[3] == m.r
  if other and intent[2] ~= '' and NOW - intent[4] < tonumber(ARGV[7]) then return whole('unresolved', m) end
end

press_on(m)
let_go(m, attempt, true)
local told = (m.x == outcome[3] and same(m.o, outcome)) and 0 or 1
m.x, m.o = outcome[3], outcome
save(m)
if told == 1 then changed() end
return whole('condemned', m, told)
