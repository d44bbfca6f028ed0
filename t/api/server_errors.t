use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head( more_tests => 1 );

run_tests();

__DATA__

=== TEST 1: closed before the reply: the error's position for every method
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local rst
            local srv = kit.fake(function(c)
                c:line()
                if rst then c:drain(0.01) return c:reset() end
                c:close()
            end)
            local m = kit.new()
            local function try(name, ...)
                assert(m:connect("127.0.0.1", srv.port))
                kit.show(name, m[name](m, ...))
                kit.show("  then", m:set_keepalive())
            end
            try("set", "k", "v")
            try("add", "k", "v")
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
            rst = true
            try("set", "k", "v")
            try("get", "k")
            try("gets", "k")
            srv:close()
        }
    }
--- request
GET /t
--- response_body
set: nil, "closed"
  then: nil, "closed"
add: nil, "closed"
  then: nil, "closed"
cas: nil, "closed"
  then: nil, "closed"
get: nil, nil, "closed"
  then: nil, "closed"
get: nil, "closed"
  then: nil, "closed"
gets: nil, nil, nil, "closed"
  then: nil, "closed"
gets: nil, "closed"
  then: nil, "closed"
incr: nil, "closed"
  then: nil, "closed"
decr: nil, "closed"
  then: nil, "closed"
delete: nil, "closed"
  then: nil, "closed"
touch: nil, "closed"
  then: nil, "closed"
flush_all: nil, "closed"
  then: nil, "closed"
stats: nil, "closed"
  then: nil, "closed"
version: nil, "closed"
  then: nil, "closed"
verbosity: nil, "closed"
  then: nil, "closed"
set: nil, "connection reset by peer"
  then: nil, "closed"
get: nil, nil, "connection reset by peer"
  then: nil, "closed"
gets: nil, nil, nil, "connection reset by peer"
  then: nil, "closed"
--- no_error_log
[alert]



=== TEST 2: closed within a reply, at every offset
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local part
            local srv = kit.fake(function(c)
                c:line()
                c:send(part)
                c:close()
            end)
            local m = kit.new()
            local function all(label, reply, call)
                local seen = {}
                for i = 0, #reply - 1 do
                    part = reply:sub(1, i)
                    assert(m:connect("127.0.0.1", srv.port))
                    local res = kit.vals(call())
                    if m:set_keepalive() then res = res .. " and pooled" end
                    if not seen[res] then
                        seen[res] = true
                        ngx.say(label, " ", i, ": ", res)
                    end
                end
            end
            all("get", "VALUE k 0 4\r\nabcd\r\nEND\r\n", function() return m:get("k") end)
            all("gets", "VALUE k 0 4 77\r\nabcd\r\nEND\r\n", function() return m:gets("k") end)
            all("multi-get", "VALUE k 0 4\r\nabcd\r\nVALUE l 0 0\r\n\r\nEND\r\n",
                function() return m:get({ "k", "l" }) end)
            all("multi-gets", "VALUE k 0 4 5\r\nabcd\r\nEND\r\n", function() return m:gets({ "k" }) end)
            all("set", "STORED\r\n", function() return m:set("k", "v") end)
            all("incr", "12345\r\n", function() return m:incr("k", 1) end)
            all("stats", "STAT a b\r\nSTAT c d\r\nEND\r\n", function() return m:stats() end)
            all("version", "VERSION 1.6\r\n", function() return m:version() end)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
get 0: nil, nil, "closed"
gets 0: nil, nil, nil, "closed"
multi-get 0: nil, "closed"
multi-gets 0: nil, "closed"
set 0: nil, "closed"
incr 0: nil, "closed"
stats 0: nil, "closed"
version 0: nil, "closed"
--- no_error_log
[alert]



=== TEST 3: closed after a whole reply
--- private: the connection closes with its session
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.replies("VALUE k 0 1\r\nx\r\nEND\r\n", "STORED\r\n", false)
            local m = kit.connect(srv.port)
            kit.show("get", m:get("k"))
            srv:close()
            ngx.sleep(0.02)
            kit.show("get", m:get("k"))
            kit.show("set_keepalive", m:set_keepalive())
            srv = kit.fake(function(c) c:line() c:send("STORED\r\n") c:close() end)
            m = kit.connect(srv.port)
            kit.show("set", m:set("k", "v"))
            ngx.sleep(0.01)
            kit.show("set_keepalive", kit.trim((m:set_keepalive())))
            kit.show("connect", m:connect("127.0.0.1", srv.port))
            kit.show("not that one", m:get_reused_times(), m:set("k", "v"))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
get: "x", "0"
get: nil, nil, "closed"
set_keepalive: nil, "closed"
set: 1
set_keepalive: nil
connect: 1
not that one: 0, 1
--- no_error_log
[alert]



