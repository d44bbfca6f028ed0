use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# How many operations may wait, and who waits for room.

our $HttpConfig = TestEnv::head( multiplex => 2 );

run_tests();

__DATA__

=== TEST 1: more operations than may wait
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1 max_operations=5;
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            local memcs = {}
            for i = 1, 8 do memcs[i] = kit.connect(srv.port) end
            srv.held = true
            local threads = {}
            for i = 1, 5 do threads[i] = ngx.thread.spawn(function() return (memcs[i]:get("k" .. i)) end) end
            kit.show("in the same turn", memcs[6]:get("k6"))
            ngx.sleep(0.01)
            kit.show("get", memcs[6]:get("k6"))
            kit.show("set", memcs[6]:set("k6", "v"))
            kit.show("multi-get", memcs[7]:get{ "k7", "k8" })
            kit.show("gets", memcs[7]:gets("k7"))
            kit.show("incr", memcs[7]:incr("k7", 1))
            kit.show("version", memcs[7]:version())
            memcs[8]:init_pipeline()
            memcs[8]:get("k8")
            kit.show("commit", memcs[8]:commit_pipeline())
            srv.held = false
            for i = 1, 5 do kit.show("one that waited", ngx.thread.wait(threads[i])) end
            kit.show("there is room again", memcs[6]:get("k6"))
            kit.show("and", memcs[7]:get("k7"))
            kit.show("lines", mux.lines(srv))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
in the same turn: nil, nil, "too many waiting operations"
get: nil, nil, "too many waiting operations"
set: nil, "too many waiting operations"
multi-get: nil, "too many waiting operations"
gets: nil, nil, nil, "too many waiting operations"
incr: nil, "too many waiting operations"
version: nil, "too many waiting operations"
commit: nil, "too many waiting operations"
one that waited: true, "k1"
one that waited: true, "k2"
one that waited: true, "k3"
one that waited: true, "k4"
one that waited: true, "k5"
there is room again: "k6", "0"
and: "k7", "0"
lines: {"get k1", "get k2", "get k3", "get k4", "get k5", "get k6", "get k7"}
--- no_error_log
[alert]



=== TEST 2: backlog: so many wait for room
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1 max_operations=2;
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            local memcs = {}
            for i = 1, 6 do memcs[i] = kit.connect(srv.port, { backlog = 2 }) end
            srv.held = true
            local threads = {}
            for i = 1, 4 do threads[i] = ngx.thread.spawn(function() return (memcs[i]:get("k" .. i)) end) end
            ngx.sleep(0.01)
            kit.show("sent", mux.lines(srv))
            kit.show("beyond it", memcs[5]:get("k5"))
            kit.show("beyond it", memcs[6]:get("k6"))
            kit.show("without it", kit.connect(srv.port):get("k7"))
            kit.show("with more of it", kit.connect(srv.port, { backlog = 3 }) ~= nil)
            srv.held = false
            for i = 1, 4 do kit.show("one that waited", ngx.thread.wait(threads[i])) end
            kit.show("there is room again", memcs[5]:get("k5"))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
sent: {"get k1"}
beyond it: nil, nil, "too many waiting operations"
beyond it: nil, nil, "too many waiting operations"
without it: nil, nil, "too many waiting operations"
with more of it: true
one that waited: true, "k1"
one that waited: true, "k2"
one that waited: true, "k3"
one that waited: true, "k4"
there is room again: "k5", "0"
--- no_error_log
[alert]



