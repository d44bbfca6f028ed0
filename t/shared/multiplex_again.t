use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# Reads that are lost with a shared connection are asked again, once.

our $HttpConfig = TestEnv::head(
    multiplex => 1,
    http      => 'lua_socket_log_errors off;',
    init      => q{
        -- A server that ends the connection (how: close, reset) when it is asked for `bad` on one of
        -- its first n connections, and has not answered anything that came with it.
        function fragile(how, n)
            return mux.server(function(line, c)
                if not line:match("%f[%w]bad%f[%W]") or c.index > (n or 1) then return end
                if how == "close" then c:drain(0.005) end
                c[how](c)
                return false
            end)
        end

        function objects(srv, n)
            local memcs = {}
            for i = 1, n do memcs[i] = kit.connect(srv.port) end
            memcs[1]:get("first")
            srv.lines = {}
            return memcs
        end

        function pipeline(m, ...)
            m:init_pipeline()
            for _, call in ipairs{ ... } do m[call[1]](m, unpack(call, 2)) end
            return m:commit_pipeline()
        end
    },
);

worker_connections(1024);
run_tests();

__DATA__

=== TEST 1: reads of all kinds, of which nothing came
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local calls = {
                function(m) return m:set("bad", "v") end,
                function(m) return m:get("k") end,
                function(m) return m:gets("k") end,
                function(m) return m:get{ "k", "l" } end,
                function(m) return m:gets{ "k", "l" } end,
                function(m) return pipeline(m, { "get", "k" }, { "get", "l" }) end,
                function(m) return m:get("with space") end,
                -- these could be executed twice, or are no reads
                function(m) return m:set("k", "v") end,
                function(m) return m:incr("k", 1) end,
                function(m) return m:delete("k") end,
                function(m) return m:touch("k", 1) end,
                function(m) return m:version() end,
                function(m) return pipeline(m, { "get", "k" }, { "set", "k", "v" }) end,
            }
            for _, how in ipairs{ "close", "reset" } do
                local srv
                srv = mux.server(function(line, c)
                    if line:match("^set bad") then
                        if how == "close" then c:drain(0.01) end
                        c[how](c)
                        return false
                    end
                    if line:match("^gets ") then
                        return mux.reply(line, c):gsub("(VALUE %S+ 0 %d+)", "%1 7")
                    end
                end)
                local memcs = objects(srv, #calls)
                local r = mux.at_once(#calls, function(i) return calls[i](memcs[i]) end)
                for i = 1, #calls do kit.show(i, kit.trim(unpack(r[i], 1, r[i].n))) end
                local again = {}
                for _, line in ipairs(srv.lines) do
                    if line:match("^2 ") then again[#again + 1] = line:sub(3) end
                end
                kit.show("sent once more", again)
                kit.show("an object of them", memcs[2]:get("more"))
                kit.show("connections", srv.accepted)
                srv:close()
            end
        }
    }
--- request
GET /t
--- response_body
1: nil, "closed"
2: "k", "0"
3: "k", "0", "7"
4: {k={"k", "0"}, l={"l", "0"}}
5: {k={"k", "0", "7"}, l={"l", "0", "7"}}
6: {{"k", "0"}, {"l", "0"}}
7: "with%20space", "0"
8: nil, "closed"
9: nil, "closed"
10: nil, "closed"
11: nil, "closed"
12: nil, "closed"
13: {{[3]="closed"}, {nil, "closed"}}
sent once more: {"get k", "gets k", "get k", "get l", "get with%20space", "get k l", "gets k l"}
an object of them: "more", "0"
connections: 2
1: nil, "connection reset by peer"
2: "k", "0"
3: "k", "0", "7"
4: {k={"k", "0"}, l={"l", "0"}}
5: {k={"k", "0", "7"}, l={"l", "0", "7"}}
6: {{"k", "0"}, {"l", "0"}}
7: "with%20space", "0"
8: nil, "connection reset by peer"
9: nil, "connection reset by peer"
10: nil, "connection reset by peer"
11: nil, "connection reset by peer"
12: nil, "connection reset by peer"
13: {{[3]="connection reset by peer"}, {nil, "closed"}}
sent once more: {"get k", "gets k", "get k", "get l", "get with%20space", "get k l", "gets k l"}
an object of them: "more", "0"
connections: 2
--- no_error_log
[alert]
--- whole: they go out together



=== TEST 2: not when a part of the reply had come
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local parts = { "V", "VALUE bad 0 3\r\n", "VALUE bad 0 3\r\nbad", "VALUE bad 0 3\r\nbad\r\nEND" }
            for _, part in ipairs(parts) do
                for _, what in ipairs{ "get", "list", "pipeline" } do
                    local srv = mux.server(function(line, c)
                        if line:match("bad") and c.index == 1 then
                            c:send(part)
                            ngx.sleep(0.005)
                            c:close()
                            return false
                        end
                    end)
                    local memcs = objects(srv, 2)
                    local r = mux.at_once(2, function(i)
                        if i == 2 then return memcs[2]:get("k") end
                        if what == "get" then return memcs[1]:get("bad") end
                        if what == "list" then return memcs[1]:get{ "bad", "other" } end
                        return pipeline(memcs[1], { "get", "bad" }, { "get", "other" })
                    end)
                    ngx.say(what, ": ", kit.vals(kit.trim(unpack(r[1], 1, r[1].n))), "; ", kit.vals(r[2][1]))
                    srv:close()
                end
            end
        }
    }
