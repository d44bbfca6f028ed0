use strict;
use warnings;

use lib 't/lib';

use IO::Socket::INET;
use Test::More;
use TestEnv memcached => 0;
use GroupServers;
use LiveNginx;

# What can be done with an object that is connected to a group, and with one that was.

my @ports  = map { TestEnv::start_memcached() } 1 .. 3;
my $other  = TestEnv::start_memcached();
my @fakes  = map { TestEnv::free_port() } 1 .. 2;
# Accepts, and never answers.
my $silent = IO::Socket::INET->new( Listen => 50, LocalAddr => '127.0.0.1', LocalPort => 0 ) or die "listen: $!";

sub servers { return join ' ', map {"server 127.0.0.1:$_ max_fails=0;"} @_ }

my $nginx = LiveNginx->start(
    http => qq{
        upstream three  { lua_memcached_hash ketama; @{[ servers(@ports) ]} }
        upstream other  { lua_memcached_hash ketama; @{[ servers($other) ]} }
        upstream Silent { lua_memcached_hash modula; @{[ servers( $ports[0], $silent->sockport ) ]} }
        upstream fakes  { lua_memcached_hash modula; @{[ servers(@fakes) ]} }
        lua_memcached_upstream mapped.test:11211 three;
        lua_socket_log_errors off;
        init_by_lua_block {
            @{[ TestEnv::lua_kit() ]}
            require "awaykit"
            kit, memcached = require "testkit", require "resty.memcached"
            ports, other, fakes, silent = { @{[ join ', ', @ports ]} }, $other, { @{[ join ', ', @fakes ]} }, @{[ $silent->sockport ]}
            function object(name, read)
                local m = memcached:new()
                m:set_timeouts(1000, 1000, read or 1000)
                if type(name) == "number" then
                    assert(m:connect("127.0.0.1", name))
                else
                    assert(m:connect(name))
                end
                return m
            end
            function say(...) ngx.print(kit.vals(...)) end
            -- Opens a connection to each of its servers.
            function use_all(m)
                for i, port in ipairs(ports) do assert(m:set(key_of(m, port), i)) end
            end
            -- How many connections servers have, but for the one that asks.
            function open_at(...)
                local sum = 0
                for _, port in ipairs{ ... } do
                    local m = memcached:new()
                    assert(m:connect("127.0.0.1", port, { pool = "asks" .. port }))
                    for _, line in ipairs(assert(m:stats())) do
                        local count = line:match("curr_connections (%d+)")
                        if count then sum = sum + count - 1 end
                    end
                    m:close()
                end
                return sum
            end
        }
    },
    server => GroupServers::location() . q{
        location = /leave { content_by_lua_block { local m = object("three") use_all(m) ngx.print("left") } }
        location = /sub { content_by_lua_block { local m = object("three") ngx.print((m:set("sub", 1)), " ", (m:get("sub")), " ", (m:set_keepalive())) } }
        location = /subs {
            content_by_lua_block {
                local m = object("three")
                assert(m:set("sub", 2))
                local one, two = ngx.location.capture_multi{ { "/sub" }, { "/sub" } }
                ngx.print(one.body, ", ", two.body, ", ", (m:get("sub")), " ", (m:close()))
            }
        }
    },
);

sub lua { return GroupServers::lua( $nginx, @_ ) }

sub is_lua { my ( $code, $want, $name ) = @_; return is( lua($code), $want, $name ) }

# ways to call

is_lua( q{ local m = object("three") say(memcached.set(m, "static", 1), memcached.get(m, "static")) }, '1, "1", "0"', 'static calls' );
is_lua( q{
    local Sub = setmetatable({}, { __index = memcached })
    function Sub.get(self, key) return memcached.get(self, "sub" .. key) end
    local m = setmetatable(memcached:new(), { __index = Sub })
    assert(m:connect("three"))
    say(m:set("subclass", 1), m:get("class"))
}, '1, "1", "0"', 'a subclass' );
is_lua( q{ local m = memcached:new() say(m.sock:connect("three")) say(m:set("k", 1)) }, '11', 'connect of the sock' );
is_lua( q{ local m = object("THREE") say(m:set("k", 1)) }, '1', 'a name in other letters' );
is_lua( q{
    local client = require "resty.memcached.client".new{ server = "mapped.test:11211" }
    say(client:set("c", 1), client:get("c")) say("", client:get{ "c", "d" })
    say("", (client:server_of("c")) ~= nil)
}, '1, "1", "0""", {c={"1", "0"}}"", true', 'a client' );
is_lua( q{
    local client = require "resty.memcached.client".new{ server = "mapped.test:11211" }
    local before = open_at(unpack(ports))
    for i = 1, 300 do assert(client:set("client" .. i, i)) end
    for i = 1, 300 do if client:get("client" .. i) ~= tostring(i) then return say("wrong", i) end end
    say(open_at(unpack(ports)) - before <= 6)
}, 'true', 'a client keeps its connections' );
is_lua( q{ local m = object("three") say(m:get()) }, lua(q{ local m = object(other) say(m:get()) }), 'no key' );

