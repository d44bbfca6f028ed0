use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head( tests => 4 );

run_tests();

__DATA__

=== TEST 1: after a line that fits no command the connection is closed
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local reply, open
            local srv = kit.fake(function(c)
                c:line()
                c:drain(0.004)
                c:send(reply)
                if not c:closed_by_peer(1) then open = (open or 0) + 1 end
            end)
            local function try(name, line, ...)
                reply = line .. "\r\n"
                local m = kit.connect(srv.port)
                local res = kit.vals(m[name](m, ...))
                local _, err = m:set_keepalive()
                local _, _, gerr = m:get("k")
                ngx.say(name, ": ", res, "; ", tostring(err), ", ", tostring(gerr))
            end
            try("set", "SOMETHING", "k", "v")
            try("set", "", "k", "v")
            try("set", "STORED ", "k", "v")
            try("set", "OK", "k", "v")
            try("cas", "END", "k", "v", 1)
            try("get", "SOMETHING", "k")
            try("get", "STORED", "k")
            try("get", "VALUE k 0", "k")
            try("get", "VALUE k 0 1 2 3", "k")
            try("get", "VALUE k 0 -1", "k")
            try("get", "VALUE k -1 1", "k")
            try("get", "value k 0 1", "k")
            try("gets", "VALUE k 0 1", "k")
            try("get", "SOMETHING", { "k", "l" })
            try("gets", "VALUE k 0 1", { "k" })
            try("incr", "VALUE k 0 1", "k", 1)
            try("incr", "-1", "k", 1)
            try("delete", "STORED", "k")
            try("touch", "DELETED", "k", 1)
            try("flush_all", "DELETED")
            try("verbosity", "", 1)
            try("version", "SOMETHING")
            try("version", "VERSION")
            try("version", "OK")
            try("stats", "SOMETHING")
            kit.show("left open", open)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
set: nil, "SOMETHING"; closed, closed
set: nil, ""; closed, closed
set: nil, "STORED "; closed, closed
set: nil, "OK"; closed, closed
cas: nil, "END"; closed, closed
get: nil, nil, "SOMETHING"; closed, closed
get: nil, nil, "STORED"; closed, closed
get: nil, nil, "VALUE k 0"; closed, closed
get: nil, nil, "VALUE k 0 1 2 3"; closed, closed
get: nil, nil, "VALUE k 0 -1"; closed, closed
get: nil, nil, "VALUE k -1 1"; closed, closed
get: nil, nil, "value k 0 1"; closed, closed
gets: nil, nil, nil, "VALUE k 0 1"; closed, closed
get: nil, "SOMETHING"; closed, closed
gets: nil, "VALUE k 0 1"; closed, closed
incr: nil, "VALUE k 0 1"; closed, closed
incr: nil, "-1"; closed, closed
delete: nil, "STORED"; closed, closed
touch: nil, "DELETED"; closed, closed
flush_all: nil, "DELETED"; closed, closed
verbosity: nil, ""; closed, closed
version: nil, "SOMETHING"; closed, closed
version: nil, "VERSION"; closed, closed
version: nil, "OK"; closed, closed
stats: nil, "SOMETHING"; closed, closed
left open: nil
--- no_error_log
[alert]
[crit]



=== TEST 2: an error line closes it only where the rest is unknown
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
            local function try(name, line, ...)
                reply = line .. "\r\n"
                local m = kit.connect(srv.port, { pool = name .. math.random() })
                local res = kit.vals(m[name](m, ...))
                ngx.say(name, ": ", res, "; ", kit.vals(m:set_keepalive()))
            end
            try("get", "ERROR", "k")
            try("get", "ERROR\r\nEND", "k")
            try("get", "ERROR", { "k" })
            -- END may follow: a proxy answers some keys by such lines
            try("get", "SERVER_ERROR backend failure", { "k", "l" })
            try("gets", "SERVER_ERROR 1\r\nSERVER_ERROR 2\r\nEND", { "k", "l" })
            try("get", "SERVER_ERROR out of memory", "k")
            try("gets", "CLIENT_ERROR line too long", "k")
            try("incr", "CLIENT_ERROR cannot increment or decrement non-numeric value", "k", 1)
            try("incr", "SERVER_ERROR out of memory", "k", 1)
            try("delete", "ERROR", "k")
            try("touch", "SERVER_ERROR out of memory", "k", 1)
            try("flush_all", "CLIENT_ERROR flush_all not allowed")
            try("verbosity", "ERROR", 1)
            try("stats", "ERROR")
            try("version", "ERROR")
            try("version", "SERVER_ERROR later")
            try("set", "NOT_STORED", "k", "v")
            try("set", "SERVER_ERROR out of memory storing object", "k", "v")
            try("set", "SERVER_ERROR object too large for cache", "k", "v")
            try("cas", "EXISTS", "k", "v", 1)
            try("cas", "NOT_FOUND", "k", "v", 1)
            -- the value after it may have been read as commands
            try("set", "ERROR", "k", "v")
            try("set", "CLIENT_ERROR bad command line format", "k", "v")
            try("cas", "ERROR", "k", "v", 1)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