--- request
GET /t
--- response_body eval
qq{get: nil, nil, "closed"; "k"
list: nil, "closed"; "k"
pipeline: {{[3]="closed"}, {[3]="closed"}}; "k"
} x 4
--- no_error_log
[alert]
--- whole: byte by byte, the reset comes before what was read of the reply



=== TEST 3: not a third time; and the one that may be the reason comes last
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            for _, how in ipairs{ "close", "reset" } do
                local srv = fragile(how, 99)
                local memcs = objects(srv, 5)
                local r = mux.at_once(5, function(i) return memcs[i]:get(i == 2 and "bad" or "k" .. i) end)
                for i = 1, 5 do kit.show(i, kit.trim(unpack(r[i], 1, 3))) end
                local times = 0
                for _, line in ipairs(srv.lines) do
                    if line:match("get bad$") then times = times + 1 end
                end
                kit.show("asked", times, srv.accepted)
                kit.show("then", memcs[3]:get("k"))
                srv:close()
            end
            -- when it ends with everything that it is asked: one by one, but not without end
            local srv = mux.server(function(_, c) c:close() return false end)
            local memcs = {}
            for i = 1, 9 do memcs[i] = kit.connect(srv.port) end
            local r = mux.at_once(9, function(i) return memcs[i]:get("k" .. i) end)
            kit.show("errors", mux.count(r, function(_, v, _, err) return v == nil and err ~= nil end))
            kit.show("connections", srv.accepted)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
1: "k1", "0"
2: nil, nil, "closed"
3: "k3", "0"
4: "k4", "0"
5: "k5", "0"
asked: 2, 2
then: "k", "0"
1: "k1", "0"
2: nil, nil, "connection reset by peer"
3: "k3", "0"
4: "k4", "0"
5: "k5", "0"
asked: 2, 2
then: "k", "0"
errors: 9
connections: 4

--- no_error_log
[alert]
--- whole: counts connections, of which more are opened while a command goes out byte by byte



=== TEST 4: others do not use the connection on which they are asked again
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = fragile("reset", 99)
            local memcs = objects(srv, 40)
            local wrong, bad = 0, 0
            local r = mux.at_once(40, function(i)
                for n = 1, 20 do
                    if i == 1 then
                        local m = kit.connect(srv.port)
                        if select(3, m:get("bad")) == "connection reset by peer" then bad = bad + 1 end
                        ngx.sleep(0.005)
                    else
                        ngx.sleep(0.001 * (i % 7))
                        local v, _, err = memcs[i]:get("k" .. i)
                        if v ~= "k" .. i then
                            wrong = wrong + 1
                            kit.show(i, v, err)
                            memcs[i] = kit.connect(srv.port)
                        end
                    end
                end
            end)
            kit.show("wrong", wrong, bad)
            -- a write is not behind the one that is asked again
            local m, w = kit.connect(srv.port), kit.connect(srv.port)
            local t = ngx.thread.spawn(m.get, m, "bad")
            kit.eventually(function() return srv.lines[#srv.lines]:match("get bad$") end)
            local first = srv.accepted
            kit.eventually(function() return srv.accepted > first end)
            kit.show("a write", w:set("k", "v"))
            kit.show("bad", ngx.thread.wait(t))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
wrong: 0, 20
a write: 1
bad: true, nil, nil, "connection reset by peer"
--- no_error_log
[alert]
--- whole: byte by byte, the reset comes in the middle of other replies



=== TEST 5: within the time that they have
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = mux.server(function(line, c)
                if line ~= "get slow" then return end
                ngx.sleep(0.15)
                if c.index == 1 then c:close() return false end
                while not c.server.stopped do ngx.sleep(0.01) end
                return false
            end)
            local memcs = objects(srv, 2)
            memcs[1]:set_timeout(300)
            local ms, _, _, err = kit.timed(memcs[1].get, memcs[1], "slow")
            kit.show("timeout", err, ms > 290, ms < 400)
            kit.show("others", memcs[2]:get("k"))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
timeout: "timeout", true, true
others: "k", "0"
--- no_error_log
[alert]
--- whole: the command has to be sent at once



=== TEST 6: no connection can be opened: the error is that of the loss
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            for _, how in ipairs{ "close", "reset" } do
                local srv = fragile(how)
                local memcs = objects(srv, 3)
                srv:refuse()
                local r = mux.at_once(3, function(i)
                    if i == 1 then return memcs[1]:get("bad") end
                    if i == 2 then return memcs[2]:get{ "k", "l" } end
                    return pipeline(memcs[3], { "get", "k" }, { "get", "l" })
                end)
                for i = 1, 3 do kit.show(i, kit.trim(unpack(r[i], 1, r[i].n))) end
                srv:close()
            end
        }
    }
