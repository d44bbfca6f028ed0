use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head();

run_tests();

__DATA__

=== TEST 1: commands of one's own
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            m:set("k", "some\r\nvalue", 0, 3)
            local sock = m.sock
            kit.show("send", sock:send("get k\r\n"))
            kit.show("line", sock:receive())
            kit.show("bytes", sock:receive(11))
            kit.show("0 bytes", sock:receive(0))
            kit.show("rest of the line", sock:receive("*l"))
            kit.show("END", sock:receive("*l"))
            kit.show("in step", kit.in_step(m))
            kit.show("gat", sock:send("gat 100 k\r\n"), sock:receive(), sock:receive("11"),
                     sock:receive(2), sock:receive())
            kit.show("noreply", sock:send("set n 0 0 1 noreply\r\n1\r\n"), m:get("n"))
            kit.show("reused", sock:getreusedtimes())
            kit.show("send before, receive after", sock:send("version\r\n"),
                     type((sock:receive())), kit.in_step(m))
            local lines = 0
            sock:send("stats\r\n")
            while true do
                local line = assert(sock:receive("*l"))
                if line == "END" then break end
                lines = lines + 1
            end
            kit.show("stats", lines > 20)
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
send: 7
line: "VALUE k 3 11"
bytes: "some\r\nvalue"
0 bytes: ""
rest of the line: ""
END: "END"
in step: "yes"
gat: 11, "VALUE k 3 11", "some\r\nvalue", "\r\n", "END"
noreply: 24, "1", "0"
reused: 0
send before, receive after: 9, "string", "yes"
stats: true
in step: "yes"
--- no_error_log
[error]



=== TEST 2: what send takes
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            local sock = m.sock
            kit.show("table", sock:send({ "set ", "k", " 0 0 ", 1, "\r\n", { "x", { "\r\n" } } }), sock:receive())
            kit.show("number", sock:send(12), sock:send("\r\n"), sock:receive())
            kit.show("empty string", sock:send(""), sock:send({}))
            for _, bad in ipairs{ print, { "a", true }, { { false } }, { print }, { x = 1 }, coroutine.create(function() end) } do
                kit.show("bad " .. type(bad), kit.raises(sock.send, sock, bad))
            end
            kit.show("boolean", sock:send(true), sock:send("\r\n"), sock:receive())
            kit.show("nil", sock:send(nil), sock:send("\r\n"), sock:receive())
            kit.show("nothing", kit.raises(sock.send, sock))
            kit.show("two", kit.raises(sock.send, sock, "a", "b"))
            kit.show("in step", kit.in_step(m))
            kit.show("big", sock:send("set k 0 0 1000000\r\n" .. string.rep("x", 1000000) .. "\r\n"), sock:receive())
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
table: 16, "STORED"
number: 2, 2, "ERROR"
empty string: 0, 0
bad function: "raised a string"
bad table: "raised a string"
bad table: "raised a string"
bad table: "raised a string"
bad table: "raised a string"
bad thread: "raised a string"
boolean: 4, 2, "ERROR"
nil: 3, 2, "ERROR"
nothing: "raised a string"
two: "raised a string"
in step: "yes"
big: 1000021, "STORED"
in step: "yes"
--- no_error_log
[error]



=== TEST 3: what receive takes
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c)
                while true do
                    local line = c:line()
                    if not line then return end
                    c:send("one\r\ntwo\nth\rree\r\n\r\nfour")
                end
            end)
            local m = kit.connect(srv.port)
            local sock = m.sock
            sock:send("\r\n")
            kit.show("default", sock:receive())
            kit.show("LF alone", sock:receive("*l"))
            kit.show("CR within", sock:receive())
            kit.show("empty line", sock:receive())
            kit.show("number", sock:receive(2))
            kit.show("string number", sock:receive("2"))
            sock:send("\r\n")
            kit.show("across lines", sock:receive(12))
            kit.show("rest", sock:receive(2), sock:receive(6), sock:receive(3))
            for _, bad in ipairs{ "*x", "", "x", -1, "-1", true, {}, print } do
                kit.show("bad " .. kit.fmt(bad), kit.raises(sock.receive, sock, bad))
            end
            kit.show("nil", kit.raises(sock.receive, sock, nil))
            kit.show("two", kit.raises(sock.receive, sock, 1, 2))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
