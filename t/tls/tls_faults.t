use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head(
    tls  => [qw( good second )],
    # the newest that every ngx_lua offers by default
    http => 'lua_ssl_protocols TLSv1.2;',
);

run_tests();

__DATA__

=== TEST 1: a stalled handshake ends with the connect timeout
--- private: counts connections
--- http_config eval: $::HttpConfig
--- config
    lua_socket_connect_timeout 150ms;
    lua_socket_read_timeout 5s;
    lua_socket_send_timeout 5s;
    location = /t {
        content_by_lua_block {
            local function stalled(label, want, at, set)
                local srv = tls.relay(tls.web.good, function(_, way, record, n)
                    if way == "up" or n < at then return record end
                end)
                local m = require("resty.memcached"):new()
                assert(m:connect("127.0.0.1", srv.port))
                set(m)
                local ms, first, err = kit.timed(m.sslhandshake, m, nil, "memcached.test")
                kit.show(label, first, err, ms >= want - 5 and ms < want + 400 or ms)
                kit.show("close", m:close())
                kit.show("gone", kit.eventually(function() return srv.conns[1]:closed_by_peer(1) end))
                srv:close()
            end
            stalled("directive", 150, 1, function() end)
            stalled("set_timeout", 60, 1, function(m) m:set_timeout(60) end)
            stalled("set_timeouts", 60, 1, function(m) m:set_timeouts(60, 3000, 3000) end)
            stalled("late", 60, 2, function(m) m:set_timeouts(60, 3000, 3000) end)
            stalled("settimeout", 60, 1, function(m) m.sock:settimeout(60) end)
        }
    }
--- request
GET /t
--- response_body
directive: nil, "timeout", true
close: nil, "closed"
gone: true
set_timeout: nil, "timeout", true
close: nil, "closed"
gone: true
set_timeouts: nil, "timeout", true
close: nil, "closed"
gone: true
late: nil, "timeout", true
close: nil, "closed"
gone: true
settimeout: nil, "timeout", true
close: nil, "closed"
gone: true
--- no_error_log
[error]



=== TEST 2: a slow handshake within the timeout; the timer does not fire later
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = tls.relay(tls.port, function(_, way, record, n)
                if way == "down" then ngx.sleep(0.03) end
                return record
            end)
            local m = kit.new()
            m:set_timeouts(600, 2000, 2000)
            assert(m:connect("127.0.0.1", srv.port))
            tls.show("handshake", m:sslhandshake(nil, "memcached.test"))
            ngx.sleep(0.4)
            kit.show("in step", kit.in_step(m))
            ngx.sleep(0.4)
            kit.show("in step", kit.in_step(m))
            kit.show("close", m:close())
            -- The timeout is for all of it, not for each answer.
            m:set_timeouts(75, 2000, 2000)
            assert(m:connect("127.0.0.1", srv.port))
            local ms, first, err = kit.timed(m.sslhandshake, m, nil, "memcached.test")
            kit.show("too slow", first, err, ms < 110 or ms)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
handshake: "session"
in step: "yes"
in step: "yes"
close: 1
too slow: nil, "timeout", true
--- no_error_log
[error]



=== TEST 3: the server hangs up midway
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            for _, how in ipairs{ "close", "reset" } do
                for at = 1, 2 do
                    local srv = tls.relay(tls.web.good, function(c, way, record, n)
                        if way == "up" then
                            -- A hello that stays unanswered.
                            if at == 1 then c[how](c) return nil end
                            return record
                        end
                        if n == 1 then
                            c:send(record:sub(1, 30))
                            ngx.sleep(0.01)
                            c[how](c)
                        end
                    end)
                    local m = kit.connect(srv.port)
                    kit.show(how .. at, m:sslhandshake(nil, "memcached.test"))
                    kit.show("after it", m:close())
                    kit.show("get", m:get("k"))
                    srv:close()
                end
            end
        }
    }
--- request
GET /t
--- response_body
close1: nil, "handshake failed"
after it: nil, "closed"
get: nil, nil, "closed"
close2: nil, "handshake failed"
after it: nil, "closed"
get: nil, nil, "closed"
reset1: nil, "handshake failed"
after it: nil, "closed"
get: nil, nil, "closed"
reset2: nil, "handshake failed"
after it: nil, "closed"
get: nil, nil, "closed"
--- error_log
peer closed connection in SSL handshake



