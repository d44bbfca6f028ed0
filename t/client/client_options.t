use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# What client.new takes, and says about what it does not take.
our $HttpConfig = TestEnv::head(
    skip => 'the reference has no clients',
    init => q{ client = require "resty.memcached.client" },
);

run_tests();

__DATA__

=== TEST 1: options that are unknown, or of a wrong type
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local function bare(text) return (text:gsub("^content_by_lua%S+ ", "")) end
            local function try(name, value)
                local options = { server = "127.0.0.1:11211" }
                options[name] = value
                local ok, err = pcall(client.new, options)
                ngx.say(ok and "taken" or bare(err))
            end
            ngx.say(bare(select(2, pcall(client.new))))
            ngx.say(bare(select(2, pcall(client.new, "127.0.0.1:11211"))))
            ngx.say(bare(select(2, pcall(client.new, {}))))
            for _, server in ipairs{ 11211, "", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "unix:",
                "a\nb", ":11211", "::1:11211", {}, { "127.0.0.1" }, { "127.0.0.1", "x" },
                { "127.0.0.1", 11211, 3 }, { host = "127.0.0.1" } } do
                try("server", server)
            end
            try("sever", "127.0.0.1:1")
            try("sever", {})
            try(1, true)
            for _, timeouts in ipairs{ "100", 0, -1, 1.5, 0/0, 2147483648, { read = "1" }, { 1, 2, 3, 4 }, { raed = 1 },
                { 1, connect = 2 } } do
                try("timeouts", timeouts)
            end
            for _, transform in ipairs{ 1, {}, { ngx.escape_uri }, { ngx.escape_uri, "x" },
                { ngx.escape_uri, ngx.unescape_uri, 3 } } do
                try("key_transform", transform)
            end
            for _, codec in ipairs{ "python", 7, {}, { encode = print }, print } do try("codec", codec) end
            try("codec", "php")
            try("codec", { encode = print, decode = print })
            for _, multiplex in ipairs{ true, 0, 1.5, 65, "2", {} } do try("multiplex", multiplex) end
            for _, tls in ipairs{ 1, "good", { verify = 1 }, { server_name = 5 }, { name = "x" }, { cert = 5 },
                { key = {} } } do
                try("tls", tls)
            end
            try("pool", 5)
            try("pool", "")
            try("pool_size", 0)
            try("backlog", -1)
            try("keepalive_timeout", -1)
            try("keepalive_timeout", "10")
            ngx.say(bare(select(2, pcall(client.new, { server = "127.0.0.1:1", tls = true, multiplex = 2 }))))
        }
    }
--- request
GET /t
--- response_body
bad options argument (table expected, got nil)
bad options argument (table expected, got string)
bad option "server": expecting "host:port", "unix:/path" or { host, port }, got nil
bad option "server": expecting "host:port", "unix:/path" or { host, port }, got 11211
bad option "server": expecting "host:port", "unix:/path" or { host, port }, got ""
bad option "server": expecting "host:port", "unix:/path" or { host, port }, got "127.0.0.1"
bad option "server": expecting "host:port", "unix:/path" or { host, port }, got "127.0.0.1:"
bad option "server": expecting "host:port", "unix:/path" or { host, port }, got "127.0.0.1:0"
bad option "server": expecting "host:port", "unix:/path" or { host, port }, got "127.0.0.1:65536"
bad option "server": expecting "host:port", "unix:/path" or { host, port }, got "unix:"
bad option "server": expecting "host:port", "unix:/path" or { host, port }, got "a?b"
bad option "server": expecting "host:port", "unix:/path" or { host, port }, got ":11211"
bad option "server": expecting "host:port", "unix:/path" or { host, port }, got "::1:11211"
bad option "server": expecting "host:port", "unix:/path" or { host, port }, got a table
bad option "server": expecting "host:port", "unix:/path" or { host, port }, got a table
bad option "server": expecting "host:port", "unix:/path" or { host, port }, got a table
bad option "server": expecting "host:port", "unix:/path" or { host, port }, got a table
bad option "server": expecting "host:port", "unix:/path" or { host, port }, got a table
unknown option "sever" with the value "127.0.0.1:1": expecting server, timeouts, key_transform, codec, multiplex, tls, pool, pool_size, backlog, keepalive_timeout
unknown option "sever" with the value a table: expecting server, timeouts, key_transform, codec, multiplex, tls, pool, pool_size, backlog, keepalive_timeout
unknown option "1" with the value true: expecting server, timeouts, key_transform, codec, multiplex, tls, pool, pool_size, backlog, keepalive_timeout
bad option "timeouts": expecting milliseconds or { connect, send, read }, got "100"
bad option "timeouts": expecting milliseconds or { connect, send, read }, got 0
bad option "timeouts": expecting milliseconds or { connect, send, read }, got -1
bad option "timeouts": expecting milliseconds or { connect, send, read }, got 1.5
bad option "timeouts": expecting milliseconds or { connect, send, read }, got nan
bad option "timeouts": expecting milliseconds or { connect, send, read }, got 2147483648
bad option "timeouts.read": expecting milliseconds, from 1 to 2147483647, got "1"
unknown option "timeouts.4" with the value 4: expecting milliseconds or { connect, send, read }
unknown option "timeouts.raed" with the value 1: expecting milliseconds or { connect, send, read }
bad option "timeouts": connect is there twice
bad option "key_transform": expecting { escape, unescape }, two functions, got 1
bad option "key_transform[1]": expecting a function, got nil
bad option "key_transform[2]": expecting a function, got nil
bad option "key_transform[2]": expecting a function, got "x"
unknown option "key_transform.3" with the value 3: expecting { escape, unescape }, two functions
bad option "codec": expecting "php" or { encode, decode }, two functions, got "python"
bad option "codec": expecting "php" or { encode, decode }, two functions, got 7
bad option "codec": expecting "php" or { encode, decode }, two functions, got a table
bad option "codec": expecting "php" or { encode, decode }, two functions, got a table
bad option "codec": expecting "php" or { encode, decode }, two functions, got a function
taken
taken
bad option "multiplex": expecting false or an integer from 1 to 64, got true
bad option "multiplex": expecting false or an integer from 1 to 64, got 0
bad option "multiplex": expecting false or an integer from 1 to 64, got 1.5
bad option "multiplex": expecting false or an integer from 1 to 64, got 65
bad option "multiplex": expecting false or an integer from 1 to 64, got "2"
bad option "multiplex": expecting false or an integer from 1 to 64, got a table
bad option "tls": expecting true or { server_name, verify, cert, key }, got 1
bad option "tls": expecting true or { server_name, verify, cert, key }, got "good"
bad option "tls.verify": expecting a boolean, got 1
bad option "tls.server_name": expecting a host name, got 5
unknown option "tls.name" with the value "x": expecting server_name, verify, cert, key
bad option "tls.cert": expecting what ngx.ssl.parse_pem_cert returns, got 5
bad option "tls.key": expecting what ngx.ssl.parse_pem_priv_key returns, got a table
bad option "pool": expecting a name, got 5
bad option "pool": expecting a name, got ""
bad option "pool_size": expecting an integer from 1, got 0
bad option "backlog": expecting an integer from 0, got -1
bad option "keepalive_timeout": expecting milliseconds, from 0 to 2147483647, got -1
bad option "keepalive_timeout": expecting milliseconds, from 0 to 2147483647, got "10"
bad option "multiplex": connections with TLS are not shared, got 2
--- no_error_log
[error]



