use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head();

run_tests();

__DATA__

=== TEST 1: reuse, and how often
--- private: closed connections are not used again
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            for i = 1, 4 do
                kit.show("connect", m:connect("127.0.0.1", kit.port))
                kit.show("reused", m:get_reused_times())
                kit.show("in step", kit.in_step(m))
                kit.show("set_keepalive", m:set_keepalive())
                kit.show("reused, pooled", m:get_reused_times())
            end
            kit.show("set_keepalive again", m:set_keepalive())
            kit.show("close", m:close())
            kit.show("get", m:get("k"))
            local other = kit.connect()
            kit.show("another object", other:get_reused_times())
            other:close()
            local third = kit.connect()
            kit.show("closed is gone", third:get_reused_times())
            kit.show("arguments", third:set_keepalive(10000, 10))
            kit.show("never connected", kit.new():set_keepalive())
        }
    }
--- request
GET /t
--- response_body
connect: 1
reused: 0
in step: "yes"
set_keepalive: 1
reused, pooled: nil, "closed"
connect: 1
reused: 1
in step: "yes"
set_keepalive: 1
reused, pooled: nil, "closed"
connect: 1
reused: 2
in step: "yes"
set_keepalive: 1
reused, pooled: nil, "closed"
connect: 1
reused: 3
in step: "yes"
set_keepalive: 1
reused, pooled: nil, "closed"
set_keepalive again: nil, "closed"
close: nil, "closed"
get: nil, nil, "closed"
another object: 4
closed is gone: 0
arguments: 1
never connected: nil, "closed"
--- error_log
attempt to send data on a closed socket



=== TEST 2: the last one in is the first one out
--- private: the order in a pool
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c)
                while c:line() do c:send("VERSION " .. c.index .. "\r\n") end
            end)
            local m = {}
            for i = 1, 4 do
                m[i] = kit.connect(srv.port)
                m[i]:version()
            end
            for _, i in ipairs{ 3, 1, 4, 2 } do assert(m[i]:set_keepalive()) end
            for i = 1, 4 do
                m[i] = kit.connect(srv.port)
                kit.show("got", m[i]:version(), m[i]:get_reused_times())
            end
            kit.show("a new one", kit.connect(srv.port):version())
            srv:close()
        }
    }
--- request
GET /t
--- response_body
got: "2", 1
got: "4", 1
got: "1", 1
got: "3", 1
a new one: "5"
--- no_error_log
[error]



=== TEST 3: the pool is full: the least recently used goes
--- private: the size of a pool
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local gone = {}
            local srv = kit.fake(function(c)
                while c:line() do c:send("VERSION " .. c.index .. "\r\n") end
                gone[#gone + 1] = c.index
            end)
            local m = {}
            for i = 1, 4 do
                m[i] = kit.connect(srv.port, { pool = "small", pool_size = 2 })
                m[i]:version()
            end
            for i = 1, 4 do assert(m[i]:set_keepalive()) end
            kit.show("two went", kit.eventually(function() return #gone == 2 end), gone)
            for i = 1, 3 do
                m[i] = kit.connect(srv.port, { pool = "small", pool_size = 2 })
                kit.show("got", m[i]:version(), m[i]:get_reused_times())
            end
            srv:close()
        }
    }
--- request
GET /t
--- response_body
two went: true, {1, 2}
got: "4", 1
got: "3", 1
got: "5", 0
--- no_error_log
[error]



=== TEST 4: pool_size as the second argument of set_keepalive
--- private: the size of a pool
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local gone = 0
            local srv = kit.fake(function(c)
                while c:line() do c:send("VERSION 1\r\n") end
                gone = gone + 1
            end)
            local m = {}
            for i = 1, 3 do m[i] = kit.connect(srv.port) m[i]:version() end
            for i = 1, 3 do kit.show("keep", m[i]:set_keepalive(0, 1)) end
            kit.show("two went", kit.eventually(function() return gone == 2 end))
            ngx.sleep(0.02)
            kit.show("not the third", gone)
            kit.show("reused", kit.connect(srv.port):get_reused_times())
            srv:close()
        }
    }
--- request
GET /t
--- response_body
keep: 1
keep: 1
keep: 1
two went: true
not the third: 2
reused: 1
--- no_error_log
[error]



=== TEST 5: idle timeout: argument, directive, zero
--- private: counts reuse
--- http_config eval: $::HttpConfig
--- config
    lua_socket_keepalive_timeout 100ms;
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c) while c:line() do end end)
            local function try(label, secs, ...)
                local m = kit.connect(srv.port)
                assert(m:set_keepalive(...))
                ngx.sleep(secs)
                m = kit.connect(srv.port)
                kit.show(label, m:get_reused_times())
                m:close()
            end
            try("directive, within", 0.02)
            try("directive, after", 0.16)
            try("nil, after", 0.16, nil)
            try("argument, within", 0.16, 1000)
            try("argument, after", 0.08, 40)
            try("zero: never", 0.16, 0)
            try("string", 0.02, "500")
            try("nil, 5", 0.02, nil, 5)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
