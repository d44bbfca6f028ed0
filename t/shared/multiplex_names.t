use lib 't/lib';
use TestEnv;
use DnsServer;
use Test::Nginx::Socket::Lua;

# The name of a server of shared connections is looked up again when the answer has expired.

$ENV{TEST_NGINX_DNS_PORT} = DnsServer::start();

our $HttpConfig = TestEnv::head(
    multiplex => 2,
    http      => qq{
        resolver 127.0.0.1:$ENV{TEST_NGINX_DNS_PORT} ipv6=off;
        resolver_timeout 500ms;
    },
    init      => qq{
        -- Says something to the name server.
        function kit.dns(what)
            local udp = ngx.socket.udp()
            assert(udp:setpeername("127.0.0.1", $ENV{TEST_NGINX_DNS_PORT}))
            assert(udp:send(what))
            local said = assert(udp:receive())
            udp:close()
            return tonumber(said) or said
        end

        -- Servers at 127.0.0.1 and 127.0.0.2, at one port. Each says which it is.
        function kit.two_servers(hook)
            local servers = {}
            for i = 1, 2 do
                local function answer(line, c)
                    if hook and hook(i, line, c) == false then return false end
                    if line == "get who" then return "VALUE who 0 1\\r\\n" .. i .. "\\r\\nEND\\r\\n" end
                end
                servers[i] = mux.server(answer, { last = i, port = i == 2 and servers[1].port or nil })
            end
            return servers[1], servers[2]
        end

        -- Connects, asks, and closes or keeps.
        function kit.who(name, port, keep)
            local m = kit.new()
            m:set_timeout(1000)
            local ok, err = m:connect(name, port)
            if not ok then return err end
            local who, _, err = m:get("who")
            if keep then m:set_keepalive() else m:close() end
            return who or err
        end

        -- Whether it gets that answer some time.
        function kit.turns(want, name, port, keep)
            return kit.eventually(function()
                ngx.sleep(0.03)
                return kit.who(name, port, keep) == want
            end, 4)
        end
    },
);

run_tests();

__DATA__

=== TEST 1: the server moves
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local a, b = kit.two_servers()
            for i, keep in ipairs{ false, true } do
                local name = "moves" .. i .. ".test"
                kit.dns("= " .. name .. " 1 127.0.0.1")
                kit.show("before", kit.who(name, a.port, keep))
                kit.dns("= " .. name .. " 1 127.0.0.2")
                kit.show("the answer holds", kit.who(name, a.port, keep))
                kit.show("moves", kit.turns("2", name, a.port, keep))
                kit.show("the old one goes", kit.eventually(function() return mux.open(a) == 0 end, 0.5))
                kit.show("look-ups", kit.dns("? " .. name) <= 4)
            end
            a:close() b:close()
        }
    }
--- request
GET /t
--- response_body
before: "1"
the answer holds: "1"
moves: true
the old one goes: true
look-ups: true
before: "1"
the answer holds: "1"
moves: true
the old one goes: true
look-ups: true
--- no_error_log
[error]



=== TEST 2: without a time to live, once a second
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local a, b = kit.two_servers()
            kit.dns("= none.test 0 127.0.0.1")
            kit.show("before", kit.who("none.test", a.port))
            local from, n = ngx.now(), 0
            repeat
                if kit.who("none.test", a.port) ~= "1" then kit.show("not the first") end
                ngx.sleep(0.01)
                n = n + 1
            until ngx.now() - from > 2.5
            local asked = kit.dns("? none.test")
            kit.show("many", n > 50, asked >= 2 and asked <= 4 or asked)
            kit.show("one connection", a.accepted, b.accepted)
            kit.dns("= none.test 0 127.0.0.2")
            kit.show("moves", kit.turns("2", "none.test", a.port))
            a:close() b:close()
        }
    }
--- request
GET /t
--- response_body
before: "1"
many: true, true
one connection: 1, 0
moves: true
--- no_error_log
[error]



=== TEST 3: a later look-up that fails, or is not answered
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local a, b = kit.two_servers()
            for i, what in ipairs{ "2", "3", "silent" } do
                local name = "fails" .. i .. ".test"
                kit.dns("= " .. name .. " 0 127.0.0.1")
                kit.show("before", kit.who(name, a.port))
                kit.dns("= " .. name .. " 0 " .. what)
                local from, before = ngx.now(), a.accepted
                repeat
                    if kit.who(name, a.port) ~= "1" then kit.show("not the first") end
                    ngx.sleep(0.02)
                until ngx.now() - from > 2.2
                -- the resolver asks again by itself what is not answered
                local asked = kit.dns("? " .. name)
                kit.show("asked again", asked >= 2 and asked <= 8 or asked)
                kit.show("the old one stays", a.accepted == before)
                kit.dns("= " .. name .. " 0 127.0.0.2")
                kit.show("moves", kit.turns("2", name, a.port))
            end
            a:close() b:close()
        }
    }
--- request
GET /t
--- response_body
before: "1"
asked again: true
the old one stays: true
moves: true
before: "1"
asked again: true
the old one stays: true
moves: true
before: "1"
asked again: true
the old one stays: true
moves: true
--- no_error_log
[alert]



