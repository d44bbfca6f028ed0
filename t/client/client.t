use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# Clients for module-level variables: commands, requests that share one, pipelines.
our $HttpConfig = TestEnv::head(
    skip => 'the reference has no clients',
    init => q{
        client = require "resty.memcached.client"
        -- made here, where nothing can be connected
        memc = client.new{ server = "127.0.0.1:" .. kit.port, timeouts = 5000 }
        uds = client.new{ server = kit.unix, timeouts = { 1000, 2000, read = 3000 } }
        listed = client.new{ server = { "127.0.0.1", kit.port }, timeouts = { connect = 5000 } }
    },
);

run_tests();

__DATA__

=== TEST 1: every command, as an object answers
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local plain = kit.fresh()
            local function both(name, ...)
                local object = kit.vals(plain[name](plain, ...))
                plain:flush_all()
                return object
            end
            local calls = {
                { "set", "a", "1", 0, 7 }, { "get", "a" }, { "add", "a", "2" }, { "replace", "a", "30" },
                { "append", "a", "0" }, { "prepend", "a", 1 }, { "get", "a" }, { "incr", "a", 5 },
                { "decr", "a", 1 }, { "touch", "a", 100 }, { "get", { "a", "none", "b c" } },
                { "set", "b c", { "x", { "y" } } }, { "gets", { "b c" } }, { "get", "b c" },
                { "get", "none" }, { "gets", "none" }, { "incr", "none", 1 }, { "incr", "b c", 1 },
                { "cas", "a", "x", "1" }, { "cas", "none", "x", "1" }, { "delete", "a" },
                { "delete", "a" }, { "get", {} }, { "get", ("k"):rep(251) }, { "gets", ("k"):rep(251) },
                { "get", { ("k"):rep(251) } }, { "set", "a", "x", "soon" }, { "incr", "a", -1 },
                { "version" }, { "verbosity", 1 }, { "flush_all" },
                { "flush_all", 0 }, { "set", "a", ("x"):rep(100000) }, { "get", "a" }, { "touch", "no", 1 },
                { "append", "no", "x" }, { "get", "" }, { "get", 17 }, { "set", 17, 17.5 }, { "get", "17" },
            }
            local function run(target)
                local out = {}
                for i, call in ipairs(calls) do
                    local text = kit.vals(target[call[1]](target, unpack(call, 2)))
                    out[i] = call[1] .. ": " .. text
                end
                return out
            end
            plain:flush_all()
            local expected = run(plain)
            for name, c in pairs{ memc = memc, uds = uds, listed = listed } do
                plain:flush_all()
                local got = run(c)
                -- cas uniques differ
                local same = 0
                for i = 1, #expected do
                    local a = expected[i]:gsub('"%d+"}}$', '"N"}}')
                    local b = got[i]:gsub('"%d+"}}$', '"N"}}')
                    if a == b then same = same + 1 else ngx.say(name, " ", i, ": ", b, " instead of ", a) end
                end
                if same ~= #calls then ngx.say(name, ": ", same) end
            end
            kit.show("a", memc:set("a", 1, 0, 5))
            kit.show("get", memc:get("a"))
            local value, flags, unique, err = memc:gets("a")
            kit.show("gets", value, flags, type(unique), err)
            kit.show("cas", memc:cas("a", 2, unique))
            kit.show("cas again", memc:cas("a", 3, unique))
            kit.show("stats", type(memc:stats()[1]))
        }
    }
--- request
GET /t
--- response_body
a: 1
get: "1", "5"
gets: "1", "5", "string", nil
cas: 1
cas again: nil, "EXISTS"
stats: "string"
--- no_error_log
[error]



=== TEST 2: one client for many requests, light threads and timers at once
--- http_config eval: $::HttpConfig
--- config
    location = /one {
        content_by_lua_block {
            local id = ngx.var.arg_id
            local bad = 0
            for i = 1, 20 do
                local key = "one" .. id .. "." .. i
                if memc:set(key, key) ~= 1 or memc:get(key) ~= key then bad = bad + 1 end
            end
            ngx.say(bad)
        }
    }
    location = /t {
        content_by_lua_block {
            local threads, bad = {}, 0
            for t = 1, 8 do
                threads[t] = ngx.thread.spawn(function()
                    for i = 1, 20 do
                        local key = "thread" .. t .. "." .. i
                        if memc:set(key, key) ~= 1 then bad = bad + 1 end
                        local found = memc:get{ key, key .. "none" }
                        if not found or found[key][1] ~= key then bad = bad + 1 end
                    end
                end)
            end
            local requests = {}
            for r = 1, 6 do
                requests[r] = ngx.thread.spawn(kit.http, ngx.var.server_port, "/one?id=" .. r)
            end
            local timers = 0
            for r = 1, 5 do
                ngx.timer.at(0, function()
                    local key = "timer" .. r
                    if memc:set(key, key) == 1 and memc:get(key) == key then timers = timers + 1 end
                end)
            end
            for _, thread in ipairs(threads) do ngx.thread.wait(thread) end
            for _, request in ipairs(requests) do
                local _, body = ngx.thread.wait(request)
                if body ~= "0" then bad = bad + 1 end
            end
            kit.show("timers", kit.eventually(function() return timers == 5 end))
            kit.show("bad", bad)
            local wrapped = coroutine.wrap(function() return memc:get("timer1") end)
            kit.show("a coroutine", wrapped())
        }
    }
