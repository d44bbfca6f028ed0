use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# Servers that stall, lie, close, come late or are not there.

our $HttpConfig = TestEnv::head(
    more_tests => 1,
    skip => 'the library has no queue',
    http => 'lua_socket_log_errors off;',
    init => q{
        queue = require "resty.memcached.queue"
        function drained(q, secs)
            return kit.eventually(function() return q:pending() == 0 end, secs or 10)
        end
        -- what is taken is either over, in one way, or waits
        function balanced(q)
            local c = q:counts()
            return c.taken == c.done + c.unmet + c.refused + c.lost + c.dropped + (q:pending())
        end
    },
);

run_tests();

__DATA__

=== TEST 1: a server that says nothing: memory is bounded, and time is
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c) while c:fill() do end end)
            local q = queue.new("127.0.0.1", srv.port, { timeout = 300, max_operations = 100 })
            local taken, full = 0, 0
            for i = 1, 300 do
                if q:set("k", ("x"):rep(1000)) then taken = taken + 1 else full = full + 1 end
            end
            kit.show("at once", taken, full, q:pending() == 100)
            local ms, gone = kit.timed(drained, q)
            kit.show("gone", gone, ms > 200 and ms < 2000)
            local c = q:counts()
            kit.show("counts", c.done, c.lost > 0, c.lost + c.dropped, c.full)
            local n = srv.accepted
            q:set("k", 1)
            kit.show("another connection", kit.eventually(function() return srv.accepted == n + 1 end))
            srv:close()
            kit.show("drained", drained(q), balanced(q))
        }
    }
--- request
GET /t
--- response_body
at once: 100, 200, true
gone: true, true
counts: 0, true, 100, 200
another connection: true
drained: true, true
--- error_log
lua memcached queue: lost:



=== TEST 2: a server that takes nothing: what was not sent waits for its time only
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.fake(function(c) ngx.sleep(10) end)
            local q = queue.new("127.0.0.1", srv.port, { timeout = 300, max_size = 64 * 1024 * 1024 })
            for i = 1, 30 do assert(q:set("k" .. i, ("x"):rep(1000000))) end
            local _, bytes = q:pending()
            kit.show("bytes", bytes > 30000000)
            kit.show("drained", drained(q), balanced(q))
            local c = q:counts()
            kit.show("lost and dropped", c.lost > 0, c.dropped > 0, c.lost + c.dropped)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
bytes: true
drained: true, true
lost and dropped: true, true, 30
--- error_log
lua memcached queue: dropped:



=== TEST 3: nobody there: dropped in time, counted, told
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.listen()
            local port = srv.port
            srv:close()
            local q = queue.new("127.0.0.1", port, { timeout = 200 })
            for i = 1, 10 do assert(q:set("k" .. i, i)) end
            local ms, gone = kit.timed(drained, q)
            kit.show("gone", gone, ms > 150 and ms < 1500)
            kit.show("counts", q:counts())
        }
    }
--- request
GET /t
--- response_body
gone: true, true
counts: {done=0, dropped=10, full=0, lost=0, refused=0, taken=10, unmet=0}
--- error_log
lua memcached queue: dropped: 10 writes: timeout
connect() failed (111: Connection refused)



=== TEST 4: a server that comes late gets all, in order
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = kit.listen()
            local port = srv.port
            srv:close()
            local q = queue.new("127.0.0.1", port, { timeout = 20000 })
            for i = 1, 50 do assert(q:incr("k" .. i, i)) end
            ngx.sleep(0.2)
            local lines = {}
            srv = kit.listen{ port = port }:serve(function(c)
                while true do
                    local line = c:line()
                    if not line then return end
                    lines[#lines + 1] = line
                    c:send("1\r\n")
                end
            end)
            for i = 51, 100 do assert(q:incr("k" .. i, i)) end
            kit.show("drained", drained(q))
            local ordered = #lines == 100
            for i, line in ipairs(lines) do
                ordered = ordered and line == "incr k" .. i .. " " .. i
            end
            kit.show("in order", ordered)
            kit.show("counts", q:counts())
            srv:close()
        }
    }
--- request
GET /t
--- response_body
drained: true
in order: true
counts: {done=100, dropped=0, full=0, lost=0, refused=0, taken=100, unmet=0}
--- error_log
connect() failed (111: Connection refused)



