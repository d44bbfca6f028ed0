use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# What objects hold of native code goes from a closed one to the next.

our $HttpConfig = TestEnv::head();

run_tests();

__DATA__

=== TEST 1: an object with the handle of a closed one is closed when it is collected
--- private: a connection closes with its object
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local closed = {}
            for i = 1, 20 do
                closed[i] = kit.connect(nil, { pool = "p" })
            end
            for i = 1, 20 do
                if i % 2 == 0 then closed[i]:close() else closed[i]:set_keepalive() end
            end
            ngx.sleep(0.05)
            local before = kit.stat("curr_connections")
            local open = {}
            for i = 1, 30 do open[i] = kit.connect(nil, { pool = "q" .. i }) end
            collectgarbage()
            collectgarbage()
            for i = 1, 30 do assert(kit.in_step(open[i]) == "yes") end
            kit.show("open", kit.eventually(function()
                return kit.stat("curr_connections") >= before + 28
            end))
            open = nil
            collectgarbage()
            collectgarbage()
            kit.show("collected", kit.eventually(function()
                return kit.stat("curr_connections") <= before
            end))
            for i = 1, 20 do
                local v, flags, err = closed[i]:get("k")
                assert(err == "closed", err)
            end
            kit.show("again", closed[1]:connect("127.0.0.1", kit.port), kit.in_step(closed[1]))
        }
    }
--- request
GET /t
--- response_body
open: true
collected: true
again: 1, "yes"
--- no_error_log
[alert]



=== TEST 2: what a closed object has left finds nothing
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            for _, how in ipairs{ "close", "set_keepalive" } do
                local a = kit.fresh()
                local copy = setmetatable({}, getmetatable(a.sock))
                for i, v in pairs(a.sock) do copy[i] = v end
                a[how](a)
                local b = kit.fresh()
                b:set("k", how)
                a.sock = copy
                kit.show("get", a:get("k"))
                kit.show("set_keepalive", a:set_keepalive())
                kit.show("close", a:close())
                kit.show("get_reused_times", a:get_reused_times())
                kit.show("set_timeout", a:set_timeout(100))
                copy, a = nil, nil
                collectgarbage()
                collectgarbage()
                kit.show("the other", b:get("k"))
                kit.show("in step", kit.in_step(b), b:close())
            end
        }
    }
--- request
GET /t
--- response_body
get: nil, nil, "closed"
set_keepalive: nil, "closed"
close: nil, "closed"
get_reused_times: nil, "closed"
set_timeout: 1
the other: "close", "0"
in step: "yes", 1
get: nil, nil, "closed"
set_keepalive: nil, "closed"
close: nil, "closed"
get_reused_times: nil, "closed"
set_timeout: 1
the other: "set_keepalive", "0"
in step: "yes", 1
--- no_error_log
[alert]



=== TEST 3: an object is not collected while its command waits
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local says = {
                set = "STORED", cas = "STORED", get = "VALUE k 0 1\r\nx\r\nEND", gets = "VALUE k 0 1 7\r\nx\r\nEND",
                delete = "DELETED", incr = "8", decr = "6", touch = "TOUCHED", flush_all = "OK",
                stats = "STAT a b\r\nEND", version = "VERSION 1", verbosity = "OK", raw = "line",
            }
            local srv = kit.fake(function(c)
                while true do
                    local line = c:line()
                    if not line then return end
                    local reply = says[line:match("^[%a_]+")]
                    if reply then
                        ngx.sleep(0.01)
                        c:send(reply .. "\r\n")
                    end
                end
            end)
            -- What f does is all that refers to the object while it waits: each call is a tail call.
            local function show(name, f)
                local thread = ngx.thread.spawn(function() return f(kit.connect(srv.port)) end)
                ngx.sleep(0.005)
                collectgarbage()
                collectgarbage()
                kit.show(name, kit.trim(select(2, ngx.thread.wait(thread))))
            end
            local function call(name, ...)
                local args = { ... }
                show(name, function(m) return m[name](m, unpack(args)) end)
            end
            call("get", "k")
            call("get", { "k" })
            call("gets", "k")
            call("gets", { "k" })
            call("set", "k", "1")
            call("cas", "k", "1", 7)
            call("delete", "k")
            call("incr", "k", 1)
            call("decr", "k", 1)
            call("touch", "k", 1)
            call("flush_all")
            call("stats")
            call("version")
            call("verbosity", 1)
            show("transformed", function(m)
                m.unescape_key = function(key) return key .. "!" end
                return m:get({ "k" })
            end)
            show("pipeline", function(m)
                m:init_pipeline()
                m:get("k")
                m:incr("k", 1)
                return m:commit_pipeline()
            end)
            show("receive", function(m)
                m.sock:send("raw\r\n")
                return m.sock:receive()
            end)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
get: "x", "0"
get: {k={"x", "0"}}
gets: "x", "0", "7"
gets: {k={"x", "0", "7"}}
set: 1
cas: 1
delete: 1
incr: "8"
decr: "6"
touch: 1
flush_all: 1
stats: {"STAT a b"}
version: "1"
verbosity: 1
transformed: {["k!"]={"x", "0"}}
pipeline: {{"x", "0"}, {"8"}}
receive: "line"
--- no_error_log
[alert]



=== TEST 4: a closed object belongs to no request, a connected one does
--- http_config eval: $::HttpConfig
--- config
    location = /other {
        content_by_lua_block {
            local m = kit.shared_object
            ngx.print(kit.raises(m.connect, m, "127.0.0.1", kit.port), ", ", kit.raises(m.close, m))
        }
    }
    location = /t {
        content_by_lua_block {
            local sock = function()
                local s = ngx.socket.tcp()
                assert(s:connect("127.0.0.1", ngx.var.server_port))
                s:send("GET /other HTTP/1.0\r\n\r\n")
                local answer = s:receive("*a")
                s:close()
                return answer:match("\r\n\r\n(.*)")
            end
            local m = kit.connect()
            kit.shared_object = m
            kit.show("connected", sock())
            m:close()
            kit.show("closed", sock())
            assert(m:connect("127.0.0.1", kit.port))
            m:set_keepalive()
            kit.show("kept alive", sock())
            kit.show("connects again", m:connect("127.0.0.1", kit.port), kit.in_step(m), m:close())
        }
    }
--- request
GET /t
--- response_body
connected: "raised a string, raised a string"
closed: "returned 1, returned 1"
kept alive: "returned 1, returned 1"
connects again: 1, "yes", 1
--- no_error_log
[alert]
