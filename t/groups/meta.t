use strict;
use warnings;

use lib 't/lib';

use Test::More;
use TestEnv memcached => 0;
use GroupServers;
use LiveNginx;

# gat, gats and meta commands over a group.

my @ports = map { TestEnv::start_memcached() } 1 .. 3;
my $spare = TestEnv::start_memcached();
my $dead  = TestEnv::free_port();
my @fakes = map { TestEnv::free_port() } 1 .. 2;

sub servers { return join ' ', map {"server 127.0.0.1:$_ max_fails=1;"} @_ }

my $nginx = LiveNginx->start(
    http => qq{
        upstream three  { lua_memcached_hash ketama; @{[ servers(@ports) ]} }
        upstream gutter {
            lua_memcached_hash modula; lua_memcached_failover backup exptime=60s;
            @{[ servers($dead) ]} server 127.0.0.2:$dead max_fails=1; server 127.0.0.1:$spare backup;
        }
        upstream fakes  { lua_memcached_hash modula; @{[ servers(@fakes) ]} }
        upstream away   { zone away 64k; lua_memcached_hash modula; @{[ servers( $dead, $ports[0] ) ]} }
        lua_socket_log_errors off;
        init_by_lua_block {
            @{[ TestEnv::lua_kit() ]}
            require "awaykit"
            kit, memcached = require "testkit", require "resty.memcached"
            ports, spare, fakes = { @{[ join ', ', @ports ]} }, $spare, { @{[ join ', ', @fakes ]} }
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
        }
    },
    server => GroupServers::location(),
);

sub lua { return GroupServers::lua( $nginx, @_ ) }

sub is_lua { my ( $code, $want, $name ) = @_; return is( lua($code), $want, $name ) }

is_lua( q{
    local m = object("three")
    local wrong = {}
    for i = 1, 30 do
        local key = "meta " .. i
        m:delete(key)
        local here = object(tonumber(m:server_of(key):match("%d+$")))
        local ok = m:meta_get(key) == nil
            and m:meta_set(key, "1", { ttl = 100, flags = 3 }) ~= nil
            and here:get(key) == "1"
            and m:meta_get(key, { flags = true }).flags == "3"
            and m:meta_arith(key, { delta = 4 }) == "5"
            and m:gat(key, 200) == "5" and select(2, m:gats(key, 200)) == "3"
            and m:meta_get(key, { ttl = true }).ttl > 150
            and here:meta_get(key, { ttl = true }).ttl > 150
            and m:meta_delete(key) == 1
            and here:get(key) == nil
        if not ok then wrong[#wrong + 1] = key end
        here:set_keepalive()
    end
    say(#wrong, m:set_keepalive())
}, '0, 1', 'meta commands go where the key is' );
is_lua( q{
    local m = object("three")
    local keys = {}
    for i = 1, 60 do keys[i] = "list" .. i assert(m:set(keys[i], i)) end
    keys[61] = "none"
    local found, err = m:gats(keys, 50)
    local wrong = 0
    for i = 1, 60 do
        local item = found[keys[i]]
        if not item or item[1] ~= tostring(i) or not item[3] or m:meta_get(keys[i], { ttl = true }).ttl > 50 then wrong = wrong + 1 end
    end
    say(wrong, err, found.none)
}, '0, nil, nil', 'gats of a list' );

# in the place of servers that are away

is_lua( q{
    local m, there = object("gutter", 10000), object(spare, 10000)
    local function ttl(key) local item = there:meta_get(key, { ttl = true }) return item and item.ttl end
    local got = {}
    local function add(key) got[#got + 1] = ttl(key) end
    m:meta_set("a", 1) add("a")
    m:meta_set("b", 1, { ttl = 3600 }) add("b")
    m:meta_set("c", 1, { ttl = 10 }) add("c")
    m:meta_set("a", 2, { mode = "append", ttl = 500 }) add("a")
    m:gat("a", 0) add("a")
    m:gats("c", 1000) add("c")
    m:meta_get("c", { touch = 5000 }) add("c")
    m:meta_get("d", { vivify = 300 }) add("d")
    m:meta_arith("e", { initial = 1, vivify = 400 }) add("e")
    m:meta_arith("e", { ttl = 400 }) add("e")
    m:meta_arith("e", { ttl = 20 }) add("e")
    m:touch("a", 0) add("a")
    m:set("f", 1) add("f")
    m:cas("f", 2, (select(3, m:gets("f"))), 100) add("f")
    m:gat({ "f", "a" }, 0) add("f") add("a")
    local wrong = {}
    for i, ttl in ipairs(got) do
        local most = (i == 3 and 10) or (i == 11 and 20) or 60
        if ttl > most or ttl < most - 5 then wrong[#wrong + 1] = i .. ": " .. ttl end
    end
    say(#got, table.concat(wrong, ", "))
}, '16, ""', 'nothing in a backup server lives longer than it may' );
is_lua( q{
    local m = object("gutter")
    local options = { ttl = 3600 }
    say(m:meta_set("x", 1, options) ~= nil, options.ttl, (m:meta_set("x", 1, { ttl = true })), (m:meta_set("x", 1, 5)))
}, 'true, 3600, nil, nil', 'the options stay as they are' );

# What a server can do, each tells for itself.
is_lua( q{
    local lines = { 0, 0 }
    local function server(i, version, reply)
        return kit.fake(function(c)
            while true do
                local line = c:line()
                if not line then return end
                if line == "version" then
                    lines[i] = lines[i] + 1
                    c:send("VERSION " .. version .. "\r\n")
                else
                    c:send(reply)
                end
            end
        end, { port = fakes[i] })
    end
    local new, old = server(1, "1.6.21", "EN\r\n"), server(2, "1.4.15", "ERROR\r\n")
    local m = object("fakes")
    local one, two = key_of(m, fakes[1]), key_of(m, fakes[2])
    say(m:meta_get(one)) say(" ", m:meta_get(two)) say(" ", m:meta_get(one)) say(" ", m:meta_get(two))
    say(" ", lines[1], lines[2], m:close())
    new:close() old:close()
}, lua(q{
    local line
    local old = kit.fake(function(c) while true do line = c:line() if not line then return end c:send(line == "version" and "VERSION 1.4.15\r\n" or "ERROR\r\n") end end)
    local m = object(old.port)
    local _, err = m:meta_get("k")
    old:close()
    say(nil, nil) say(" ", nil, err) say(" ", nil, nil) say(" ", nil, err) say(" ", 1, 1, 1)
}), 'versions' );
is_lua( q{
    local m = object("away")
    local keys = {}
    for i = 1, 10 do keys[i] = "away" .. i assert(m:meta_set(keys[i], i)) end
    local wrong = 0
    for i = 1, 10 do if m:meta_get(keys[i]).value ~= tostring(i) then wrong = wrong + 1 end end
    say(wrong, m:close())
}, '0, 1', 'nothing was sent: the next server has it' );
is_lua( q{
    local m = object("three")
    local thread = ngx.thread.spawn(function() m:meta_get("k") end)
    ngx.thread.kill(thread)
    say(m:meta_set("k", 1) ~= nil, m:meta_get("k").value, m:set_keepalive())
}, 'true, "1", 1', 'a thread is killed while a server is asked' );

is_deeply( [ $nginx->log_lines(qw( crit alert emerg )) ], [], 'nothing bad in the log' ) or diag( $nginx->log );
undef $nginx;
done_testing();
