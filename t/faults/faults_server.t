use lib 't/lib';
use TestEnv memcached => 0;
use Test::Nginx::Socket::Lua;

# Servers that refuse, accept and say nothing, fail as they accept, go away and come back, or never
# stop talking.

use FaultServer;

our $Slots      = 20;
our $Port       = FaultServer::start($Slots);
our $HttpConfig = TestEnv::head(
    tests => 5,
    http  => 'lua_socket_log_errors off;',
    init  => qq{
        mux = require "muxkit"
        faults = require "faultkit"
        faults.port, faults.slots = $Port, $Slots
        faults.shared = "@{[ $ENV{TEST_NGINX_MULTIPLEX} // '' ]}" ~= ""
        function connected(server, ms)
            local m = kit.new()
            m:set_timeout(ms or 20000)
            assert(m:connect(server.host, faults.port))
            return m
        end
        function probe(m)
            local value, _, err = m:get("probe")
            return value and value:match("^probe@%d+\$") and "right" or err
        end
    },
);

log_level('notice');
worker_connections(1024);
timeout(120);
run_tests();

__DATA__

=== TEST 1: refused, and then back
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local server = faults.orders(1)
            for round = 1, 3 do
                server:say("down")
                local r = mux.at_once(5, function()
                    local m = kit.new()
                    local _, err = m:connect(server.host, faults.port)
                    return err, select(3, m:get("k")), select(2, m:set_keepalive())
                end)
                for i = 1, 5 do
                    if kit.vals(unpack(r[i], 1, 3)) ~= '"connection refused", "closed", "closed"' then
                        kit.show("refused", unpack(r[i], 1, 3))
                    end
                end
                server:say("up")
                kit.show("back", probe(connected(server)))
            end
        }
    }
--- request
GET /t
--- response_body
back: "right"
back: "right"
back: "right"
--- no_error_log
[alert]
[crit]
[emerg]



=== TEST 2: pooled or shared connections when the server restarts: none is used again
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local server = faults.orders(2)
            local wrong, reused = 0, 0
            for round = 1, 50 do
                local r = mux.at_once(10, function()
                    local m = connected(server)
                    return probe(m), m:set_keepalive(10000, 10)
                end)
                wrong = wrong + 10 - mux.count(r, "right")
                server:say("down")
                server:say("up")
                local m = connected(server)
                reused = reused + m:get_reused_times()
                if probe(m) ~= "right" then wrong = wrong + 1 end
                m:close()
            end
            kit.show("wrong", wrong)
            kit.show("reused", reused)
        }
    }
--- request
GET /t
--- response_body
wrong: 0
reused: 0
--- no_error_log
[alert]
[crit]
[emerg]



=== TEST 3: failed or out of step as it is accepted
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            -- nothing was sent: a shared connection is replaced, one's own cannot be
            local slot = 0
            local function try(label, steps, want)
                slot = slot + 1
                local server = faults.orders(slot)
                server:script("", steps)
                local m = kit.new()
                local ok, err = m:connect(server.host, faults.port)
                server:report("done")
                if not ok then
                    -- a reset may come before the connection stands
                    if err ~= want then kit.show(label, "connect", err) end
                    m = connected(server)
                end
                local got = probe(m)
                if not ok then want = "right" end
                if got ~= (faults.shared and "right" or want) then kit.show(label, got) end
                local _, kept_err = m:set_keepalive(1)
                if kept_err ~= (got ~= "right" and "closed" or nil) then kit.show(label, "kept", kept_err) end
                local again = connected(server)
                kit.show(label, "then", probe(again))
                again:close()
                server:close()
            end
            try("closed", { { "fin" } }, "closed")
            try("reset", { { "rst" } }, "connection reset by peer")
            for _, text in ipairs{ "x", "\r\n", "ERROR Too many open connections",
                                   "VALUE probe 0 4\r\nevil\r\nEND\r\n", ("x"):rep(100000) } do
                try("unasked", { { "send", text } }, "bad reply: unsolicited data")
            end
            try("unasked and closed", { { "send", "END\r\n" }, { "fin" } }, "bad reply: unsolicited data")
        }
    }
--- request
GET /t
--- response_body
closed: "then", "right"
reset: "then", "right"
unasked: "then", "right"
unasked: "then", "right"
unasked: "then", "right"
unasked: "then", "right"
unasked: "then", "right"
unasked and closed: "then", "right"
--- no_error_log
[alert]
[crit]
[emerg]