default: "one"
LF alone: "two"
CR within: "three"
empty line: ""
number: "fo"
string number: "ur"
across lines: "one\r\ntwo\nth\r"
rest: "re", "e\r\n\r\nf", "our"
bad "*x": "raised a string"
bad "": "raised a string"
bad "x": "raised a string"
bad -1: "raised a string"
bad "-1": "raised a string"
bad true: "raised a string"
bad {}: "raised a string"
bad function: "raised a string"
nil: "raised a string"
two: "raised a string"
--- no_error_log
[alert]



=== TEST 4: what arrived before the end is the third value
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local what
            local srv = kit.fake(function(c)
                c:send("line\r\npart")
                if what == "close" then return c:close() end
            end)
            local function connect(how)
                what = how
                local m = kit.connect(srv.port)
                m:set_timeout(40)
                return m, m.sock
            end
            local m, sock = connect("close")
            kit.show("line", sock:receive())
            kit.show("closed in a line", sock:receive())
            kit.show("again", sock:receive())
            kit.show("close", m:close())
            m, sock = connect("close")
            kit.show("closed in bytes", sock:receive(20))
            m, sock = connect("close")
            kit.show("all", sock:receive("*a"))
            kit.show("all again", sock:receive("*a"))
            m, sock = connect("close")
            kit.show("enough", sock:receive(10))
            kit.show("then", sock:receive(1))
            m, sock = connect("stay")
            kit.show("line", sock:receive("*l"))
            kit.show("timeout in a line", sock:receive("*l"))
            kit.show("again: the connection is still there", sock:receive(1))
            kit.show("close", m:close())
            m, sock = connect("stay")
            kit.show("timeout in bytes", sock:receive(20))
            m, sock = connect("stay")
            kit.show("timeout in all", sock:receive("*a"))
            kit.show("receive after close", m:close(), sock:receive())
            srv:close()
        }
    }
--- request
GET /t
--- response_body
line: "line"
closed in a line: nil, "closed", "part"
again: nil, "closed"
close: 1
closed in bytes: nil, "closed", "line\r\npart"
all: "line\r\npart"
all again: ""
enough: "line\r\npart"
then: nil, "closed", ""
line: "line"
timeout in a line: nil, "timeout", "part"
again: the connection is still there: nil, "timeout", ""
close: 1
timeout in bytes: nil, "timeout", "line\r\npart"
timeout in all: nil, "timeout", "line\r\npart"
receive after close: 1, nil, "closed"
--- error_log
lua tcp socket read timed out



=== TEST 5: a timeout of receive leaves the connection open
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c)
                c:line()
                ngx.sleep(0.08)
                c:send("late\r\n")
                while c:line() do c:send("next\r\n") end
            end)
            local m = kit.connect(srv.port)
            local sock = m.sock
            sock:settimeout(30)
            sock:send("x\r\n")
            kit.show("timeout", sock:receive())
            sock:settimeouts(1000, 1000, 1000)
            kit.show("the line all the same", sock:receive())
            sock:send("y\r\n")
            kit.show("next", sock:receive())
            kit.show("setkeepalive", sock:setkeepalive())
            kit.show("reused", m:connect("127.0.0.1", srv.port), m:get_reused_times())
            srv:close()
        }
    }
--- request
GET /t
--- response_body
timeout: nil, "timeout", ""
the line all the same: "late"
next: "next"
setkeepalive: 1
reused: 1, 1
--- error_log
lua tcp socket read timed out



