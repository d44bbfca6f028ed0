use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# Operations that end before their reply comes: killed, timed out, aborted. The reply is discarded,
# and the others on the connection go on.

our $HttpConfig = TestEnv::head( multiplex => 2 );

run_tests();

__DATA__

=== TEST 1: a light thread killed while it waits: its reply is nobody's
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            local memcs, threads = {}, {}
            for i = 1, 20 do memcs[i] = kit.connect(srv.port) end
            srv.held = true
            for i = 1, 20 do
                threads[i] = ngx.thread.spawn(function() return (memcs[i]:get("key" .. i)) end)
            end
            ngx.sleep(0.01)
            for i = 1, 20, 2 do ngx.thread.kill(threads[i]) end
            srv.held = false
            local right = 0
            for i = 2, 20, 2 do
                if select(2, ngx.thread.wait(threads[i])) == "key" .. i then right = right + 1 end
            end
            kit.show("the others", right)
            kit.show("the killed one's object", memcs[1]:get("k"))
            kit.show("connects again", memcs[1]:connect("127.0.0.1", srv.port), memcs[1]:get("again"))
            kit.show("another's", memcs[2]:get("k"))
            kit.show("one connection", srv.accepted, mux.open(srv))

            -- killed before anything was sent
            threads = ngx.thread.spawn(function() return memcs[2]:get("unsent") end)
            ngx.thread.kill(threads)
            kit.show("after it", memcs[4]:get("k"), srv.accepted)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
the others: 10
the killed one's object: nil, nil, "closed"
connects again: 1, "again", "0"
another's: "k", "0"
one connection: 1, 1
after it: "k", 1
--- no_error_log
[alert]



=== TEST 2: a timeout is of its object alone
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            local srv = mux.server(function(line) if line == "get slow" then ngx.sleep(0.2) end end)
            local slow, other, third = kit.connect(srv.port), kit.connect(srv.port), kit.connect(srv.port)
            slow:set_timeout(50)
            third:set_timeouts(50, 50, 2000)
            local r = mux.at_once(3, function(i)
                if i == 1 then return kit.timed(slow.get, slow, "slow") end
                if i == 2 then return other:get("other") end
                return third:get("third")
            end)
            kit.show("slow", r[1][1] < 180, r[1][4])
            kit.show("other", unpack(r[2]))
            kit.show("third", unpack(r[3]))
            kit.show("closed", slow:get("k"))
            kit.show("set", slow:set("k", "v"))
            kit.show("set_keepalive", slow:set_keepalive())
            kit.show("get_reused_times", slow:get_reused_times())
            kit.show("close", slow:close())
            kit.show("others", other:get("more"), third:get("andmore"))
            kit.show("until it connects", slow:connect("127.0.0.1", srv.port), slow:get_reused_times() > 0, slow:get("k"))
            kit.show("connections", srv.accepted)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
slow: true, "timeout"
other: "other", "0"
third: "third", "0"
closed: nil, nil, "closed"
set: nil, "closed"
set_keepalive: nil, "closed"
get_reused_times: nil, "closed"
close: nil, "closed"
others: "more", "andmore", "0"
until it connects: 1, true, "k", "0"
connections: 1
--- error_log
lua tcp socket read timed out



=== TEST 3: each part of a reply gives its reader more time
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            local srv = mux.server(function(line, c)
                local what = line:match("^get (%a+)$")
                if what == "bytes" then
                    c:send("VALUE bytes 0 5\r\n")
                    c:trickle("abcde\r\nEND\r\n", 1, 0.15)
                    return false
                elseif line == "stats" then
                    for i = 1, 5 do
                        ngx.sleep(0.4)
                        c:send("STAT a " .. i .. "\r\n")
                    end
                    return "END\r\n"
                elseif line == "get many one" then
                    for _, s in ipairs{ "VALUE many 0 1\r\n", "x\r\n", "VALUE one 0 1\r\n", "y\r\n" } do
                        ngx.sleep(0.4)
                        c:send(s)
                    end
                    return "END\r\n"
                elseif what == "p" then
                    ngx.sleep(0.4)
                end
            end)
            local m = kit.connect(srv.port)
            m:set_timeout(1200)
            kit.show("bytes", m:get("bytes"))
            kit.show("stats", m:stats())
            kit.show("multi-get", m:get{ "many", "one" })
            m:init_pipeline()
            for _ = 1, 5 do m:get("p") end
            kit.show("pipeline", m:commit_pipeline())
            srv:close()
        }
    }
--- request
GET /t
--- response_body
bytes: "abcde", "0"
stats: {"STAT a 1", "STAT a 2", "STAT a 3", "STAT a 4", "STAT a 5"}, nil
multi-get: {many={"x", "0"}, one={"y", "0"}}
pipeline: {{"p", "0"}, {"p", "0"}, {"p", "0"}, {"p", "0"}, {"p", "0"}}, nil
--- no_error_log
[error]
--- timeout: 20