--- request
GET /t
--- response_body
timers: true
bad: 0
a coroutine: "timer1", "0"
--- no_error_log
[error]



=== TEST 3: connections are kept, and closed after errors
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local accepted = 0
            local srv = kit.fake(function(c)
                accepted = accepted + 1
                while true do
                    local line = c:line()
                    if not line then return end
                    if line == "get odd" then c:send("what?\r\n")
                    elseif line == "get late" then ngx.sleep(1) c:send("END\r\n")
                    else c:send("END\r\n") end
                end
            end)
            local server = "127.0.0.1:" .. srv.port
            local c = client.new{ server = server, timeouts = 20000, multiplex = false }
            local hasty = client.new{ server = server, timeouts = 300, multiplex = false }
            for i = 1, 5 do c:get("k") end
            kit.show("kept", accepted)
            kit.show("odd", c:get("odd"))
            kit.show("after it", c:get("k"))
            kit.show("another", accepted)
            kit.show("timeout", hasty:get("late"))
            kit.show("after it", c:get("k"))
            kit.show("one more", accepted)
            kit.show("refused", c:get((" "):rep(100)))
            c:get("k")
            kit.show("kept", accepted)
            kit.show("raised", kit.raise_text(c.set, c, "k", nil))
            kit.show("raised", kit.raise_text(c.incr, c, "k", {}))
            c:get("k")
            kit.show("kept", accepted)
            srv:close()
            ngx.sleep(0.01)
            kit.show("nobody", c:get("k"))
            kit.show("nobody", c:gets("k"))
            kit.show("nobody", c:get{ "k" })
            kit.show("nobody", c:set("k", "v"))
            kit.show("nobody", c:version())
            kit.show("nobody", c:pipeline(function(p) p:get("k") end))
        }
    }
--- request
GET /t
--- response_body
kept: 1
odd: nil, nil, "what?"
after it: nil, nil, nil
another: 2
timeout: nil, nil, "timeout"
after it: nil, nil, nil
one more: 3
refused: nil, nil, "CLIENT_ERROR bad command line format"
kept: 3
raised: "bad value argument (string or number expected, got nil)"
raised: "bad delta argument (string or number expected, got table)"
kept: 3
nobody: nil, nil, "connection refused"
nobody: nil, nil, nil, "connection refused"
nobody: nil, "connection refused"
nobody: nil, "connection refused"
nobody: nil, "connection refused"
nobody: nil, "connection refused"
--- error_log
connect() failed (111: Connection refused)



=== TEST 4: pipelines
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local plain = kit.fresh()
            kit.show("results", memc:pipeline(function(p)
                kit.show("queued", p:set("pa", "1"))
                p:incr("pa", 2)
                p:get("pa")
                p:get("none")
                p:get((" "):rep(100))
                p:touch("pa", 10)
                p:delete("none")
            end))
            kit.show("nothing", memc:pipeline(function() end))
            kit.show("raised", kit.raise_text(memc.pipeline, memc, function(p)
                p:set("raised", "1")
                error("stop")
            end))
            kit.show("not sent", memc:get("raised"))
            for _, name in ipairs{ "gets", "cas", "flush_all", "version" } do
                kit.show("raised", kit.raise_text(memc.pipeline, memc, function(p) p[name](p, "k") end))
            end
            kit.show("raised", kit.raise_text(memc.pipeline, memc, function(p) p:get{ "k" } end))
            kit.show("raised", kit.raise_text(memc.pipeline, memc, function(p) p.get("k") end))
            kit.show("raised", kit.raise_text(memc.pipeline, memc, "k"))
            local kept
            memc:pipeline(function(p) kept = p p:get("k") end)
            kit.show("raised", kit.raise_text(kept.get, kept, "k"))
            kit.show("no method", memc.connect, memc.set_keepalive, memc.close, memc.quit, memc.init_pipeline)
            -- the client is used while its pipeline is filled
            kit.show("nested", memc:pipeline(function(p)
                p:get("pa")
                p:set("pb", memc:get("pa") .. memc:pipeline(function(q) q:get("pa") end)[1][1])
                p:get("pb")
            end))
        }
    }