=== TEST 4: an address that is one of several stays
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local a, b = kit.two_servers()
            kit.dns("= more.test 0 127.0.0.1")
            kit.show("before", kit.who("more.test", a.port, true))
            kit.dns("= more.test 0 127.0.0.2 127.0.0.3 127.0.0.1 127.0.0.4")
            local from = ngx.now()
            repeat
                if kit.who("more.test", a.port, true) ~= "1" then kit.show("not the first") end
                ngx.sleep(0.02)
            until kit.dns("? more.test") >= 3 or ngx.now() - from > 5
            kit.show("one connection", a.accepted, b.accepted)
            a:close() b:close()
        }
    }
--- request
GET /t
--- response_body
before: "1"
one connection: 1, 0
--- no_error_log
[error]



=== TEST 5: what is in flight is worked off, and objects go on with the new one
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local hold
            local a, b = kit.two_servers(function(i, line)
                while i == 1 and hold and line == "get slow" do ngx.sleep(0.005) end
            end)
            kit.dns("= work.test 0 127.0.0.1")
            local function connect()
                local m = kit.new()
                m:set_timeout(8000)
                assert(m:connect("work.test", a.port))
                return m
            end
            local slow, other = connect(), connect()
            hold = true
            local t = ngx.thread.spawn(function() return slow:get("slow") end)
            kit.dns("= work.test 0 127.0.0.2")
            kit.show("moves", kit.turns("2", "work.test", a.port))
            kit.show("one is left, with what is in flight", mux.open(a))
            kit.show("an object from before", (other:get("who")))
            hold = false
            kit.show("in flight", select(2, ngx.thread.wait(t)))
            kit.show("the old one goes", kit.eventually(function() return mux.open(a) == 0 end, 0.5))
            kit.show("its object, too", (slow:get("who")))
            a:close() b:close()
        }
    }
--- request
GET /t
--- response_body
moves: true
one is left, with what is in flight: 1
an object from before: "2"
in flight: "slow", "0"
the old one goes: true
its object, too: "2"
--- no_error_log
[alert]



=== TEST 6: nobody answers on the connection that leaves
--- http_config eval: $::HttpConfig
--- config
    lua_memcached_multiplex 1;
    location = /t {
        content_by_lua_block {
            local a, b = kit.two_servers(function(i, line, c)
                c.mute = c.mute or line == "get slow"
                if c.mute then return false end
            end)
            kit.dns("= mute.test 0 127.0.0.1")
            local slow = kit.new()
            slow:set_timeout(4000)
            assert(slow:connect("mute.test", a.port))
            local t = ngx.thread.spawn(function() return slow:get("slow") end)
            kit.dns("= mute.test 0 127.0.0.2")
            -- until then gets wait behind the slow one, and time out
            local who
            kit.show("moves", kit.eventually(function()
                local m = kit.new()
                m:set_timeout(100)
                m:connect("mute.test", a.port)
                who = m:get("who")
                return who == "2"
            end, 3.5))
            kit.show("the old one", mux.open(a))
            local _, value, _, err = ngx.thread.wait(t)
            kit.show("in flight", value, err)
            kit.show("the old one goes", kit.eventually(function() return mux.open(a) == 0 end, 1))
            a:close() b:close()
        }
    }
--- request
GET /t
--- response_body
moves: true
the old one: 1
in flight: nil, "timeout"
the old one goes: true
--- no_error_log
[alert]



=== TEST 7: an address that changes all the time
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local a, b = kit.two_servers()
            kit.dns("= flaps.test 0 127.0.0.1")
            local stop
            local flap = ngx.thread.spawn(function()
                local i = 1
                while not stop do
                    i = 3 - i
                    kit.dns("= flaps.test 0 127.0.0." .. i)
                    ngx.sleep(0.07)
                end
            end)
            local from = ngx.now()
            local results = mux.at_once(20, function()
                local right, n = 0, 0
                repeat
                    local who = kit.who("flaps.test", a.port, n % 2 == 0)
                    if who == "1" or who == "2" then right = right + 1 end
                    n = n + 1
                    ngx.sleep(0.002)
                until ngx.now() - from > 5
                return right == n and n > 20, right, n
            end)
            stop = true
            ngx.thread.wait(flap)
            kit.show("right", mux.count(results, true))
            -- at most two a second and two for a start
            local accepted = a.accepted + b.accepted
            kit.show("connections", accepted <= 16 or accepted)
            kit.show("open", mux.open(a) + mux.open(b) <= 4)
            a:close() b:close()
        }
    }
--- request
GET /t
--- response_body
right: 20
connections: true
open: true
--- no_error_log
[alert]



=== TEST 8: nobody listens at the new address
--- http_config eval: $::HttpConfig
--- config
    lua_socket_log_errors off;
    location = /t {
        content_by_lua_block {
            local a, b = kit.two_servers()
            kit.dns("= down.test 0 127.0.0.1")
            kit.show("before", kit.who("down.test", a.port))
            kit.dns("= down.test 0 127.0.0.9")
            kit.show("turns", kit.turns("connection refused", "down.test", a.port))
            kit.dns("= down.test 0 127.0.0.2")
            kit.show("turns", kit.turns("2", "down.test", a.port))
            a:close() b:close()
        }
    }
--- request
GET /t
--- response_body
before: "1"
turns: true
turns: true
--- no_error_log
[alert]
