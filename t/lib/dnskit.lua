-- What the suites about names have in common, for the table of testkit.

local kit = require "testkit"

local _M = { port = 0 } -- of the name server (t/lib/DnsServer.pm)

-- How many queries for the name have reached the name server.
function kit.asked(name)
    local udp = ngx.socket.udp()
    assert(udp:setpeername("127.0.0.1", _M.port))
    assert(udp:send("? " .. name))
    local n = tonumber((assert(udp:receive())))
    udp:close()
    return n
end

-- connect(name), what came of it, and whether it took about `ms`.
function kit.took(ms, m, ...)
    local t, ok, err = kit.timed(m.connect, m, ...)
    local near = t > ms - 20 and t < ms + 200
    return ok, err, near or t
end

return _M