# as many results as of one server
is_lua( q{
    local n = function(...) return select("#", ...) end
    local one, group = object(other), object("three")
    local differ = {}
    local function same(name, ...)
        local a, b = n(one[name](one, ...)), n(group[name](group, ...))
        if a ~= b then differ[#differ + 1] = name .. " " .. a .. " " .. b end
    end
    for _, key in ipairs{ "there", "not there" } do
        same("delete", "not there")
        same("set", "there", 1) same("get", key) same("gets", key) same("add", key, 1) same("delete", "not there")
        same("replace", key, 2) same("append", key, 3) same("prepend", key, 4) same("cas", key, 5, "9999999999")
        same("incr", key, 1) same("decr", key, 1) same("touch", key, 10) same("gat", key, 10) same("gats", key, 10)
        same("meta_get", key) same("meta_set", key, 7) same("meta_arith", key) same("meta_arith", key, { ttl = 10 }) same("meta_delete", key)
        same("get", { key }) same("gets", { key, "none" }) same("gat", { key }, 10) same("get", {})
    end
    same("get", "") same("set", "", 1) same("set", "k", 1, "never")
    same("flush_all") same("verbosity", 1) same("set_timeout", 1000) same("set_timeouts", 1000, 1000, 1000)
    same("get_reused_times") same("set_keepalive") same("close") same("get", "k") same("set_keepalive")
    say(#differ, table.concat(differ, ", "))
}, '0, ""', 'as many results as of one server' );

# one object after the other

is_lua( q{
    local m = memcached:new()
    local got = {}
    for round = 1, 3 do
        for _, to in ipairs{ "three", other, "other", "three" } do
            if type(to) == "number" then assert(m:connect("127.0.0.1", to)) else assert(m:connect(to)) end
            assert(m:set("again", to .. round))
            got[#got + 1] = m:get("again") == to .. round and m:server_of("again") and "group" or "server"
            if round == 2 then assert(m:close()) elseif round == 3 then assert(m:set_keepalive()) end
        end
    end
    say(table.concat(got, " "))
}, '"' . join( ' ', ('group server group group') x 3 ) . '"', 'to a group, a server, another group' );
is_lua( q{
    local before = open_at(other, unpack(ports))
    local m = memcached:new()
    for i = 1, 5 do
        assert(m:connect("three", nil, { pool_size = 1 })) use_all(m)
        assert(m:connect("127.0.0.1", other, { pool = "fresh" })) assert(m:set("k", 1))
        assert(m:connect("other")) assert(m:set("k", 1))
    end
    m:close()
    say(kit.eventually(function() return open_at(other, unpack(ports)) <= before + 8 end))
}, 'true', 'each connection is closed then' );
is_lua( q{ local m = object("three") use_all(m) say(m:connect("127.0.0.1", 65536)) say("", m:get(key_of(m, ports[1]))) },
    'nil, "bad port number: 65536""", "1", "0"', 'a bad port number leaves the group as it is' );
is_lua( q{ local m = object(other) assert(m:set("k", 1)) say(m:connect("no-such-block")) say("", m:get("k")) },
    'nil, "missing the port number""", "1", "0"', 'no such block: the connection stays' );

# timeouts

is_lua( q{
    local m = object("Silent", 60000)
    local key = key_of(m, silent)
    m:set_timeout(50) say(m:get(key)) m:set_timeouts(1000, 1000, 60) say("", m:get(key))
    m.sock:settimeout(70) say("", m:get(key)) m.sock:settimeouts(1000, 1000, 80) say("", m:get(key))
    say("", m:set(key_of(m, ports[1]), 1), m:close())
}, 'nil, nil, "timeout""", nil, nil, "timeout""", nil, nil, "timeout""", nil, nil, "timeout""", 1, 1', 'timeouts' );
is_lua( q{
    local close = {}
    for i, port in ipairs(fakes) do
        close[i] = kit.fake(function(c) while c:line() do c:line() ngx.sleep(0.3) c:send("STORED\r\n") end end, { port = port })
    end
    local m = object("fakes", 10000)
    local key = key_of(m, fakes[1])
    local first = m:set(key, 1)
    m:set_timeout(50)
    say(first, m:set(key, 1))
    for _, server in ipairs(close) do server:close() end
}, '1, nil, "timeout"', 'timeouts of connections that are open' );

# the sock

is_lua( q{ local m = object("three") use_all(m) say(m.sock:receive("*l")) say("", m.sock:getreusedtimes() ~= nil, m.sock:setkeepalive(1000, 10), m.sock:send("x")) },
    'nil, "not for upstreams: no server chosen""", true, 1, nil, "closed"', 'the methods of the sock' );
is_lua( q{ local m = object("three") use_all(m) say((m.sock:close())) say("", m.sock:close()) say("", m:get("k")) },
    '1"", nil, "closed""", nil, nil, "closed"', 'close of the sock' );

# coroutines

is_lua( q{
    local m = object("Silent", 5000)
    local key = key_of(m, silent)
    local thread = ngx.thread.spawn(function() return m:get(key) end)
    ngx.sleep(0.1)
    say(m:get(key)) say("", m:set(key_of(m, ports[1]), 1)) say("", m:close())
    ngx.thread.kill(thread)
}, 'nil, nil, "socket busy reading""", 1"", nil, "socket busy reading"', 'two light threads, one server; another server is free' );
is_lua( q{
    local m = object("Silent", 5000)
    local key = key_of(m, silent)
    local thread = ngx.thread.spawn(function() m:get(key) end)
    ngx.thread.kill(thread)
    m:set_timeout(50)
    say(m:get(key)) say("", m:set(key_of(m, ports[1]), 1), m:close())
}, 'nil, nil, "timeout""", 1, 1', 'a thread is killed while it waits for a reply' );
is_lua( q{
    local m = object("Silent", 5000)
    local keys = { key_of(m, silent), key_of(m, ports[1]) }
    assert(m:set(keys[2], 7))
    local thread = ngx.thread.spawn(function() m:get(keys) end)
    ngx.thread.kill(thread)
    m:set_timeout(50)
    say(m:get(keys[2])) say("", m:get(keys))
}, qq{"7", "0""", {key1={"7", "0"}}, "timeout", {["127.0.0.1:@{[ $silent->sockport ]}"]="timeout"}}, '... for a list, whose other server has answered' )
    if lua(q{ local m = object("Silent") ngx.print(key_of(m, ports[1])) }) eq 'key1';
is_lua( q{
    local m = object("three")
    local wrong = 0
    local threads = {}
    for i = 1, 20 do
        threads[i] = ngx.thread.spawn(function()
            local own = object("three")
            for j = 1, 20 do
                local key = "thread" .. i .. "." .. j
                if own:set(key, key) ~= 1 or own:get(key) ~= key then wrong = wrong + 1 end
                if j % 5 == 0 then own:set_keepalive() own:connect("three") end
            end
        end)
    end
    for _, thread in ipairs(threads) do ngx.thread.wait(thread) end
    say(wrong)
}, '0', 'many objects at once' );
is_lua( q{
    local co = coroutine.wrap(function()
        local m = object("three")
        m:set("co", 1)
        coroutine.yield(m:get("co"))
        coroutine.yield(m:get{ "co", "none" })
    end)
    say(co()) say("", co())
}, '"1", "0""", {co={"1", "0"}}', 'a coroutine' );

# ends of requests

my $before = lua(q{ ngx.print(open_at(unpack(ports))) });
# shared ones stay, and a further one may be opened to each server
my $most = $before + ( $ENV{TEST_NGINX_MULTIPLEX} ? 3 : 0 );
is( $nginx->get('/leave'), 'left', 'a request ends with open connections' ) for 1 .. 20;
is_lua( qq{ say(kit.eventually(function() collectgarbage() return open_at(unpack(ports)) <= $most end)) }, 'true', 'which are closed' )
    or diag( "$before before, and then ", lua(q{ ngx.print(open_at(unpack(ports))) }) );
is( $nginx->get('/subs'), '1 1 1, 1 1 1, 1 1', 'subrequests' );
is_lua( q{
    local result
    assert(ngx.timer.at(0, function()
        local m = object("three")
        local set, value = m:set("timer", 5), m:get("timer")
        result = { set, value, m:set_keepalive() }
    end))
    kit.eventually(function() return result end)
    say(unpack(result))
}, '1, "5", 1', 'a timer' );
is_lua( q{
    kept = object("three")
    assert(kept:set("k", 1))
    say(true)
}, 'true', 'an object is kept over requests' );
like( lua(q{ say(kept:set("k", 1)) say(" ", kept:connect("three")) say(" ", kept:set("k", 2)) }), qr/\A(raised .*bad request|.*" ", 1" ", 1\z)/s, '... and used by the next one' );

is_deeply( [ $nginx->log_lines(qw( crit alert emerg )) ], [], 'nothing bad in the log' ) or diag( $nginx->log );
undef $nginx;
done_testing();
