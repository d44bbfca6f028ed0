use lib 't/lib';
use TestEnv memcached => 0;
use Test::Nginx::Socket::Lua;

# What a server says without being asked. memcached at its limit says why and hangs up.
our $HttpConfig = TestEnv::head(
    more_tests => 4,
    init       => q{
        mux = require "muxkit"

        FULL = "ERROR Too many open connections"

        -- A server that says this to whoever connects, and closes (or, if it is patient, does not).
        function full(text, patient)
            local srv
            srv = kit.fake(function(c)
                c:send(text)
                if not patient then c:close() end
                srv.said = (srv.said or 0) + 1
            end)
            return srv
        end

        -- Connected to it, after the text has come or before.
        function connect(srv, wait)
            local said = srv.said or 0
            local m = kit.connect(srv.port)
            if not wait then return m end
            for _ = 1, 1000 do
                if (srv.said or 0) > said then break end
                ngx.sleep(0.005)
            end
            ngx.sleep(0.02)
            return m
        end
    },
);

run_tests();

__DATA__

=== TEST 1: an error line instead of service is each command's error
--- whole: a line is seen as a whole or not at all
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = full(FULL .. "\r\n")
            local calls = {
                { "get", "k" }, { "gets", "k" }, { "get", { "a", "b" } }, { "gets", { "a" } },
                { "set", "k", "v" }, { "add", "k", ("v"):rep(100000) }, { "cas", "k", "v", 1 },
                { "delete", "k" }, { "incr", "k", 1 }, { "touch", "k", 1 }, { "flush_all" },
                { "version" }, { "stats" }, { "stats", "items" }, { "verbosity", 1 },
            }
            for _, call in ipairs(calls) do
                for _, wait in ipairs{ true, false } do
                    local m = connect(srv, wait)
                    local results = kit.vals(m[call[1]](m, unpack(call, 2)))
                    if wait then kit.show(call[1], results) end
                    m:close()
                end
            end
            srv:close()
        }
    }
--- request
GET /t
--- response_body
get: "nil, nil, \"ERROR Too many open connections\""
gets: "nil, nil, nil, \"ERROR Too many open connections\""
get: "nil, \"ERROR Too many open connections\""
gets: "nil, \"ERROR Too many open connections\""
set: "nil, \"ERROR Too many open connections\""
add: "nil, \"ERROR Too many open connections\""
cas: "nil, \"ERROR Too many open connections\""
delete: "nil, \"ERROR Too many open connections\""
incr: "nil, \"ERROR Too many open connections\""
touch: "nil, \"ERROR Too many open connections\""
flush_all: "nil, \"ERROR Too many open connections\""
version: "nil, \"ERROR Too many open connections\""
stats: "nil, \"ERROR Too many open connections\""
stats: "nil, \"ERROR Too many open connections\""
verbosity: "nil, \"ERROR Too many open connections\""
--- no_error_log
[alert]



=== TEST 2: the same at once, in a pipeline, and in other words
--- whole: a line is seen as a whole or not at all
--- http_config eval: "lua_socket_log_errors off;" . $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            for _, line in ipairs{ FULL, "ERROR", "SERVER_ERROR busy", "CLIENT_ERROR unauthenticated \255" } do
                for _, text in ipairs{ line .. "\r\n", line .. "\n" } do
                    local srv = full(text)
                    for i = 1, 4 do
                        local m = connect(srv, i % 2 == 0)
                        local _, _, err = m:get("k")
                        if err ~= line then kit.show("get", err) end
                        m:close()
                        m = connect(srv, i % 2 == 0)
                        m:init_pipeline()
                        m:get("k")
                        m:set("k", "v")
                        m:get("k")
                        local results = m:commit_pipeline()
                        -- and then, after that, the end of the connection, however it shows
                        local second = results[2][2]
                        if results[1][3] ~= line or results[3][3] ~= "closed"
                            or second ~= "closed" and second ~= "connection reset by peer" then
                            kit.show("pipeline", results)
                        end
                    end
                    srv:close()
                end
            end
            ngx.say("done")
        }
    }
--- request
GET /t
--- response_body
done
--- no_error_log
[alert]



=== TEST 3: anything else stays what nobody asked for, and is written down
--- private: shared connections are tried again
--- whole: a line is seen as a whole or not at all
--- http_config eval: "lua_socket_log_errors off;" . $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local long = ("y"):rep(70)
            for _, text in ipairs{ "x", "END\r\n", "STORED\r\n", FULL, "ERRORS\r\n", "error no\r\n", "\r\n",
                                   "\1\255\"\r\n", long .. "\r\n" .. FULL .. "\r\n",
                                   "ERROR " .. ("z"):rep(3000) .. "\r\n" } do
                local srv = full(text)
                local m = connect(srv, true)
                local _, _, err = m:get("k")
                kit.show("get", err)
                kit.show("then", m:set_keepalive())
                srv:close()
            end
            -- an error line, and the connection stays open: that is closed here
            local srv = full(FULL .. "\r\n", true)
            local m = connect(srv, true)
            local _, _, err = m:get("k")
            kit.show("said", err)
            kit.show("then", m:set_keepalive())
            kit.show("closed", srv.conns[1]:closed_by_peer())
            srv:close()
        }
    }
