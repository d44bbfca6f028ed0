use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head();

run_tests();

__DATA__

=== TEST 1: read timeout of set_timeout; the object afterwards
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c) while c:line() do end end)
            local m = kit.connect(srv.port)
            kit.show("set_timeout", m:set_timeout(60))
            local ms, v, f, err = kit.timed(m.get, m, "k")
            kit.show("get", v, f, err, ms >= 55 and ms < 300)
            kit.show("set_keepalive", m:set_keepalive())
            kit.show("close", m:close())
            kit.show("get_reused_times", m:get_reused_times())
            kit.show("set", m:set("k", "v"))
            kit.show("get", m:get("k"))
            kit.show("gets", m:gets("k"))
            kit.show("multi-get", m:get({ "k" }))
            kit.show("multi-gets", m:gets({ "k" }))
            kit.show("cas", m:cas("k", "v", 1))
            kit.show("incr", m:incr("k", 1))
            kit.show("delete", m:delete("k"))
            kit.show("touch", m:touch("k", 1))
            kit.show("flush_all", m:flush_all())
            kit.show("stats", m:stats())
            kit.show("version", m:version())
            kit.show("verbosity", m:verbosity(1))
            kit.show("quit", m:quit())
            kit.show("connect", m:connect("127.0.0.1", kit.port))
            m:set_timeout(1000)
            kit.show("in step", kit.in_step(m))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
set_timeout: 1
get: nil, nil, "timeout", true
set_keepalive: nil, "closed"
close: nil, "closed"
get_reused_times: nil, "closed"
set: nil, "closed"
get: nil, nil, "closed"
gets: nil, nil, nil, "closed"
multi-get: nil, "closed"
multi-gets: nil, "closed"
cas: nil, "closed"
incr: nil, "closed"
delete: nil, "closed"
touch: nil, "closed"
flush_all: nil, "closed"
stats: nil, "closed"
version: nil, "closed"
verbosity: nil, "closed"
quit: nil, "closed"
connect: 1
in step: "yes"
--- error_log
lua tcp socket read timed out



=== TEST 2: the error's position for every method
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c) while c:line() do end end)
            local m = kit.new()
            m:set_timeout(20)
            local function try(name, ...)
                assert(m:connect("127.0.0.1", srv.port))
                kit.show(name, m[name](m, ...))
                kit.show("  then", m:set_keepalive())
            end
            try("set", "k", "v")
            try("add", "k", "v")
            try("replace", "k", "v")
            try("append", "k", "v")
            try("prepend", "k", "v")
            try("cas", "k", "v", 1)
            try("get", "k")
            try("get", { "k" })
            try("gets", "k")
            try("gets", { "k" })
            try("incr", "k", 1)
            try("decr", "k", 1)
            try("delete", "k")
            try("touch", "k", 1)
            try("flush_all")
            try("stats")
            try("version")
            try("verbosity", 1)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
set: nil, "timeout"
  then: nil, "closed"
add: nil, "timeout"
  then: nil, "closed"
replace: nil, "timeout"
  then: nil, "closed"
append: nil, "timeout"
  then: nil, "closed"
prepend: nil, "timeout"
  then: nil, "closed"
cas: nil, "timeout"
  then: nil, "closed"
get: nil, nil, "timeout"
  then: nil, "closed"
get: nil, "timeout"
  then: nil, "closed"
gets: nil, nil, nil, "timeout"
  then: nil, "closed"
gets: nil, "timeout"
  then: nil, "closed"
incr: nil, "timeout"
  then: nil, "closed"
decr: nil, "timeout"
  then: nil, "closed"
delete: nil, "timeout"
  then: nil, "closed"
touch: nil, "timeout"
  then: nil, "closed"
flush_all: nil, "timeout"
  then: nil, "closed"
stats: nil, "timeout"
  then: nil, "closed"
version: nil, "timeout"
  then: nil, "closed"
verbosity: nil, "timeout"
  then: nil, "closed"
--- error_log
lua tcp socket read timed out



