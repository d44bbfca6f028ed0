use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# Gets of one key that are waiting to be sent are sent once, and nobody reads the past.

our $HttpConfig = TestEnv::head( multiplex => 2 );

run_tests();

__DATA__

=== TEST 1: the same get of many light threads is sent once
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            local memcs = {}
            for i = 1, 30 do memcs[i] = kit.connect(srv.port) end
            local r = mux.at_once(30, function(i) return memcs[i]:get("hot") end)
            kit.show("all", mux.count(r, "hot"), mux.lines(srv))
            r = mux.at_once(30, function(i) return memcs[i]:get("hot") end)
            kit.show("once more", mux.count(r, "hot"), mux.lines(srv))
            r = mux.at_once(30, function(i) return memcs[i]:get(i % 2 == 0 and "even" or "odd") end)
            kit.show("two", mux.count(r, "even"), mux.count(r, "odd"), mux.lines(srv))
            -- one value, but none of Lua's strings is another's to change
            r = mux.at_once(4, function(i) return { memcs[i]:get("hot") } end)
            kit.show("flags too", r[1][1], r[4][1])
            srv:close()

            local m = kit.fresh()
            m:set("hot", "v", 0, 7)
            local before = kit.stat("cmd_get")
            for i = 1, 30 do memcs[i]:connect("127.0.0.1", kit.port) end
            r = mux.at_once(30, function(i) return memcs[i]:get("hot") end)
            kit.show("the real server", mux.count(r, "v"), kit.stat("cmd_get") - before)
            r = mux.at_once(30, function(i) return memcs[i]:get("miss") end)
            kit.show("a miss", mux.count(r, function(_, v, f, e) return v == nil and f == nil and e == nil end))
        }
    }
--- request
GET /t
--- response_body
all: 30, {"get hot"}
once more: 30, {"get hot"}
two: 15, 15, {"get odd", "get even"}
flags too: {"hot", "0"}, {"hot", "0"}
the real server: 30, 1
a miss: 30
--- no_error_log
[error]



=== TEST 2: what is no single get is sent each time
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = mux.server(function(line)
                if line == "gets k" then return "VALUE k 0 1 5\r\nk\r\nEND\r\n" end
            end)
            local memcs = {}
            for i = 1, 3 do memcs[i] = kit.connect(srv.port) end
            local r = mux.at_once(3, function(i) return memcs[i][i == 2 and "gets" or "get"](memcs[i], "k") end)
            kit.show("gets", r[1][3], r[2][3], r[3][3], mux.lines(srv))
            mux.at_once(3, function(i) return memcs[i]:get{ "k", "l" } end)
            kit.show("several keys", mux.lines(srv))
            mux.at_once(3, function(i) return memcs[i]:set("k", "v") end)
            kit.show("set", mux.lines(srv))
            mux.at_once(3, function(i) return memcs[i]:version() end)
            kit.show("version", mux.lines(srv))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
gets: nil, "5", nil, {"get k", "gets k"}
several keys: {"get k l", "get k l", "get k l"}
set: {"set k 0 0 1", "set k 0 0 1", "set k 0 0 1"}
version: {"version", "version", "version"}
--- no_error_log
[error]



=== TEST 3: a get that was sent is no one else's
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            local value = "old"
            local srv = mux.server(function(line)
                if line == "get k" then return "VALUE k 0 3\r\n" .. value .. "\r\nEND\r\n" end
            end)
            local a, b = kit.connect(srv.port), kit.connect(srv.port)
            a:version()
            srv.held = true
            local t = ngx.thread.spawn(function() return (a:get("k")) end)
            ngx.sleep(0.02)
            -- the first was answered with "old", in a reply that is on its way
            value = "new"
            local u = ngx.thread.spawn(function() return (b:get("k")) end)
            ngx.sleep(0.01)
            srv.held = false
            kit.show("first", ngx.thread.wait(t))
            kit.show("second", ngx.thread.wait(u))
            kit.show("lines", mux.lines(srv))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
