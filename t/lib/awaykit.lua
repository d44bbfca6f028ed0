-- For suites about servers of an upstream block that go away: makes its functions globals.
local M = {}

local function same(text) return text end

-- An object that is connected to this block, and sends keys as memcached_pass does.
function M.object(name, read, connect)
    local m = require "resty.memcached":new { key_transform = { same, same } }
    m:set_timeouts(connect or 1000, 1000, read or 1000)
    assert(m:connect(name))
    return m
end

-- A key whose home is the server on this port, with this beginning.
function M.key_of(m, port, beginning)
    for i = 1, 10000 do
        local key = (beginning or "key") .. i
        if m:server_of(key) == "127.0.0.1:" .. port then return key end
    end
end

-- How many of 300 keys have other homes than those in `before`, and what their homes are now. Those of
-- `port` are not counted.
function M.moved(m, port, before)
    local homes, count = {}, 0
    for i = 1, 300 do
        local key = "home" .. i
        homes[key] = m:server_of(key)
        if before and before[key] ~= "127.0.0.1:" .. port and before[key] ~= homes[key] then count = count + 1 end
    end
    return count, homes
end

-- What f(...) returns, and whether it took less than so many milliseconds.
function M.within(ms, f, ...)
    ngx.update_time()
    local from = ngx.now()
    local a, b, c, d = f(...)
    ngx.update_time()
    local quick = ngx.now() - from < ms / 1000
    return quick and "quick" or "slow: " .. ngx.now() - from, a, b, c, d
end

function M.say(...)
    local texts = {}
    for i = 1, select("#", ...) do texts[i] = tostring((select(i, ...))) end
    ngx.print(table.concat(texts, " "))
end

for name, f in pairs(M) do _G[name] = f end
return M
