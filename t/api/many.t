use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# Many keys, many who wait: the work for n of them is not that of n times n. What is allowed for is
# generous; a search for each key among all takes seconds. And many lines of statistics.
our $HttpConfig = TestEnv::head(
    init => q{
        -- A server whose answer to a get of a list has the keys that order(keys) returns.
        function answering(order)
            return kit.fake(function(c)
                while true do
                    local line = c:line()
                    if not line then return end
                    local keys, out = {}, {}
                    for key in line:sub(5):gmatch("%S+") do keys[#keys + 1] = key end
                    for i, key in ipairs(order(keys)) do
                        out[i] = "VALUE " .. key .. " 7 " .. #key .. "\r\n" .. key .. "\r\n"
                    end
                    c:send(table.concat(out) .. "END\r\n")
                end
            end)
        end

        -- What n gets return that wait behind one whose reply does not come, and time out together.
        function wait_in_vain(n)
            local srv = kit.fake(function(c) while c:line() do end end)
            local options = { pool = "vain", pool_size = 1, backlog = 2 * n }
            local first = kit.connect(srv.port, options)
            first:set_timeout(60000)
            local busy = ngx.thread.spawn(first.get, first, "key")
            ngx.sleep(0)
            local threads, results = {}, {}
            for i = 1, n do
                threads[i] = ngx.thread.spawn(function()
                    local m = require("resty.memcached"):new()
                    m:set_timeout(500)
                    local ok, err = m:connect("127.0.0.1", srv.port, options)
                    if ok then ok, ok, err = m:get("key") end
                    results[tostring(err)] = (results[tostring(err)] or 0) + 1
                end)
            end
            for i = 1, n do ngx.thread.wait(threads[i]) end
            ngx.thread.kill(busy)
            local m = kit.connect(srv.port, options)
            srv:close()
            return results, m:close()
        end
    },
);

run_tests();

__DATA__

=== TEST 1: the keys of a list, in any order
--- whole: millions of bytes
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local COUNT = 30000
            local function ask(label, order, repeated)
                local srv = answering(order)
                local m = kit.connect(srv.port)
                m:set_timeout(20000)
                local keys = {}
                for i = 1, COUNT do keys[i] = "key" .. (repeated and i % 10 or i) end
                local ms, found, err = kit.timed(m.get, m, keys)
                local good = 0
                for key, item in pairs(found or {}) do
                    if item[1] == key and item[2] == "7" then good = good + 1 end
                end
                kit.show(label, good, err, ms < 2000 or ms)
                m:close()
                srv:close()
            end
            local function shuffled(keys)
                math.randomseed(4)
                for i = #keys, 2, -1 do
                    local j = math.random(i)
                    keys[i], keys[j] = keys[j], keys[i]
                end
                return keys
            end
            local function reversed(keys)
                local list = {}
                for i = #keys, 1, -1 do list[#list + 1] = keys[i] end
                return list
            end
            ask("as asked", function(keys) return keys end)
            ask("reverse", reversed)
            ask("random", shuffled)
            ask("from both ends", function(keys)
                local list = {}
                for i = 1, #keys / 2 do
                    list[#list + 1] = keys[#keys + 1 - i]
                    list[#list + 1] = keys[i]
                end
                return list
            end)
            ask("every third, in reverse", function(keys)
                local list = {}
                for i = #keys, 1, -3 do list[#list + 1] = keys[i] end
                return list
            end)
            ask("each twice", function(keys)
                local list = {}
                for i = #keys, #keys / 2 + 1, -1 do
                    list[#list + 1] = keys[i]
                    list[#list + 1] = keys[i]
                end
                return list
            end)
            ask("always the last", function(keys)
                local list = {}
                for i = 1, #keys do list[i] = keys[#keys] end
                return list
            end)
            ask("the first and the last by turns", function(keys)
                local list = {}
                for i = 1, #keys do list[i] = keys[i % 2 == 0 and 1 or #keys] end
                return list
            end)
            ask("asked for often", reversed, true)
            ask("one too many", function(keys)
                keys = reversed(keys)
                keys[#keys + 1] = keys[1]
                return keys
            end)
            ask("one that nobody asked for", function(keys)
                keys = reversed(keys)
                keys[#keys] = "key"
                return keys
            end)
        }
    }
--- request
GET /t
--- response_body
as asked: 30000, nil, true
reverse: 30000, nil, true
random: 30000, nil, true
from both ends: 30000, nil, true
every third, in reverse: 10000, nil, true
each twice: 15000, nil, true
always the last: 1, nil, true
the first and the last by turns: 2, nil, true
asked for often: 10, nil, true
one too many: 0, "bad reply: more values than keys", true
one that nobody asked for: 0, "bad reply: unexpected key", true
--- no_error_log
[alert]



=== TEST 2: many that wait for a place in a pool, and time out together
--- private: waits in a pool
--- http_config eval: "lua_socket_log_errors off;" . $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            kit.show("timed out", wait_in_vain(3000))
        }
    }
--- request
GET /t
--- response_body
timed out: {timeout=3000}, 1
--- no_error_log
[alert]



=== TEST 3: many that wait for room on a shared connection, and time out together
--- http_config eval: "lua_socket_log_errors off;\nlua_memcached_multiplex 1 max_operations=1;\n" . $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            kit.show("timed out", wait_in_vain(3000))
        }
    }
--- request
GET /t
--- response_body
timed out: {timeout=3000}, 1
--- no_error_log
[alert]



=== TEST 4: statistics as long as lua_memcached_max_value_size allows
--- whole: millions of bytes
--- http_config eval: $::HttpConfig
--- config
    location = /limited {
        lua_memcached_max_value_size 10000;
        content_by_lua_block { ask(tonumber(ngx.var.arg_port)) }
    }
    location = /t {
        content_by_lua_block {
            -- a line of 76 bytes takes 100
            local function line(i) return "ITEM " .. ("%071d"):format(i) end
            local srv = kit.fake(function(c)
                while true do
                    local asked = c:line()
                    if not asked then return end
                    local lines = {}
                    for i = 1, tonumber(asked:match("%d+$") or 100) do lines[i] = line(i) .. "\r\n" end
                    c:send(table.concat(lines) .. "END\r\n")
                end
            end)
            function ask(port)
                for _, args in ipairs{ "cachedump 1 40000", "cachedump 1 101", "cachedump 1 100", false } do
                    local m = kit.connect(port)
                    local lines, err = m:stats(args or nil)
                    kit.show(args or "all", lines and #lines, err, lines and lines[#lines] == line(#lines))
                    m:close()
                end
            end
            ask(srv.port)
            ngx.print(kit.http($TEST_NGINX_SERVER_PORT, "/limited?port=" .. srv.port))
            srv:close()
        }
    }
--- request
GET /t
--- response_body chomp
cachedump 1 40000: 40000, nil, true
cachedump 1 101: 101, nil, true
cachedump 1 100: 100, nil, true
all: 100, nil, true
cachedump 1 40000: nil, "bad reply: statistics too long", nil
cachedump 1 101: nil, "bad reply: statistics too long", nil
cachedump 1 100: 100, nil, true
all: 100, nil, true
--- no_error_log
[alert]
