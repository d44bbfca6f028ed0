use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# Links that break, replies that fit no command, connections that cannot be had.

our $HttpConfig = TestEnv::head( multiplex => 2 );

run_tests();

__DATA__

=== TEST 1: a lost link fails what can only be asked once, and nothing else
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            for _, how in ipairs{ "close", "reset" } do
                local srv = mux.server(function(line, c)
                    if line == "get bad" then
                        c[how](c)
                        return false
                    end
                end)
                local idle, m = kit.connect(srv.port), kit.connect(srv.port)
                m:get("first")
                local memcs = {}
                for i = 1, 6 do memcs[i] = kit.connect(srv.port) end
                local r = mux.at_once(6, function(i)
                    if i == 5 then return memcs[i]:set("k5", "v") end
                    return memcs[i]:get(i == 3 and "bad" or "k" .. i)
                end)
                for i = 1, 6 do kit.show(how .. " " .. i, unpack(r[i], 1, 3)) end
                kit.show("an idle one goes on", idle:get("idle"))
                kit.show("and one that was answered", memcs[1]:get("more"))
                kit.show("connections", srv.accepted)
                srv:close()
            end
        }
    }
--- request
GET /t
--- response_body
close 1: "k1", "0", nil
close 2: "k2", "0", nil
close 3: nil, nil, "closed"
close 4: "k4", "0", nil
close 5: nil, "closed", nil
close 6: "k6", "0", nil
an idle one goes on: "idle", "0"
and one that was answered: "more", "0"
connections: 3
reset 1: "k1", "0", nil
reset 2: "k2", "0", nil
reset 3: nil, nil, "connection reset by peer"
reset 4: "k4", "0", nil
reset 5: nil, "connection reset by peer", nil
reset 6: "k6", "0", nil
an idle one goes on: "idle", "0"
and one that was answered: "more", "0"
connections: 3
--- no_error_log
[alert]
--- whole: byte by byte, the reset overtakes replies, and commands that then go to another connection



=== TEST 2: all links closed while nobody waits: the next connect opens one
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            local attached = kit.connect(srv.port)
            kit.show("first", attached:get("first"), attached:get_reused_times())
            srv.conns[1]:close()
            ngx.sleep(0.02)
            local m = kit.connect(srv.port)
            kit.show("a new one", m:get_reused_times(), m:get("k"))
            kit.show("attached", attached:get("attached"))
            srv.conns[2]:close()
            ngx.sleep(0.02)
            kit.show("reopens with its command", attached:get("again"))
            kit.show("connections", srv.accepted)
            kit.show("kept", attached:set_keepalive())
            srv:close()
        }
    }
--- request
GET /t
--- response_body
first: "first", 0
a new one: 0, "k", "0"
attached: "attached", "0"
reopens with its command: "again", "0"
connections: 3
kept: 1
--- no_error_log
[error]



=== TEST 3: a reply that does not fit: an error for its asker, and the link is torn down
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            local replies = {
                "VALUE other 0 5\r\nother\r\nEND\r\n",        -- another key
                "VALUE bad 0 3\r\nbadEND\r\n",                -- no line end
                "STORED\r\n",
                "gibberish\r\n",
                "VALUE bad 0 99999999999\r\n",
            }
            for n, reply in ipairs(replies) do
                local srv = mux.server(function(line) if line == "get bad" then return reply end end)
                local m = kit.connect(srv.port)
                m:get("first")
                local memcs = {}
                for i = 1, 4 do memcs[i] = kit.connect(srv.port) end
                local r = mux.at_once(4, function(i)
                    if i == 4 then return nil, nil, select(2, memcs[i]:set("k4", "v")) end
                    return memcs[i]:get(i == 2 and "bad" or "k" .. i)
                end)
                local wrong = 0
                for i = 1, 4 do
                    if r[i][1] ~= nil and r[i][1] ~= "k" .. i then wrong = wrong + 1 end
                end
                kit.show("reply " .. n, wrong, r[1][1], r[2][3] ~= nil, r[3][1], r[4][3])
                kit.show("torn down", kit.eventually(function() return mux.open(srv) <= 1 and srv.conns[1].ended end, 5))
                m:connect("127.0.0.1", srv.port)
                kit.show("then", m:get("then"))
                srv:close()
            end
        }
    }