--- request
GET /t
--- response_body eval
"get: \"bad reply: unsolicited data\"\nthen: nil, \"closed\"\n" x 10
    . "said: \"ERROR Too many open connections\"\nthen: nil, \"closed\"\nclosed: true\n"
--- error_log eval
[
    'lua memcached unsolicited data: "x"', 'lua memcached unsolicited data: "END\r\n"',
    'lua memcached unsolicited data: "ERROR Too many open connections"',
    'lua memcached unsolicited data: "\x01\xff\"\r\n"',
    'lua memcached unsolicited data: "' . 'y' x 64 . '"...',
]



=== TEST 4: on an idle connection it is nobody's
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c)
                c:line()
                c:send("VERSION 1\r\n")
                if c.index < 3 then
                    ngx.sleep(0.01)
                    c:send(FULL .. "\r\n")
                    c:close()
                end
            end)
            for i = 1, 3 do
                local m = kit.connect(srv.port)
                kit.show("version", m:version())
                kit.show("kept", m:set_keepalive())
                ngx.sleep(0.03)
            end
            kit.show("connections", srv.accepted)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
version: "1"
kept: 1
version: "1"
kept: 1
version: "1"
kept: 1
connections: 3
--- no_error_log
[error]



=== TEST 5: several at once, whose commands were sent
--- whole: a line is seen as a whole or not at all
--- http_config eval: "lua_socket_log_errors off;" . $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local function ask(answer, ...)
                local commands = { ... }
                local srv = kit.fake(function(c)
                    c:line()
                    ngx.sleep(0.01)
                    c:drain(0.01)
                    c:send(answer)
                    c:close()
                end)
                -- attached to one connection, if they share
                local clients = {}
                for i = 1, 6 do clients[i] = kit.connect(srv.port) end
                local r = mux.at_once(6, function(i)
                    local m = clients[i]
                    local results = { m[commands[i % #commands + 1]](m, "k" .. i, "v") }
                    return results[table.maxn(results)]
                end)
                srv:close()
                return r
            end
            for _, line in ipairs{ FULL, "SERVER_ERROR busy", "ERROR" } do
                for _, verbs in ipairs{ { "get" }, { "set" }, { "get", "set", "delete" } } do
                    local r = ask(line .. "\r\n", unpack(verbs))
                    kit.show(line, mux.count(r, line))
                end
            end
            -- the answer to one of them, and the end of the connection
            local r = ask("SERVER_ERROR out of memory\r\nEND\r\n", "get")
            local own = mux.count(r, "SERVER_ERROR out of memory")
            kit.show("one command's error", own == 6 or own == 1 and mux.count(r, "closed") == 4)
        }
    }
--- request
GET /t
--- response_body
ERROR Too many open connections: 6
ERROR Too many open connections: 6
ERROR Too many open connections: 6
SERVER_ERROR busy: 6
SERVER_ERROR busy: 6
SERVER_ERROR busy: 6
ERROR: 6
ERROR: 6
ERROR: 6
one command's error: true
--- no_error_log
[alert]



=== TEST 6: several at once that wait for the connection
--- whole: a line is seen as a whole or not at all
--- http_config eval: "lua_socket_log_errors off;" . $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = full(FULL .. "\r\n")
            for _ = 1, 5 do
                local r = mux.at_once(8, function(i)
                    local m = kit.new()
                    local ok, err = m:connect("127.0.0.1", srv.port)
                    if not ok then return err end
                    local results = { m[i % 2 == 0 and "get" or "set"](m, "k" .. i, "v") }
                    return results[table.maxn(results)]
                end)
                kit.show("told", mux.count(r, FULL))
            end
            srv:close()
        }
    }
--- request
GET /t
--- response_body
told: 8
told: 8
told: 8
told: 8
told: 8
--- no_error_log
[alert]



=== TEST 7: what ends an idle connection is no error, at no level
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local ends = {
                function(c) c:close() end,
                function(c) c:reset() end,
                function(c) c:send("x") end,
                function(c) c:send("x") c:reset() end,
            }
            local srv = kit.fake(function(c)
                c:line()
                c:send("VERSION 1\r\n")
                ngx.sleep(0.02)
                ends[c.index](c)
            end)
            for i = 1, #ends do
                local m = kit.connect(srv.port)
                kit.show("version", m:version())
                kit.show("kept", m:set_keepalive())
                ngx.sleep(0.04)
            end
            kit.show("connections", srv.accepted)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
version: "1"
kept: 1
version: "1"
kept: 1
version: "1"
kept: 1
version: "1"
kept: 1
connections: 4
--- no_error_log
 failed (
