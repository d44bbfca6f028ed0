use lib 't/lib';
use FindBin;
use TestEnv;
use Test::Nginx::Socket::Lua;

repeat_each(1);
plan tests => repeat_each() * (3 * blocks());

our $HttpConfig = TestEnv::http_config() . qq{
    init_by_lua_block {
        package.path = "$FindBin::Bin/lib/?.lua;" .. package.path
        kit = require "testkit"
        kit.port = $ENV{TEST_NGINX_MEMCACHED_PORT}
    }
};

no_long_string();
run_tests();

__DATA__

=== TEST 1: used by another request while its owner is active
--- http_config eval: $::HttpConfig
--- config
    location = /other {
        content_by_lua_block {
            local m = kit.shared.m
            for _, call in ipairs{ { "get", "k" }, { "set", "k", "v" }, { "get", { "k" } },
                    { "gets", "k" }, { "delete", "k" }, { "incr", "k", 1 }, { "version" }, { "stats" },
                    { "flush_all" }, { "quit" }, { "cas", "k", "v", 1 }, { "touch", "k", 1 },
                    { "set_keepalive" }, { "close" }, { "get_reused_times" },
                    { "connect", "127.0.0.1", kit.port } } do
                kit.show(call[1], kit.raise_text(m[call[1]], m, unpack(call, 2)))
            end
            kit.show("sock send", kit.raise_text(m.sock.send, m.sock, "x"))
            kit.show("sock receive", kit.raise_text(m.sock.receive, m.sock))
        }
    }
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            kit.shared.m = m
            m:set("k", "mine")
            ngx.say(kit.http($TEST_NGINX_SERVER_PORT, "/other"))
            kit.show("the owner", m:get("k"))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
get: "bad request"
set: "bad request"
get: "bad request"
gets: "bad request"
delete: "bad request"
incr: "bad request"
version: "bad request"
stats: "bad request"
flush_all: "bad request"
quit: "bad request"
cas: "bad request"
touch: "bad request"
set_keepalive: "bad request"
close: "bad request"
get_reused_times: "returned 0"
connect: "bad request"
sock send: "bad request"
sock receive: "bad request"
the owner: "mine", "0"
in step: "yes"
--- no_error_log
[alert]



=== TEST 2: used after its owner ended
--- http_config eval: $::HttpConfig
--- config
    location = /owner {
        content_by_lua_block {
            kit.shared.m = kit.fresh()
            kit.shared.m:set("k", "v")
            ngx.print("left open")
        }
    }
    location = /t {
        content_by_lua_block {
            local function m()
                kit.http($TEST_NGINX_SERVER_PORT, "/owner")
                return kit.shared.m
            end
            kit.show("get", m():get("k"))
            kit.show("set", m():set("k", "v"))
            kit.show("get {}", m():get({ "k" }))
            kit.show("version", m():version())
            kit.show("set_keepalive", m():set_keepalive())
            kit.show("close", m():close())
            kit.show("get_reused_times", m():get_reused_times())
            kit.show("sock receive", m().sock:receive())
        }
    }
--- request
GET /t
--- response_body
get: nil, nil, "closed"
set: nil, "closed"
get {}: nil, "closed"
version: nil, "closed"
set_keepalive: nil, "closed"
close: nil, "closed"
get_reused_times: nil, "closed"
sock receive: nil, "closed"
--- error_log
attempt to send data on a closed socket



=== TEST 3: one object, one request after the other
--- http_config eval: $::HttpConfig
--- config
    location = /made {
        content_by_lua_block { kit.shared.m = kit.new() }
    }
    location = /pooled {
        content_by_lua_block {
            local m = kit.shared.m
            assert(m:connect("127.0.0.1", kit.port, { pool = "one" }))
            kit.show("reused", m:get_reused_times(), kit.in_step(m), m:set_keepalive())
        }
    }
    location = /closed {
        content_by_lua_block {
            local m = kit.shared.m
            assert(m:connect("127.0.0.1", kit.port, { pool = "one" }))
            kit.show("reused", m:get_reused_times(), kit.in_step(m), m:close())
        }
    }
    location = /t {
        content_by_lua_block {
            for _, path in ipairs{ "made", "pooled", "pooled", "closed", "pooled" } do
                ngx.say(path, " ", kit.http($TEST_NGINX_SERVER_PORT, "/" .. path))
            end
        }
    }
--- request
GET /t
--- response_body
made 
pooled reused: 0, "yes", 1
pooled reused: 1, "yes", 1
closed reused: 2, "yes", 1
pooled reused: 0, "yes", 1
--- no_error_log
[error]



=== TEST 4: two light threads on one object: busy reading
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



=== TEST 5: busy writing
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



=== TEST 6: busy connecting
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



