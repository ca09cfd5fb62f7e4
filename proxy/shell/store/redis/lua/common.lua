-- Put in front of every script by scripts.py.
--
-- Keys:      KEYS[1] a session: one string of the record without its blobs (MessagePack, see codec.py), the
--            sealed tokens and the sealed identity, behind the lengths of the first two. (A hash of three
--            fields weighs 200 bytes more.)
-- Arguments: ARGV[1] time, Unix seconds: "" = the server's own (only tests bring theirs);
--            ARGV[2] channel and ARGV[3] sender of the message that a change is told with.
-- Answers:   {word, now, told, ...}: `now` is the store's time, `told` 1 if others must hear of the
--            change. Numbers travel as text: Redis would cut their fractions off.
--
-- In the record a name that is not known here is kept as it is: a newer version may have written it.

local KEY = KEYS[1]

local function clock()
  if ARGV[1] ~= '' then return tonumber(ARGV[1]) end
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1e6
end

local NOW = clock()

local function text(number)
  return string.format('%.17g', number)
end

-- Time to live in milliseconds. A test's clock may stand still: then Redis's own must not be faster.
local function ttl_ms(seconds)
  if ARGV[1] ~= '' then seconds = seconds + 3600 end
  return string.format('%d', math.max(1, math.ceil(seconds * 1000)))
end

-- Store time at which the record may be forgotten: a tombstone has its own, a session its limits'.
local function drop_at(m)
  return m.zd or math.min(m.e, m.s + m.i)
end

local TOKENS, WHO = '', ''

-- The record without its blobs, which are put aside; nil if there is none, if its time is over, or if it
-- cannot be read.
local function load()
  local value = redis.call('GET', KEY)
  if not value or #value < 6 then return nil end
  local record_bytes, token_bytes = struct.unpack('>HI4', value)
  local good, m = pcall(cmsgpack.unpack, string.sub(value, 7, 6 + record_bytes))
  if not good or type(m) ~= 'table' or NOW >= drop_at(m) then return nil end
  TOKENS = string.sub(value, 7 + record_bytes, 6 + record_bytes + token_bytes)
  WHO = string.sub(value, 7 + record_bytes + token_bytes)
  m.n = m.n or {}
  return m
end

-- Without its empty list: an empty table has no one form in MessagePack.
local function packed(m)
  local intents = m.n
  if #intents == 0 then m.n = nil end
  local bytes = cmsgpack.pack(m)
  m.n = intents
  return bytes
end

-- Write the record, with these blobs or those that it had; nothing is ever stored without an expiry.
local function save(m, tokens, who)
  TOKENS, WHO = tokens or TOKENS, who or WHO
  local record = packed(m)
  local value = struct.pack('>HI4', #record, #TOKENS) .. record .. TOKENS .. WHO
  redis.call('SET', KEY, value, 'PX', ttl_ms(drop_at(m) - NOW))
end

-- Let the writes that follow pass although the server is at its memory limit: once a script has written,
-- Redis does not stop it half-way. For what replaces or frees, and must not be lost.
local function press_on(m)
  redis.call('PEXPIRE', KEY, ttl_ms(drop_at(m) - NOW))
end

-- Whoever may not publish still writes: a message is a hint, and `nightporter check` names the right.
local function tell(message)
  redis.pcall('PUBLISH', ARGV[2], ARGV[3] .. ' ' .. message)
end

local function name()
  return string.match(KEY, '{(.*)}')
end

local function changed()
  tell(name())
end

local function whole(word, m, told)
  return {word, text(NOW), told or 0, packed(m), TOKENS, WHO}
end

local function gone(m)
  return {'gone', text(NOW), 0, m and m.z or 'absent'}
end

local function is_dead(m)
  return m.x and m.x == m.r
end

local function holds(m, attempt)
  return m.l and m.l[1] == attempt and NOW < m.l[2]
end

-- Take out the own intent and, by compare-and-delete, the own lease. Whether anything was there.
local function let_go(m, attempt, lease)
  local kept = {}
  for _, intent in ipairs(m.n) do
    if intent[1] ~= attempt then kept[#kept + 1] = intent end
  end
  local found = #kept < #m.n
  m.n = kept
  if lease and m.l and m.l[1] == attempt then
    m.l = nil
    found = true
  end
  return found
end

local function same(one, other)
  return (one == nil) == (other == nil) and (one == nil or cmsgpack.pack(one) == cmsgpack.pack(other))
end
