use lib 't/lib';
use TestEnv;
use TestCerts;
use Test::Nginx::Socket::Lua;

# What is sent while the server takes it slowly, or says something in the meantime. Values are large
# enough for no socket to take them at once.
our $HttpConfig = TestEnv::head(
    tls  => [],
    http => 'lua_ssl_protocols TLSv1.2 TLSv1.3;',
    init => qq{
        server = require "tlsserver"
        server.certs = "@{[ TestCerts::dir() ]}"

        WINDOW = 16 * 1024

        -- A server of sets and gets that calls slow(c) before each command and each part of a value.
        function memory(opts, slow)
            local values = {}
            opts.window = WINDOW
            return server.fake(function(c)
                while true do
                    if slow then slow(c) end
                    local line = c:line()
                    if not line then return end
                    local key, size = line:match("^set (%S+) %d+ %d+ (%d+)\$")
                    if key then
                        local value = c:body(size + 2, slow)
                        if not value then return end
                        values[key] = value:sub(1, -3)
                        c:send("STORED\\r\\n")
                    else
                        key = line:match("^get (%S+)\$")
                        local value = values[key]
                        c:send((value and "VALUE " .. key .. " 0 " .. #value .. "\\r\\n" .. value .. "\\r\\n"
                            or "") .. "END\\r\\n")
                    end
                end
            end, opts)
        end

        function connect(srv, plain)
            local m = kit.new()
            m:set_timeouts(5000, 15000, 15000)
            assert(m:connect("127.0.0.1", srv.port))
            if not plain then assert(m:sslhandshake(nil, "memcached.test", false)) end
            return m
        end

        -- A value that is nowhere like itself.
        function uneven(size)
            local parts = {}
            for i = 1, math.ceil(size / 8) do parts[i] = string.format("%08d", i) end
            return table.concat(parts):sub(1, size)
        end

        -- A pipeline of n sets: how many were stored, and the first other result.
        function store(m, n, value)
            m:init_pipeline()
            for i = 1, n do m:set("k" .. i, value .. i) end
            local results, err = m:commit_pipeline()
            local good, other = 0, err
            for i = 1, results and #results or 0 do
                if results[i][1] == 1 then good = good + 1 else other = other or results[i][2] end
            end
            return good, other
        end
    },
);

run_tests();

__DATA__

=== TEST 1: a large pipeline whose replies come while it is being sent
--- whole: millions of bytes
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            for _, version in ipairs{ "1.2", "1.3" } do
                local turn = 0
                local srv = memory({ version = version }, function()
                    turn = turn + 1
                    if turn % 100 == 0 then ngx.sleep(0.005) end
                end)
                local m = connect(srv)
                local value = uneven(3000)
                kit.show(version, store(m, 4000, value))
                kit.show("the last", m:get("k4000") == value .. 4000)
                kit.show("given back", m:set_keepalive())
                m = connect(srv)
                kit.show("used again", m:get_reused_times(), m:get("k7") == value .. 7)
                kit.show("and again", store(m, 4000, value))
                kit.show("the first", m:get("k1") == value .. 1)
                m:close()
                srv:close()
            end
        }
    }
--- request
GET /t
--- response_body
1.2: 4000, nil
the last: true
given back: 1
used again: 1, true
and again: 4000, nil
the first: true
1.3: 4000, nil
the last: true
given back: 1
used again: 1, true
and again: 4000, nil
the first: true
--- no_error_log
[error]



=== TEST 2: single values, from within one record to many
--- whole: millions of bytes
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            for _, version in ipairs{ "1.2", "1.3" } do
                local turn = 0
                local srv = memory({ version = version }, function()
                    turn = turn + 1
                    if turn % 100 == 0 then ngx.sleep(0.005) end
                end)
                local m = connect(srv)
                for _, size in ipairs{ 100, 16300, 16384, 40000, 1000000, 6000000 } do
                    local value = uneven(size)
                    local ok, err = m:set("k", value)
                    kit.show(version .. ", " .. size, ok, err, m:get("k") == value)
                end
                m:close()
                srv:close()
            end
        }
    }
--- request
GET /t
--- response_body
1.2, 100: 1, nil, true
1.2, 16300: 1, nil, true
1.2, 16384: 1, nil, true
1.2, 40000: 1, nil, true
1.2, 1000000: 1, nil, true
1.2, 6000000: 1, nil, true
1.3, 100: 1, nil, true
1.3, 16300: 1, nil, true
1.3, 16384: 1, nil, true
1.3, 40000: 1, nil, true
1.3, 1000000: 1, nil, true
1.3, 6000000: 1, nil, true
--- no_error_log
[error]