=== TEST 3: set_timeouts, and their directives
--- http_config eval: $::HttpConfig
--- config
    lua_socket_read_timeout 60ms;
    lua_socket_send_timeout 3s;
    location = /t {
        content_by_lua_block {
            local memcached = require "resty.memcached"
            local srv = kit.fake(function(c) while c:line() do end end)
            local function try(label, lo, hi, set)
                local m = memcached:new()
                if set then kit.show(label .. " set", set(m)) end
                assert(m:connect("127.0.0.1", srv.port))
                local ms, _, _, err = kit.timed(m.get, m, "k")
                kit.show(label, err, ms >= lo and ms < hi)
            end
            try("directive", 55, 300)
            try("set_timeouts", 115, 400, function(m) return m:set_timeouts(1000, 1000, 120) end)
            try("others do not matter", 55, 300, function(m) return m:set_timeouts(1, 1, 60) end)
            try("nil read", 55, 300, function(m) return m:set_timeouts(2000, 2000, nil) end)
            try("set_timeout", 25, 200, function(m) return m:set_timeout(30) end)
            try("the last one counts", 25, 200, function(m)
                m:set_timeout(3000)
                return m:set_timeouts(3000, 3000, 30)
            end)
            try("as a string", 25, 200, function(m) return m:set_timeout("30") end)
            try("a fraction", 25, 200, function(m) return m:set_timeout(30.7) end)
            try("zero: the directive", 55, 300, function(m) return m:set_timeout(0) end)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
directive: "timeout", true
set_timeouts set: 1
set_timeouts: "timeout", true
others do not matter set: 1
others do not matter: "timeout", true
nil read set: 1
nil read: "timeout", true
set_timeout set: 1
set_timeout: "timeout", true
the last one counts set: 1
the last one counts: "timeout", true
as a string set: 1
as a string: "timeout", true
a fraction set: 1
a fraction: "timeout", true
zero: the directive set: 1
zero: the directive: "timeout", true
--- error_log
lua tcp socket read timed out



=== TEST 4: set between commands
--- private: counts reuse
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c)
                while c:line() do
                    ngx.sleep(0.05)
                    c:send("END\r\n")
                end
            end)
            local m = kit.connect(srv.port)
            m:set_timeout(500)
            kit.show("long enough", m:get("k"))
            m:set_timeout(20)
            kit.show("too short", m:get("k"))
            assert(m:connect("127.0.0.1", srv.port))
            m:set_timeouts(20, 20, 500)
            kit.show("long enough", m:get("k"))
            assert(m:set_keepalive())
            local other = kit.new()
            other:set_timeout(20)
            assert(other:connect("127.0.0.1", srv.port))
            kit.show("a pooled connection takes those of its user", other:get_reused_times(), other:get("k"))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
long enough: nil, nil, nil
too short: nil, nil, "timeout"
long enough: nil, nil, nil
a pooled connection takes those of its user: 1, nil, nil, "timeout"
--- error_log
lua tcp socket read timed out



=== TEST 5: each read arms the timer anew
--- private: the server answers one command of each connection
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c)
                local what = c:line()
                if what == "get lines" then
                    for _, s in ipairs{ "VALUE lines 0 4\r\n", "ab", "cd", "\r\nEND\r\n" } do
                        ngx.sleep(0.4)
                        c:send(s)
                    end
                elseif what == "get bytes" then
                    c:send("VALUE bytes 0 5\r\n")
                    c:trickle("abcde\r\nEND\r\n", 1, 0.15)
                elseif what == "stats" then
                    for i = 1, 5 do
                        c:send("STAT a " .. i .. "\r\n")
                        ngx.sleep(0.4)
                    end
                    c:send("END\r\n")
                elseif what == "get many one" then
                    for _, s in ipairs{ "VALUE many 0 1\r\n", "x\r\n", "VALUE one 0 1\r\n", "y\r\n", "END\r\n" } do
                        ngx.sleep(0.4)
                        c:send(s)
                    end
                end
                while c:line() do end
            end)
            local function connect()
                local m = kit.connect(srv.port)
                m:set_timeout(1200)
                return m
            end
            kit.show("lines", connect():get("lines"))
            kit.show("bytes", connect():get("bytes"))
            kit.show("stats", connect():stats())
            kit.show("multi-get", connect():get({ "many", "one" }))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
lines: "abcd", "0"
bytes: "abcde", "0"
stats: {"STAT a 1", "STAT a 2", "STAT a 3", "STAT a 4", "STAT a 5"}, nil
multi-get: {many={"x", "0"}, one={"y", "0"}}
--- no_error_log
[error]
--- timeout: 20



=== TEST 6: a stall within the reply
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local part
            local srv = kit.fake(function(c)
                c:line()
                c:send(part)
                while c:line() do end
            end)
            for _, s in ipairs{ "V", "VALUE k 0 4\r", "VALUE k 0 4\r\n", "VALUE k 0 4\r\nab",
                    "VALUE k 0 4\r\nabcd", "VALUE k 0 4\r\nabcd\r\n", "VALUE k 0 4\r\nabcd\r\nEN",
                    "VALUE k 0 4\r\nabcd\r\nEND", "VALUE k 0 4\r\nabcd\r\nEND\r" } do
                part = s
                local m = kit.connect(srv.port)
                m:set_timeout(20)
                kit.show(kit.fmt(s), m:get("k"))
                kit.show("  multi", (function()
                    m:connect("127.0.0.1", srv.port)
                    return m:get({ "k" })
                end)())
                kit.show("  then", m:get("k"))
            end
            srv:close()
        }
    }