first: true, "old"
second: true, "new"
lines: {"version", "get k", "get k"}
--- no_error_log
[error]



=== TEST 4: nobody reads a value older than a write of his that is complete
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            kit.fresh()
            local done, stale, reads = 0, 0, 0
            local function write()
                local m = kit.connect()
                for n = 1, 400 do
                    assert(m:set("counter", n))
                    done = n
                    local v = tonumber((m:get("counter")))
                    if v ~= n then stale = stale + 1 end
                end
                done = nil
            end
            local function read()
                local m = kit.connect()
                while done do
                    local least = done
                    local v = tonumber((m:get("counter"))) or 0
                    if v < least then stale = stale + 1 end
                    reads = reads + 1
                end
            end
            mux.at_once(20, function(i) return (i == 1 and write or read)() end)
            kit.show("stale", stale, reads > 400)
        }
    }
--- request
GET /t
--- response_body
stale: 0, true
--- no_error_log
[error]
--- timeout: 10



=== TEST 5: the one whose get was sent is killed, or timed out
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            local memcs = {}
            for i = 1, 4 do memcs[i] = kit.connect(srv.port) end
            local function ask(i) return (memcs[i]:get("hot")) end
            local function outcome(kill)
                local threads = {}
                for i = 1, 4 do threads[i] = ngx.thread.spawn(ask, i) end
                if not kill then ngx.sleep(0.02) end
                if kill ~= false then ngx.thread.kill(threads[1]) end
                ngx.sleep(0.05)
                srv.held = false
                local right = 0
                for i = 2, 4 do
                    if select(2, ngx.thread.wait(threads[i])) == "hot" then right = right + 1 end
                end
                kit.show("others", right, mux.lines(srv))
                memcs[1]:connect("127.0.0.1", srv.port)
            end
            outcome(true)
            srv.held = true
            outcome()
            srv.held = true
            memcs[1]:set_timeout(30)
            outcome(false)
            kit.show("connections", srv.accepted)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
others: 3, {"get hot"}
others: 3, {"get hot"}
others: 3, {"get hot"}
connections: 1
--- no_error_log
[alert]



=== TEST 6: an error is everybody's
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            for _, reply in ipairs{ "SERVER_ERROR out of memory\r\n", "VALUE evil 0 1\r\nx\r\nEND\r\n" } do
                local srv = mux.server(function(line) if line == "get hot" then return reply end end)
                local memcs = {}
                for i = 1, 3 do memcs[i] = kit.connect(srv.port) end
                local r = mux.at_once(3, function(i) return memcs[i]:get("hot") end)
                kit.show("values", r[1][1], r[2][1], r[3][1])
                kit.show("errors", r[1][3] ~= nil, r[2][3] ~= nil, r[3][3] ~= nil, #mux.lines(srv))
                srv:close()
            end
        }
    }
--- request
GET /t
--- response_body
values: nil, nil, nil
errors: true, true, true, 1
values: nil, nil, nil
errors: true, true, true, 1
--- no_error_log
[alert]



=== TEST 7: the one whose get was sent timed out, and others still wait for it
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            local srv = mux.server(function(line) if line == "get slow" then ngx.sleep(0.3) end end)
            local first, second, third = kit.connect(srv.port), kit.connect(srv.port), kit.connect(srv.port)
            first:set_timeout(50)
            local gave_up = ngx.thread.spawn(function() return first:get("slow") end)
            local waits = ngx.thread.spawn(function() return second:get("slow") end)
            local _, value, _, err = ngx.thread.wait(gave_up)
            kit.show("the first", value, err)
            -- the reply is not overdue: no other connection takes the place of this one
            kit.show("a third", third:get("v"))
            kit.show("the second", select(2, ngx.thread.wait(waits)))
            kit.show("one connection", srv.accepted, mux.lines(srv))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
the first: nil, "timeout"
a third: "v", "0"
the second: "slow", "0"
one connection: 1, {"get slow", "get v"}
--- no_error_log
[alert]