=== TEST 3: a server that refuses a value before it has read it
--- whole: millions of bytes
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            for _, plain in ipairs{ true, false } do
                local srv = server.fake(function(c)
                    while true do
                        local line = c:line()
                        if not line then return end
                        local size = line:match("^set k %d+ %d+ (%d+)$")
                        if size then
                            c:send("SERVER_ERROR object too large for cache\r\n")
                            ngx.sleep(0.1)
                            c:body(size + 2)
                        else
                            c:send(line == "version" and "VERSION 1\r\n"
                                or line:gsub("get (.)", "VALUE %1 0 1\r\n%1\r\nEND\r\n"))
                        end
                    end
                end, { plain = plain, window = WINDOW })
                local m = connect(srv, plain)
                local large = uneven(9000000)
                kit.show(plain and "plain" or "TLS", m:set("k", large))
                kit.show("at once", m:version())
                kit.show("once more", m:set("k", large))
                kit.show("while it is being sent", m:set("k", large))
                m:init_pipeline()
                m:get("a")
                m:set("k", large)
                m:get("b")
                kit.show("in a pipeline", (m:commit_pipeline()))
                kit.show("in step", m:version())
                kit.show("kept", m:set_keepalive())
                m:close()
                srv:close()
            end
        }
    }
--- request
GET /t
--- response_body
plain: nil, "SERVER_ERROR object too large for cache"
at once: "1"
once more: nil, "SERVER_ERROR object too large for cache"
while it is being sent: nil, "SERVER_ERROR object too large for cache"
in a pipeline: {{"a", "0"}, {nil, "SERVER_ERROR object too large for cache"}, {"b", "0"}}
in step: "1"
kept: 1
TLS: nil, "SERVER_ERROR object too large for cache"
at once: "1"
once more: nil, "SERVER_ERROR object too large for cache"
while it is being sent: nil, "SERVER_ERROR object too large for cache"
in a pipeline: {{"a", "0"}, {nil, "SERVER_ERROR object too large for cache"}, {"b", "0"}}
in step: "1"
kept: 1
--- no_error_log
[error]



=== TEST 4: raw data, sent while another light thread receives
--- whole: millions of bytes
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            for _, version in ipairs{ "1.2", "1.3" } do
                -- says what it got, in between and at the end
                local srv = server.fake(function(c)
                    local got, size = 0, 8000000
                    while got < size do
                        if #c.input == 0 and not c:fill() then return end
                        got, c.input = got + #c.input, ""
                        c:send(got .. "\n")
                        if got % 64 == 0 then ngx.sleep(0.001) end
                    end
                    ngx.sleep(0.01)
                    c:send("all\n")
                end, { version = version, window = WINDOW })
                local m = connect(srv)
                local lines = 0
                local reader = ngx.thread.spawn(function()
                    while true do
                        local line, err = m.sock:receive()
                        if not line then return err end
                        lines = lines + 1
                        if line == "all" then return line end
                    end
                end)
                local sent = 0
                for _ = 1, 4 do sent = sent + assert(m.sock:send(uneven(2000000))) end
                local _, last = ngx.thread.wait(reader)
                kit.show(version, sent, last, lines > 100)
                m:close()
                srv:close()
            end
        }
    }
--- request
GET /t
--- response_body
1.2: 8000000, "all", true
1.3: 8000000, "all", true
--- no_error_log
[error]



=== TEST 5: new keys and new tickets while a command is being sent (TLS 1.3)
--- whole: millions of bytes
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            -- Not often: OpenSSL cannot stand two of these while one and the same write is pending.
            local said, last, turn = 0, 0, 0
            local srv = memory({ version = "1.3" }, function(c)
                turn = turn + 1
                if turn % 20 == 0 then ngx.sleep(0.001) end
                if c.total > last + 3000000 then
                    said, last = said + 1, c.total
                    c[said % 3 == 0 and "ticket" or "key_update"](c)
                    ngx.sleep(0.02)
                end
            end)
            local m = connect(srv)
            local value = uneven(3000)
            kit.show("a pipeline", store(m, 4000, value))
            kit.show("new keys", said > 2)
            value = uneven(12000000)
            kit.show("a value", m:set("k", value))
            kit.show("new keys", said > 5)
            kit.show("the same", m:get("k") == value)
            kit.show("given back", m:set_keepalive())
            m = connect(srv)
            kit.show("used again", m:get_reused_times(), m:get("k5") == uneven(3000) .. 5)
            m:close()
            srv:close()
        }
    }
--- request
GET /t
--- response_body
a pipeline: 4000, nil
new keys: true
a value: 1
new keys: true
the same: true
given back: 1
used again: 1, true
--- no_error_log
[error]



=== TEST 6: new keys while nobody reads
--- whole: millions of bytes
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = server.fake(function(c)
                local got = 0
                while got < 8000000 do
                    if not c:fill() then return end
                    got, c.input = got + #c.input, ""
                    if got % 1000000 < 20000 then
                        c:key_update()
                        ngx.sleep(0.01)
                    end
                end
                c:send("all\n")
            end, { version = "1.3", window = WINDOW })
            local m = connect(srv)
            kit.show("sent", m.sock:send(uneven(8000000)))
            kit.show("received", m.sock:receive())
            m:close()
            srv:close()
        }
    }
--- request
GET /t
--- response_body
sent: 8000000
received: "all"
--- no_error_log
[error]