--- request
GET /t
--- response_body
reply 1: 0, "k1", true, "k3", "closed"
torn down: true
then: "then", "0"
reply 2: 0, "k1", true, "k3", "closed"
torn down: true
then: "then", "0"
reply 3: 0, "k1", true, "k3", "closed"
torn down: true
then: "then", "0"
reply 4: 0, "k1", true, "k3", "closed"
torn down: true
then: "then", "0"
reply 5: 0, "k1", true, "k3", "closed"
torn down: true
then: "then", "0"
--- no_error_log
[alert]



=== TEST 4: replies nobody asked for
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            local srv = mux.server(function(line) if line == "get twice" then
                return "VALUE twice 0 1\r\n2\r\nEND\r\nVALUE k 0 4\r\nevil\r\nEND\r\n" end end)
            local a, b = kit.connect(srv.port), kit.connect(srv.port)
            kit.show("twice", a:get("twice"))
            ngx.sleep(0.02)
            kit.show("the next", b:get("k"))
            kit.show("connections", srv.accepted, mux.open(srv))
            srv.conns[2]:send("VALUE k 0 4\r\nevil\r\nEND\r\n")
            ngx.sleep(0.02)
            kit.show("unasked", b:get("k"))
            kit.show("connections", srv.accepted, mux.open(srv))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
twice: "2", "0"
the next: "k", "0"
connections: 2, 1
unasked: "k", "0"
connections: 3, 1
--- no_error_log
[alert]



=== TEST 5: refused while several wait: an error and a log line for each
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local r = mux.at_once(5, function()
                local m = kit.new()
                local ok, err = m:connect("127.0.0.1", $TEST_NGINX_UNUSED_PORT)
                return err, ok, select(3, m:get("k"))
            end)
            for i = 1, 5 do kit.show("connect", unpack(r[i], 1, 3)) end
            local m = kit.new()
            kit.show("again", m:connect("127.0.0.1", $TEST_NGINX_UNUSED_PORT))
        }
    }
--- request
GET /t
--- response_body
connect: "connection refused", nil, "closed"
connect: "connection refused", nil, "closed"
connect: "connection refused", nil, "closed"
connect: "connection refused", nil, "closed"
connect: "connection refused", nil, "closed"
again: nil, "connection refused"
--- grep_error_log eval: qr/connect\(\) failed \(111: Connection refused\), client: 127.0.0.1/
--- grep_error_log_out eval
"connect() failed (111: Connection refused), client: 127.0.0.1\n" x 6



=== TEST 6: no answer while several wait: each has its own time
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local full = kit.listen{ backlog = 0 }
            for _ = 1, 4 do full:knock() end
            local r = mux.at_once(4, function(i)
                local m = kit.new()
                m:set_timeout(i == 4 and 700 or 60 * i)
                return kit.timed(m.connect, m, "127.0.0.1", full.port)
            end)
            for i = 1, 4 do
                local ms, ok, err = unpack(r[i], 1, 3)
                local least = i == 4 and 700 or 60 * i
                kit.show("connect", ok, err, ms >= least - 5, ms < least + 300)
            end
            full:close()
        }
    }
--- request
GET /t
--- response_body
connect: nil, "timeout", true, true
connect: nil, "timeout", true, true
connect: nil, "timeout", true, true
connect: nil, "timeout", true, true
--- error_log
lua tcp socket connect timed out



=== TEST 7: one that waits for the connection is killed, the one that opened it as well
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            for _, who in ipairs{ 1, 2 } do
                local full = kit.listen{ backlog = 0 }
                for _ = 1, 4 do full:knock() end
                local threads = {}
                for i = 1, 3 do
                    threads[i] = ngx.thread.spawn(function()
                        local m = kit.new()
                        m:set_timeout(300)
                        return m:connect("127.0.0.1", full.port)
                    end)
                end
                ngx.sleep(0.02)
                kit.show("kill", ngx.thread.kill(threads[who]))
                for i = 1, 3 do
                    if i ~= who then kit.show("other", ngx.thread.wait(threads[i])) end
                end
                full:close()
            end
            kit.show("in step", kit.in_step(kit.connect()))
        }
    }
