use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head();

run_tests();

__DATA__

=== TEST 1: two light threads on one object: busy reading
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c)
                c:line()
                ngx.sleep(0.08)
                c:send("VALUE k 0 5\r\nfirst\r\nEND\r\n")
            end)
            local m = kit.connect(srv.port)
            local t = ngx.thread.spawn(function() return m:get("k") end)
            ngx.sleep(0.01)
            kit.show("get", m:get("k2"))
            kit.show("get {}", m:get({ "k2" }))
            kit.show("gets", m:gets("k2"))
            kit.show("set", m:set("k2", "v"))
            kit.show("cas", m:cas("k2", "v", 1))
            kit.show("incr", m:incr("k2", 1))
            kit.show("delete", m:delete("k2"))
            kit.show("version", m:version())
            kit.show("stats", m:stats())
            kit.show("set_keepalive", m:set_keepalive())
            kit.show("close", m:close())
            kit.show("connect", m:connect("127.0.0.1", kit.port))
            kit.show("sock receive", m.sock:receive())
            kit.show("get_reused_times", m:get_reused_times())
            kit.show("set_timeout", m:set_timeout(1000))
            kit.show("the first", ngx.thread.wait(t))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
get: nil, nil, "socket busy reading"
get {}: nil, "socket busy reading"
gets: nil, nil, nil, "socket busy reading"
set: nil, "socket busy reading"
cas: nil, "socket busy reading"
incr: nil, "socket busy reading"
delete: nil, "socket busy reading"
version: nil, "socket busy reading"
stats: nil, "socket busy reading"
set_keepalive: nil, "socket busy reading"
close: nil, "socket busy reading"
connect: nil, "socket busy reading"
sock receive: nil, "socket busy reading"
get_reused_times: 0
set_timeout: 1
the first: true, "first", "0"
--- no_error_log
[error]



=== TEST 2: busy writing
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.listen()
            local m = kit.connect(srv.port)
            m:set_timeouts(1000, 150, 1000)
            local big = string.rep("x", 16 * 1024 * 1024)
            local t = ngx.thread.spawn(function() return m:set("k", big) end)
            ngx.sleep(0.02)
            kit.show("get", m:get("k2"))
            kit.show("set", m:set("k2", "v"))
            kit.show("set_keepalive", m:set_keepalive())
            kit.show("close", m:close())
            kit.show("connect", m:connect("127.0.0.1", kit.port))
            kit.show("sock send", m.sock:send("x"))
            kit.show("the first", ngx.thread.wait(t))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
get: nil, nil, "socket busy writing"
set: nil, "socket busy writing"
set_keepalive: nil, "socket busy writing"
close: nil, "socket busy writing"
connect: nil, "socket busy writing"
sock send: nil, "socket busy writing"
the first: true, nil, "timeout"
--- error_log
lua tcp socket write timed out



=== TEST 3: busy connecting
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.listen{ backlog = 0 }
            for _ = 1, 4 do srv:knock() end
            local m = kit.new()
            m:set_timeout(100)
            local t = ngx.thread.spawn(function() return m:connect("127.0.0.1", srv.port) end)
            kit.show("get", m:get("k2"))
            kit.show("get {}", m:get({ "k2" }))
            kit.show("set", m:set("k2", "v"))
            kit.show("set_keepalive", m:set_keepalive())
            kit.show("close", m:close())
            kit.show("connect", m:connect("127.0.0.1", kit.port))
            kit.show("sock receive", m.sock:receive())
            kit.show("get_reused_times", m:get_reused_times())
            kit.show("the first", ngx.thread.wait(t))
            kit.show("connect", m:connect("127.0.0.1", kit.port))
            kit.show("in step", kit.in_step(m))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
get: nil, nil, "socket busy connecting"
get {}: nil, "socket busy connecting"
set: nil, "socket busy connecting"
set_keepalive: nil, "socket busy connecting"
close: nil, "socket busy connecting"
connect: nil, "socket busy connecting"
sock receive: nil, "socket busy connecting"
get_reused_times: 0
the first: true, nil, "timeout"
connect: 1
in step: "yes"
--- error_log
lua tcp socket connect timed out



