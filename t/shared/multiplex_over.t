use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# Operations that are over: nothing of them that was not sent is sent later.

our $HttpConfig = TestEnv::head(
    multiplex => 1,
    http      => 'lua_socket_log_errors off;',
    init      => q{
        -- A listener that accepts nothing yet, and an object that is connected to it by a
        -- connection that was closed: its commands are given to one that cannot be opened before
        -- the listener serves.
        function unopened(n)
            local full = kit.listen{ backlog = 0 }
            local memcs = {}
            local t = ngx.thread.spawn(function()
                for i = 1, n do memcs[i] = kit.connect(full.port) end
            end)
            local c = full:accept()
            ngx.thread.wait(t)
            -- with this one its queue is full: the kernel drops what asks for a connection, which
            -- asks again after a second
            full:knock()
            ngx.sleep(0.01)
            c:close()
            ngx.sleep(0.02)
            return full, memcs
        end

        -- Reads so many bytes; whether they came.
        function skip(c, n)
            while #c.input < n do
                n = n - #c.input
                c.input = ""
                if not c:fill() then return false end
            end
            c.input = c.input:sub(n + 1)
            return true
        end

        -- What a server gets: a line for each command, with the beginning of a value.
        function serve(listener)
            listener.lines = {}
            return listener:serve(function(c)
                while true do
                    local line = c:line()
                    if not line then
                        c.ended = true
                        return
                    end
                    local size = line:match("^set %S+ %d+ %d+ (%d+)$")
                    local value = size and c:read(math.min(size + 2, 6))
                    if size and not (value and skip(c, math.max(size - 4, 0))) then
                        c.ended = true
                        return
                    end
                    value = value and value:gsub("[^a-z]", "")
                    table.insert(listener.lines, line .. (value and " " .. value or ""))
                    c:send(size and "STORED\r\n" or mux.reply(line, c))
                end
            end)
        end
    },
);

worker_connections(1024);
run_tests();

__DATA__

=== TEST 1: a pipeline of which a part was sent is over as a whole
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            for _, connections in ipairs{ 1, 2 } do
                local srv = kit.fake(function(c)
                    if c.index > 1 then return end
                    c:line()
                    ngx.sleep(0.05)
                    c:reset()
                end)
                local a = kit.connect(srv.port, nil, { multiplex = connections })
                local b = kit.connect(srv.port, nil, { multiplex = connections })
                local c = kit.connect(srv.port, nil, { multiplex = connections })
                -- those that are to come are read
                kit.eventually(function() return srv.accepted == 1 end)
                srv.deaf = true
                ngx.sleep(0.01)
                srv.deaf = nil
                serve(srv)
                local r = mux.at_once(3, function(i)
                    if i == 2 then return b:get("x") end
                    if i == 3 then return c:set("c", "new") end
                    a:init_pipeline()
                    a:set("a", ("x"):rep(8 * 1024 * 1024))
                    a:set("b", "old")
                    local results, err = a:commit_pipeline()
                    local m = kit.connect(srv.port, nil, { multiplex = connections })
                    return results, err, m:set("b", "new")
                end)
                kit.show("the pipeline, and then", unpack(r[1], 1, 3))
                kit.show("those behind it", r[2][1], r[3][1])
                ngx.sleep(0.02)
                table.sort(srv.lines)
                kit.show("sent", srv.lines)
                srv:close()
            end
        }
    }
--- request
GET /t
--- response_body
the pipeline, and then: nil, "connection reset by peer", 1
those behind it: "x", 1
sent: {"get x", "set b 0 0 3 new", "set c 0 0 3 new"}
the pipeline, and then: nil, "connection reset by peer", 1
those behind it: "x", 1
sent: {"get x", "set b 0 0 3 new", "set c 0 0 3 new"}
--- no_error_log
[alert]
--- whole: the first command has to be sent in part