=== TEST 4: the client goes away: its operations are nobody's
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /get {
        lua_check_client_abort on;
        content_by_lua_block {
            local m = kit.connect(tonumber(ngx.var.arg_port))
            ngx.print((m:get("key" .. ngx.var.arg_n)))
        }
    }
    location = /exit {
        content_by_lua_block {
            local m = kit.connect(tonumber(ngx.var.arg_port))
            ngx.thread.spawn(function() m:get("exit") end)
            ngx.exit(403)
        }
    }
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            local m = kit.connect(srv.port)
            m:get("first")
            srv.held = true
            local function ask(n, secs)
                return kit.http($TEST_NGINX_SERVER_PORT, "/get?port=" .. srv.port .. "&n=" .. n, secs)
            end
            local threads = {}
            for n = 1, 10 do threads[n] = ngx.thread.spawn(ask, n, n % 2 == 0 and 0.02 or nil) end
            local mine = ngx.thread.spawn(function() return (m:get("mine")) end)
            kit.show("exit", kit.http($TEST_NGINX_SERVER_PORT, "/exit?port=" .. srv.port):match("403") )
            ngx.sleep(0.05)
            srv.held = false
            local right = 0
            for n = 1, 10, 2 do
                if select(2, ngx.thread.wait(threads[n])) == "key" .. n then right = right + 1 end
            end
            kit.show("right", right, select(2, ngx.thread.wait(mine)))
            kit.show("connections", srv.accepted, mux.open(srv))
            kit.show("then", m:get("then"))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
exit: "403"
right: 5, "mine"
connections: 1, 1
then: "then", "0"
--- no_error_log
[alert]



=== TEST 5: a link whose reply is overdue takes no new work, and is closed when it stays so
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            local srv = mux.server(function(line, c)
                c.stuck = c.stuck or line == "get stuck"
                while c.stuck and not c.server.stopped do ngx.sleep(0.01) end
            end)
            local m, other = kit.connect(srv.port), kit.connect(srv.port)
            m:set_timeout(60)
            kit.show("stuck", m:get("stuck"))
            local ms, v = kit.timed(other.get, other, "other")
            kit.show("the next one goes elsewhere", v, ms < 1000, srv.accepted)
            m:connect("127.0.0.1", srv.port)
            kit.show("and those after it", m:get("k"), m:set("k", "v"))
            kit.show("lines", mux.lines(srv))
            kit.show("the first is closed", kit.eventually(function()
                local c = srv.conns[1]
                c.stuck = false
                return not c:fill() or c.ended
            end, 3))
            kit.show("still", other:get("k"))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
stuck: nil, nil, "timeout"
the next one goes elsewhere: "other", true, 2
and those after it: "k", 1
lines: {"get stuck", "get other", "get k", "set k 0 0 1"}
the first is closed: true
still: "k", "0"
--- no_error_log
[alert]



=== TEST 6: late replies: the link takes work again
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            local srv = mux.server(function(line) if line == "get late" then ngx.sleep(0.4) end end)
            local m = kit.connect(srv.port)
            m:set_timeout(300)
            kit.show("late", m:get("late"))
            ngx.sleep(0.3)
            m:connect("127.0.0.1", srv.port)
            m:set_timeout(1000)
            kit.show("then", m:get("then"))
            kit.show("connections", srv.accepted, mux.open(srv))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
late: nil, nil, "timeout"
then: "then", "0"
connections: 1, 1
--- error_log
lua tcp socket read timed out



=== TEST 7: the send timeout is between two writes, and the read timeout begins when all is sent
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            local srv = mux.server(function(line, c)
                local size = line:match("^set large %d+ %d+ (%d+)$")
                if not size then return end
                local left = size + 2 - #c.input
                c.input = ""
                while left > 0 do
                    if c.pause then ngx.sleep(c.pause) end
                    if not c:fill() then return false end
                    left = left - #c.input
                    c.input = ""
                end
                ngx.sleep(c.wait or 0)
                return "STORED\r\n"
            end)
            local value = ("x"):rep(24 * 1024 * 1024)
            local m = kit.connect(srv.port)
            local c = srv.conns[1]

            -- how long that takes here, and then less time than that, but more than
            -- between two writes
            c.pause = 0.003
            m:set_timeouts(1000, 20000, 20000)
            local whole = kit.timed(m.set, m, "large", value)
            local function takes_longer(name, timeouts)
                local limit, ms, ok, err
                for _ = 1, 5 do
                    limit = 0.7 * whole
                    m:set_timeouts(timeouts(limit))
                    ms, ok, err = kit.timed(m.set, m, "large", value)
                    if not ok or ms > limit then break end
                    whole = ms
                end
                kit.show(name, ok, err, ms > limit)
            end
            takes_longer("slowly", function(limit) return 1000, limit, 20000 end)
            c.wait = 0.1
            takes_longer("slowly, and an answer after a while", function(limit) return 1000, 20000, limit end)
            kit.show("connections", srv.accepted, m:get("k"))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
slowly: 1, nil, true
slowly, and an answer after a while: 1, nil, true
connections: 1, "k", "0"
--- no_error_log
[error]
--- timeout: 60



=== TEST 8: overdue, too, when older replies come after the timeout of a later one
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            local srv = mux.server(function(line, c)
                if line == "get slow" then ngx.sleep(0.12) end
                if line == "get never" then
                    c.mute = true
                    return false
                end
                if c.mute then return false end
            end)
            local slow, never, behind = kit.connect(srv.port), kit.connect(srv.port), kit.connect(srv.port)
            never:set_timeout(40)
            behind:set_timeout(400)
            local t1 = ngx.thread.spawn(slow.get, slow, "slow")
            local t2 = ngx.thread.spawn(never.get, never, "never")
            local t3 = ngx.thread.spawn(behind.get, behind, "behind")
            kit.show("never", ngx.thread.wait(t2))
            kit.show("slow", ngx.thread.wait(t1))
            slow:set_timeout(800)
            kit.show("the next one", slow:get("next"))
            kit.show("connections", srv.accepted)
            kit.show("behind", ngx.thread.wait(t3))
            kit.show("closed then", kit.eventually(function() return srv.conns[1].ended end, 2))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
never: true, nil, nil, "timeout"
slow: true, "slow", "0"
the next one: "next", "0"
connections: 2
behind: true, nil, nil, "timeout"
closed then: true
--- error_log
lua tcp socket read timed out
