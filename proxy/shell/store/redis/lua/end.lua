-- Write the tombstone; the first reason stays.
--
-- Arguments: ARGV[4] reason, [5] how long the sealed tokens stay behind it, seconds.
-- Answers:   {'ended', …, whole record as it was} | {'absent'}.

local m = load()
if not m then return {'absent', text(NOW), 0} end
if m.z then return whole('ended', m) end
local before = whole('ended', m, 1)
press_on(m)
m.zd = math.min(NOW + tonumber(ARGV[5]), drop_at(m))
m.z, m.l, m.n = ARGV[4], nil, {}
if NOW >= m.zd then
  redis.call('DEL', KEY)
else
  save(m)
end
tell(name() .. ' ' .. m.z)
return before