--- request
GET /t
--- response_body
"V": nil, nil, "timeout"
  multi: nil, "timeout"
  then: nil, nil, "closed"
"VALUE k 0 4\r": nil, nil, "timeout"
  multi: nil, "timeout"
  then: nil, nil, "closed"
"VALUE k 0 4\r\n": nil, nil, "timeout"
  multi: nil, "timeout"
  then: nil, nil, "closed"
"VALUE k 0 4\r\nab": nil, nil, "timeout"
  multi: nil, "timeout"
  then: nil, nil, "closed"
"VALUE k 0 4\r\nabcd": nil, nil, "timeout"
  multi: nil, "timeout"
  then: nil, nil, "closed"
"VALUE k 0 4\r\nabcd\r\n": nil, nil, "timeout"
  multi: nil, "timeout"
  then: nil, nil, "closed"
"VALUE k 0 4\r\nabcd\r\nEN": nil, nil, "timeout"
  multi: nil, "timeout"
  then: nil, nil, "closed"
"VALUE k 0 4\r\nabcd\r\nEND": nil, nil, "timeout"
  multi: nil, "timeout"
  then: nil, nil, "closed"
"VALUE k 0 4\r\nabcd\r\nEND\r": nil, nil, "timeout"
  multi: nil, "timeout"
  then: nil, nil, "closed"
--- error_log
lua tcp socket read timed out



=== TEST 7: send timeout
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.listen()
            local m = kit.connect(srv.port)
            m:set_timeouts(1000, 80, 5000)
            local big = string.rep("x", 16 * 1024 * 1024)
            local ms, ok, err = kit.timed(m.set, m, "k", big)
            kit.show("set", ok, err, ms >= 75 and ms < 1500)
            kit.show("get", m:get("k"))
            kit.show("set_keepalive", m:set_keepalive())
            srv:close()
            m:set_timeout(3000)
            kit.show("connect", m:connect("127.0.0.1", kit.port))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
set: nil, "timeout", true
get: nil, nil, "closed"
set_keepalive: nil, "closed"
connect: 1
in step: "yes"
--- error_log
lua tcp socket write timed out



=== TEST 8: a slow reader takes as long as it likes
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local want = 8 * 1024 * 1024
            local srv = kit.fake(function(c)
                c:line()
                local n = 0
                while n < want + 2 do
                    local data = c.input
                    c.input = ""
                    n = n + #data
                    if n < want + 2 then
                        c:fill()
                        if n % 5 == 0 then ngx.sleep(0.001) end
                    end
                end
                c:send("STORED\r\n")
            end)
            local m = kit.connect(srv.port)
            m:set_timeouts(1000, 500, 5000)
            kit.show("set", m:set("k", string.rep("x", want)))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
set: 1
--- no_error_log
[error]
--- timeout: 20



=== TEST 9: values that are no timeouts
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.connect()
            for _, bad in ipairs{ -1, "x", true, "nil", {}, 2^31, 2^40, print } do
                if bad == "nil" then bad = nil end
                kit.show("set_timeout " .. kit.fmt(bad), kit.raises(m.set_timeout, m, bad))
            end
            kit.show("bad timeout value", kit.raise_text(m.set_timeout, m, -1))
            kit.show("nan", kit.raise_text(m.set_timeout, m, 0/0))
            kit.show("bad connect", kit.raise_text(m.set_timeouts, m, -1, 1, 1))
            kit.show("bad send", kit.raise_text(m.set_timeouts, m, 1, -1, 1))
            kit.show("bad read", kit.raise_text(m.set_timeouts, m, 1, 1, -1))
            kit.show("nils", m:set_timeouts(nil, nil, nil))
            kit.show("one", m:set_timeouts(1000))
            kit.show("none", kit.raises(m.set_timeouts, m))
            kit.show("sock settimeout", kit.raises(m.sock.settimeout, m.sock, 1000))
            kit.show("sock settimeouts", kit.raises(m.sock.settimeouts, m.sock, 1000, 1000, 1000))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
set_timeout -1: "raised a string"
set_timeout "x": "returned 1"
set_timeout true: "returned 1"
set_timeout nil: "returned 1"
set_timeout {}: "returned 1"
set_timeout 2147483648: "raised a string"
set_timeout 1099511627776: "raised a string"
set_timeout function: "returned 1"
bad timeout value: "bad timeout value"
nan: "bad timeout value"
bad connect: "bad timeout value"
bad send: "bad timeout value"
bad read: "bad timeout value"
nils: 1
one: 1
none: "returned 1"
sock settimeout: "returned (none)"
sock settimeouts: "returned (none)"
in step: "yes"
--- no_error_log
[error]


