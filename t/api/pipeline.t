use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head();

run_tests();

__DATA__

=== TEST 1: every command that can be queued, and the exact results
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            kit.show("init", m:init_pipeline())
            kit.show("set", m:set("a", "1", 0, 5))
            kit.show("add", m:add("b", "2"))
            kit.show("add again", m:add("b", "3"))
            kit.show("replace", m:replace("b", { "x", { 1 } }))
            kit.show("append", m:append("b", "+"))
            kit.show("prepend", m:prepend("b", "-"))
            kit.show("get", m:get("a"))
            kit.show("get", m:get("b"))
            kit.show("get", m:get("none"))
            kit.show("incr", m:incr("a", 10))
            kit.show("decr", m:decr("a", 1))
            kit.show("touch", m:touch("a", 100))
            kit.show("delete", m:delete("a"))
            kit.show("delete", m:delete("a"))
            kit.show("stats", m:stats("items"))
            kit.show("verbosity", m:verbosity(0))
            local res, err = m:commit_pipeline()
            kit.show("commit", #res, err)
            for i, r in ipairs(res) do
                if i == 15 then r = { #r[1] > 0, r[2] } end
                kit.show(i, r)
            end
            kit.show("count", select("#", m:commit_pipeline()))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
init: nil
set: 1
add: 1
add again: 1
replace: 1
append: 1
prepend: 1
get: 1
get: 1
get: 1
incr: 1
decr: 1
touch: 1
delete: 1
delete: 1
stats: 1
verbosity: 1
commit: 16, nil
1: {1}
2: {1}
3: {nil, "NOT_STORED"}
4: {1}
5: {1}
6: {1}
7: {"1", "5"}
8: {"-x1+", "0"}
9: {}
10: {"11"}
11: {"10"}
12: {1}
13: {1}
14: {nil, "NOT_FOUND"}
15: {true}
16: {1}
count: 2
in step: "yes"
--- no_error_log
[error]



=== TEST 2: init, cancel, commit and their errors
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            kit.show("commit without init", m:commit_pipeline())
            kit.show("cancel without init", m:cancel_pipeline())
            kit.show("init", m:init_pipeline())
            kit.show("init again", m:init_pipeline())
            kit.show("init again with n", m:init_pipeline(5))
            kit.show("commit empty", m:commit_pipeline())
            kit.show("commit again", m:commit_pipeline())
            for _, n in ipairs{ "5", true, {}, print } do
                kit.show("init " .. type(n), m:init_pipeline(n))
                kit.show("no pipeline then", m:commit_pipeline())
            end
            kit.show("init nil", m:init_pipeline(nil), m:cancel_pipeline())
            kit.show("init false", m:init_pipeline(false), m:cancel_pipeline())
            kit.show("init 0", m:init_pipeline(0), m:cancel_pipeline())
            kit.show("init 3.5", m:init_pipeline(3.5), m:cancel_pipeline())
            m:init_pipeline(2)
            for i = 1, 10 do m:set("k" .. i, i) end
            kit.show("more than n", #m:commit_pipeline())
            m:init_pipeline()
            m:set("k1", "never")
            kit.show("cancel", m:cancel_pipeline())
            kit.show("commit", m:commit_pipeline())
            kit.show("not sent", m:get("k1"))
            m:init_pipeline()
            m:get("k2")
            kit.show("usable again", m:commit_pipeline())
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
commit without init: nil, "no pipeline"
cancel without init: (none)
init: nil
init again: "already init pipeline"
init again with n: "already init pipeline"
commit empty: nil, "no more cmds"
commit again: nil, "no pipeline"
init string: "bad n arg: number expected, but got string"
no pipeline then: nil, "no pipeline"
init boolean: "bad n arg: number expected, but got boolean"
no pipeline then: nil, "no pipeline"
init table: "bad n arg: number expected, but got table"
no pipeline then: nil, "no pipeline"
init function: "bad n arg: number expected, but got function"
no pipeline then: nil, "no pipeline"
init nil: nil
init false: nil
init 0: nil
init 3.5: nil
more than n: 10
cancel: (none)
commit: nil, "no pipeline"
not sent: "1", "0"
usable again: {{"2", "0"}}, nil
in step: "yes"
--- no_error_log
[error]



=== TEST 3: commands that overtake an open pipeline
--- object: a client has no quit
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            m:set("a", "1")
            m:init_pipeline()
            kit.show("queued", m:set("a", "2"))
            kit.show("multi-get", m:get({ "a" }))
            kit.show("gets", (m:gets("a")))
            kit.show("multi-gets", m:gets({ "a" }).a[1])
            local _, _, cas = m:gets("a")
            kit.show("cas", m:cas("a", "3", cas))
            kit.show("version", type(m:version()))
            kit.show("queued", m:get("a"))
            kit.show("flush_all", m:flush_all())
            kit.show("multi-get", m:get({ "a" }))
            kit.show("commit", m:commit_pipeline())
            m:init_pipeline()
            m:set("a", "4")
            kit.show("quit", m:quit())
            kit.show("a call sees the close", m:gets("a"))
            kit.show("connect", m:connect("127.0.0.1", kit.port))
            kit.show("commit", m:commit_pipeline())
            kit.show("get", m:get("a"))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
queued: 1
multi-get: {a={"1", "0"}}
gets: "1"
multi-gets: "1"
cas: 1
version: "string"
queued: 1
flush_all: 1
multi-get: {}
commit: {{1}, {"2", "0"}}, nil
quit: 1
a call sees the close: nil, nil, nil, "closed"
connect: 1
commit: {{1}}, nil
get: "4", "0"
in step: "yes"
--- no_error_log
[error]



=== TEST 4: an open pipeline survives set_keepalive and reconnect
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            m:set("a", "1")
            m:init_pipeline()
            m:get("a")
            kit.show("set_keepalive", m:set_keepalive())
            kit.show("queues while unconnected", m:set("a", "2"))
            kit.show("connect", m:connect("127.0.0.1", kit.port))
            m:get("a")
            kit.show("commit", m:commit_pipeline())
            m:init_pipeline()
            m:get("a")
            kit.show("close", m:close())
            kit.show("connect", m:connect("127.0.0.1", kit.port))
            kit.show("already", m:init_pipeline())
            kit.show("commit", m:commit_pipeline())
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
set_keepalive: 1
queues while unconnected: 1
connect: 1
commit: {{"1", "0"}, {1}, {"2", "0"}}, nil
close: 1
connect: 1
already: "already init pipeline"
commit: {{"2", "0"}}, nil
in step: "yes"
--- no_error_log
[error]



=== TEST 5: a thousand commands
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            m:init_pipeline(4000)
            for i = 1, 1000 do m:set("k " .. i, string.rep(i .. "\r\n", i % 30), 0, i) end
            local res = assert(m:commit_pipeline())
            local stored = 0
            for i = 1, 1000 do if res[i][1] == 1 and #res[i] == 1 then stored = stored + 1 end end
            kit.show("stored", #res, stored)
            m:init_pipeline()
            for i = 1, 1000 do m:get("k " .. i) m:get("none" .. i) end
            res = assert(m:commit_pipeline())
            local right = 0
            for i = 1, 1000 do
                local hit, miss = res[2 * i - 1], res[2 * i]
                if hit[1] == string.rep(i .. "\r\n", i % 30) and hit[2] == tostring(i)
                    and next(miss) == nil then right = right + 1 end
            end
            kit.show("right", #res, right)
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
stored: 1000, 1000
right: 2000, 1000
in step: "yes"
--- no_error_log
[error]



=== TEST 6: an error reply stays in its slot
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            m:set("word", "abc")
            m:init_pipeline()
            m:get("word")
            m:incr("word", 1)
            m:get("word")
            m:incr("none", 1)
            m:decr("none", 1)
            m:touch("none", 1)
            m:delete("none")
            m:replace("none", "v")
            m:get("none")
            m:set("word", "d")
            m:get("word")
            for i, r in ipairs((assert(m:commit_pipeline()))) do
                kit.show(i, r)
            end
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
1: {"abc", "0"}
2: {nil, "CLIENT_ERROR cannot increment or decrement non-numeric value"}
3: {"abc", "0"}
4: {nil, "NOT_FOUND"}
5: {nil, "NOT_FOUND"}
6: {nil, "NOT_FOUND"}
7: {nil, "NOT_FOUND"}
8: {nil, "NOT_STORED"}
9: {}
10: {1}
11: {"d", "0"}
in step: "yes"
--- no_error_log
[error]



=== TEST 7: replies that arrive together, or byte by byte
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local replies = "VALUE a 7 5\r\nab\r\nc\r\nEND\r\nSTORED\r\nEND\r\n"
                .. "42\r\nNOT_FOUND\r\nSTAT x y\r\nEND\r\nVALUE a 0 0\r\n\r\nEND\r\n"
            local srv = kit.fake(function(c)
                for i = 1, 3 do
                    c:drain(0.05)
                    if i == 1 then c:send(replies)
                    elseif i == 2 then c:trickle(replies, 1, 0.001)
                    else c:trickle(replies, 7, 0.001) end
                end
            end)
            local m = kit.connect(srv.port)
            for _, how in ipairs{ "at once", "by bytes", "by sevens" } do
                m:init_pipeline()
                m:get("a")
                m:set("a", 1)
                m:get("a")
                m:incr("a", 1)
                m:delete("a")
                m:stats()
                m:get("a")
                kit.show(how, m:commit_pipeline())
            end
            srv:close()
        }
    }
--- request
GET /t
--- response_body
at once: {{"ab\r\nc", "7"}, {1}, {}, {"42"}, {nil, "NOT_FOUND"}, {{"STAT x y"}}, {"", "0"}}, nil
by bytes: {{"ab\r\nc", "7"}, {1}, {}, {"42"}, {nil, "NOT_FOUND"}, {{"STAT x y"}}, {"", "0"}}, nil
by sevens: {{"ab\r\nc", "7"}, {1}, {}, {"42"}, {nil, "NOT_FOUND"}, {{"STAT x y"}}, {"", "0"}}, nil
--- no_error_log
[error]



=== TEST 8: timeout midway
--- object: a client connects anew after an error
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c)
                c:line()
                c:send("VALUE a 0 1\r\nx\r\nEND\r\nSTORED\r\n42")
            end)
            local m = kit.connect(srv.port)
            m:set_timeout(1000)
            m:init_pipeline()
            m:get("a")
            m:set("a", 1)
            m:incr("a", 1)
            m:get("a")
            m:delete("a")
            m:stats()
            kit.show("commit", m:commit_pipeline())
            kit.show("get", m:get("a"))
            kit.show("no pipeline left", m:commit_pipeline())
            srv:close()
        }
    }
