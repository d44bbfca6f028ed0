use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# Error lines that are not the whole reply: proxies answer a list of keys with a line for each key
# whose server is away, and then END.

our $HttpConfig = TestEnv::head(
    multiplex => 2,
    http      => 'lua_socket_log_errors off;',
    init      => q{
        DEAD = { "dead1", "dead2", "dead3" }

        -- A proxy: keys that begin with `dead` give an error line each.
        function proxy(more)
            return mux.server(function(line, c)
                local answer = more and more(line, c)
                if answer ~= nil then return answer end
                if line:match("^incr") then return "8\r\n" end
                local keys = line:match("^gets? (.*)$")
                if not (keys and keys:find("dead")) then return end
                local out, count, bad = {}, 0, 0
                for key in keys:gmatch("%S+") do
                    count = count + 1
                    if key:match("^dead") then
                        bad = bad + 1
                        out[count] = "SERVER_ERROR backend failure\r\n"
                    else
                        out[count] = "VALUE " .. key .. " 0 " .. #key .. "\r\n" .. key .. "\r\n"
                    end
                end
                return table.concat(out) .. (count == 1 and bad == 1 and "" or "END\r\n")
            end)
        end

        -- n objects, when a connection stands.
        function objects(srv, n, opts)
            local memcs = {}
            for i = 1, n do memcs[i] = kit.connect(srv.port, nil, opts) end
            memcs[1]:get("first")
            srv.lines = {}
            return memcs
        end

        neighbours = {
            function(m) return m:get("live1") end,
            function(m) return m:set("live2", "x") end,
            function(m) return m:get("live3") end,
            function(m) return m:incr("live4", 1) end,
            function(m) return m:delete("live5") end,
            function(m)
                m:init_pipeline()
                m:get("live6")
                m:set("live7", "x")
                return m:commit_pipeline()
            end,
        }

        -- The results of calls in one turn: a list, and these neighbours behind it.
        function turn(memcs, list, which)
            return mux.at_once(#which + 1, function(i)
                if i == 1 then return memcs[i]:get(list) end
                return neighbours[which[i - 1]](memcs[i])
            end)
        end
    },
);

run_tests();

__DATA__

=== TEST 1: a list of keys harms none of its neighbours while there may be another connection
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = proxy(function(line) if line:match("^delete") then return "DELETED\r\n" end end)
            for _, list in ipairs{ DEAD, { "dead1", "live" }, { "live", "dead1" }, { "live", "other" } } do
                local memcs = objects(srv, 7)
                local r = turn(memcs, list, { 1, 2, 3, 4, 5, 6 })
                kit.show("the list", unpack(r[1], 1, 2))
                local out = {}
                for i = 2, 7 do out[i - 1] = kit.vals(r[i][1]) end
                ngx.say("neighbours: ", table.concat(out, ", "))
            end
            srv:close()
        }
    }
--- request
GET /t
--- response_body
the list: nil, "SERVER_ERROR backend failure"
neighbours: "live1", 1, "live3", "8", 1, {{"live6", "0"}, {1}}
the list: nil, "SERVER_ERROR backend failure"
neighbours: "live1", 1, "live3", "8", 1, {{"live6", "0"}, {1}}
the list: nil, "SERVER_ERROR backend failure"
neighbours: "live1", 1, "live3", "8", 1, {{"live6", "0"}, {1}}
the list: {live={"live", "0"}, other={"other", "0"}}, nil
neighbours: "live1", 1, "live3", "8", 1, {{"live6", "0"}, {1}}
--- no_error_log
[alert]



=== TEST 2: with one connection, reads are asked again, and writes are not
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            local srv = proxy()
            local memcs = objects(srv, 5)
            local r = turn(memcs, DEAD, { 1, 2, 3, 4 })
            for i = 1, 5 do kit.show(i, unpack(r[i], 1, 3)) end
            table.sort(srv.lines)
            kit.show("sent", srv.lines)
            kit.show("its object", memcs[1]:get("k"))
            kit.show("an object that was answered", memcs[2]:get("k"))
            kit.show("one that was not", memcs[3]:get("k"))
            kit.show("the first connection", kit.eventually(function() return srv.conns[1].ended end))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
