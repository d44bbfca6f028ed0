use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# How long shared connections stay that nobody uses and nobody asked for to be kept.

our $HttpConfig = TestEnv::head(
    multiplex => 2,
    init      => q{
        -- Whether all connections are gone within 0.6 s.
        function kit.gone(srv)
            return kit.eventually(function() return mux.open(srv) == 0 end, 0.6)
        end
    },
);

run_tests();

__DATA__

=== TEST 1: objects that are closed, collected or left to the request's end leave no connection
--- http_config eval: $::HttpConfig
--- config
    location = /left {
        content_by_lua_block {
            ngx.print((kit.connect(tonumber(ngx.var.arg_port)):get("left")))
        }
    }
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            local m = kit.connect(srv.port)
            kit.show("v", m:get("v"))
            kit.show("close", m:close())
            kit.show("it may be used again for a moment", mux.open(srv))
            kit.show("gone", kit.gone(srv))

            m = kit.connect(srv.port)
            kit.show("a new one", m:get("w"), m:get_reused_times(), srv.accepted)
            m = nil
            collectgarbage() collectgarbage()
            kit.show("gone", kit.gone(srv))

            local sock = ngx.socket.tcp()
            assert(sock:connect("127.0.0.1", ngx.var.server_port))
            sock:send("GET /left?port=" .. srv.port .. " HTTP/1.0\r\n\r\n")
            kit.show("the request ends", sock:receive("*a"):sub(-4))
            kit.show("gone", kit.gone(srv))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
v: "v", "0"
close: 1
it may be used again for a moment: 1
gone: true
a new one: "w", 0, 2
gone: true
the request ends: "left"
gone: true
--- no_error_log
[error]



=== TEST 2: once an object was kept alive, the time that was asked for counts
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            local a, b = kit.connect(srv.port), kit.connect(srv.port)
            kit.show("a", a:get("a"), a:set_keepalive())
            kit.show("b", b:get("b"), b:close())
            ngx.sleep(0.6)
            kit.show("stays", mux.open(srv))
            a = kit.connect(srv.port)
            kit.show("the same", a:get("a"), srv.accepted)
            kit.show("less", a:set_keepalive(50), kit.gone(srv))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
a: "a", 1
b: "b", 1
stays: 1
the same: "a", 1
less: 1, true
--- no_error_log
[error]



=== TEST 3: lua_socket_keepalive_timeout, if that is shorter, and not if it is for ever
--- http_config eval: $::HttpConfig
--- config
    location = /short {
        lua_socket_keepalive_timeout 50ms;
        content_by_lua_block {
            local srv = mux.server()
            local m = kit.connect(srv.port)
            kit.show("v", m:get("v"), m:close())
            ngx.sleep(0.2)
            kit.show("open", mux.open(srv))
            srv:close()
        }
    }
    location = /ever {
        lua_socket_keepalive_timeout 0;
        content_by_lua_block {
            local srv = mux.server()
            local m = kit.connect(srv.port)
            kit.show("v", m:get("v"), m:close())
            kit.show("gone", kit.gone(srv))
            srv:close()
        }
    }
    location = /t {
        content_by_lua_block {
            ngx.print(ngx.location.capture("/short").body)
            ngx.print(ngx.location.capture("/ever").body)
        }
    }
--- request
GET /t
--- response_body
v: "v", 1
open: 0
v: "v", 1
gone: true
--- no_error_log
[error]



=== TEST 4: while an object uses them, they stay
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            local a, b = kit.connect(srv.port), kit.connect(srv.port)
            kit.show("a", a:get("a"), a:close())
            ngx.sleep(0.5)
            kit.show("b", b:get("b"), srv.accepted, mux.open(srv))
            kit.show("close", b:close())
            -- somebody comes in time
            ngx.sleep(0.1)
            a = kit.connect(srv.port)
            ngx.sleep(0.5)
            kit.show("again", a:get("a"), srv.accepted, a:close())
            kit.show("gone", kit.gone(srv))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
a: "a", 1
b: "b", 1, 1
close: 1
again: "a", 1, 1
gone: true
--- no_error_log
[error]



=== TEST 5: replies that come when nobody waits any more, and operations that fail
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = mux.server(function(line)
                if line == "get late" then ngx.sleep(0.1) end
                if line == "get bad" then return "nonsense\r\nnonsense\r\n" end
            end)
            -- two connections: one waits for a late reply, the other has a bad one
            local memcs = {}
            for i = 1, 4 do memcs[i] = kit.connect(srv.port) end
            memcs[1]:set_timeout(50)
            local late = ngx.thread.spawn(function() return memcs[1]:get("late") end)
            ngx.sleep(0.01)
            kit.show("another", memcs[2]:get("v"))
            kit.show("late", select(2, ngx.thread.wait(late)))
            kit.show("bad", (memcs[3]:get("bad")))
            kit.show("close", memcs[2]:close(), memcs[4]:close())
            kit.show("gone", kit.gone(srv))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
another: "v", "0"
late: nil, nil, "timeout"
bad: nil
close: 1, 1
gone: true
--- no_error_log
[alert]



=== TEST 6: what was never sent has no reply that the connection could wait for
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            local a, b = kit.connect(srv.port), kit.connect(srv.port)
            kit.show("a", a:get("a"), a:set_keepalive(100))
            b:set_timeout(20000)
            ngx.thread.kill(ngx.thread.spawn(b.get, b, "killed"))
            kit.show("gone", kit.gone(srv))
            kit.show("lines", mux.lines(srv))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
a: "a", 1
gone: true
lines: {"get a"}
--- no_error_log
[error]
