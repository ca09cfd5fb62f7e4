-- Read a session, a tombstoned one included.
--
-- Answers: {'found', now, 0, record, tokens, identity} | {'absent', now, 0}.

local m = load()
if not m then return {'absent', text(NOW), 0} end
return whole('found', m)