=== TEST 4: a light thread killed while it shakes hands
--- private: counts connections
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            for at = 1, 2 do
                local srv = tls.relay(tls.web.good, function(_, way, record, n)
                    if way == "up" or n < at then return record end
                end)
                local m = kit.connect(srv.port)
                local thread = ngx.thread.spawn(m.sslhandshake, m, nil, "memcached.test", true)
                ngx.sleep(0.05)
                kit.show("kill", ngx.thread.kill(thread))
                kit.show("gone", srv.conns[1]:closed_by_peer(1))
                kit.show("handshake", m:sslhandshake())
                kit.show("get", m:get("k"))
                srv:close()
            end
            kit.show("in step", kit.in_step(tls.connect()))
        }
    }
--- request
GET /t
--- response_body
kill: 1
gone: true
handshake: nil, "closed"
get: nil, nil, "closed"
kill: 1
gone: true
handshake: nil, "closed"
get: nil, nil, "closed"
in step: "yes"
--- no_error_log
[alert]



=== TEST 5: the request ends while a light thread shakes hands
--- private: counts connections
--- http_config eval: $::HttpConfig
--- config
    location = /exit {
        content_by_lua_block {
            local m = kit.connect(kit.shared.port)
            ngx.thread.spawn(m.sslhandshake, m, nil, "memcached.test", true)
            ngx.sleep(0.03)
            ngx.exit(200)
        }
    }
    location = /abort {
        lua_check_client_abort on;
        content_by_lua_block {
            local m = kit.connect(kit.shared.port)
            m:sslhandshake(nil, "memcached.test", true)
        }
    }
    location = /t {
        content_by_lua_block {
            for at = 1, 2 do
                for _, path in ipairs{ "/exit", "/abort" } do
                    local srv = tls.relay(tls.web.good, function(_, way, record, n)
                        if way == "up" or n < at then return record end
                    end)
                    kit.shared.port = srv.port
                    kit.http($TEST_NGINX_SERVER_PORT, path, 0.1)
                    kit.show(path, kit.eventually(function()
                        return srv.conns[1] and srv.conns[1]:closed_by_peer(1)
                    end))
                    srv:close()
                end
            end
            kit.show("in step", kit.in_step(tls.connect()))
        }
    }
--- request
GET /t
--- response_body
/exit: true
/abort: true
/exit: true
/abort: true
in step: "yes"
--- no_error_log
[alert]



=== TEST 6: the server ends an established connection
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            for _, how in ipairs{ "close", "reset" } do
                local cut = false
                local srv = tls.relay(tls.port, function(c, way, record)
                    if cut and way == "down" then
                        c:send(record:sub(1, 10))
                        ngx.sleep(0.01)
                        c[how](c)
                        return nil
                    end
                    return record
                end)
                local m = tls.connect(srv.port, nil, "memcached.test")
                kit.show("in step", kit.in_step(m))
                cut = true
                local _, _, err = m:get("k")
                kit.show(how, err == "closed" or err == "connection reset by peer" or err)
                kit.show("set_keepalive", m:set_keepalive())
                srv:close()
            end
        }
    }
--- request
GET /t
--- response_body
in step: "yes"
close: true
set_keepalive: nil, "closed"
in step: "yes"
reset: true
set_keepalive: nil, "closed"
--- no_error_log
[alert]



=== TEST 7: a read timeout on TLS
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local stall = false
            local srv = tls.relay(tls.port, function(_, way, record)
                if way == "down" and stall then return record:sub(1, 20) end
                return record
            end)
            local m = tls.connect(srv.port, nil, "memcached.test")
            kit.show("in step", kit.in_step(m))
            stall = true
            m:set_timeouts(3000, 3000, 60)
            kit.show("get", m:get("k"))
            kit.show("close", m:close())
            srv:close()
        }
    }
--- request
GET /t
--- response_body
in step: "yes"
get: nil, nil, "timeout"
close: nil, "closed"
--- error_log
lua tcp socket read timed out



=== TEST 8: an OCSP status is asked for on request only
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            -- status_request, RFC 6066, section 8: type 5, ocsp, no responder ids, no extensions
            local extension = "\0\5\0\5\1\0\0\0\0"
            local function asked(...)
                local hello
                local srv = tls.relay(tls.web.good, function(_, way, record, n)
                    if way == "up" and n == 1 then hello = record end
                    return record
                end)
                local m = require("resty.memcached"):new()
                assert(m:connect("127.0.0.1", srv.port))
                local session, err = m:sslhandshake(...)
                local found = hello:find(extension, 1, true) ~= nil
                m:close()
                srv:close()
                return session ~= nil, err, found
            end
            kit.show("not asked", asked(nil, "memcached.test", false))
            kit.show("false", asked(nil, "memcached.test", false, false))
            kit.show("true", asked(nil, "memcached.test", false, true))
        }
    }
--- request
GET /t
--- response_body
not asked: true, nil, false
false: true, nil, false
true: true, nil, true
--- no_error_log
[error]