--- request
GET /t
--- response_body
1: nil, nil, "closed"
2: nil, "closed"
3: {{[3]="closed"}, {[3]="closed"}}
1: nil, nil, "connection reset by peer"
2: nil, "connection reset by peer"
3: {{[3]="connection reset by peer"}, {[3]="closed"}}
--- no_error_log
[emerg]
--- whole: all three have to be sent before the connection ends



=== TEST 7: pipelines: all of it or nothing
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local function try(label, ...)
                local srv = fragile("close")
                local m = objects(srv, 1)[1]
                kit.show(label, kit.trim(pipeline(m, ...)))
                srv:close()
            end
            try("reads, the first is not answered", { "get", "bad" }, { "get", "k" }, { "get", "l" })
            try("the second is not", { "get", "k" }, { "get", "bad" }, { "get", "l" })
            try("a write among them", { "get", "bad" }, { "set", "k", "v" }, { "get", "l" })
        }
    }
--- request
GET /t
--- response_body
reads, the first is not answered: {{"bad", "0"}, {"k", "0"}, {"l", "0"}}
the second is not: {{"k", "0"}, {[3]="closed"}, {[3]="closed"}}
a write among them: {{[3]="closed"}, {nil, "closed"}, {[3]="closed"}}
--- no_error_log
[alert]



=== TEST 8: one get of several is asked again for all who still wait
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = mux.server(function(line, c)
                if line ~= "get hot" or c.index > 1 then return end
                ngx.sleep(0.1)
                c:close()
                return false
            end)
            local memcs, threads = objects(srv, 6), {}
            for _, i in ipairs{ 3, 4 } do memcs[i]:set_timeout(50) end
            for i = 1, 6 do threads[i] = ngx.thread.spawn(memcs[i].get, memcs[i], "hot") end
            ngx.sleep(0.02)
            for _, i in ipairs{ 1, 2 } do ngx.thread.kill(threads[i]) end
            for i = 3, 6 do kit.show(i, ngx.thread.wait(threads[i])) end
            kit.show("sent", srv.lines)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
3: true, nil, nil, "timeout"
4: true, nil, nil, "timeout"
5: true, "hot", "0"
6: true, "hot", "0"
sent: {"1 get hot", "2 get hot"}
--- no_error_log
[alert]



=== TEST 9: commands that proxies answer by closing harm nobody
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = mux.server(function(line, c)
                if line:match("^stats") or line:match("^flush_all") or line:match("^verbosity") then
                    c:close()
                    return false
                end
            end)
            local memcs = objects(srv, 6)
            local calls = {
                function(m) return m:stats() end,
                function(m) return m:flush_all() end,
                function(m) return m:flush_all(10) end,
                function(m) return pipeline(m, { "get", "k" }, { "stats" }) end,
                function(m) return m:set("k", "v") end,
                function(m) return m:get("k") end,
            }
            for _ = 1, 3 do
                local r = mux.at_once(6, function(i) return calls[i](memcs[i]) end)
                kit.show("the callers", r[1][2], r[2][2], r[3][2], (r[4][1] or {})[2])
                kit.show("others", r[5][1], r[6][1])
                for i = 1, 4 do memcs[i]:connect("127.0.0.1", srv.port) end
            end
            local shared = 0
            for _, line in ipairs(srv.lines) do
                if line:match("^1 ") then shared = shared + 1 end
            end
            kit.show("over the shared connection", shared, mux.open(srv))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
the callers: "closed", "closed", "closed", {nil, "closed"}
others: 1, "k"
the callers: "closed", "closed", "closed", {nil, "closed"}
others: 1, "k"
the callers: "closed", "closed", "closed", {nil, "closed"}
others: 1, "k"
over the shared connection: 6, 1
--- no_error_log
[alert]



=== TEST 10: the one whose get was sent is gone, with its request
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = mux.server(function(line, c)
                if line ~= "get hot" or c.index > 1 then return end
                ngx.sleep(0.15)
                c:close()
                return false
            end)
            objects(srv, 1)
            local done = {}
            -- each timer is a request of its own, and both get in one iteration of the event loop
            ngx.timer.at(0, function()
                local m = kit.connect(srv.port)
                local thread = ngx.thread.spawn(m.get, m, "hot")
                ngx.sleep(0.05)
                ngx.thread.kill(thread)
            end)
            ngx.timer.at(0, function()
                done = { kit.connect(srv.port):get("hot") }
            end)
            kit.eventually(function() return #done > 0 or done[3] end)
            kit.show("the other", unpack(done, 1, 3))
            kit.show("sent", srv.lines)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
the other: "hot", "0", nil
sent: {"1 get hot", "2 get hot"}
--- no_error_log
[alert]