1: nil, "SERVER_ERROR backend failure", nil
2: "live1", "0", nil
3: nil, "closed", nil
4: "live3", "0", nil
5: nil, "closed", nil
sent: {"1 get dead1 dead2 dead3", "1 get live1", "1 get live3", "1 incr live4 1", "1 set live2 0 0 1", "2 get live1", "2 get live3"}
its object: nil, nil, "closed"
an object that was answered: "k", "0"
one that was not: nil, nil, "closed"
the first connection: true
--- no_error_log
[alert]



=== TEST 3: nobody gets what follows, in whatever pieces it comes
--- whole: in pieces of its own
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            local replies = {
                "SERVER_ERROR 1\r\nEND\r\n", "SERVER_ERROR 1\r\nSERVER_ERROR 2\r\nEND\r\n",
                "ERROR\r\nVALUE a 0 4\r\nevil\r\nEND\r\n", "CLIENT_ERROR x\r\n",
                "VALUE a 0 1\r\na\r\nSERVER_ERROR 1\r\nEND\r\n", "SERVER_ERROR 1\r\n8\r\nSTORED\r\n",
            }
            local wrong = 0
            for _, reply in ipairs(replies) do
                for at = 1, #reply do
                    local srv = mux.server(function(line, c)
                        if line ~= "get a b" then return end
                        c:send(reply:sub(1, at))
                        ngx.sleep(0.003)
                        c:send(reply:sub(at + 1))
                        return false
                    end)
                    local memcs = {}
                    for i = 1, 4 do memcs[i] = kit.connect(srv.port) end
                    memcs[1]:get("first")
                    local r = mux.at_once(4, function(i)
                        if i == 1 then return memcs[1]:get{ "a", "b" } end
                        if i == 2 then return memcs[2]:get("k2") end
                        if i == 3 then return memcs[3]:set("k3", "v") end
                        return memcs[4]:get{ "k4", "l4" }
                    end)
                    local got = kit.vals(r[1][1], r[2][1], r[2][3], r[3][1], r[3][2], r[4][1], r[4][2])
                    local want = 'nil, "k2", nil, nil, "closed", {k4={"k4", "0"}, l4={"l4", "0"}}, nil'
                    if got ~= want or not (r[1][2] or ""):find("ERROR") then
                        wrong = wrong + 1
                        kit.show(reply, at, r[1][2], got)
                    end
                    srv:close()
                end
            end
            kit.show("wrong", wrong)
        }
    }
--- request
GET /t
--- response_body
wrong: 0
--- no_error_log
[alert]
--- timeout: 20



=== TEST 4: lists behind lists are asked again, too
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            local srv = proxy()
            local memcs = objects(srv, 5)
            local lists = { { "dead1", "a" }, { "b", "c" }, { "dead2", "d" }, { "e", "f" }, "g" }
            local r = mux.at_once(5, function(i) return memcs[i]:get(lists[i]) end)
            for i = 1, 5 do kit.show(i, unpack(r[i], 1, 2)) end
            table.sort(srv.lines)
            kit.show("sent", srv.lines)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
1: nil, "SERVER_ERROR backend failure"
2: {b={"b", "0"}, c={"c", "0"}}, nil
3: nil, "SERVER_ERROR backend failure"
4: {e={"e", "0"}, f={"f", "0"}}, nil
5: "g", "0"
sent: {"1 get b c", "1 get dead1 a", "1 get dead2 d", "1 get e f", "1 get g", "2 get b c", "2 get dead2 d", "2 get g", "3 get e f"}
--- no_error_log
[alert]



