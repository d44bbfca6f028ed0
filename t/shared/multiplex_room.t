use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# What counts as waiting, whose bounds hold, and who gets the room that there is.

our $HttpConfig = TestEnv::head(
    multiplex => 2,
    init      => q{
        -- A server that reads nothing until `go` and then answers no set of
        -- more than 100 bytes until `done`.
        function slow_reader()
            local srv
            srv = kit.fake(function(c)
                while not srv.go and not srv.stopped do ngx.sleep(0.002) end
                while true do
                    local line = c:line()
                    if not line then return end
                    table.insert(srv.lines, line)
                    local size = tonumber(line:match("^set %S+ 0 0 (%d+)$"))
                    if size then
                        local till = c.total - #c.input + size + 2
                        if size > 100 then
                            while c.total < till do
                                c.input = ""
                                if not c:fill() then return end
                            end
                            c.input = c.input:sub(#c.input - (c.total - till) + 1)
                            srv.read = true
                            while not srv.done and not srv.stopped do ngx.sleep(0.002) end
                        else
                            c:read(size + 2)
                        end
                    end
                    while srv.held and not srv.stopped do ngx.sleep(0.002) end
                    c:send(size and "STORED\r\n" or mux.reply(line, c))
                    while not srv.go and not srv.stopped do ngx.sleep(0.002) end
                end
            end)
            srv.lines = {}
            return srv
        end

        -- Has so many connections to a server stand.
        function open(srv, many)
            local go, threads = srv.go, {}
            srv.go, srv.held = true, true
            for i = 1, 2 * many do
                threads[i] = ngx.thread.spawn(function() kit.connect(srv.port):get("open" .. i) end)
                ngx.sleep(0.02)
            end
            srv.held = false
            for i = 1, 2 * many do ngx.thread.wait(threads[i]) end
            srv.go, srv.lines = go, {}
        end

        function await(f)
            for _ = 1, 2000 do
                if f() then return true end
                ngx.sleep(0.002)
            end
        end
    },
);

run_tests();

__DATA__

=== TEST 1: a pipeline is one operation, whatever is in it
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1 max_operations=3;
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            local memcs = {}
            for i = 1, 5 do memcs[i] = kit.connect(srv.port) end
            srv.held = true
            local function pipeline(m)
                m:init_pipeline()
                for i = 1, 100 do m:get("p" .. i) end
                local r, err = m:commit_pipeline()
                return r and #r, err
            end
            local t = {
                ngx.thread.spawn(pipeline, memcs[1]),
                ngx.thread.spawn(pipeline, memcs[2]),
                ngx.thread.spawn(function() return memcs[3]:get("k") end),
            }
            ngx.sleep(0.01)
            kit.show("get", memcs[4]:get("k4"))
            kit.show("pipeline", pipeline(memcs[4]))
            srv.held = false
            for i = 1, 3 do kit.show("one that waited", ngx.thread.wait(t[i])) end
            kit.show("there is room again", pipeline(memcs[4]))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
get: nil, nil, "too many waiting operations"
pipeline: nil, "too many waiting operations"
one that waited: true, 100, nil
one that waited: true, 100, nil
one that waited: true, "k", "0"
there is room again: 100, nil
--- no_error_log
[alert]



=== TEST 2: each of those who get one reply together waits
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1 max_operations=3;
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            local memcs = {}
            for i = 1, 5 do memcs[i] = kit.connect(srv.port) end
            for _ = 1, 3 do
                local r = mux.at_once(5, function(i) return memcs[i]:get("hot") end)
                kit.show("answered", mux.count(r, "hot"))
                kit.show("refused", mux.count(r, function(_, _, _, err)
                    return err == "too many waiting operations"
                end))
            end
            kit.show("lines", mux.lines(srv))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
answered: 3
refused: 2
answered: 3
refused: 2
answered: 3
refused: 2
lines: {"get hot", "get hot", "get hot"}
--- no_error_log
[alert]



=== TEST 3: bytes that wait for a connection are bounded
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1 max_size=100k;
    lua_socket_log_errors off;
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            srv.held = true
            -- each connection there may be: one gives up, another still waits
            local waiting = {}
            for i = 1, 2 do
                local m, n = kit.connect(srv.port), kit.connect(srv.port)
                m:set_timeout(50)
                local first = ngx.thread.spawn(function() return m:get("m" .. i) end)
                ngx.sleep(0.01)
                waiting[i] = ngx.thread.spawn(function() return n:get("n" .. i) end)
                kit.show("gives up", ngx.thread.wait(first))
            end
            local value = ("v"):rep(60000)
            local memcs = {}
            for i = 1, 20 do memcs[i] = kit.connect(srv.port) end
            local sets = {}
            for i = 1, 20 do
                sets[i] = ngx.thread.spawn(function()
                    memcs[i]:set_timeout(300)
                    local ok, err = memcs[i]:set("k" .. i, value)
                    return err
                end)
            end
            local refused, waited = 0, 0
            for i = 1, 20 do
                local _, err = ngx.thread.wait(sets[i])
                if err == "too many waiting operations" then refused = refused + 1
                elseif err == "timeout" then waited = waited + 1
                else kit.show("error", err) end
            end
            kit.show("refused", refused)
            kit.show("waited", waited)
            srv.held = false
            for i = 1, 2 do kit.show("one that waited", ngx.thread.wait(waiting[i])) end
            kit.show("there is room again", kit.connect(srv.port):set("k", value))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
gives up: true, nil, nil, "timeout"
gives up: true, nil, nil, "timeout"
refused: 18
waited: 2
one that waited: true, "n1", "0"
one that waited: true, "n2", "0"
there is room again: 1
--- no_error_log
[alert]
--- timeout: 10



=== TEST 4: so are those that wait for a connection that is being opened
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 2 max_size=100k;
    location = /t {
        content_by_lua_block {
            local srv = slow_reader()
            local memcs = {}
            for i = 1, 30 do memcs[i] = kit.connect(srv.port) end
            -- in one turn: a second connection is being opened for them
            local value = ("v"):rep(8000)
            local refused, threads = 0, {}
            for i = 1, 30 do
                threads[i] = ngx.thread.spawn(function()
                    local ok, err = memcs[i]:set("k" .. i, value)
                    if err == "too many waiting operations" then refused = refused + 1 end
                end)
            end
            kit.show("refused", refused)
            srv.go, srv.done = true, true
            for i = 1, 30 do ngx.thread.wait(threads[i]) end
            kit.show("there is room again", memcs[1]:set("k", value))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
refused: 17
there is room again: 1
--- no_error_log
[alert]



=== TEST 5: so are those in a backlog
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1 max_size=100k;
    lua_socket_log_errors off;
    location = /t {
        content_by_lua_block {
            local srv = slow_reader()
            local memcs = {}
            for i = 1, 20 do memcs[i] = kit.connect(srv.port, { backlog = 20 }) end
            local big = ngx.thread.spawn(function() return memcs[1]:set("big", ("v"):rep(30000000)) end)
            ngx.sleep(0.02)
            local value = ("v"):rep(60000)
            local refused, threads = 0, {}
            for i = 2, 20 do
                threads[i] = ngx.thread.spawn(function()
                    local ok, err = memcs[i]:set("k" .. i, value)
                    if err == "too many waiting operations" then refused = refused + 1 end
                    return err
                end)
            end
            kit.show("refused", refused)
            srv.go, srv.done = true, true
            kit.show("the large one", ngx.thread.wait(big))
            for i = 2, 3 do kit.show("one that waited", ngx.thread.wait(threads[i])) end
            kit.show("there is room again", memcs[20]:set("k", value))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
refused: 17
the large one: true, 1
one that waited: true, nil
one that waited: true, nil
there is room again: 1
--- no_error_log
[alert]
--- timeout: 10



=== TEST 6: an object has the bounds of where it was connected
--- http_config eval: $::HttpConfig
--- config
    location = /few {
        lua_memcached_multiplex 2 max_operations=3;
        content_by_lua_block {
            local m = kit.connect(tonumber(ngx.var.arg_port))
            kit.show("few", m:get("few"))
        }
    }
    location = /t {
        lua_memcached_multiplex 2;
        content_by_lua_block {
            local srv = mux.server()
            local memcs = {}
            for i = 1, 10 do memcs[i] = kit.connect(srv.port) end
            srv.held = true
            local threads = {}
            local function get(i) threads[i] = ngx.thread.spawn(function() return memcs[i]:get("k" .. i) end) end
            for i = 1, 5 do get(i) end
            ngx.sleep(0.01)
            local other = ngx.location.capture("/few?port=" .. srv.port).body
            ngx.print(other)
            for i = 6, 10 do get(i) end
            srv.held = false
            local answered = 0
            for i = 1, 10 do
                local _, v = ngx.thread.wait(threads[i])
                if v == "k" .. i then answered = answered + 1 end
            end
            kit.show("answered", answered)
            ngx.print(ngx.location.capture("/few?port=" .. srv.port).body)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
few: nil, nil, "too many waiting operations"
answered: 10
few: "few", "0"
--- no_error_log
[alert]



=== TEST 7: who waits with tight bounds does not keep others waiting
--- http_config eval: $::HttpConfig
--- config
    location = /few {
        lua_memcached_multiplex 2 max_operations=1;
        content_by_lua_block {
            local m = kit.connect(tonumber(ngx.var.arg_port), { backlog = 5 })
            kit.show("few", m:get("few"))
        }
    }
    location = /t {
        lua_memcached_multiplex 2;
        content_by_lua_block {
            local srv = mux.server(function(line)
                if line == "get slow" then
                    while not slow_done do ngx.sleep(0.002) end
                end
            end)
            slow_done = false
            open(srv, 2)
            local slow, m, n = kit.connect(srv.port), kit.connect(srv.port), kit.connect(srv.port)
            local t = ngx.thread.spawn(function() return slow:get("slow") end)
            ngx.sleep(0.01)
            kit.show("beside", m:get("k"))
            local few = ngx.thread.spawn(function() return ngx.location.capture("/few?port=" .. srv.port).body end)
            ngx.sleep(0.02)
            kit.show("beside", n:get("k"))
            slow_done = true
            kit.show("slow", ngx.thread.wait(t))
            local _, body = ngx.thread.wait(few)
            ngx.print(body)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
beside: "k", "0"
beside: "k", "0"
slow: true, "slow", "0"
few: "few", "0"
--- no_error_log
[alert]



=== TEST 8: room is used as soon as there is some, by those who came first
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 2 max_size=64k;
    location = /t {
        content_by_lua_block {
            local srv = slow_reader()
            open(srv, 2)
            local memcs = {}
            for i = 1, 4 do memcs[i] = kit.connect(srv.port, { backlog = 5 }) end
            local order = {}
            local big = ngx.thread.spawn(function() return memcs[1]:set("big", ("v"):rep(30000000)) end)
            ngx.sleep(0.02)
            local threads = {}
            for i = 2, 4 do
                threads[i] = ngx.thread.spawn(function()
                    local v = memcs[i]:get("k" .. i)
                    order[#order + 1] = i
                    return v
                end)
            end
            srv.go = true
            -- the server does not answer the large set before they have theirs
            for i = 2, 4 do kit.show("one that waited", ngx.thread.wait(threads[i])) end
            kit.show("in order", order)
            srv.done = true
            kit.show("the large one", ngx.thread.wait(big))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
one that waited: true, "k2"
one that waited: true, "k3"
one that waited: true, "k4"
in order: {2, 3, 4}
the large one: true, 1
--- no_error_log
[alert]
--- timeout: 10



=== TEST 9: nobody who comes later goes first
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1 max_size=64k;
    location = /t {
        content_by_lua_block {
            local srv = slow_reader()
            local memcs = {}
            for i = 1, 4 do memcs[i] = kit.connect(srv.port, { backlog = 5 }) end
            local big = ngx.thread.spawn(function() return memcs[1]:set("big", ("v"):rep(30000000)) end)
            ngx.sleep(0.02)
            local threads = {}
            for i = 2, 3 do
                threads[i] = ngx.thread.spawn(function() return memcs[i]:get("k" .. i) end)
            end
            srv.go = true
            kit.show("all was read", await(function() return srv.read end))
            threads[4] = ngx.thread.spawn(function() return memcs[4]:get("k4") end)
            ngx.sleep(0.01)
            srv.done = true
            kit.show("the large one", ngx.thread.wait(big))
            for i = 2, 4 do kit.show("get", ngx.thread.wait(threads[i])) end
            kit.show("lines", srv.lines)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
all was read: true
the large one: true, 1
get: true, "k2", "0"
get: true, "k3", "0"
get: true, "k4", "0"
lines: {"set big 0 0 30000000", "get k2", "get k3", "get k4"}
--- no_error_log
[alert]
--- timeout: 10



=== TEST 10: whatever became of them, operations that are over are counted no more
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 2 max_operations=1 max_size=1;
    lua_socket_log_errors off;
    location = /exit {
        content_by_lua_block {
            local m = kit.connect(tonumber(ngx.var.arg_port))
            ngx.thread.spawn(function() m:get("exit") end)
            if not ngx.var.arg_now then ngx.sleep(0.01) end
            ngx.exit(403)
        }
    }
    location = /t {
        content_by_lua_block {
            local srv = mux.server(function(line, c)
                if line == "get silent" then
                    while not c.server.stopped do ngx.sleep(0.002) end
                elseif line == "get bad" then
                    return "VALUE other 0 1\r\nx\r\nEND\r\n"
                elseif line == "get bye" then
                    c:close()
                    return false
                end
            end)
            local function check(what)
                local m = kit.connect(srv.port)
                local v, _, err
                -- a connection that was lost is replaced first
                for _ = 1, 50 do
                    v, _, err = m:get("k")
                    if v then break end
                    ngx.sleep(0.01)
                    m = kit.connect(srv.port)
                end
                kit.show(what, v, err)
            end
            local m = kit.connect(srv.port)
            m:set_timeout(20)
            m:get("silent")
            check("timeout")
            m = kit.connect(srv.port)
            local t = ngx.thread.spawn(function() m:get("killed") end)
            ngx.thread.kill(t)
            check("killed before it was sent")
            m = kit.connect(srv.port)
            srv.held = true
            t = ngx.thread.spawn(function() m:get("killed") end)
            ngx.sleep(0.01)
            ngx.thread.kill(t)
            srv.held = false
            check("killed")
            kit.http($TEST_NGINX_SERVER_PORT, "/exit?port=" .. srv.port)
            check("its request has ended")
            kit.http($TEST_NGINX_SERVER_PORT, "/exit?now=1&port=" .. srv.port)
            check("its request has ended at once")
            kit.connect(srv.port):get("bad")
            check("bad reply")
            kit.connect(srv.port):get("bye")
            check("closed")
            m = kit.connect(srv.port)
            m:init_pipeline()
            for i = 1, 10 do m:get(i == 5 and "bad" or "k" .. i) end
            m:commit_pipeline()
            check("bad reply in a pipeline")
            m = kit.connect(srv.port)
            m:init_pipeline()
            for i = 1, 10 do m:get(i == 5 and "bye" or "k" .. i) end
            m:commit_pipeline()
            check("closed in a pipeline")
            m = kit.connect(srv.port)
            m:set_timeout(20)
            m:init_pipeline()
            for i = 1, 10 do m:get(i == 5 and "silent" or "k" .. i) end
            m:commit_pipeline()
            check("timeout in a pipeline")
            check("and again")
            srv:close()
        }
    }
--- request
GET /t
--- response_body
timeout: "k", nil
killed before it was sent: "k", nil
killed: "k", nil
its request has ended: "k", nil
its request has ended at once: "k", nil
bad reply: "k", nil
closed: "k", nil
bad reply in a pipeline: "k", nil
closed in a pipeline: "k", nil
timeout in a pipeline: "k", nil
and again: "k", nil
--- no_error_log
[alert]
--- timeout: 15



=== TEST 11: what others have asked for is sent before a large result is made
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local ffi = require "ffi"
            local buf = ffi.new("char[1024]")
            local srv = mux.server(function(line)
                if line == "get wait" or line:find("^get l1 ") then return false end
            end)
            local function arrived(what)
                for _, c in ipairs(srv.conns) do
                    -- MSG_PEEK and MSG_DONTWAIT
                    local n = tonumber(ffi.C.tk_recv(c.fd, buf, 1024, 0x42))
                    if n > 0 and ffi.string(buf, n):find(what, 1, true) then return true end
                end
                return false
            end
            local function on_server(what)
                for _, line in ipairs(srv.lines) do
                    local index, text = line:match("^(%d+) (.*)$")
                    if text:find(what, 1, true) == 1 then return srv.conns[tonumber(index)] end
                end
            end
            local a, b = kit.connect(srv.port), kit.connect(srv.port)
            open(srv, 2)
            local keys = {}
            for i = 1, 1000 do keys[i] = "l" .. i end
            local first = ngx.thread.spawn(function()
                local v = b:get("wait")
                return v, b:get("second")
            end)
            ngx.sleep(0.01)
            local sent
            local list = ngx.thread.spawn(function()
                local r = a:get(keys)
                sent = arrived("get second")
                return r and r.l1000[1]
            end)
            kit.show("both asked", await(function() return on_server("get wait") and on_server("get l1 ") end))
            local to_first, to_list = on_server("get wait"), on_server("get l1 ")
            kit.show("on two connections", to_first ~= to_list)
            to_first:send(mux.reply("get wait"))
            to_list:send(mux.reply("get " .. table.concat(keys, " ")))
            kit.show("first", ngx.thread.wait(first))
            kit.show("list", ngx.thread.wait(list))
            kit.show("sent before", sent)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
both asked: true
on two connections: true
first: true, "wait", "second", "0"
list: true, "l1000"
sent before: true
--- no_error_log
[alert]
--- whole: compares what comes first



=== TEST 12: nothing goes behind a list or a large value while another connection is idle
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 3;
    location = /t {
        content_by_lua_block {
            local srv = mux.server(function(line, c)
                if line:find("^get l1 ") or line:find("^set big ") then
                    local reply = mux.reply(line, c)
                    while srv_held do ngx.sleep(0.002) end
                    return reply
                end
            end)
            local memcs = {}
            for i = 1, 12 do memcs[i] = kit.connect(srv.port) end
            open(srv, 3)
            kit.show("connections", mux.open(srv))

            srv_held = true
            local keys = {}
            for i = 1, 1000 do keys[i] = "l" .. i end
            -- in one turn
            local list = ngx.thread.spawn(function() return (memcs[1]:get(keys)) end)
            local big = ngx.thread.spawn(function() return memcs[2]:set("big", ("v"):rep(20000)) end)
            local right = 0
            for _ = 1, 20 do
                right = right + mux.count(mux.at_once(8, function(i)
                    return memcs[i + 2]:get("s" .. i)
                end), function(i, v) return v == "s" .. i end)
            end
            kit.show("answered meanwhile", right)
            srv_held = false
            kit.show("list", (select(2, ngx.thread.wait(list))).l1000[1])
            kit.show("large value", ngx.thread.wait(big))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
connections: 3
answered meanwhile: 160
list: "l1000"
large value: true, 1
--- no_error_log
[alert]