--- request
GET /t
--- response_body
queued: 1
results: {{1}, {"3"}, {"3", "0"}, {}, {[3]="CLIENT_ERROR bad command line format"}, {1}, {nil, "NOT_FOUND"}}, nil
nothing: nil, "no more cmds"
raised: "stop"
not sent: nil, nil, nil
raised: "gets cannot be in a pipeline: call it on the client"
raised: "cas cannot be in a pipeline: call it on the client"
raised: "flush_all cannot be in a pipeline: call it on the client"
raised: "version cannot be in a pipeline: call it on the client"
raised: "get with a list of keys cannot be in a pipeline: call it on the client"
raised: "the pipeline has ended, or get was not called with a colon, as in p:get(key)"
raised: "bad fill argument (function expected, got string)"
raised: "the pipeline has ended, or get was not called with a colon, as in p:get(key)"
no method: nil, nil, nil, nil, nil
nested: {{"3", "0"}, {1}, {"33", "0"}}, nil
--- no_error_log
[error]



=== TEST 5: key transforms, also ones that yield, raise or use the client
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local plain = kit.fresh()
            local server = "127.0.0.1:" .. kit.port
            local prefixed = client.new{ server = server, key_transform = {
                function(key) return "p-" .. key end, function(key) return key:sub(3) end } }
            kit.show("set", prefixed:set("k", "v"))
            kit.show("get", plain:get("p-k"))
            kit.show("list", prefixed:get{ "k" })
            local other
            local slow = client.new{ server = server, key_transform = {
                function(key) ngx.sleep(0.01) return other and other:get(key) or key end,
                function(key) return key end } }
            other = memc
            memc:set("alias", "p-k")
            local threads = {}
            for i = 1, 5 do threads[i] = ngx.thread.spawn(slow.get, slow, "alias") end
            for i = 1, 5 do kit.show("alias", (select(2, ngx.thread.wait(threads[i])))) end
            local bad = client.new{ server = server, key_transform = {
                function(key) if key == "bad" then error("no such key", 0) end return key end,
                function(key) return key end } }
            for i = 1, 3 do kit.show("raised", pcall(bad.get, bad, "bad")) end
            kit.show("still there", bad:get("p-k"))
        }
    }
--- request
GET /t
--- response_body
set: 1
get: "v", "0"
list: {k={"v", "0"}}
alias: "v"
alias: "v"
alias: "v"
alias: "v"
alias: "v"
raised: false, "no such key"
raised: false, "no such key"
raised: false, "no such key"
still there: "v", "0"
--- no_error_log
[error]



=== TEST 6: threads that are killed, requests and timers that end while a client waits
--- http_config eval: $::HttpConfig
--- config
    location = /hang {
        lua_check_client_abort on;
        content_by_lua_block {
            ngx.say(tostring(hanging:get("never")))
        }
    }
    location = /t {
        content_by_lua_block {
            local gets = 0
            local srv = kit.fake(function(c)
                while true do
                    local line = c:line()
                    if not line then return end
                    gets = gets + 1
                    if line ~= "get never" then
                        c:send("VALUE " .. line:sub(5) .. " 0 " .. #line - 4 .. "\r\n" .. line:sub(5) .. "\r\nEND\r\n")
                    end
                end
            end)
            hanging = client.new{ server = "127.0.0.1:" .. srv.port, timeouts = 60000, multiplex = false }
            for i = 1, 5 do
                local before = gets
                local thread = ngx.thread.spawn(hanging.get, hanging, "never")
                kit.eventually(function() return gets > before end)
                ngx.thread.kill(thread)
                kit.http(ngx.var.server_port, "/hang", 0.05)
            end
            collectgarbage()
            local bad = 0
            for i = 1, 50 do
                if hanging:get("k" .. i) ~= "k" .. i then bad = bad + 1 end
            end
            kit.show("bad", bad)
            kit.show("asked", gets >= 55)
            collectgarbage()
            collectgarbage()
            srv:close()
        }
    }
--- request
GET /t
--- response_body
bad: 0
asked: true
--- no_error_log
[error]