=== TEST 4: a light thread killed while it waits
--- private: a connection closes with its thread
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local closed
            local srv = kit.fake(function(c)
                while c:line() do end
                closed = true
            end)
            local m = kit.connect(srv.port)
            local t = ngx.thread.spawn(function() return m:get("k") end)
            ngx.sleep(0.01)
            kit.show("kill", ngx.thread.kill(t))
            kit.show("closed", kit.eventually(function() return closed end, 0.2))
            kit.show("get", m:get("k"))
            kit.show("set_keepalive", m:set_keepalive())
            m = kit.connect()
            kit.show("another object in step", kit.in_step(m))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
kill: 1
closed: true
get: nil, nil, "closed"
set_keepalive: nil, "closed"
another object in step: "yes"
--- no_error_log
[alert]



=== TEST 5: coroutines of the user
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            for i = 1, 5 do m:set("k" .. i, i) end
            local next_value = coroutine.wrap(function()
                for i = 1, 5 do coroutine.yield((m:get("k" .. i))) end
            end)
            kit.show("wrap", next_value(), next_value(), next_value(), next_value(), next_value())
            local co = coroutine.create(function(a)
                local v = m:get(a)
                local b = coroutine.yield(v)
                return (m:incr(b, 10))
            end)
            kit.show("resume", coroutine.resume(co, "k1"))
            kit.show("resume", coroutine.resume(co, "k2"))
            kit.show("nested", coroutine.wrap(function()
                return coroutine.wrap(function() return m:get("k3") end)()
            end)())
            kit.show("pcall", pcall(m.get, m, "k4"))
            kit.show("xpcall", xpcall(function() return m:get("k5") end, debug.traceback))
            kit.show("tostring via metamethod", tostring(setmetatable({}, {
                __index = function(_, k) return (m:get(k)) end }).k3))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
wrap: "1", "2", "3", "4", "5"
resume: true, "1"
resume: true, "12"
nested: "3", "0"
pcall: true, "4", "0"
xpcall: true, "5", "0"
tostring via metamethod: "3"
in step: "yes"
--- no_error_log
[error]



=== TEST 6: where nothing can yield
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            m:set("k", "v")
            local ok, err = pcall(table.sort, { 3, 1, 2 }, function(a, b)
                m:get("k")
                return a < b
            end)
            kit.show("in table.sort", ok, tostring(err):match("attempt to yield across C%-call boundary"))
        }
    }
--- request
GET /t
--- response_body
in table.sort: false, "attempt to yield across C-call boundary"
--- no_error_log
[alert]



=== TEST 7: many light threads, an object each
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local function work(i)
                local wrong = 0
                for n = 1, 20 do
                    local m = kit.connect(nil, { pool = "many" })
                    local key = "t" .. i .. "n" .. n
                    m:set(key, key .. string.rep("x", i * n))
                    if m:get(key) ~= key .. string.rep("x", i * n) then wrong = wrong + 1 end
                    m:set_keepalive(nil, 10)
                end
                return wrong
            end
            local threads, wrong = {}, 0
            for i = 1, 32 do threads[i] = ngx.thread.spawn(work, i) end
            for i = 1, 32 do
                local ok, n = ngx.thread.wait(threads[i])
                wrong = wrong + (ok and n or 1000)
            end
            kit.show("wrong", wrong)
        }
    }
--- request
GET /t
--- response_body
wrong: 0
--- no_error_log
[error]



=== TEST 8: waiting for whichever light thread is first, with a timeout
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c) ngx.sleep(1) end)
            local slow, fast = kit.connect(srv.port), kit.connect()
            slow:set_timeout(5000)
            fast:set("k", "v")
            local function get(m) return m:get("k") end
            local function timer() ngx.sleep(0.03) return "late" end
            local a, b = ngx.thread.spawn(get, slow), ngx.thread.spawn(get, fast)
            kit.show("first", select(2, ngx.thread.wait(a, b)))
            kit.show("timeout", select(2, ngx.thread.wait(a, ngx.thread.spawn(timer))))
            kit.show("kill", ngx.thread.kill(a))
            slow:close()
            kit.show("in step", kit.in_step(fast))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
first: "v", "0"
timeout: "late"
kill: 1
in step: "yes"
--- no_error_log
[error]
