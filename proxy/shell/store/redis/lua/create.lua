-- Write a new session.
--
-- Arguments: ARGV[4] record, ARGV[5] tokens, ARGV[6] identity.
-- Holds:     the key is free, or holds what this very call wrote before (same `gen`).
-- Answers:   {'created'} | {'exists'}, which is an error of the caller.

local there = load()
if there then
  return {there.g == cmsgpack.unpack(ARGV[4]).g and 'created' or 'exists', text(NOW), 0}
end
local m = cmsgpack.unpack(ARGV[4])
m.n = m.n or {}
save(m, ARGV[5], ARGV[6])
return {'created', text(NOW), 0}