=== TEST 4: error lines of the server
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local reply
            local srv = kit.fake(function(c)
                while c:line() do
                    c:drain(0.004)
                    c:send(reply)
                end
            end)
            local m = kit.new()
            local function try(label, name, ...)
                assert(m:connect("127.0.0.1", srv.port))
                kit.show(label, m[name](m, ...))
            end
            for _, line in ipairs{ "ERROR", "SERVER_ERROR out of memory storing object",
                                   "CLIENT_ERROR bad data chunk" } do
                reply = line .. "\r\n"
                try("set", "set", "k", "v")
                try("cas", "cas", "k", "v", 1)
                try("get", "get", "k")
                try("get {}", "get", { "k" })
                try("gets", "gets", "k")
                try("gets {}", "gets", { "k" })
                try("incr", "incr", "k", 1)
                try("decr", "decr", "k", 1)
                try("delete", "delete", "k")
                try("touch", "touch", "k", 1)
                try("flush_all", "flush_all")
                try("verbosity", "verbosity", 1)
                try("stats", "stats")
            end
            srv:close()
        }
    }
--- request
GET /t
--- response_body
set: nil, "ERROR"
cas: nil, "ERROR"
get: nil, nil, "ERROR"
get {}: nil, "ERROR"
gets: nil, nil, nil, "ERROR"
gets {}: nil, "ERROR"
incr: nil, "ERROR"
decr: nil, "ERROR"
delete: nil, "ERROR"
touch: nil, "ERROR"
flush_all: nil, "ERROR"
verbosity: nil, "ERROR"
stats: nil, "ERROR"
set: nil, "SERVER_ERROR out of memory storing object"
cas: nil, "SERVER_ERROR out of memory storing object"
get: nil, nil, "SERVER_ERROR out of memory storing object"
get {}: nil, "SERVER_ERROR out of memory storing object"
gets: nil, nil, nil, "SERVER_ERROR out of memory storing object"
gets {}: nil, "SERVER_ERROR out of memory storing object"
incr: nil, "SERVER_ERROR out of memory storing object"
decr: nil, "SERVER_ERROR out of memory storing object"
delete: nil, "SERVER_ERROR out of memory storing object"
touch: nil, "SERVER_ERROR out of memory storing object"
flush_all: nil, "SERVER_ERROR out of memory storing object"
verbosity: nil, "SERVER_ERROR out of memory storing object"
stats: nil, "SERVER_ERROR out of memory storing object"
set: nil, "CLIENT_ERROR bad data chunk"
cas: nil, "CLIENT_ERROR bad data chunk"
get: nil, nil, "CLIENT_ERROR bad data chunk"
get {}: nil, "CLIENT_ERROR bad data chunk"
gets: nil, nil, nil, "CLIENT_ERROR bad data chunk"
gets {}: nil, "CLIENT_ERROR bad data chunk"
incr: nil, "CLIENT_ERROR bad data chunk"
decr: nil, "CLIENT_ERROR bad data chunk"
delete: nil, "CLIENT_ERROR bad data chunk"
touch: nil, "CLIENT_ERROR bad data chunk"
flush_all: nil, "CLIENT_ERROR bad data chunk"
verbosity: nil, "CLIENT_ERROR bad data chunk"
stats: nil, "CLIENT_ERROR bad data chunk"
--- no_error_log
[alert]



=== TEST 5: replies that are no errors but no success either
--- private: a raw reply among others, on one connection
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.replies("STORED\r\n", "NOT_FOUND\r\n", "NOT_STORED\r\n", "EXISTS\r\n",
                "NOT_FOUND\r\n", "NOT_FOUND\r\n", "NOT_FOUND\r\n", "TOUCHED\r\n", "007\r\n",
                "18446744073709551615\r\n", "VERSION 1.6.18 with words\r\n", "END\r\n", "END\r\n")
            local m = kit.connect(srv.port)
            kit.show("touch STORED", m:touch("k", 1))
            kit.show("delete NOT_FOUND", m:delete("k"))
            kit.show("add", m.sock:send("x\r\n"), m.sock:receive())
            kit.show("raw", m.sock:send("x\r\n"), m.sock:receive())
            kit.show("delete", m:delete("k"))
            kit.show("incr", m:incr("k", 1))
            kit.show("touch", m:touch("k", 1))
            kit.show("touch", m:touch("k", 1))
            kit.show("incr leading zeros", m:incr("k", 1))
            kit.show("decr", m:decr("k", 1))
            kit.show("version", m:version())
            kit.show("stats", m:stats())
            kit.show("gets", m:gets("k"))
            kit.show("set_keepalive", m:set_keepalive())
            srv:close()
        }
    }
--- request
GET /t
--- response_body
touch STORED: 1
delete NOT_FOUND: nil, "NOT_FOUND"
add: 3, "NOT_STORED"
raw: 3, "EXISTS"
delete: nil, "NOT_FOUND"
incr: nil, "NOT_FOUND"
touch: nil, "NOT_FOUND"
touch: 1
incr leading zeros: "007"
decr: "18446744073709551615"
version: "1.6.18 with words"
stats: {}, nil
gets: nil, nil, nil, nil
set_keepalive: 1
--- no_error_log
[alert]