=== TEST 4: the same, noticed only when the first command is to be sent
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            for slot, text in ipairs{ "x", "END\r\n", "VALUE probe 0 4\r\nevil\r\nEND\r\n" } do
                local server = faults.orders(slot)
                server:script("", { { "send", text } })
                local t = ngx.thread.spawn(function() return probe(connected(server)) end)
                -- one event for the connection and for the bytes
                local till = os.clock() + 0.03
                while os.clock() < till do end
                local _, got = ngx.thread.wait(t)
                if got ~= (faults.shared and "right" or "bad reply: unsolicited data") then
                    kit.show("got", got)
                end
                kit.show("then", probe(connected(server)))
            end
        }
    }
--- request
GET /t
--- response_body
then: "right"
then: "right"
then: "right"
--- no_error_log
[alert]
[crit]
[emerg]



=== TEST 5: accepted, and no answer to anything
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local calls = {
                { "set", "k", "v" }, { "get", "k" }, { "get", { "a", "b" } }, { "gets", "k" },
                { "cas", "k", "v", 1 }, { "delete", "k" }, { "incr", "k", 1 }, { "touch", "k", 1 },
                { "flush_all" }, { "version" }, { "stats" }, { "stats", "items" }, { "verbosity", 1 },
                { "gat", "k", 1 }, { "gats", "k", 1 }, { "meta_get", "k" }, { "meta_set", "k", "v" },
                { "meta_delete", "k" }, { "meta_arith", "k" },
            }
            -- these have a connection of their own
            local requests = { stats = { items = "stats items\r\n" }, verbosity = { [1] = "verbosity 1\r\n" } }
            local bare = { stats = "stats\r\n", flush_all = "flush_all\r\n" }
            local r = mux.at_once(#calls, function(i)
                local server = faults.orders(i)
                local name = calls[i][1]
                server:script((requests[name] or {})[calls[i][2]] or not calls[i][2] and bare[name] or "", { { "hold" } })
                local m = connected(server, 100)
                local results = kit.vals(m[name](m, unpack(calls[i], 2)))
                return results, select(2, m:set_keepalive())
            end)
            for i, call in ipairs(calls) do kit.show(call[1], unpack(r[i], 1, 2)) end
        }
    }
--- request
GET /t
--- response_body
set: "nil, \"timeout\"", "closed"
get: "nil, nil, \"timeout\"", "closed"
get: "nil, \"timeout\"", "closed"
gets: "nil, nil, nil, \"timeout\"", "closed"
cas: "nil, \"timeout\"", "closed"
delete: "nil, \"timeout\"", "closed"
incr: "nil, \"timeout\"", "closed"
touch: "nil, \"timeout\"", "closed"
flush_all: "nil, \"timeout\"", "closed"
version: "nil, \"timeout\"", "closed"
stats: "nil, \"timeout\"", "closed"
stats: "nil, \"timeout\"", "closed"
verbosity: "nil, \"timeout\"", "closed"
gat: "nil, nil, \"timeout\"", "closed"
gats: "nil, nil, nil, \"timeout\"", "closed"
meta_get: "nil, \"timeout\"", "closed"
meta_set: "nil, \"timeout\"", "closed"
meta_delete: "nil, \"timeout\"", "closed"
meta_arith: "nil, \"timeout\", nil", "closed"
--- no_error_log
[alert]
[crit]
[emerg]