=== TEST 2: ended while the connection is being opened
--- http_config eval: $::HttpConfig
--- config
    location = /exit {
        content_by_lua_block {
            ngx.thread.spawn(function()
                kit.shared.late:connect("127.0.0.1", kit.shared.port)
                kit.shared.late:set("exit", "late")
            end)
            ngx.sleep(0.01)
            ngx.exit(403)
        }
    }
    location = /t {
        content_by_lua_block {
            local full, memcs = unopened(10)
            for i = 1, 4 do memcs[i]:set_timeout(50) end
            local function pipeline(m, name)
                m:init_pipeline()
                for i = 1, 3 do m:set(name .. i, "p") end
                return m:commit_pipeline()
            end
            local threads, killed = {}, {}
            for i, f in ipairs{
                function() return memcs[5]:set("first", "good") end,
                function() return memcs[1]:set("late", "timed out") end,
                function() return memcs[2]:get("late") end,
                function() return memcs[3]:get{ "late", "later" } end,
                function() return pipeline(memcs[4], "late") end,
                function() return pipeline(memcs[6], "good") end,
            } do threads[i] = ngx.thread.spawn(f) end
            killed[1] = ngx.thread.spawn(function() return memcs[7]:set("late", "killed") end)
            killed[2] = ngx.thread.spawn(function() return pipeline(memcs[8], "killed") end)
            kit.shared.late, kit.shared.port = kit.new(), full.port
            kit.http($TEST_NGINX_SERVER_PORT, "/exit")
            for i = 1, 2 do ngx.thread.kill(killed[i]) end
            for i = 2, 5 do kit.show(i, ngx.thread.wait(threads[i])) end
            local last = ngx.thread.spawn(function() return memcs[9]:get("last") end)
            serve(full)
            kit.show("first", ngx.thread.wait(threads[1]))
            kit.show("pipeline", ngx.thread.wait(threads[6]))
            kit.show("last", ngx.thread.wait(last))
            kit.show("sent", full.lines)
            full:close()
        }
    }
--- request
GET /t
--- response_body
2: true, nil, "timeout"
3: true, nil, nil, "timeout"
4: true, nil, "timeout"
5: true, nil, "timeout"
first: true, 1
pipeline: true, {{1}, {1}, {1}}, nil
last: true, "last", "0"
sent: {"set first 0 0 4 good", "set good1 0 0 1 p", "set good2 0 0 1 p", "set good3 0 0 1 p", "get last"}
--- no_error_log
[alert]
--- timeout: 10



=== TEST 3: ended behind a command that the socket takes bit by bit
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.listen()
            local memcs = {}
            for i = 1, 8 do memcs[i] = kit.connect(srv.port) end
            for _, i in ipairs{ 2, 4, 6 } do memcs[i]:set_timeout(60) end
            local threads = { ngx.thread.spawn(function()
                return memcs[1]:set("big", ("x"):rep(24 * 1024 * 1024))
            end) }
            ngx.sleep(0.02)
            for i = 2, 8 do
                threads[i] = ngx.thread.spawn(function()
                    if i % 3 == 0 then return memcs[i]:get("k" .. i) end
                    return memcs[i]:set("k" .. i, "v")
                end)
            end
            ngx.thread.kill(threads[5])
            for _, i in ipairs{ 2, 4, 6 } do kit.show(i, ngx.thread.wait(threads[i])) end
            -- nobody has looked for this one yet
            ngx.thread.kill(threads[8])
            serve(srv)
            for _, i in ipairs{ 1, 3, 7 } do kit.show(i, ngx.thread.wait(threads[i])) end
            kit.show("sent", srv.lines)
            kit.show("the next ones", memcs[1]:get("k"), memcs[3]:set("k", "v"))
            kit.show("connections", srv.accepted)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
2: true, nil, "timeout"
4: true, nil, "timeout"
6: true, nil, nil, "timeout"
1: true, 1
3: true, "k3", "0"
7: true, 1
sent: {"set big 0 0 25165824 xxxxxx", "get k3", "set k7 0 0 1 v"}
the next ones: "k", 1
connections: 1
--- no_error_log
[alert]
--- timeout: 10



