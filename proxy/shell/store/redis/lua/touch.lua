-- Note activity; it only moves forward.
--
-- Arguments: ARGV[4] when, Unix seconds of store time.
-- Answers:   {'done'}.

local m = load()
local seen = tonumber(ARGV[4])
if m and not m.z and seen > m.s then
  m.s = seen
  save(m)
end
return {'done', text(NOW), 0}