=== TEST 5: lists are spread over the connections, and what follows one in a turn goes elsewhere
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 3;
    location = /t {
        content_by_lua_block {
            local srv = mux.server()
            local memcs = objects(srv, 12, { multiplex = 3 })
            local function show(label)
                local by = {}
                for _, line in ipairs(srv.lines) do
                    local c, what = line:match("^(%d+) get (%S+)")
                    by[c] = (by[c] or "") .. what:sub(1, 1)
                end
                srv.lines = {}
                local out = {}
                for _, what in pairs(by) do out[#out + 1] = what end
                table.sort(out)
                ngx.say(label, ": ", table.concat(out, " "))
            end
            -- l: a list, g: a get
            local function ask(what)
                srv.held = true
                local threads = {}
                for i = 1, #what do
                    local list = what:sub(i, i) == "l"
                    threads[i] = ngx.thread.spawn(function()
                        return memcs[i]:get(list and { "l" .. i, "x" } or "g" .. i)
                    end)
                end
                ngx.sleep(0.02)
                srv.held = false
                for i = 1, #what do ngx.thread.wait(threads[i]) end
            end
            ask("lg")
            show("one stands: another one is opened")
            ask("llg")
            show("two lists, and a third one")
            ask("lggg")
            show("three stand")
            ask("gglgglgg")
            show("between them")
            ask("llll")
            show("lists only")
            ask("llllgg")
            show("and others when all have one")
            srv:close()
        }
    }
--- request
GET /t
--- response_body
one stands: another one is opened: g l
two lists, and a third one: g l l
three stand: ggg l
between them: gg ggl ggl
lists only: l l ll
and others when all have one: l lgg ll
--- no_error_log
[alert]



=== TEST 6: another connection that cannot be had is not waited for
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local function try(label, refuse)
                local full = kit.listen{ backlog = 0 }
                local memcs = {}
                local t = ngx.thread.spawn(function()
                    for i = 1, 5 do memcs[i] = kit.connect(full.port) end
                end)
                local c = full:accept()
                ngx.thread.wait(t)
                if refuse then
                    require("ffi").C.tk_close(full.fd)
                    full.fd = nil
                else
                    full:knock()
                    ngx.sleep(0.01)
                end
                ngx.thread.spawn(function()
                    while true do
                        local line = c:line()
                        if not line then return end
                        if line:find("slow") then ngx.sleep(0.05) end
                        c:send(mux.reply(line, c))
                    end
                end)
                local r = mux.at_once(4, function(i)
                    if i == 1 then return memcs[1]:get{ "slow", "list" } end
                    return kit.timed(memcs[i].get, memcs[i], "k" .. i)
                end)
                kit.show(label, r[1][1] ~= nil, r[2][2], r[3][2], r[4][2], r[4][1] < 1000)
                -- now it is known
                r = mux.at_once(2, function(i)
                    if i == 1 then return memcs[1]:get{ "slow", "list" } end
                    ngx.sleep(0.2)
                    return kit.timed(memcs[2].get, memcs[2], "k")
                end)
                kit.show(label, r[1][1] ~= nil, r[2][2], r[2][1] < 1000)
                full:close()
            end
            try("refused", true)
            try("no answer", false)
        }
    }
--- request
GET /t
--- response_body
refused: true, "k2", "k3", "k4", true
refused: true, "k", true
no answer: true, "k2", "k3", "k4", true
no answer: true, "k", true
--- no_error_log
[emerg]
--- timeout: 10



=== TEST 7: for one key an error line is the reply, unless the end is there behind it
--- whole: what is behind it has to be there already
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            for _, reply in ipairs{ "SERVER_ERROR 1\r\n", "SERVER_ERROR 1\r\nEND\r\n" } do
                local srv = mux.server(function(line) if line == "get bad" then return reply end end)
                local memcs = objects(srv, 3)
                local r = mux.at_once(3, function(i)
                    if i == 3 then return memcs[3]:set("k", "v") end
                    return memcs[i]:get(i == 1 and "bad" or "k")
                end)
                kit.show("bad", unpack(r[1], 1, 3))
                kit.show("the next ones", r[2][1], r[3][1], r[3][2])
                kit.show("connections", srv.accepted)
                srv:close()
            end
        }
    }
--- request
GET /t
--- response_body
bad: nil, nil, "SERVER_ERROR 1"
the next ones: "k", 1, nil
connections: 1
bad: nil, nil, "SERVER_ERROR 1"
the next ones: "k", nil, "closed"
connections: 2
--- no_error_log
[alert]