=== TEST 6: connect, setkeepalive, getreusedtimes, close of sock and of the object
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            local sock = m.sock
            kit.show("before", sock:send("x"))
            kit.show("before", sock:receive())
            kit.show("before", sock:setkeepalive())
            kit.show("before", sock:getreusedtimes())
            kit.show("before", sock:close())
            kit.show("connect", sock:connect("127.0.0.1", kit.port, { pool = "s" }))
            kit.show("object sees it", kit.in_step(m))
            kit.show("getreusedtimes", sock:getreusedtimes(), m:get_reused_times())
            kit.show("setkeepalive", sock:setkeepalive(1000, 5))
            kit.show("object sees it", m:get("k"))
            kit.show("connect of the object", m:connect("127.0.0.1", kit.port, { pool = "s" }))
            kit.show("getreusedtimes", sock:getreusedtimes(), m:get_reused_times())
            kit.show("close", sock:close())
            kit.show("object sees it", m:close())
            kit.show("sock stays", sock == m.sock)
            kit.show("unix", sock:connect("unix:$TEST_NGINX_MEMCACHED_SOCK"), kit.in_step(m))
            kit.show("refused", sock:connect("127.0.0.1", $TEST_NGINX_UNUSED_PORT))
            kit.show("no port", sock:connect("127.0.0.1"))
            for _, name in ipairs{ "connect", "send", "receive", "settimeout", "settimeouts",
                                   "setkeepalive", "getreusedtimes", "close" } do
                kit.show(name, type(sock[name]), kit.raises(sock[name]))
            end
        }
    }
--- request
GET /t
--- response_body
before: nil, "closed"
before: nil, "closed"
before: nil, "closed"
before: nil, "closed"
before: nil, "closed"
connect: 1
object sees it: "yes"
getreusedtimes: 0, 0
setkeepalive: 1
object sees it: nil, nil, "closed"
connect of the object: 1
getreusedtimes: 1, 1
close: 1
object sees it: nil, "closed"
sock stays: true
unix: 1, "yes"
refused: nil, "connection refused"
no port: nil, "missing the port number"
connect: "function", "raised a string"
send: "function", "raised a string"
receive: "function", "raised a string"
settimeout: "function", "raised a string"
settimeouts: "function", "raised a string"
setkeepalive: "function", "raised a string"
getreusedtimes: "function", "raised a string"
close: "function", "raised a string"
--- error_log
attempt to send data on a closed socket



=== TEST 7: a wrapper that adds a command
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local memcached = require "resty.memcached"
            local Ext = setmetatable({}, { __index = memcached })
            local mt = { __index = Ext }
            function Ext.new(opts) return setmetatable(assert(memcached:new(opts)), mt) end
            function Ext:gat(exptime, key)
                local sock = self.sock
                local bytes, err = sock:send({ "gat ", exptime, " ", self.escape_key(key), "\r\n" })
                if not bytes then return nil, err end
                local line
                line, err = sock:receive()
                if not line then
                    if err == "timeout" then sock:close() end
                    return nil, err
                end
                if line == "END" then return nil end
                local len = line:match("^VALUE %S+ %d+ (%d+)$")
                if not len then return nil, line end
                local data = assert(sock:receive(len))
                assert(sock:receive(7))
                return data
            end
            local m = Ext.new()
            kit.show("unconnected", m:gat(10, "k"))
            assert(m:connect("127.0.0.1", kit.port))
            m:set("a key", "a value")
            kit.show("gat", m:gat(100, "a key"))
            kit.show("miss", m:gat(100, "none"))
            kit.show("error", m:gat("x", "a key"))
            kit.show("in step", kit.in_step(m))
            m:init_pipeline()
            m:get("a key")
            kit.show("overtakes a pipeline", m:gat(100, "a key"))
            kit.show("commit", m:commit_pipeline())
            kit.show("set_keepalive", m:set_keepalive())
        }
    }
--- request
GET /t
--- response_body
unconnected: nil, "closed"
gat: "a value"
miss: nil
error: nil, "CLIENT_ERROR invalid exptime argument"
in step: "yes"
overtakes a pipeline: "a value"
commit: {{"a value", "0"}}, nil
set_keepalive: 1
--- error_log
attempt to send data on a closed socket



=== TEST 8: methods continue where sock stopped reading
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            m:set("k", "v")
            m.sock:send("version\r\nversion\r\n")
            ngx.sleep(0.02)
            kit.show("first", type((m.sock:receive())))
            m.sock:send("get k\r\n")
            kit.show("second", (m.sock:receive()):sub(1, 8))
            kit.show("value", m.sock:receive(), m.sock:receive(3), m.sock:receive(5))
            kit.show("in step", kit.in_step(m))
            kit.show("set_keepalive", m:set_keepalive())
        }
    }
--- request
GET /t
--- response_body
first: "string"
second: "VERSION "
value: "VALUE k 0 1", "v\r\n", "END\r\n"
in step: "yes"
set_keepalive: 1
--- no_error_log
[error]