=== TEST 6: an unexpected line is returned as it came
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local reply
            local srv = kit.fake(function(c)
                c:line()
                c:drain(0.004)
                c:send(reply)
                while c:line() do end
            end)
            local function try(name, line, ...)
                reply = line .. "\r\n"
                local m = kit.connect(srv.port)
                kit.show(name, m[name](m, ...))
                m:close()
            end
            try("set", "SOME ERROR", "k", "v")
            try("add", "", "k", "v")
            try("set", "STORED ", "k", "v")
            try("set", "stored", "k", "v")
            try("cas", "SOME ERROR", "k", "v", 1)
            try("get", "SOME ERROR", "k")
            try("get", "VALUE k 0", "k")
            try("get", "VALUE k x 1", "k")
            try("get", "VALUE  k 0 1", "k")
            try("get", "END ", "k")
            try("get", "", "k")
            try("get", "SOME ERROR", { "k" })
            try("get", "VALUE k 0 x", { "k" })
            try("gets", "SOME ERROR", "k")
            try("gets", "VALUE k 0 1", "k")
            try("gets", "SOME ERROR", { "k" })
            try("gets", "VALUE k 0 1", { "k" })
            try("incr", "SOME ERROR", "k", 1)
            try("incr", "-5", "k", 1)
            try("incr", "5 ", "k", 1)
            try("incr", "", "k", 1)
            try("decr", "1.5", "k", 1)
            try("delete", "SOME ERROR", "k")
            try("touch", "SOME ERROR", "k", 1)
            try("flush_all", "SOME ERROR")
            try("flush_all", "OK ")
            try("verbosity", "SOME ERROR", 1)
            try("stats", "SOME ERROR")
            srv:close()
        }
    }
--- request
GET /t
--- response_body
set: nil, "SOME ERROR"
add: nil, ""
set: nil, "STORED "
set: nil, "stored"
cas: nil, "SOME ERROR"
get: nil, nil, "SOME ERROR"
get: nil, nil, "VALUE k 0"
get: nil, nil, "VALUE k x 1"
get: nil, nil, "VALUE  k 0 1"
get: nil, nil, "END "
get: nil, nil, ""
get: nil, "SOME ERROR"
get: nil, "VALUE k 0 x"
gets: nil, nil, nil, "SOME ERROR"
gets: nil, nil, nil, "VALUE k 0 1"
gets: nil, "SOME ERROR"
gets: nil, "VALUE k 0 1"
incr: nil, "SOME ERROR"
incr: nil, "-5"
incr: nil, "5 "
incr: nil, ""
decr: nil, "1.5"
delete: nil, "SOME ERROR"
touch: nil, "SOME ERROR"
flush_all: nil, "SOME ERROR"
flush_all: nil, "OK "
verbosity: nil, "SOME ERROR"
stats: nil, "SOME ERROR"
--- no_error_log
[alert]



=== TEST 7: a reply split at every byte
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local reply, at
            local srv = kit.fake(function(c)
                while c:line() do
                    local head, tail = reply:sub(1, at), reply:sub(at + 1)
                    c:send(head)
                    ngx.sleep(0.002)
                    c:send(tail)
                end
            end)
            local m = kit.connect(srv.port)
            local function all(label, text, call)
                reply = text
                local seen, n = {}, 0
                for i = 0, #text do
                    at = i
                    local res = kit.vals(call())
                    if not seen[res] then
                        seen[res] = true
                        ngx.say(label, " ", i, ": ", res)
                    end
                    n = n + 1
                end
            end
            all("get", "VALUE k 123 6\r\na\r\nb\r\n\r\nEND\r\n", function() return m:get("k") end)
            all("gets", "VALUE k 1 2 77\r\n\r\n\r\nEND\r\n", function() return m:gets("k") end)
            all("multi", "VALUE k 1 1\r\na\r\nVALUE l 2 0\r\n\r\nEND\r\n",
                function() return m:get({ "k", "l" }) end)
            all("incr", "12345\r\n", function() return m:incr("k", 1) end)
            all("stats", "STAT a b\r\nSTAT c d\r\nEND\r\n", function() return m:stats() end)
            all("version", "VERSION 1.6\r\n", function() return m:version() end)
            all("delete", "NOT_FOUND\r\n", function() return m:delete("k") end)
            kit.show("set_keepalive", m:set_keepalive())
            srv:close()
        }
    }
--- request
GET /t
--- response_body
get 0: "a\r\nb\r\n", "123"
gets 0: "\r\n", "1", "77"
multi 0: {k={"a", "1"}, l={"", "2"}}
incr 0: "12345"
stats 0: {"STAT a b", "STAT c d"}, nil
version 0: "1.6"
delete 0: nil, "NOT_FOUND"
set_keepalive: 1
--- no_error_log
[error]



=== TEST 8: one scripted reply, with the harness's own server
--- private: that server takes one connection, and flush_all has one of its own
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.connect($TEST_NGINX_FAKE_PORT)
            kit.show("flush_all", m:flush_all())
            m:close()
        }
    }
--- request
GET /t
--- tcp_listen eval
$ENV{TEST_NGINX_FAKE_PORT}
--- tcp_query eval
"flush_all\r\n"
--- tcp_reply eval
"OUT OF ORDER\r\n"
--- response_body
flush_all: nil, "OUT OF ORDER"
--- no_error_log
[error]
