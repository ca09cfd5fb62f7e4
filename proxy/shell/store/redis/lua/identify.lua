-- Replace the identity.
--
-- Arguments: ARGV[4] gen that it was learned with, [5] identity, [6] its random id.
-- Holds:     `gen` is still the stored one, and there is no tombstone.
-- Answers:   {'written'} | {'refused'}.

local m = load()
if not m or m.z or m.g ~= ARGV[4] then return {'refused', text(NOW), 0} end
local told = m.wi == ARGV[6] and 0 or 1
m.wi = ARGV[6]
save(m, nil, ARGV[5])
if told == 1 then changed() end
return {'written', text(NOW), told}