get: nil, nil, "ERROR"; 1
get: nil, nil, "ERROR"; nil, "closed"
get: nil, "ERROR"; 1
get: nil, "SERVER_ERROR backend failure"; nil, "closed"
gets: nil, "SERVER_ERROR 1"; nil, "closed"
get: nil, nil, "SERVER_ERROR out of memory"; 1
gets: nil, nil, nil, "CLIENT_ERROR line too long"; 1
incr: nil, "CLIENT_ERROR cannot increment or decrement non-numeric value"; 1
incr: nil, "SERVER_ERROR out of memory"; 1
delete: nil, "ERROR"; 1
touch: nil, "SERVER_ERROR out of memory"; 1
flush_all: nil, "CLIENT_ERROR flush_all not allowed"; 1
verbosity: nil, "ERROR"; 1
stats: nil, "ERROR"; nil, "closed"
version: nil, "ERROR"; 1
version: nil, "SERVER_ERROR later"; 1
set: nil, "NOT_STORED"; 1
set: nil, "SERVER_ERROR out of memory storing object"; 1
set: nil, "SERVER_ERROR object too large for cache"; 1
cas: nil, "EXISTS"; 1
cas: nil, "NOT_FOUND"; 1
set: nil, "ERROR"; nil, "closed"
set: nil, "CLIENT_ERROR bad command line format"; nil, "closed"
cas: nil, "ERROR"; nil, "closed"
--- no_error_log
[alert]
[crit]
--- whole: what is behind the line has to be there already



=== TEST 3: values with the wrong key, without CRLF, without END
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local reply
            local srv = kit.fake(function(c)
                c:line()
                c:send(reply)
                while c:line() do end
            end)
            local function try(name, text, ...)
                reply = text
                local m = kit.connect(srv.port, { pool = "r" .. math.random() })
                m:set_timeout(500)
                local res = kit.vals(m[name](m, ...))
                local _, err = m:set_keepalive()
                ngx.say(name, ": ", res, "; ", tostring(err))
            end
            local function fails(label, name, text, ...)
                reply = text
                local m = kit.connect(srv.port, { pool = "r" .. math.random() })
                m:set_timeout(500)
                local res = { m[name](m, ...) }
                local _, err = m:set_keepalive()
                ngx.say(label, ": ", tostring(res[1]), " ", type(res[name == "get" and 3 or 4]
                    or res[2]), "; ", tostring(err))
            end
            try("get", "VALUE other 0 1\r\nx\r\nEND\r\n", "k")
            try("get", "VALUE K 0 1\r\nx\r\nEND\r\n", "k")
            try("get", "VALUE kk 0 1\r\nx\r\nEND\r\n", "k")
            try("gets", "VALUE other 0 1 5\r\nx\r\nEND\r\n", "k")
            try("get", "VALUE other 0 1\r\nx\r\nEND\r\n", { "k", "l" })
            try("get", "VALUE k 0 1\r\nx\r\nVALUE m 0 1\r\nx\r\nEND\r\n", { "k", "l" })
            try("gets", "VALUE other 0 1 5\r\nx\r\nEND\r\n", { "k", "l" })
            try("get", "VALUE a%20b 0 1\r\nx\r\nEND\r\n", "a b")
            try("get", "VALUE k 0 2\r\nabcdEND\r\n", "k")
            try("get", "VALUE k 0 1\r\nabcd\r\nEND\r\n", "k")
            try("get", "VALUE k 0 2\r\nab\n\rEND\r\n", "k")
            try("gets", "VALUE k 0 2 5\r\nabcdEND\r\n", "k")
            try("get", "VALUE k 0 2\r\nabcdEND\r\n", { "k" })
            try("gets", "VALUE k 0 2 5\r\nabcdEND\r\n", { "k" })
            fails("no END", "get", "VALUE k 0 1\r\nx\r\nSTORED\r\n", "k")
            fails("two values", "get", "VALUE k 0 1\r\nx\r\nVALUE k 0 1\r\ny\r\nEND\r\n", "k")
            fails("no END", "gets", "VALUE k 0 1 5\r\nx\r\nSTORED\r\n", "k")
            fails("no END", "get", "VALUE k 0 1\r\nx\r\nSTORED\r\n", { "k" })
            reply = "VALUE k 0 1\r\nx\r\nSERVER_ERROR x\r\n"
            kit.show("an error in place of END", kit.connect(srv.port):get({ "k", "l" }))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
