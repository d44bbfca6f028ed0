use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# Meta commands over shared connections: who asks for the server's version, what waits for room, what
# is lost.

our $HttpConfig = TestEnv::head(
    multiplex => 2,
    init      => <<'LUA' );
    -- What a server of this version says to meta commands; to others the usual.
    function meta_server(version)
        local srv = mux.server(function(line, c)
            local opaque = line:match(" (O%x+)")
            if line == "version" then return "VERSION " .. c.server.version .. "\r\n" end
            if not opaque then return nil end
            local len = line:match("^ms %S+ (%d+)")
            if len then c:read(tonumber(len) + 2) return "HD " .. opaque .. "\r\n" end
            local key = line:match("^%S+ (%S+)")
            return "VA " .. #key .. " " .. opaque .. "\r\n" .. key .. "\r\n"
        end)
        srv.version = version
        return srv
    end

    function versions(srv)
        local n = 0
        for _, line in ipairs(mux.lines(srv)) do if line == "version" then n = n + 1 end end
        return n
    end
LUA

run_tests();

__DATA__

=== TEST 1: one asks for all connections to a server
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 4;
    location = /t {
        content_by_lua_block {
            local srv = meta_server("1.6.18")
            local first = kit.connect(srv.port)
            kit.show("first", first:meta_get("first"))
            local r = mux.at_once(64, function(i)
                local m = kit.connect(srv.port)
                local wrong = 0
                for n = 1, 5 do
                    local key = "k" .. i .. "x" .. n
                    local item = m:meta_get(key)
                    if not item or item.value ~= key then wrong = wrong + 1 end
                end
                return wrong
            end)
            kit.show("right", mux.count(r, 0))
            kit.show("connections", srv.accepted > 1)
            kit.show("asked", versions(srv))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
first: {value="first"}, nil
right: 64
connections: true
asked: 1
--- no_error_log
[alert]



=== TEST 2: many at once, before anybody has asked
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 3;
    location = /t {
        content_by_lua_block {
            for _, version in ipairs{ "1.6.18", "1.6.9" } do
                local srv = meta_server(version)
                local r = mux.at_once(50, function(i)
                    local m = kit.connect(srv.port)
                    local item, err = m:meta_get("k" .. i)
                    return item and item.value == "k" .. i or err
                end)
                kit.show("right", mux.count(r, true))
                kit.show("refused", mux.count(r, "not supported by memcached 1.6.9: meta commands"))
                local sent = 0
                for _, line in ipairs(mux.lines(srv)) do if line:match("^mg") then sent = sent + 1 end end
                kit.show("sent", sent)
                srv:close()
            end
        }
    }
--- request
GET /t
--- response_body
right: 50
refused: 0
sent: 50
right: 0
refused: 50
sent: 0
--- no_error_log
[alert]



=== TEST 3: a server that was replaced by an older one is asked anew
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 2;
    location = /t {
        content_by_lua_block {
            local srv = meta_server("1.6.38")
            local m = kit.connect(srv.port)
            kit.show("new", m:meta_set("k", "v"))
            srv.version = "1.6.9"
            for _, c in ipairs(srv.conns) do c:close() end
            ngx.sleep(0.02)
            kit.show("old", m:meta_set("k", "flush_all\r\n"))
            kit.show("get", m:get("k"))
            kit.show("asked", versions(srv))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
new: {}, nil
old: nil, "not supported by memcached 1.6.9: meta commands"
get: "k", "0"
asked: 2
--- no_error_log
[alert]



=== TEST 4: waiting for room
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1 max_operations=2;
    location = /t {
        content_by_lua_block {
            for _, known in ipairs{ false, true } do
                local srv = meta_server("1.6.18")
                local memcs = {}
                for i = 1, 6 do
                    memcs[i] = kit.connect(srv.port, { pool_size = 1, backlog = 10 })
                end
                memcs[1]:get("warm")
                if known then memcs[1]:meta_get("warm") end
                srv.held = true
                local threads = {}
                for i = 1, 2 do threads[i] = ngx.thread.spawn(function() return (memcs[i]:get("k" .. i)) end) end
                for i = 3, 5 do
                    threads[i] = ngx.thread.spawn(function()
                        local item, err = memcs[i]:meta_get("k" .. i)
                        return item and item.value or err
                    end)
                end
                threads[6] = ngx.thread.spawn(function()
                    memcs[6]:init_pipeline()
                    memcs[6]:meta_get("k6")
                    memcs[6]:meta_set("k6", "v", { return_size = true })
                    memcs[6]:get("k6")
                    return kit.fmt(memcs[6]:commit_pipeline())
                end)
                ngx.sleep(0.01)
                srv.held = false
                for i = 1, 6 do kit.show("k" .. i, select(2, ngx.thread.wait(threads[i]))) end
                srv:close()
            end
        }
    }
--- request
GET /t
--- response_body
k1: "k1"
k2: "k2"
k3: "k3"
k4: "k4"
k5: "k5"
k6: "{{{value=\"k6\"}}, {nil, \"not supported by memcached 1.6.18: return_size\"}, {\"k6\", \"0\"}}"
k1: "k1"
k2: "k2"
k3: "k3"
k4: "k4"
k5: "k5"
k6: "{{{value=\"k6\"}}, {nil, \"not supported by memcached 1.6.18: return_size\"}, {\"k6\", \"0\"}}"
--- no_error_log
[alert]



=== TEST 5: what waits for room when all connections are lost
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1 max_operations=1;
    location = /t {
        lua_socket_log_errors off;
        content_by_lua_block {
            local srv = meta_server("1.6.38")
            local a = kit.connect(srv.port, { pool_size = 1, backlog = 10 })
            local b = kit.connect(srv.port, { pool_size = 1, backlog = 10 })
            kit.show("known", a:meta_get("k"))
            srv.held = true
            local first = ngx.thread.spawn(function() return select(2, a:set("k", "v")) end)
            local second = ngx.thread.spawn(function() return b:meta_set("k", "flush_all\r\n") end)
            ngx.sleep(0.01)
            srv.version = "1.6.9"
            for _, c in ipairs(srv.conns) do c:close() end
            srv.held = false
            kit.show("sent", ngx.thread.wait(first))
            kit.show("waited", ngx.thread.wait(second))
            local flushed = false
            for _, line in ipairs(mux.lines(srv)) do flushed = flushed or line:match("flush_all") end
            kit.show("flushed", flushed)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
known: {value="k"}, nil
sent: true, "closed"
waited: true, nil, "closed"
flushed: nil
--- no_error_log
[alert]



=== TEST 6: a large value
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            kit.fresh()
            local r = mux.at_once(8, function(i)
                local m = kit.connect()
                local value = ("0123456789"):rep(20000 + i)
                for _ = 1, 5 do
                    local ok, err = m:meta_set("large" .. i, value, { ttl = 100 })
                    if not ok then return err end
                    local item, err = m:meta_get("large" .. i)
                    if not item or item.value ~= value then return err or "another value" end
                end
                return true
            end)
            kit.show("right", mux.count(r, true))
        }
    }
--- request
GET /t
--- response_body
right: 8
--- no_error_log
[alert]