=== TEST 10: a timer left by an earlier operation ends no later one early, and none late
--- private: the server answers one command of each connection
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c)
                while true do
                    local what = c:line()
                    if not what then
                        return
                    end
                    if what == "get slow" then
                        ngx.sleep(0.2)
                    end
                    if what ~= "get never" then
                        c:send("END\r\n")
                    end
                end
            end)
            local m = kit.connect(srv.port)
            m:set_timeout(300)
            kit.show("quick", m:get("quick"))
            ngx.sleep(0.2)
            kit.show("slow", m:get("slow"))
            local ms, v, f, err = kit.timed(m.get, m, "never")
            kit.show("never", v, f, err, ms >= 295 and ms < 500)

            m:connect("127.0.0.1", srv.port)
            kit.show("quick", m:get("quick"))
            kit.show("kept", m:set_keepalive(400))
            ngx.sleep(0.33)
            m:connect("127.0.0.1", srv.port)
            kit.show("behind the read timeout", m:get_reused_times())
            ngx.sleep(0.2)
            kit.show("behind the idle time", m:get("quick"))
            kit.show("kept", m:set_keepalive(50))
            ngx.sleep(0.15)
            m:connect("127.0.0.1", srv.port)
            kit.show("gone", m:get_reused_times())
            srv:close()
        }
    }
--- request
GET /t
--- response_body
quick: nil, nil, nil
slow: nil, nil, nil
never: nil, nil, "timeout", true
quick: nil, nil, nil
kept: 1
behind the read timeout: 1
behind the idle time: nil, nil, nil
kept: 1
gone: 0
--- error_log
lua tcp socket read timed out



=== TEST 11: the read timeout runs when all is sent, though more time is left for sending
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c)
                c:line()
                ngx.sleep(0.2)
                while c:fill() do c.input = "" end
            end)
            local m = kit.connect(srv.port)
            m:set_timeouts(1000, 10000, 120)
            local big = string.rep("x", 16 * 1024 * 1024)
            local ms, ok, err = kit.timed(m.set, m, "k", big)
            kit.show("set", ok, err, ms >= 310 and ms < 3000 or ms)
            kit.show("set_keepalive", m:set_keepalive())
            srv:close()
        }
    }
--- request
GET /t
--- response_body
set: nil, "timeout", true
set_keepalive: nil, "closed"
--- error_log
lua tcp socket read timed out
--- timeout: 20



=== TEST 12: a timeout that comes again, behind others, and behind one that is refused
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c) while c:line() do end end)
            local memcached = require "resty.memcached"
            local function waits(ms)
                local m = memcached:new()
                local ok = pcall(m.set_timeout, m, ms)
                if not ok then
                    return "refused"
                end
                m:connect("127.0.0.1", srv.port)
                local waited, _, _, err = kit.timed(m.get, m, "k")
                m:close()
                return err, waited >= ms - 5 and waited < ms + 700 or waited
            end
            for _, ms in ipairs { 60, 60, 800, 60, "60", 60.9, 800, -1, 60 } do
                kit.show(tostring(ms), waits(ms))
            end
            srv:close()
        }
    }
--- request
GET /t
--- response_body
60: "timeout", true
60: "timeout", true
800: "timeout", true
60: "timeout", true
60: "timeout", true
60.9: "timeout", true
800: "timeout", true
-1: "refused"
60: "timeout", true
--- error_log
lua tcp socket read timed out
--- timeout: 10



=== TEST 13: each part of a pipeline that is sent has the send timeout anew
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local n, size = 32, 1024 * 1024
            local srv = kit.fake(function(c)
                local got, pause = 0, 0
                -- longer than the send timeout, but for what the kernel keeps
                while got < n * size do
                    got = got + #c.input
                    pause = pause + #c.input
                    c.input = ""
                    if pause > 3 * size then
                        pause = 0
                        ngx.sleep(0.3)
                    end
                    if not c:fill() then return end
                end
                c:send(("STORED\r\n"):rep(n))
            end)
            local m = kit.connect(srv.port)
            m:set_timeouts(1000, 1200, 10000)
            local value = ("x"):rep(size)
            m:init_pipeline()
            for i = 1, n do m:set("k" .. i, value) end
            local ms, results, err = kit.timed(m.commit_pipeline, m)
            kit.show("results", results and #results, err, ms > 1500)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
results: 32, nil, true
--- no_error_log
[error]
--- timeout: 30
--- whole: one byte in each turn never sends that much