=== TEST 4: ended when a part of the command was sent: the connection ends, too
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            for _, how in ipairs{ "timeout", "kill" } do
                local whole
                local srv
                srv = mux.server(function(line, c)
                    if c.index > 1 then return end
                    if line:match("^set sent") then
                        c:read(3)
                        return false
                    end
                    if not line:match("^set big") then return false end
                    while not srv.go do ngx.sleep(0.002) end
                    whole = skip(c, 24 * 1024 * 1024)
                    c.ended = true
                    return false
                end)
                local memcs, threads = {}, {}
                for i = 1, 6 do memcs[i] = kit.connect(srv.port) end
                local function ask(i, f)
                    threads[i] = ngx.thread.spawn(f)
                    ngx.sleep(0.01)
                end
                ask(1, function() return memcs[1]:get("asked") end)
                ask(2, function() return memcs[2]:set("sent", "v") end)
                if how == "timeout" then memcs[3]:set_timeouts(1000, 100, 100) end
                ask(3, function() return memcs[3]:set("big", ("x"):rep(24 * 1024 * 1024)) end)
                ask(4, function() return memcs[4]:set("behind", "v") end)
                ask(5, function() return memcs[5]:get("behind") end)
                if how == "kill" then
                    kit.show("killed", ngx.thread.kill(threads[3]))
                else
                    kit.show("timed out", ngx.thread.wait(threads[3]))
                end
                kit.show("a read that was sent", ngx.thread.wait(threads[1]))
                kit.show("a write that was sent", ngx.thread.wait(threads[2]))
                kit.show("what was not", ngx.thread.wait(threads[4]))
                kit.show("what was not", ngx.thread.wait(threads[5]))
                srv.go = true
                kit.eventually(function() return srv.conns[1].ended end)
                kit.show("all of the value", whole)
                local elsewhere = {}
                for _, line in ipairs(srv.lines) do
                    if not line:match("^1 ") then elsewhere[#elsewhere + 1] = line:sub(3) end
                end
                table.sort(elsewhere)
                kit.show("elsewhere", elsewhere)
                srv:close()
            end
        }
    }
--- request
GET /t
--- response_body
timed out: true, nil, "timeout"
a read that was sent: true, "asked", "0"
a write that was sent: true, nil, "closed"
what was not: true, 1
what was not: true, "behind", "0"
all of the value: false
elsewhere: {"get asked", "get behind", "set behind 0 0 1"}
killed: 1
a read that was sent: true, "asked", "0"
a write that was sent: true, nil, "closed"
what was not: true, 1
what was not: true, "behind", "0"
all of the value: false
elsewhere: {"get asked", "get behind", "set behind 0 0 1"}
--- no_error_log
[alert]
--- timeout: 10



=== TEST 5: killed before the turn of the event loop ends
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            local memcs = {}
            for i = 1, 6 do memcs[i] = kit.connect(srv.port) end
            local calls = {
                function(m) return m:set("late", "v") end,
                function(m) return m:get("good") end,
                function(m) return m:get("late") end,
                function(m) return m:get{ "late", "later" } end,
                function(m)
                    m:init_pipeline()
                    m:set("late", "v")
                    m:get("late")
                    return m:commit_pipeline()
                end,
                function(m) return m:set("good", "v") end,
            }
            local threads = {}
            for i, call in ipairs(calls) do threads[i] = ngx.thread.spawn(call, memcs[i]) end
            for _, i in ipairs{ 1, 3, 4, 5 } do ngx.thread.kill(threads[i]) end
            kit.show("good", ngx.thread.wait(threads[2]))
            kit.show("good", ngx.thread.wait(threads[6]))
            kit.show("sent", mux.lines(srv))
            -- all of them
            local t = ngx.thread.spawn(memcs[2].set, memcs[2], "late", "v")
            ngx.thread.kill(t)
            ngx.sleep(0.05)
            kit.show("sent", mux.lines(srv))
            kit.show("in step", memcs[6]:get("k"))
            kit.show("connections", srv.accepted)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
good: true, "good", "0"
good: true, 1
sent: {"get good", "set good 0 0 1"}
sent: {}
in step: "k", "0"
connections: 1
--- no_error_log
[alert]