--- request
GET /t
--- response_body
kill: 1
other: true, nil, "timeout"
other: true, nil, "timeout"
kill: 1
other: true, nil, "timeout"
other: true, nil, "timeout"
in step: "yes"
--- no_error_log
[alert]



=== TEST 8: a large value that cannot be sent at all goes to another connection, whole
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            local sizes = {}
            local srv = mux.server(function(line, c)
                local size = line:match("^set big %d+ %d+ (%d+)$")
                if size then
                    local value = c:read(tonumber(size) + 2)
                    sizes[#sizes + 1] = value == ("x"):rep(size) .. "\r\n" and size or "another value"
                    return "STORED\r\n"
                end
            end)
            local memcs = {}
            for i = 1, 3 do memcs[i] = kit.connect(srv.port) end
            memcs[1]:get("first")
            for _, first in ipairs{ 1, 2 } do
                -- nginx finds out by writing
                srv.conns[#srv.conns]:reset()
                local r = mux.at_once(3, function(i)
                    if i == first then return memcs[i]:set("big", ("x"):rep(100000)) end
                    return memcs[i]:get("k" .. i)
                end)
                for i = 1, 3 do kit.show(i, unpack(r[i], 1, r[i].n)) end
            end
            kit.show("sizes", unpack(sizes))
            kit.show("connections", srv.accepted)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
1: 1
2: "k2", "0"
3: "k3", "0"
1: "k1", "0"
2: 1
3: "k3", "0"
sizes: "100000", "100000"
connections: 3
--- no_error_log
[alert]



=== TEST 9: a command that timed out does not make a connection that is being opened stand
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            local full = kit.listen{ backlog = 0 }
            local m = kit.new()
            m:set_timeouts(2000, 60, 60)
            local t = ngx.thread.spawn(m.connect, m, "127.0.0.1", full.port)
            local c = full:accept()
            kit.show("connected", ngx.thread.wait(t))
            for _ = 1, 4 do full:knock() end
            c:close()
            ngx.sleep(0.02)
            kit.show("given to the next connection", m:get("k"))
            local other = kit.new()
            other:set_timeout(400)
            kit.show("which is not there", other:connect("127.0.0.1", full.port))
            full:close()
        }
    }
--- request
GET /t
--- response_body
connected: true, 1
given to the next connection: nil, nil, "timeout"
which is not there: nil, "timeout"
--- error_log
lua tcp socket write timed out



=== TEST 10: replies that came before a reset are not lost, whoever notices it by writing
--- whole: what came before the reset has to be read at once
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            for _, value in ipairs{ "v", ("v"):rep(100000) } do
                local first, second, third, stored
                local srv = mux.server(function(line, c)
                    if line ~= "get one" then return end
                    c:line()
                    c:send(mux.reply(line, c))
                    c:reset()
                    -- what is sent before nginx sees the read event
                    stored = kit.vals(third:set("three", value))
                    return false
                end)
                first, second, third = kit.connect(srv.port), kit.connect(srv.port), kit.connect(srv.port)
                local t2 = ngx.thread.spawn(function()
                    ngx.sleep(0)
                    return second:get("two")
                end)
                local t1 = ngx.thread.spawn(first.get, first, "one")
                kit.show("answered", ngx.thread.wait(t1))
                kit.show("asked again", ngx.thread.wait(t2))
                kit.eventually(function() return stored end)
                kit.show("not sent", stored)
                kit.show("in step", first:get("more"))
                kit.show("connections", srv.accepted)
                srv:close()
            end
        }
    }
--- request
GET /t
--- response_body
answered: true, "one", "0"
asked again: true, "two", "0"
not sent: "1"
in step: "more", "0"
connections: 3
answered: true, "one", "0"
asked again: true, "two", "0"
not sent: "1"
in step: "more", "0"
connections: 3
--- no_error_log
[alert]