directive, within: 1
directive, after: 0
nil, after: 0
argument, within: 1
argument, after: 0
zero: never: 1
string: 1
nil, 5: 1
--- no_error_log
[error]



=== TEST 6: pool size from the directive
--- private: the size of a pool
--- http_config eval: $::HttpConfig
--- config
    lua_socket_pool_size 1;
    location = /t {
        content_by_lua_block {
            local gone = 0
            local srv = kit.fake(function(c)
                while c:line() do end
                gone = gone + 1
            end)
            local a, b = kit.connect(srv.port), kit.connect(srv.port)
            kit.show("both", a:set_keepalive(), b:set_keepalive())
            kit.show("one went", kit.eventually(function() return gone == 1 end))
            a, b = kit.connect(srv.port), kit.connect(srv.port)
            kit.show("reused", a:get_reused_times(), b:get_reused_times())
            srv:close()
        }
    }
--- request
GET /t
--- response_body
both: 1, 1
one went: true
reused: 1, 0
--- no_error_log
[error]



=== TEST 7: pools have names
--- private: a pool serves several addresses
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            local function reused(...)
                assert(m:connect(...))
                local n = m:get_reused_times()
                assert(kit.in_step(m) == "yes")
                m:set_keepalive()
                return n
            end
            local port, sock = kit.port, "unix:$TEST_NGINX_MEMCACHED_SOCK"
            kit.show("host:port", reused("127.0.0.1", port))
            kit.show("host:port", reused("127.0.0.1", port))
            kit.show("port as a string", reused("127.0.0.1", tostring(port)))
            kit.show("nil pool", reused("127.0.0.1", port, { pool = nil }))
            kit.show("pool a", reused("127.0.0.1", port, { pool = "a" }))
            kit.show("pool b", reused("127.0.0.1", port, { pool = "b" }))
            kit.show("pool a", reused("127.0.0.1", port, { pool = "a" }))
            kit.show("named like the default", reused("127.0.0.1", port, { pool = "127.0.0.1:" .. port }))
            kit.show("number", reused("127.0.0.1", port, { pool = 7 }))
            kit.show("number as a string", reused("127.0.0.1", port, { pool = "7" }))
            kit.show("unix", reused(sock))
            kit.show("unix", reused(sock))
            kit.show("unix, named", reused(sock, { pool = "u" }))
            kit.show("one name, another address", reused("127.0.0.1", port, { pool = "u" }))
            kit.show("empty name", reused("127.0.0.1", port, { pool = "" }))
            kit.show("empty name", reused("127.0.0.1", port, { pool = "" }))
        }
    }
--- request
GET /t
--- response_body
host:port: 0
host:port: 1
port as a string: 2
nil pool: 3
pool a: 0
pool b: 0
pool a: 1
named like the default: 4
number: 0
number as a string: 1
unix: 0
unix: 1
unix, named: 0
one name, another address: 1
empty name: 0
empty name: 1
--- no_error_log
[error]



=== TEST 8: the server closes, or says something, while a connection is idle
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c)
                while true do
                    local line = c:line()
                    if not line then return end
                    c:send("VERSION " .. c.index .. "\r\n")
                    c.server.last = c
                end
            end)
            local m = kit.new()
            local function go(label, spoil)
                assert(m:connect("127.0.0.1", srv.port))
                kit.show(label, m:version(), m:get_reused_times())
                m:set_keepalive()
                spoil(srv.last)
                ngx.sleep(0.02)
            end
            go("fine", function() end)
            go("reused", function(c) c:close() end)
            go("after FIN", function(c) c:reset() end)
            go("after RST", function(c) c:send("x") end)
            go("after a stray byte", function(c) c:send("VERSION 99\r\n") end)
            go("after a stray line", function(c) c:send("x") c:close() end)
            go("after both", function(c) c:half_close() end)
            go("after a half close", function() end)
            go("reused", function() end)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
fine: "1", 0
reused: "1", 1
after FIN: "2", 0
after RST: "3", 0
after a stray byte: "4", 0
after a stray line: "5", 0
after both: "6", 0
after a half close: "7", 0
reused: "7", 1
--- no_error_log
[alert]