=== TEST 7: the end of a request closes what was left open
--- http_config eval: $::HttpConfig
--- config
    location = /leave {
        content_by_lua_block {
            for i = 1, 10 do
                local m = kit.connect(nil, { pool = "left" })
                m:set("k", "v")
                if i > 5 then m.sock:send("get k\r\n") end
                if i > 8 then m:init_pipeline() m:get("k") end
            end
            ngx.print(kit.stat("curr_connections"))
        }
    }
    location = /raise {
        content_by_lua_block {
            local m = kit.connect(nil, { pool = "left" })
            m:set("k", "v")
            error("on purpose")
        }
    }
    location = /exit {
        content_by_lua_block {
            local m = kit.connect(nil, { pool = "left" })
            ngx.thread.spawn(function() ngx.sleep(0.01) ngx.exit(444) end)
            m.sock:receive()
        }
    }
    location = /t {
        content_by_lua_block {
            local before = kit.stat("curr_connections")
            kit.show("while it ran", tonumber(kit.http($TEST_NGINX_SERVER_PORT, "/leave")) - before)
            local function back()
                return kit.eventually(function() return kit.stat("curr_connections") == before end)
            end
            kit.show("all gone", back())
            kit.http($TEST_NGINX_SERVER_PORT, "/raise")
            kit.show("after an error", back())
            kit.http($TEST_NGINX_SERVER_PORT, "/exit")
            kit.show("after ngx.exit in another thread", back())
            kit.show("none pooled", kit.connect(nil, { pool = "left" }):get_reused_times())
        }
    }
--- request
GET /t
--- response_body
while it ran: 10
all gone: true
after an error: true
after ngx.exit in another thread: true
none pooled: 0
--- error_log
on purpose



=== TEST 8: objects that nobody refers to any more
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local before = kit.stat("curr_connections")
            for i = 1, 30 do kit.connect() end
            collectgarbage()
            collectgarbage()
            kit.show("collected", kit.eventually(function()
                return kit.stat("curr_connections") == before
            end))
        }
    }
--- request
GET /t
--- response_body
collected: true
--- no_error_log
[error]



=== TEST 9: a light thread killed while it waits
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



=== TEST 10: the client goes away
--- http_config eval: $::HttpConfig
--- config
    location = /checked {
        lua_check_client_abort on;
        content_by_lua_block {
            local m = kit.connect(kit.shared.port)
            m:get("k")
            kit.shared.went_on = true
        }
    }
    location = /handled {
        lua_check_client_abort on;
        content_by_lua_block {
            ngx.on_abort(function()
                kit.shared.handled = true
                ngx.exit(499)
            end)
            local m = kit.connect(kit.shared.port)
            m:get("k")
            kit.shared.went_on = true
        }
    }
    location = /t {
        content_by_lua_block {
            local closed, opened = 0, 0
            local srv = kit.fake(function(c)
                opened = opened + 1
                while c:line() do end
                closed = closed + 1
            end)
            kit.shared.port = srv.port
            kit.http($TEST_NGINX_SERVER_PORT, "/checked", 0.05)
            kit.show("checked", kit.eventually(function() return closed == 1 end), opened)
            kit.http($TEST_NGINX_SERVER_PORT, "/handled", 0.05)
            kit.show("handled", kit.eventually(function() return closed == 2 end), opened)
            kit.show("state", kit.shared.handled, kit.shared.went_on)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
checked: true, 1
handled: true, 2
state: true, nil
--- no_error_log
[alert]



=== TEST 11: coroutines of the user
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



=== TEST 12: where nothing can yield
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



=== TEST 13: subrequests
--- http_config eval: $::HttpConfig
--- config
    location = /sub {
        internal;
        content_by_lua_block {
            local m = kit.connect(nil, { pool = "sub" })
            kit.show("its own", m:get("k"), m:get_reused_times(), m:set_keepalive())
            kit.show("the parent's", kit.raise_text(kit.shared.m.get, kit.shared.m, "k"))
        }
    }
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            kit.shared.m = m
            m:set("k", "v")
            ngx.print(ngx.location.capture("/sub").body)
            ngx.print(ngx.location.capture("/sub").body)
            local a, b = ngx.location.capture_multi{ { "/sub" }, { "/sub" } }
            kit.show("both", #a.body > 30, #b.body > 30)
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
its own: "v", 0, 1
the parent's: "bad request"
its own: "v", 1, 1
the parent's: "bad request"
both: true, true
in step: "yes"
--- no_error_log
[alert]



=== TEST 14: many light threads, an object each
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



=== TEST 15: a VM for every request
--- http_config eval: $::HttpConfig . "lua_code_cache off;"
--- config
    location = /one {
        content_by_lua_block {
            local m = kit.connect(nil, { pool = "vm" })
            ngx.print(kit.in_step(m), " ", m:get_reused_times(), " ", m:set_keepalive())
        }
    }
    location = /left {
        content_by_lua_block {
            local m = kit.connect(nil, { pool = "vm" })
            m.sock:send("version\r\n")
            ngx.print(kit.in_step(kit.connect()))
        }
    }
    location = /t {
        content_by_lua_block {
            for i = 1, 3 do
                ngx.say((kit.http($TEST_NGINX_SERVER_PORT, "/one"):gsub("%d+", "N", 1)))
                ngx.say(kit.http($TEST_NGINX_SERVER_PORT, "/left"))
            end
            collectgarbage()
            local m = kit.connect(nil, { pool = "own" })
            kit.show("in step", kit.in_step(m), m:set_keepalive())
            kit.show("reused", kit.connect(nil, { pool = "own" }):get_reused_times())
        }
    }
--- request
GET /t
--- response_body
yes N 1
yes
yes N 1
yes
yes N 1
yes
in step: "yes", 1
reused: 1
--- error_log
lua_code_cache is off
