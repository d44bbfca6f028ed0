use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# Clients on shared connections: light threads that are killed, requests that end, calls that time out
# and raise, also between attaching and the command; and what all of that leaves.
our $HttpConfig = TestEnv::head(
    multiplex => 1,
    init      => q{
        client = require "resty.memcached.client"

        -- Answers with the key, but not to keys that begin with "never".
        function echo()
            return kit.fake(function(c)
                while true do
                    local line = c:line()
                    if not line then return end
                    local key = line:match("^get (%S+)")
                    if key and not key:find("^never") then
                        c:send("VALUE " .. key .. " 0 " .. #key .. "\r\n" .. key .. "\r\nEND\r\n")
                    elseif key == "never.end" then
                        ngx.sleep(0.2)
                        c:send("END\r\n")
                    end
                end
            end)
        end

        function rounds(c, n)
            local bad = 0
            local threads = {}
            for i = 1, n do
                threads[i] = ngx.thread.spawn(function()
                    for j = 1, 10 do
                        local key = "k" .. i .. "." .. j
                        if c:get(key) ~= key then bad = bad + 1 end
                    end
                end)
            end
            for i = 1, n do ngx.thread.wait(threads[i]) end
            return bad
        end
    },
);

run_tests();

__DATA__

=== TEST 1: killed while they wait, and while a transform yields
--- http_config eval: $::HttpConfig
--- config
    location = /slow {
        content_by_lua_block { slow:get("request") }
    }
    location = /t {
        content_by_lua_block {
            local server = "127.0.0.1:" .. kit.port
            local plain = kit.fresh()
            memc = client.new{ server = server, timeouts = 5000 }
            kit.show("warm", memc:set("a", 1), memc:get("a"))
            slow = client.new{ server = server, timeouts = 5000, key_transform = {
                function(key) ngx.sleep(0.05) return key end, function(key) return key end } }
            slow:get("a")
            for i = 1, 20 do
                local thread = ngx.thread.spawn(memc.set, memc, "killed" .. i, 1)
                ngx.thread.kill(thread)
                thread = ngx.thread.spawn(slow.set, slow, "killed" .. i, 1)
                ngx.thread.kill(thread)
                kit.http(ngx.var.server_port, "/slow", 0.001)
            end
            ngx.sleep(0.2)
            local executed = 0
            for i = 1, 20 do
                if memc:get("killed" .. i) then executed = executed + 1 end
            end
            -- they were killed before anything was sent
            kit.show("executed", executed)
            local values = 0
            for i = 1, 100 do
                memc:set("v" .. i, i)
                if memc:get("v" .. i) == tostring(i) then values = values + 1 end
            end
            kit.show("values", values)
            collectgarbage()
            collectgarbage()
            kit.show("after the garbage", slow:get("v1"))
        }
    }
--- request
GET /t
--- response_body
warm: 1, "1", "0"
executed: 0
values: 100
after the garbage: "1", "0"
--- no_error_log
[error]



=== TEST 2: timeouts, and a server that goes and comes
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = echo()
            local server = "127.0.0.1:" .. srv.port
            local c, patient = client.new{ server = server, timeouts = 300 },
                client.new{ server = server, timeouts = 10000 }
            kit.show("bad", rounds(patient, 10))
            kit.show("timeout", c:get("never"))
            kit.show("timeouts", mux.count(mux.at_once(5, function() return select(3, c:get("never")) end), "timeout"))
            ngx.sleep(0.5)
            kit.show("bad", rounds(patient, 10))
            srv:close()
            ngx.sleep(0.05)
            kit.show("gone", c:get("k"))
            local again = kit.listen{ port = srv.port }
            again:serve(function(s)
                while s:line() do s:send("END\r\n") end
            end)
            kit.show("back", kit.eventually(function() return select(3, c:get("k")) == nil end))
            again:close()
        }
    }
--- request
GET /t
--- response_body
bad: 0
timeout: nil, nil, "timeout"
timeouts: 5
bad: 0
gone: nil, nil, "connection refused"
back: true
--- error_log
lua tcp socket read timed out



=== TEST 3: errors that are raised leave the client as it was
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local c = client.new{ server = "127.0.0.1:" .. kit.port, timeouts = 5000 }
            c:set("k", "v")
            local raised = 0
            for i = 1, 200 do
                if not pcall(c.set, c, "k", nil) then raised = raised + 1 end
                if not pcall(c.incr, c, "k", {}) then raised = raised + 1 end
                if not pcall(table.sort, { 1, 2 }, function() return c:get("k") end) then raised = raised + 1 end
            end
            kit.show("raised", raised)
            kit.show("get", c:get("k"))
            -- as many as there were at once, not one for each call
            kit.show("objects", c.spare_count <= 2)
        }
    }
--- request
GET /t
--- response_body
raised: 600
get: "v", "0"
objects: true
--- no_error_log
[error]



=== TEST 4: the objects of a client are used again
--- http_config eval: $::HttpConfig
--- config
    location = /one {
        content_by_lua_block { ngx.print((it:get(ngx.var.arg_k))) }
    }
    location = /t {
        content_by_lua_block {
            local srv = echo()
            it = client.new{ server = "127.0.0.1:" .. srv.port, timeouts = 5000 }
            for i = 1, 20 do it:get("k" .. i) end
            kit.show("objects", it.spare_count)
            kit.show("bad", rounds(it, 20))
            kit.show("objects", it.spare_count)
            local bad = 0
            for i = 1, 20 do
                if kit.http(ngx.var.server_port, "/one?k=r" .. i) ~= "r" .. i then bad = bad + 1 end
            end
            kit.show("bad", bad)
            kit.show("objects", it.spare_count)
            kit.show("connections", srv.accepted)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
objects: 1
bad: 0
objects: 20
bad: 0
objects: 20
connections: 1
--- no_error_log
[error]