=== TEST 9: unread data keeps a connection out of the pool
--- private: unread data closes a connection
--- whole: what is unread has to be there already
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            m:set("k", "some value")
            assert(m.sock:send("get k\r\n"))
            kit.show("line", m.sock:receive())
            kit.show("set_keepalive", m:set_keepalive())
            kit.show("rest", m.sock:receive())
            kit.show("END", m.sock:receive())
            kit.show("in step", kit.in_step(m))
            kit.show("set_keepalive", m:set_keepalive())

            m = kit.connect(nil, { pool = "dubious" })
            assert(m.sock:send("version\r\n"))
            ngx.sleep(0.02)
            kit.show("reply waiting unread", m:set_keepalive())
            m:close()
            m = kit.connect(nil, { pool = "dubious" })
            kit.show("reused", m:get_reused_times(), kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
line: "VALUE k 0 10"
set_keepalive: nil, "unread data in buffer"
rest: "some value"
END: "END"
in step: "yes"
set_keepalive: 1
reply waiting unread: nil, "connection in dubious state"
reused: 0, "yes"
--- no_error_log
[alert]



=== TEST 10: arguments of set_keepalive
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local function try(label, ...)
                local m = kit.connect(nil, { pool = label })
                local text = kit.raise_text(m.set_keepalive, m, ...)
                kit.show(label, text:match("^bad argument.-%((.*)%)$") or text)
            end
            try("none")
            try("nil, nil", nil, nil)
            try("timeout", 100)
            try("timeout -1", -1)
            try("timeout true", true)
            try("timeout table", {})
            try("timeout x", "x")
            try("pool_size 0", 100, 0)
            try("pool_size -1", 100, -1)
            try("pool_size x", 100, "x")
            try("pool_size string", 100, "5")
            try("three", 100, 10, 5)
        }
    }
--- request
GET /t
--- response_body
none: "returned 1"
nil, nil: "returned 1"
timeout: "returned 1"
timeout -1: "returned 1"
timeout true: "number expected, got boolean"
timeout table: "number expected, got table"
timeout x: "number expected, got string"
pool_size 0: "bad \"pool_size\" option value: 0"
pool_size -1: "bad \"pool_size\" option value: -1"
pool_size x: "number expected, got string"
pool_size string: "returned 1"
three: "expecting 1 to 3 arguments (including the object), but got 4"
--- no_error_log
[alert]



=== TEST 11: backlog: connects queue for a place
--- private: the queue of a pool
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local opts = { pool = "queue", pool_size = 2, backlog = 2 }
            local a, b = kit.connect(nil, opts), kit.connect(nil, opts)
            local order = {}
            local function wait(name)
                local m = kit.new()
                local ok, err = m:connect("127.0.0.1", kit.port, opts)
                -- which of the two gets the kept connection is not promised
                local line = name .. " " .. kit.vals(ok, err) .. " " .. kit.in_step(m)
                order[#order + 1] = line
                m:set_keepalive()
            end
            local t1 = ngx.thread.spawn(wait, "first")
            local t2 = ngx.thread.spawn(wait, "second")
            kit.show("both wait", #order)
            kit.show("third", kit.new():connect("127.0.0.1", kit.port, opts))
            ngx.sleep(0.01)
            kit.show("still", #order)
            kit.show("keep", a:set_keepalive())
            kit.show("close", b:close())
            ngx.thread.wait(t1)
            ngx.thread.wait(t2)
            table.sort(order)
            for _, line in ipairs(order) do ngx.say(line) end
            kit.show("room again", kit.connect(nil, opts):get_reused_times() > 0)
        }
    }
--- request
GET /t
--- response_body
both wait: 0
third: nil, "too many waiting connect operations"
still: 0
keep: 1
close: 1
first 1, nil yes
second 1, nil yes
room again: true
--- no_error_log
[error]



=== TEST 12: backlog 0, and how long a queued connect waits
--- private: the queue of a pool
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local opts = { pool = "none", pool_size = 1, backlog = 0 }
            local a = kit.connect(nil, opts)
            kit.show("no queue", kit.new():connect("127.0.0.1", kit.port, opts))
            a:close()
            kit.show("after close", kit.connect(nil, opts):get_reused_times())

            opts = { pool = "one", pool_size = 1, backlog = 5 }
            a = kit.connect(nil, opts)
            local m = kit.new()
            m:set_timeout(80)
            local ms, ok, err = kit.timed(m.connect, m, "127.0.0.1", kit.port, opts)
            kit.show("queued too long", ok, err, ms >= 75 and ms < 300)
            kit.show("get", m:get("k"))
            a:set_keepalive()
            kit.show("later", m:connect("127.0.0.1", kit.port, opts), m:get_reused_times())
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
no queue: nil, "too many waiting connect operations"
after close: 0
queued too long: nil, "timeout", true
get: nil, nil, "closed"
later: 1, 1
in step: "yes"
--- error_log
lua tcp socket queued connect timed out



=== TEST 13: a queued connect gets the place of a connection that failed
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local opts = { pool = "fails", pool_size = 1, backlog = 5 }
            local srv = kit.fake(function(c) c:line() c:close() end)
            local a = kit.connect(srv.port, opts)
            local b = kit.new()
            local t = ngx.thread.spawn(function()
                return b:connect("127.0.0.1", kit.port, opts)
            end)
            kit.show("get", a:get("k"))
            kit.show("close", kit.raises(a.close, a))
            kit.show("queued", ngx.thread.wait(t))
            kit.show("in step", kit.in_step(b))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
get: nil, nil, "closed"
close: "returned 1"
queued: true, 1
in step: "yes"
--- no_error_log
[alert]