=== TEST 6: a server that never stops: an error, closed at once, and little memory
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local value, O = "VALUE k 0 1\r\nx\r\n", require "faultmeta".O
            local tries = {
                { "get k\r\n", "", "get", "k" },
                { "get k\r\n", "VALUE k 0 ", "get", "k" },
                { "get k\r\n", "VALUE k 0 5\r\n", "get", "k" },
                { "get k\r\n", value, "get", "k" },
                { "get k\r\n", value:rep(1000), "get", "k" },
                { "get k l\r\n", value:rep(100000), "get", { "k", "l" } },
                { "set k 0 0 1\r\nv\r\n", "STORED", "set", "k", "v" },
                { "version\r\n", "VERSION ", "version" },
                { "stats\r\n", ("STAT a 1\r\n"):rep(200000), "stats" },
                { "incr k 1\r\n", "1", "incr", "k", 1 },
                { "get k\r\n", "VALUE k 0 134217728\r\n", "get", "k" },
                { "gat 1 k\r\n", value, "gat", "k", 1 },
                { "mg k " .. O .. " v\r\n", "VA 1 " .. O, "meta_get", "k" },
                { "mg k " .. O .. " v\r\n", "VA 1 " .. O .. "\r\n", "meta_get", "k" },
                { "mg k " .. O .. " v\r\n", "VA 134217728 " .. O .. "\r\n", "meta_get", "k" },
                { "ms k 1 " .. O .. "\r\nv\r\n", "HD", "meta_set", "k", "v" },
                { "md k " .. O .. "\r\n", "NF ", "meta_delete", "k" },
                { "ma k " .. O .. " v\r\n", "VA 1" .. (" "):rep(2000), "meta_arith", "k" },
            }
            local before = faults.memory()
            for _, try in ipairs(tries) do
                local server = faults.orders(5)
                -- the value that is as long as allowed comes, but not to an end
                local long = try[2]:find("134217728", 1, true)
                server:script(try[1], { { "send", try[2] }, long and { "hold" } or { "flood" } })
                local m = connected(server, long and 100)
                if try[1]:find(O, 1, true) then assert(m:version()) end
                local results = { m[try[3]](m, unpack(try, 4)) }
                kit.show(try[3], results[table.maxn(results)], select(2, m:set_keepalive()))
                local seen = server:report("gone")
                if seen.flooded > 16 * 1024 * 1024 then kit.show("bytes", seen.flooded) end
                if probe(connected(server)) ~= "right" then kit.show("not in step") end
                server:close()
            end
            -- the test's own texts are not meant
            collectgarbage()
            kit.show("little memory", faults.memory() - before < 16)
        }
    }
--- request
GET /t
--- response_body
get: "bad reply: line too long", "closed"
get: "bad reply: line too long", "closed"
get: "bad reply: no CRLF after value", "closed"
get: "bad reply: line too long", "closed"
get: "bad reply: more values than keys", "closed"
get: "bad reply: more values than keys", "closed"
set: "bad reply: line too long", "closed"
version: "bad reply: line too long", "closed"
stats: "bad reply: line too long", "closed"
incr: "bad reply: line too long", "closed"
get: "timeout", "closed"
gat: "bad reply: line too long", "closed"
meta_get: "bad reply: line too long", "closed"
meta_get: "bad reply: no CRLF after value", "closed"
meta_get: "timeout", "closed"
meta_set: "bad reply: line too long", "closed"
meta_delete: "bad reply: line too long", "closed"
meta_arith: "bad reply: line too long", "closed"
little memory: true
--- no_error_log
[alert]
[crit]
[emerg]



=== TEST 8: the server's words come before the error of a write
--- whole: a line is seen as a whole or not at all
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local line = "ERROR Too many open connections"
            local large = ("v"):rep(4000000)
            local function try(label, ending, ask)
                for slot = 1, 10 do
                    local server = faults.orders(slot)
                    server:script("", { { "pause", 20 }, { "send", line .. "\r\n" }, { ending } })
                    local m = kit.new()
                    local ok, err = m:connect(server.host, faults.port)
                    if ok then
                        -- all of it is here, and the worker does not know
                        local till = os.clock() + 0.04
                        while os.clock() < till do end
                        err = ask(m)
                    elseif err == "connection reset by peer" then
                        -- on a busy machine that may come before the connection stands
                        err = line
                    end
                    -- a shared connection may have been replaced by one that serves
                    if err ~= line and not (faults.shared and err == "another") then
                        kit.show(label .. ", " .. ending, err)
                    end
                    m:close()
                    if ending == "down" then server:say("up") end
                    server:close()
                end
            end
            for _, ending in ipairs{ "down", "rst" } do
                try("get", ending, function(m)
                    local value, _, err = m:get("probe")
                    return value and "another" or err
                end)
                try("set", ending, function(m)
                    local _, err = m:set("k", large)
                    -- FaultServer knows no set
                    return err:find("SERVER_ERROR") and "another" or err
                end)
                try("pipeline", ending, function(m)
                    m:init_pipeline()
                    m:get("probe")
                    m:set("k", large)
                    local results, err = m:commit_pipeline()
                    if not results then return err end
                    return results[1][1] and "another" or results[1][3]
                end)
            end
            ngx.say("done")
        }
    }
--- request
GET /t
--- response_body
done
--- no_error_log
[alert]
[crit]
[emerg]