=== TEST 6: a get that others wait for, too
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local full, memcs = unopened(11)
            local threads = {}
            local function ask(i, key) threads[i] = ngx.thread.spawn(memcs[i].get, memcs[i], key) end
            for i = 1, 2 do memcs[i]:set_timeout(50) end
            for i = 1, 3 do ask(i, "asker times out") end
            for i = 4, 6 do ask(i, "asker is killed") end
            for i = 7, 9 do ask(i, "all are killed") end
            ask(10, "last")
            for _, i in ipairs{ 4, 7, 8, 9 } do ngx.thread.kill(threads[i]) end
            for i = 1, 2 do kit.show(i, ngx.thread.wait(threads[i])) end
            serve(full)
            for _, i in ipairs{ 3, 5, 6, 10 } do kit.show(i, ngx.thread.wait(threads[i])) end
            kit.show("sent", full.lines)
            kit.show("no one counts twice", memcs[11]:get("k"))
            full:close()
        }
    }
--- request
GET /t
--- response_body
1: true, nil, nil, "timeout"
2: true, nil, nil, "timeout"
3: true, "asker%20times%20out", "0"
5: true, "asker%20is%20killed", "0"
6: true, "asker%20is%20killed", "0"
10: true, "last", "0"
sent: {"get asker%20times%20out", "get asker%20is%20killed", "get last"}
no one counts twice: "k", "0"
--- no_error_log
[alert]
--- timeout: 10



=== TEST 7: one that waits for room is killed when there is some
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1 max_operations=1;
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            local memcs = {}
            for i = 1, 4 do memcs[i] = kit.connect(srv.port, { backlog = 5 }) end
            srv.held = true
            local threads = {}
            for i = 1, 4 do threads[i] = ngx.thread.spawn(memcs[i].set, memcs[i], "k" .. i, "v") end
            ngx.sleep(0.01)
            ngx.thread.kill(threads[2])
            ngx.thread.kill(threads[4])
            srv.held = false
            kit.show("first", ngx.thread.wait(threads[1]))
            kit.show("third", ngx.thread.wait(threads[3]))
            ngx.sleep(0.02)
            kit.show("sent", mux.lines(srv))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
first: true, 1
third: true, 1
sent: {"set k1 0 0 1", "set k3 0 0 1"}
--- no_error_log
[alert]



=== TEST 8: sixteen thousand that time out together
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        lua_memcached_multiplex 1 max_operations=20000;
        content_by_lua_block {
            local N = 16000
            -- seconds of CPU; what costs the square of their number takes ten times as long
            local function whole(label, f, want)
                local full = kit.listen{ backlog = 0 }
                local first
                local t = ngx.thread.spawn(function() first = kit.connect(full.port) end)
                local c = full:accept()
                ngx.thread.wait(t)
                local threads, memcs = {}, {}
                for i = 1, N do
                    memcs[i] = kit.new()
                    memcs[i]:set_timeouts(300, 300, 300)
                    if f then memcs[i]:connect("127.0.0.1", full.port, { backlog = N }) end
                end
                full:knock()
                ngx.sleep(0.01)
                c:close()
                ngx.sleep(0.02)
                local right = 0
                local function one(i)
                    local m, err = memcs[i]
                    if f then
                        err = f(m, i)
                    else
                        _, err = m:connect("127.0.0.1", full.port)
                    end
                    if err == "timeout" then right = right + 1 end
                end
                for i = 1, N do threads[i] = ngx.thread.spawn(one, i) end
                ngx.update_time()
                local from = os.clock()
                for i = 1, N do ngx.thread.wait(threads[i]) end
                local cpu = os.clock() - from
                kit.show(label, right, cpu < 3 or cpu)
                full:close()
            end
            whole("for a connection", nil)
            whole("sets", function(m, i) return select(2, m:set("k" .. i, "v")) end)
            whole("one get", function(m) return select(3, m:get("hot")) end)
            whole("pipelines", function(m, i)
                m:init_pipeline()
                m:set("k" .. i, "v")
                m:get("k" .. i)
                return select(2, m:commit_pipeline())
            end)
        }
    }
--- request
GET /t
--- response_body
for a connection: 16000, true
sets: 16000, true
one get: 16000, true
pipelines: 16000, true
--- no_error_log
[alert]
--- timeout: 60