=== TEST 2: the position of an error, and calls on what is no client
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local ok, err = pcall(function()
                client.new{ server = 1 }
            end)
            ngx.say(err:match("^.-:%d+(%):%d+:)"))
            ok, err = pcall(function() client.new{ server = "127.0.0.1:1", pool = 1 } end)
            ngx.say(err:match("^.-:%d+(%):%d+:)"))
            local c = client:new{ server = "127.0.0.1:" .. kit.port }
            kit.show("a colon is good, too", c:set("k", "v"))
            kit.show("raised", kit.raise_text(c.get, "k"))
            kit.show("raised", kit.raise_text(c.get))
            kit.show("raised", kit.raise_text(c.get, {}))
            kit.show("raised", kit.raise_text(c.get, client, "k"))
            kit.show("type", getmetatable(c))
        }
    }
--- request
GET /t
--- response_body
):3:
):6:
a colon is good, too: 1
raised: "not a client, but \"k\": call methods with a colon, as in client:get(key)"
raised: "not a client, but nil: call methods with a colon, as in client:get(key)"
raised: "not a client: make one with require(\"resty.memcached.client\").new{ ... }"
raised: "not a client: make one with require(\"resty.memcached.client\").new{ ... }"
type: "resty.memcached.client"
--- no_error_log
[error]



=== TEST 3: pools: their names, bounds and idle times
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local server = "127.0.0.1:" .. kit.port
            local c = client.new{ server = server, pool = "small", pool_size = 1, backlog = 0, multiplex = false,
                keepalive_timeout = 50, timeouts = 2000 }
            local held = kit.connect(nil, { pool = "small", pool_size = 1, backlog = 0 }, { multiplex = false })
            kit.show("full", c:get("k"))
            held:close()
            kit.show("free", c:set("k", "v"))
            local other = kit.connect(nil, { pool = "small" }, { multiplex = false })
            kit.show("reused", other:get_reused_times())
            other:set_keepalive()
            c:get("k")
            ngx.sleep(0.3)
            other = kit.connect(nil, { pool = "small" }, { multiplex = false })
            kit.show("idle for too long", other:get_reused_times())
            other:close()
            local u = client.new{ server = kit.unix, pool = "unix", pool_size = 2 }
            kit.show("a socket", u:get("k"))
        }
    }
--- request
GET /t
--- response_body
full: nil, nil, "too many waiting connect operations"
free: 1
reused: 1
idle for too long: 0
a socket: nil, nil, nil
--- no_error_log
[error]



=== TEST 4: multiplex, whatever the location says
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
                    ngx.sleep(0.02)
                    c:send("END\r\n")
                end
            end)
            local function connections(multiplex)
                local c = client.new{ server = "127.0.0.1:" .. srv.port, multiplex = multiplex,
                    pool = "p" .. tostring(multiplex), timeouts = 5000 }
                accepted = 0
                local threads = {}
                for i = 1, 6 do threads[i] = ngx.thread.spawn(c.get, c, "k" .. i) end
                for i = 1, 6 do ngx.thread.wait(threads[i]) end
                return accepted
            end
            kit.show("private", connections(false))
            kit.show("one", connections(1))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
private: 6
one: 1
--- no_error_log
[error]