--- request
GET /t
--- response_body
commit: {{"x", "0"}, {1}, {nil, "timeout"}, {[3]="closed"}, {nil, "closed"}, {nil, "closed"}}, nil
get: nil, nil, "closed"
no pipeline left: nil, "no pipeline"
--- error_log
lua tcp socket read timed out



=== TEST 9: the server closes midway
--- object: a client has no set_keepalive
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c)
                for _ = 1, 7 do c:line() end
                c:send("VALUE a 0 1\r\nx\r\nEND\r\nSTO")
                c:close()
            end)
            local m = kit.connect(srv.port)
            m:init_pipeline()
            m:get("a")
            m:set("a", 1)
            m:incr("a", 1)
            m:get("a")
            m:touch("a", 1)
            m:verbosity(1)
            kit.show("commit", m:commit_pipeline())
            kit.show("set_keepalive", m:set_keepalive())
            srv:close()
        }
    }
--- request
GET /t
--- response_body
commit: {{"x", "0"}, {nil, "closed"}, {nil, "closed"}, {[3]="closed"}, {nil, "closed"}, {nil, "closed"}}, nil
set_keepalive: nil, "closed"
--- no_error_log
[alert]



=== TEST 10: commit without a connection
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.new()
            m:init_pipeline()
            kit.show("queue", m:get("a"), m:set("a", 1), m:incr("a", 1), m:delete("a"))
            kit.show("commit", m:commit_pipeline())
            local bare = require "resty.memcached"
            kit.show("pipeline of the module", bare:init_pipeline(), bare:commit_pipeline())
            kit.show("no trace", rawget(bare, "_reqs"), rawget(bare, "_readers"))
        }
    }
--- request
GET /t
--- response_body
queue: 1, 1, 1, 1
commit: nil, "closed"
pipeline of the module: nil, nil, "not initialized"
no trace: nil, nil
--- error_log
attempt to send data on a closed socket
