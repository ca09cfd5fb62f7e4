-- Asks Nightporter about a request: `http-request lua.nightporter`, after txn.np_address was set.
-- A request goes on only after a 200. Every spelling of what Nightporter tells the app is taken
-- from the request first, and the client's cookies come back without Nightporter's own.

local identity = {
  "x-forwarded-user", "x-forwarded-email", "x-forwarded-preferred-username", "x-forwarded-groups",
  "x-forwarded-access-token",
}

-- What other proxies tell apps, nobody but us may tell this one.
local strangers = {
  "x-auth-request-user", "x-auth-request-email", "x-auth-request-preferred-username",
  "x-auth-request-groups", "x-auth-request-access-token", "x-remote-user", "remote-user",
}

-- What some frameworks serve instead of the path and the method that were judged.
local overrides = {
  "x-original-url", "x-original-uri", "x-original-method", "x-rewrite-url", "x-script-name", "x-http-method",
  "x-http-method-override", "x-method-override", "x-forwarded-prefix", "x-forwarded-path", "x-forwarded-uri",
  "x-forwarded-method",
}

-- What the decision depends on; nothing else of the request is sent.
local asked = {
  "cookie", "accept", "origin", "purpose", "sec-purpose", "sec-fetch-mode", "sec-fetch-site",
  "sec-fetch-dest", "x-requested-with", "sec-websocket-key",
}

local gone = {}
for _, name in ipairs(identity) do gone[name] = true end
for _, name in ipairs(strangers) do gone[name] = true end
for _, name in ipairs(overrides) do gone[name] = true end

local function all(values)
  local found = {}
  local at = values[0] ~= nil and 0 or 1
  while values[at] ~= nil do
    found[#found + 1] = values[at]
    at = at + 1
  end
  return found
end

local function answer(txn, status, headers, body)
  local reply = txn:reply { status = status }
  for name, values in pairs(headers) do
    for _, value in ipairs(all(values)) do reply:add_header(name, value) end
  end
  reply:set_body(body or "")
  txn:done(reply)
end

core.register_action("nightporter", { "http-req" }, function(txn)
  local fields = txn.http:req_get_headers()
  local question = {
    ["x-forwarded-method"] = { txn.sf:method() },
    ["x-forwarded-uri"] = { txn.sf:pathq() },
    ["x-forwarded-host"] = { txn.sf:req_hdr("host") },
  }
  for _, name in ipairs(asked) do
    if fields[name] ~= nil then
      local separator = name == "cookie" and "; " or ", "
      question[name] = { table.concat(all(fields[name]), separator) }
    end
  end

  local client = core.httpclient()
  local found = client:get { url = txn:get_var("txn.np_address"), headers = question, timeout = 30000 }
  if found == nil or found.status == nil or found.status == 0 then
    return answer(txn, 503, { ["retry-after"] = { "2" }, ["cache-control"] = { "no-store" } })
  end
  if found.status ~= 200 then
    local headers = {}
    for name, values in pairs(found.headers) do
      if name ~= "content-length" and name ~= "connection" and name ~= "transfer-encoding" and name ~= "date" then
        headers[name] = values
      end
    end
    return answer(txn, found.status, headers, found.body)
  end

  for name, _ in pairs(fields) do
    local plain = name:lower():gsub("[^%w]", "-")
    if gone[plain] then txn.http:req_del_header(name) end
  end
  for _, name in ipairs(identity) do
    local values = found.headers[name]
    if values ~= nil then
      for _, value in ipairs(all(values)) do
        if value ~= "" then txn.http:req_add_header(name, value) end
      end
    end
  end
  txn.http:req_del_header("cookie")
  local cookies = found.headers["cookie"]
  if cookies ~= nil then
    local value = all(cookies)[1]
    if value ~= nil and value ~= "" then txn.http:req_add_header("cookie", value) end
  end
end)