get: nil, nil, "bad reply: unexpected key"; closed
get: nil, nil, "bad reply: unexpected key"; closed
get: nil, nil, "bad reply: unexpected key"; closed
gets: nil, nil, nil, "bad reply: unexpected key"; closed
get: nil, "bad reply: unexpected key"; closed
get: nil, "bad reply: unexpected key"; closed
gets: nil, "bad reply: unexpected key"; closed
get: "x", "0"; nil
get: nil, nil, "bad reply: no CRLF after value"; closed
get: nil, nil, "bad reply: no CRLF after value"; closed
get: nil, nil, "bad reply: no CRLF after value"; closed
gets: nil, nil, nil, "bad reply: no CRLF after value"; closed
get: nil, "bad reply: no CRLF after value"; closed
gets: nil, "bad reply: no CRLF after value"; closed
no END: nil string; closed
two values: nil string; closed
no END: nil string; closed
no END: nil string; closed
an error in place of END: nil, "SERVER_ERROR x"
--- no_error_log
[alert]
[crit]



=== TEST 4: lines without end
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local start
            local srv = kit.fake(function(c)
                c:line()
                c:send(start)
                local junk = string.rep("x", 4096)
                for _ = 1, 2000 do
                    if not c:send(junk) then return end
                end
                while c:line() do end
            end)
            local function try(name, text, ...)
                start = text
                local m = kit.connect(srv.port)
                m:set_timeout(3000)
                local res = kit.vals(m[name](m, ...))
                local _, err = m:set_keepalive()
                ngx.say(name, ": ", res, "; ", tostring(err))
            end
            try("get", "", "k")
            try("get", "VALUE k", "k")
            try("get", "VALUE k 0 1\r\nx\r\n", { "k" })
            try("gets", "", "k")
            try("set", "", "k", "v")
            try("incr", "1", "k", 1)
            try("version", "VERSION ")
            try("stats", "STAT a b\r\nSTAT ")
            collectgarbage()
            kit.show("memory", collectgarbage("count") < 20000)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
get: nil, nil, "bad reply: line too long"; closed
get: nil, nil, "bad reply: line too long"; closed
get: nil, "bad reply: line too long"; closed
gets: nil, nil, nil, "bad reply: line too long"; closed
set: nil, "bad reply: line too long"; closed
incr: nil, "bad reply: line too long"; closed
version: nil, "bad reply: line too long"; closed
stats: nil, "bad reply: line too long"; closed
memory: true
--- no_error_log
[alert]
[crit]



=== TEST 5: lengths that cannot be
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local length
            local srv = kit.fake(function(c)
                c:line()
                c:send("VALUE k 0 " .. length .. " 1\r\nabc")
                while c:line() do end
            end)
            local plain = kit.fake(function(c)
                c:line()
                c:send("VALUE k 0 " .. length .. "\r\nabc")
                while c:line() do end
            end)
            local function rss()
                for line in io.lines("/proc/self/status") do
                    local kb = line:match("^VmRSS:%s+(%d+)")
                    if kb then return tonumber(kb) end
                end
            end
            local before = rss()
            for _, n in ipairs{ "99999999999999999999999", "18446744073709551615", "18446744073709551616",
                                "9223372036854775807", "99999999999", "4294967296" } do
                length = n
                for _, key in ipairs{ "k", { "k" } } do
                    local m = kit.connect(plain.port)
                    m:set_timeout(2000)
                    local ms, ok, _, err = kit.timed(pcall, m.get, m, key)
                    local _, kerr = m:set_keepalive()
                    ngx.say("get ", n, ": ", tostring(ok), " ", tostring(err), " ",
                            tostring(ms < 1000), " ", tostring(kerr))
                    m = kit.connect(srv.port)
                    m:set_timeout(2000)
                    ms, ok, _, err = kit.timed(pcall, m.gets, m, key)
                    _, kerr = m:set_keepalive()
                    ngx.say("gets ", n, ": ", tostring(ok), " ", tostring(err ~= "timeout"), " ",
                            tostring(ms < 1000), " ", tostring(kerr))
                end
            end
            kit.show("memory", rss() - before < 100000)
            srv:close()
            plain:close()
        }
    }
--- request
GET /t
--- response_body_like eval
my $get = 'get \d+: true (?:nil|bad reply: [^\n]+|value [^\n]+) true closed\ngets \d+: true true true closed\n';
qr/\A(?:$get){12}memory: true\n\z/
--- no_error_log
[alert]
[crit]



