-- What the suites of shared connections have in common. A value of the servers
-- below is the key it belongs to.

local kit = require "testkit"

local _M = {}

-- f(i) in n light threads at once: what each returned.
function _M.at_once(n, f)
    local threads, results = {}, {}
    for i = 1, n do threads[i] = ngx.thread.spawn(f, i) end
    for i = 1, n do
        local function keep(_, ...) results[i] = { n = select("#", ...), ... } end
        keep(ngx.thread.wait(threads[i]))
    end
    return results
end

-- How many of the results have this first value (or, for a function, pass it).
function _M.count(results, want)
    local n = 0
    for i, r in ipairs(results) do
        if type(want) == "function" then
            if want(i, unpack(r, 1, r.n)) then n = n + 1 end
        elseif r[1] == want then
            n = n + 1
        end
    end
    return n
end

-- What a server with every key says to a command.
function _M.reply(line, c)
    local keys = line:match("^gets? (.*)$")
    if keys then
        local out = {}
        for key in keys:gmatch("%S+") do
            out[#out + 1] = "VALUE " .. key .. " 0 " .. #key .. "\r\n" .. key .. "\r\n"
        end
        return table.concat(out) .. "END\r\n"
    end
    local size = line:match("^set %S+ %d+ %d+ (%d+)$")
    if size then
        c:read(tonumber(size) + 2)
        return "STORED\r\n"
    end
    return line == "version" and "VERSION " .. c.index .. "\r\n" or "ERROR\r\n"
end

-- A server that keeps the lines it got (`lines`), each with the number of its
-- connection. answer(line, c) returns the reply; nil: the usual one; false:
-- none. While `held`, nothing is answered.
function _M.server(answer, opts)
    local srv
    srv = kit.fake(function(c)
        while true do
            local line = c:line()
            if not line then
                c.ended = true
                return
            end
            table.insert(srv.lines, c.index .. " " .. line)
            local reply = answer and answer(line, c)
            if reply == nil then reply = _M.reply(line, c) end
            while srv.held and not srv.stopped do ngx.sleep(0.002) end
            if reply and not c:send(reply) then
                c.ended = true
                return
            end
        end
    end, opts)
    srv.lines = {}
    return srv
end

-- The lines since the last call, sorted if asked for, without their numbers.
function _M.lines(srv, sorted)
    local lines = {}
    for i, line in ipairs(srv.lines) do lines[i] = line:gsub("^%d+ ", "") end
    srv.lines = {}
    if sorted then table.sort(lines) end
    return lines
end

-- Connections that are open now.
function _M.open(srv)
    local n = 0
    for _, c in ipairs(srv.conns) do
        if c.fd and not c.ended then n = n + 1 end
    end
    return n
end

return _M