=== TEST 3: one that waits for room: timeout, kill, the end of its request
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1 max_operations=1;
    location = /exit {
        content_by_lua_block {
            local m = kit.connect(tonumber(ngx.var.arg_port), { backlog = 5 })
            ngx.thread.spawn(function() m:get("exit") end)
            ngx.sleep(0.01)
            ngx.exit(403)
        }
    }
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            local memcs = {}
            for i = 1, 5 do memcs[i] = kit.connect(srv.port, { backlog = 5 }) end
            srv.held = true
            local first = ngx.thread.spawn(function() return (memcs[1]:get("k1")) end)
            ngx.sleep(0.01)
            memcs[2]:set_timeout(50)
            local ms, _, _, err = kit.timed(memcs[2].get, memcs[2], "k2")
            kit.show("timeout", err, ms > 45 and ms < 1000)
            kit.show("and then", memcs[2]:get("k"))
            local t = ngx.thread.spawn(function() return memcs[3]:get("k3") end)
            ngx.sleep(0.01)
            ngx.thread.kill(t)
            kit.show("the killed one's object", memcs[3]:get("k"))
            kit.http($TEST_NGINX_SERVER_PORT, "/exit?port=" .. srv.port)
            local last = ngx.thread.spawn(function() return (memcs[4]:get("k4")) end)
            ngx.sleep(0.01)
            srv.held = false
            kit.show("first", ngx.thread.wait(first))
            kit.show("last", ngx.thread.wait(last))
            kit.show("lines", mux.lines(srv))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
timeout: "timeout", true
and then: nil, nil, "closed"
the killed one's object: nil, nil, "closed"
first: true, "k1"
last: true, "k4"
lines: {"get k1", "get k4"}
--- no_error_log
[alert]



=== TEST 4: more bytes than may wait to be sent
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1 max_size=64k;
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c)
                while not c.server.go and not c.server.stopped do ngx.sleep(0.002) end
                while true do
                    local line = c:line()
                    if not line then return end
                    local size = tonumber(line:match("^set %S+ 0 0 (%d+)$"))
                    if size then
                        local till = c.total - #c.input + size + 2
                        while c.total < till and c:fill() do c.input = "" end
                    end
                    c:send(size and "STORED\r\n" or mux.reply(line, c))
                end
            end)
            local memcs = {}
            for i = 1, 3 do memcs[i] = kit.connect(srv.port) end
            -- more than the socket takes
            local value = ("v"):rep(30000000)
            local t = ngx.thread.spawn(function() return memcs[1]:set("big", value) end)
            ngx.sleep(0.02)
            kit.show("set", memcs[2]:set("k", "v"))
            kit.show("get", memcs[2]:get("k"))
            srv.go = true
            kit.show("the large one", ngx.thread.wait(t))
            kit.show("there is room again", memcs[2]:get("k"))
            kit.show("one may have any size", memcs[3]:set("big", value:sub(1, 1000000)))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
set: nil, "too many waiting operations"
get: nil, nil, "too many waiting operations"
the large one: true, 1
there is room again: "k", "0"
one may have any size: 1
--- no_error_log
[alert]
--- timeout: 10



=== TEST 5: the bounds are those of one server
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1 max_operations=1;
    location = /t {
        content_by_lua_block {
            local srv, other = mux.server(), mux.server()
            local m, n, o = kit.connect(srv.port), kit.connect(srv.port), kit.connect(other.port)
            srv.held = true
            local t = ngx.thread.spawn(function() return (m:get("k")) end)
            ngx.sleep(0.01)
            kit.show("this one", n:get("k"))
            kit.show("another", o:get("k"))
            srv.held = false
            kit.show("first", ngx.thread.wait(t))
            srv:close()
            other:close()
        }
    }
--- request
GET /t
--- response_body
this one: nil, nil, "too many waiting operations"
another: "k", "0"
first: true, "k"
--- no_error_log
[alert]



=== TEST 6: gets that are answered together are waited for no more
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        lua_memcached_multiplex 1 max_operations=8;
        content_by_lua_block {
            local m = kit.fresh()
            assert(m:set("hot", "v"))
            local memcs = {}
            for i = 1, 4 do memcs[i] = kit.connect() end
            local right = 0
            for _ = 1, 20 do
                local r = mux.at_once(4, function(i) return memcs[i]:get("hot") end)
                right = right + mux.count(r, "v")
            end
            kit.show("right", right)
        }
    }
--- request
GET /t
--- response_body
right: 80
--- no_error_log
[error]
