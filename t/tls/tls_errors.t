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

=== TEST 1: arguments that raise, and who is told of them
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local memcached = require "resty.memcached"
            local function check(label, ...)
                local m = kit.connect(tls.web.good)
                local what = kit.raises(m.sslhandshake, m, ...)
                kit.show(label, what, (kit.raise_text(m.sslhandshake, m, ...):match("seen %d")))
                kit.show("close", m:close())
            end
            check("six", nil, nil, nil, nil, nil)
            check("seven", nil, "memcached.test", false, false, 1, 2)
            check("number", nil, 5)
            check("true", nil, true)
            check("table", nil, {})
            check("function", nil, print)
            local m = kit.new()
            kit.show("unconnected, table", kit.raises(m.sslhandshake, m, nil, {}))
            kit.show("module table", memcached:sslhandshake())
            kit.show("module table", memcached.sslhandshake(memcached, 1, {}, 3, 4, 5))
            kit.show("no self", kit.raises(memcached.sslhandshake))
            kit.show("number as self", kit.raises(memcached.sslhandshake, 5))
            kit.show("sock, no self", kit.raise_text(m.sock.sslhandshake))
        }
    }
--- request
GET /t
--- response_body
six: "raised a string", "seen 6"
close: 1
seven: "raised a string", "seen 7"
close: 1
number: "raised a string", nil
close: 1
true: "raised a string", nil
close: 1
table: "raised a string", nil
close: 1
function: "raised a string", nil
close: 1
unconnected, table: "raised a string"
module table: nil, "not initialized"
module table: nil, "not initialized"
no self: "raised a string"
number as self: "raised a string"
sock, no self: "ngx.socket sslhandshake: expecting 1 ~ 5 arguments (including the object), but seen 0"
--- no_error_log
[error]



=== TEST 2: without a connection
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            kit.show("never connected", kit.raise_text(m.sslhandshake, m))
            kit.show("refused", m:connect("127.0.0.1", $TEST_NGINX_UNUSED_PORT))
            kit.show("handshake", m:sslhandshake())
            assert(m:connect("127.0.0.1", tls.port))
            kit.show("close", m:close())
            kit.show("handshake", m:sslhandshake(nil, "memcached.test"))
            kit.show("handshake", m:sslhandshake(false))
            assert(m:connect("127.0.0.1", tls.port))
            tls.show("connected", m:sslhandshake())
            kit.show("set_keepalive", m:set_keepalive())
            kit.show("handshake", m:sslhandshake())
            m = tls.connect()
            m:quit()
            kit.show("get", m:get("k"))
            tls.show("closed by the server", m:sslhandshake())
        }
    }
--- request
GET /t
--- response_body
never connected: "socket is never created nor connected"
refused: nil, "connection refused"
handshake: nil, "closed"
close: 1
handshake: nil, "closed"
handshake: nil, "closed"
connected: "session"
set_keepalive: 1
handshake: nil, "closed"
get: nil, nil, "closed"
closed by the server: nil, "closed"
--- error_log
connect() failed (111: Connection refused)



=== TEST 3: from another request
--- http_config eval: $::HttpConfig
--- config
    location = /own {
        content_by_lua_block {
            local m = kit.connect(tls.port)
            kit.shared.m = m
            kit.shared.owned = true
            kit.eventually(function() return kit.shared.tried end)
            tls.show("owner", m:sslhandshake(nil, "memcached.test"))
            kit.show("in step", kit.in_step(m))
        }
    }
    location = /t {
        content_by_lua_block {
            kit.shared.owned, kit.shared.tried = nil, nil
            local owner = ngx.thread.spawn(kit.http, $TEST_NGINX_SERVER_PORT, "/own")
            kit.eventually(function() return kit.shared.owned end)
            kit.show("other", kit.raises(kit.shared.m.sslhandshake, kit.shared.m))
            kit.shared.tried = true
            local _, text = ngx.thread.wait(owner)
            ngx.say(text)
            kit.show("afterwards", kit.raises(kit.shared.m.sslhandshake, kit.shared.m))
            kit.shared.m = nil
        }
    }
--- request
GET /t
--- response_body
other: "returned nil, \"bad request\""
owner: "session"
in step: "yes"
afterwards: "returned nil, \"closed\""
--- no_error_log
[error]



=== TEST 4: while a light thread shakes hands, the others are told so
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local go = false
            local srv = tls.relay(tls.port, function(_, way, record, n)
                if way == "down" and n == 1 then
                    kit.eventually(function() return go end)
                end
                return record
            end)
            local m = kit.connect(srv.port)
            local thread = ngx.thread.spawn(m.sslhandshake, m, nil, "memcached.test")
            kit.show("handshake", m:sslhandshake())
            kit.show("get", m:get("k"))
            kit.show("set", m:set("k", "v"))
            kit.show("close", m:close())
            kit.show("set_keepalive", m:set_keepalive())
            kit.show("connect", m:connect("127.0.0.1", srv.port))
            kit.show("reused", m:get_reused_times())
            kit.show("receive", m.sock:receive())
            go = true
            local ok, session, err = ngx.thread.wait(thread)
            tls.show("thread", session, err)
            kit.show("in step", kit.in_step(m))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
handshake: nil, "socket busy connecting"
get: nil, nil, "socket busy connecting"
set: nil, "socket busy connecting"
close: nil, "socket busy connecting"
set_keepalive: nil, "socket busy connecting"
connect: nil, "socket busy connecting"
reused: 0
receive: nil, "socket busy connecting"
thread: "session", nil
in step: "yes"
--- no_error_log
[error]



=== TEST 5: while another light thread reads
--- whole: the command has to be sent at once
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local go = false
            local srv = kit.fake(function(c)
                c:line()
                kit.eventually(function() return go end)
                c:send("VERSION 1\r\n")
            end)
            local m = kit.connect(srv.port)
            local thread = ngx.thread.spawn(m.version, m)
            kit.show("handshake", m:sslhandshake())
            go = true
            kit.show("thread", ngx.thread.wait(thread))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
handshake: nil, "socket busy reading"
thread: true, "1"
--- no_error_log
[error]



=== TEST 6: servers that do not speak TLS
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.connect(kit.port)
            kit.show("memcached", m:sslhandshake(nil, "memcached.test"))
            kit.show("close", m:close())
            for _, junk in ipairs{ "ERROR\r\n", ("\0"):rep(100), "\22\3\3\0\5hello", "\21\3\3\0\2\2\40" } do
                local srv = kit.fake(function(c)
                    tls.record(c)
                    c:send(junk)
                end)
                m = kit.connect(srv.port)
                kit.show(#junk .. " bytes", m:sslhandshake(nil, "memcached.test"))
                kit.show("close", m:close())
                srv:close()
            end
        }
    }
--- request
GET /t
--- response_body
memcached: nil, "handshake failed"
close: nil, "closed"
7 bytes: nil, "handshake failed"
close: nil, "closed"
100 bytes: nil, "handshake failed"
close: nil, "closed"
10 bytes: nil, "handshake failed"
close: nil, "closed"
7 bytes: nil, "handshake failed"
close: nil, "closed"
--- error_log
SSL_do_handshake() failed (SSL:



=== TEST 7: plain text to a server that speaks TLS
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.connect(tls.port)
            local _, _, err = m:get("k")
            kit.show("get", err == "closed" or err == "connection reset by peer" or err)
            kit.show("set_keepalive", m:set_keepalive())
            m = tls.connect()
            kit.show("in step, on TLS", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
get: true
set_keepalive: nil, "closed"
in step, on TLS: "yes"
--- no_error_log
[alert]