=== TEST 6: stats that end without END, and lines that speak of errors
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            m:set_timeout(1000)
            kit.show("reset", m:stats("reset"))
            kit.show("detail on", m:stats("detail on"))
            kit.show("detail off", m:stats("detail off"))
            kit.show("detail dump", m:stats("detail dump"))
            kit.show("in step", kit.in_step(m))
            -- behind an error line there may be an END
            kit.show("detail", m:stats("detail"))
            kit.show("then", m:set_keepalive())
            m = kit.connect()
            m:init_pipeline()
            m:stats("reset")
            m:stats("detail on")
            m:stats("detail off")
            kit.show("pipeline", m:commit_pipeline())
            kit.show("in step", kit.in_step(m))
            m:init_pipeline()
            m:get("none")
            m:stats("nonesuch")
            m:get("none")
            kit.show("pipeline", m:commit_pipeline())
            local srv = kit.replies("STAT a_ERROR 1\r\nSTAT b ERROR\r\nSTAT c 2\r\nEND\r\n",
                "STAT a 1\r\nSERVER_ERROR out of memory\r\n", "END\r\n")
            m = kit.connect(srv.port)
            kit.show("ERROR within lines", m:stats())
            kit.show("an error line midway", m:stats())
            srv:close()
        }
    }
--- request
GET /t
--- response_body
reset: {"RESET"}, nil
detail on: {"OK"}, nil
detail off: {"OK"}, nil
detail dump: {}, nil
in step: "yes"
detail: nil, "CLIENT_ERROR usage: stats detail on|off|dump"
then: nil, "closed"
pipeline: {{{"RESET"}}, {{"OK"}}, {{"OK"}}}, nil
in step: "yes"
pipeline: {{}, {nil, "ERROR"}, {[3]="closed"}}, nil
ERROR within lines: {"STAT a_ERROR 1", "STAT b ERROR", "STAT c 2"}, nil
an error line midway: nil, "SERVER_ERROR out of memory"
--- no_error_log
[error]
[alert]



=== TEST 7: bytes nobody asked for
--- private: unread data closes a connection
--- whole: what nobody asked for has to be there already
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local reply
            local srv = kit.fake(function(c)
                while c:line() do c:send(reply) end
            end)
            local evil = "VALUE k 0 4\r\nevil\r\nEND\r\n"
            for _, text in ipairs{ "END\r\n" .. evil, "VALUE k 0 1\r\nx\r\nEND\r\n" .. evil,
                                   "VALUE k 0 1\r\nx\r\nEND\r\n\r\n", "END\r\nx" } do
                reply = text
                local m = kit.connect(srv.port, { pool = "unasked" })
                local v = m:get("k")
                kit.show("not pooled", v ~= "evil", m:set_keepalive() == nil)
                m:close()
                m = kit.connect(srv.port, { pool = "unasked" })
                kit.show("a new one", m:get_reused_times())
                m:get("k")
                reply = "END\r\n"
                v = m:get("k")
                kit.show("not for the next command", v ~= "evil")
                m:close()
            end
            srv:close()
        }
    }
--- request
GET /t
--- response_body eval
qq{not pooled: true, true\na new one: 0\nnot for the next command: true\n} x 4
--- no_error_log
[alert]
[crit]



=== TEST 8: in a pipeline the replies before the bad one count, those after it do not
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local replies
            local srv = kit.fake(function(c)
                c:drain(0.02)
                c:send(replies)
                while c:line() do end
            end)
            local function try(label, text)
                replies = text
                local m = kit.connect(srv.port, { pool = "r" .. math.random() })
                m:set_timeout(500)
                m:init_pipeline()
                m:get("a")
                m:get("b")
                m:set("c", 1)
                m:get("d")
                kit.show(label, m:commit_pipeline())
                kit.show("then", m:set_keepalive())
            end
            local a, good = "VALUE a 0 1\r\nA\r\nEND\r\n", "STORED\r\nVALUE d 0 4\r\nevil\r\nEND\r\n"
            try("junk", a .. "JUNK\r\n" .. good)
            try("wrong key", a .. "VALUE x 0 1\r\nB\r\nEND\r\n" .. good)
            try("no CRLF", a .. "VALUE b 0 1\r\nBBBBEND\r\n" .. good)
            try("too many", a .. a .. good)
            try("fine", a .. "END\r\nNOT_STORED\r\nEND\r\n")
            srv:close()
        }
    }
--- request
GET /t
--- response_body
junk: {{"A", "0"}, {[3]="JUNK"}, {nil, "closed"}, {[3]="closed"}}, nil
then: nil, "closed"
wrong key: {{"A", "0"}, {[3]="bad reply: unexpected key"}, {nil, "closed"}, {[3]="closed"}}, nil
then: nil, "closed"
no CRLF: {{"A", "0"}, {[3]="bad reply: no CRLF after value"}, {nil, "closed"}, {[3]="closed"}}, nil
then: nil, "closed"
too many: {{"A", "0"}, {[3]="bad reply: unexpected key"}, {nil, "closed"}, {[3]="closed"}}, nil
then: nil, "closed"
fine: {{"A", "0"}, {}, {nil, "NOT_STORED"}, {}}, nil
then: 1
--- no_error_log
[alert]
[crit]