=== TEST 5: a server that closes now and then: each write is executed once at most
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local seen, twice, n = {}, 0, 0
            local srv = kit.fake(function(c)
                for i = 1, 7 do
                    local line = c:line()
                    if not line then break end
                    local key = line:match("^delete (%S+)")
                    if seen[key] then twice = twice + 1 end
                    seen[key] = true
                    n = n + 1
                    if i < 7 then c:send("DELETED\r\n") end
                end
                c:close()
            end)
            local q = queue.new("127.0.0.1", srv.port, { timeout = 10000 })
            for i = 1, 200 do
                assert(q:delete("k" .. i))
                if i % 3 == 0 then ngx.sleep(0.001) end
            end
            kit.show("drained", drained(q), balanced(q))
            local c = q:counts()
            kit.show("twice", twice)
            kit.show("done", c.done > 50, c.lost > 0, c.done <= n, c.dropped)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
drained: true, true
twice: 0
done: true, true, true, 0
--- error_log
lua memcached queue: lost:



=== TEST 6: wrong replies end the connection and are counted
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local function with(reply, before)
                local srv = kit.fake(function(c)
                    if before then c:send(before) end
                    while true do
                        local line = c:line()
                        if not line then return end
                        if c.index > 1 or not reply then
                            c:send("DELETED\r\n")
                        elseif reply == "" then
                            -- what was not sent yet would go to the next connection
                            c:line()
                            c:line()
                            return c:close()
                        else
                            c:send(reply)
                        end
                    end
                end)
                -- for none of these is the timeout waited
                local q = queue.new("127.0.0.1", srv.port, { timeout = 20000 })
                if before then
                    q:delete("first")
                    drained(q)
                end
                for i = 1, 3 do q:delete("k") end
                local ok, even = drained(q), balanced(q)
                local c = q:counts()
                srv:close()
                return ok, even, c
            end
            kit.show("junk", with("HTTP/1.1 400 Bad Request\r\n"))
            kit.show("value", with("VALUE k 0 1\r\nx\r\nEND\r\n"))
            kit.show("endless", with(("x"):rep(10000)))
            kit.show("closed", with(""))
            kit.show("error", with("SERVER_ERROR out of memory\r\n"))
        }
    }
--- request
GET /t
--- response_body_like chomp
^junk: true, true, .*
value: true, true, .*
endless: true, true, .*
closed: true, true, \{done=0, dropped=0, full=0, lost=3, refused=0, taken=3, unmet=0\}
error: true, true, \{done=0, dropped=0, full=0, lost=0, refused=3, taken=3, unmet=0\}
$
--- error_log
lua memcached queue: refused: 



=== TEST 7: a real server
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local q = queue.new("127.0.0.1", kit.port, { timeout = 5000 })
            for i = 1, 100 do assert(q:set("restart" .. i, i)) end
            kit.show("drained", drained(q))
            local memc = kit.connect(nil, nil, { multiplex = false })
            for i = 1, 100 do
                if memc:get("restart" .. i) ~= tostring(i) then ngx.say("missing ", i) end
            end
            for i = 1, 100 do assert(q:set("restart" .. i, "b" .. i)) end
            kit.show("drained", drained(q))
            for i = 1, 100 do
                if memc:get("restart" .. i) ~= "b" .. i then ngx.say("missing ", i) end
            end
            kit.show("counts", q:counts())
        }
    }
--- request
GET /t
--- response_body
drained: true
drained: true
counts: {done=200, dropped=0, full=0, lost=0, refused=0, taken=200, unmet=0}
--- no_error_log
[error]



=== TEST 8: an idle connection that was closed: the next write opens another
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local last
            local srv = kit.fake(function(c)
                last = c
                while c:line() do c:send("TOUCHED\r\n") end
            end)
            local q = queue.new("127.0.0.1", srv.port)
            for i = 1, 5 do
                assert(q:touch("k", i))
                kit.show("drained", drained(q))
                last:close()
                ngx.sleep(0.05)
            end
            kit.show("counts", q:counts())
            kit.show("connections", srv.accepted)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
drained: true
drained: true
drained: true
drained: true
drained: true
counts: {done=5, dropped=0, full=0, lost=0, refused=0, taken=5, unmet=0}
connections: 5
--- no_error_log
[error]



=== TEST 9: names: without a resolver, and one that is not there
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local q = queue.new("nobody.test", 11211, { timeout = 200 })
            q:set("k", 1)
            kit.show("drained", drained(q))
            kit.show("counts", q:counts())
        }
    }
--- request
GET /t
--- response_body
drained: true
counts: {done=0, dropped=1, full=0, lost=0, refused=0, taken=1, unmet=0}
--- error_log
lua memcached queue: cannot connect: 1 write: no resolver defined to resolve "nobody.test"
