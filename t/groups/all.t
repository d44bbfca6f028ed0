use strict;
use warnings;

use lib 't/lib';

use IO::Socket::INET;
use Test::More;
use TestEnv memcached => 0;
use GroupServers;
use LiveNginx;

# Commands without a key: to all servers, at the same time.

my @ports = map { TestEnv::start_memcached() } 1 .. 4;
my $dead  = TestEnv::free_port();
my @fakes = map { TestEnv::free_port() } 1 .. 3;

sub servers { return join ' ', map {"server 127.0.0.1:$_ max_fails=1;"} @_ }

my $nginx = LiveNginx->start(
    http => qq{
        upstream four { lua_memcached_hash ketama; @{[ servers(@ports) ]} }
        upstream with_dead { zone with_dead 64k; lua_memcached_hash modula; @{[ servers( $ports[0], $dead, $ports[1] ) ]} }
        upstream all_gone { zone all_gone 64k; lua_memcached_hash modula; server 127.0.0.1:$dead; server 127.0.0.2:$dead; }
        upstream scripted { zone scripted 64k; lua_memcached_hash modula; @{[ servers(@fakes) ]} }
        upstream all_dead { lua_memcached_hash modula; server 127.0.0.1:$dead; server 127.0.0.2:$dead; }
        upstream marked { lua_memcached_hash modula; server 127.0.0.1:$ports[0]; server 127.0.0.1:$ports[1] down; }
        upstream twice { lua_memcached_hash modula; server 127.0.0.1:$ports[0]; server 127.0.0.1:$ports[0]; }
        lua_socket_log_errors off;
        init_by_lua_block {
            @{[ TestEnv::lua_kit() ]}
            kit = require "testkit"
            ports, fakes = { @{[ join ', ', @ports ]} }, { @{[ join ', ', @fakes ]} }
            -- Servers that answer each line with a reply of their own, after a time.
            function scripted(replies, seconds)
                local servers = {}
                for i, reply in ipairs(replies) do
                    servers[i] = kit.fake(function(c)
                        while c:line() do
                            ngx.sleep(seconds or 0)
                            c:send(reply)
                        end
                    end, { port = fakes[i] })
                end
                return function() for _, server in ipairs(servers) do server:close() end end
            end
            function object(name, read)
                local m = require "resty.memcached":new()
                m:set_timeouts(1000, 1000, read or 1000)
                if type(name) == "number" then
                    assert(m:connect("127.0.0.1", name))
                else
                    assert(m:connect(name))
                end
                return m
            end
            function say(...)
                ngx.print(kit.vals(...))
            end
        }
    },
    server => GroupServers::location(),
);

sub lua { return GroupServers::lua( $nginx, @_ ) }

sub is_lua { my ( $code, $want, $name ) = @_; return is( lua($code), $want, $name ) }

is_lua( q{
    for _, port in ipairs(ports) do object(port):set("key", 1) end
    local m = object("four")
    local ok, err, errors = m:flush_all()
    local left = 0
    for _, port in ipairs(ports) do if object(port):get("key") then left = left + 1 end end
    say(ok, err, errors, left, m:set("key", 2), m:get("key"))
}, '1, nil, nil, 0, 1, "2", "0"', 'flush_all empties all' );

is_lua( q{ say(object("four"):flush_all("soon")) }, 'nil, "CLIENT_ERROR invalid exptime argument", {'
    . join( ', ', map {qq{["127.0.0.1:$_"]="CLIENT_ERROR invalid exptime argument"}} sort @ports ) . '}', 'a bad time' );

is_lua( q{
    object(ports[1]):set("key", 1) object(ports[2]):set("key", 1)
    local m = object("with_dead")
    local ok, err, errors = m:flush_all()
    say(ok, err, errors, object(ports[1]):get("key"), object(ports[2]):get("key"))
}, qq{nil, "connection refused", {["127.0.0.1:$dead"]="connection refused"}, nil, nil, nil, nil},
    'a server that is away does not keep others from being flushed' );
is_lua( q{ say(object("with_dead"):flush_all()) },
    qq{nil, "connection refused", {["127.0.0.1:$dead"]="connection refused"}}, 'one that is disabled is tried' );
is_lua( q{ say(object("all_dead"):flush_all()) },
    qq{nil, "connection refused", {["127.0.0.1:$dead"]="connection refused", ["127.0.0.2:$dead"]="connection refused"}}, 'all are away' );
is_lua( q{
    object(ports[2]):set("key", 1)
    local ok, err = object("marked"):flush_all()
    say(ok, err, object(ports[2]):get("key"))
}, '1, nil, "1", "0"', 'not one that is marked as down' );
is_lua( q{ say(object("twice"):flush_all()) say((object("twice"):stats())["127.0.0.1:" .. ports[1]] ~= nil) },
    '1true', 'a server that is there twice' );

# stats
is_lua( q{
    local m = object("four")
    local lines, err, errors = m:stats()
    local sum = 0
    for _, port in ipairs(ports) do
        local of = lines["127.0.0.1:" .. port]
        local direct = object(port):stats()
        sum = sum + #of
        local name = function(line) return line:match("^STAT (%S+)") or line:match("^%S+") end
        for i = 1, #direct do
            if name(of[i]) ~= name(direct[i]) then return say("differs", of[i], direct[i]) end
        end
        for i = 1, #of do
            if lines[sum - #of + i] ~= of[i] then return say("not in the order of the file") end
        end
    end
    say(#lines == sum and sum > 100, err, errors, m:get("none"))
}, 'true, nil, nil, nil, nil, nil', 'stats of all, in the order of the file' );
is_lua( q{ local n = function(...) return select("#", ...) end say(n(object("four"):stats()), n(object(ports[1]):stats())) },
    '2, 2', 'as many values as of one server' );
is_lua( q{
    local lines, err, errors = object("with_dead"):stats("settings")
    say(#lines > 20, err, errors)
}, qq{true, "no live upstreams", {["127.0.0.1:$dead"]="no live upstreams"}}, 'stats without the disabled one' );
is_lua( q{ local lines, err, errors = object("all_gone"):stats() say(lines, err, errors) },
    qq{nil, "connection refused", {["127.0.0.1:$dead"]="connection refused", ["127.0.0.2:$dead"]="connection refused"}}, 'stats of none' );

# version
my $version = lua( q{ ngx.print((object(ports[1]):version())) } );
is_lua( q{ local v, err, all = object("four"):version() local n = 0 for _, of in pairs(all) do if of == v then n = n + 1 end end say(v, err, n) },
    qq{"$version", nil, 4}, 'version' );
is_lua( q{
    local close = scripted{ "VERSION 1.6.9\r\n", "VERSION 1.6.10\r\n", "VERSION 1.10\r\n" }
    local v, err, all = object("scripted"):version()
    say(v, err, all["127.0.0.1:" .. fakes[2]])
    close()
}, '"1.6.9", nil, "1.6.10"', 'the lowest version, by its numbers' );
is_lua( q{
    local close = scripted{ "VERSION 1.6.9\r\n", "VERSION 1.6\r\n", "SERVER_ERROR busy\r\n" }
    local v, err, all = object("scripted"):version()
    say(v, err, all["127.0.0.1:" .. fakes[3]])
    close()
}, '"1.6", "SERVER_ERROR busy", nil', 'a shorter version is lower; one that fails' );
is_lua( q{
    local close = scripted({ "OK\r\n", "OK\r\n", "OK\r\n" }, 0.5)
    local m = object("scripted")
    local ms, ok, err = kit.timed(m.flush_all, m)
    say(ok, err, ms < 1200 and "at the same time" or ms)
    close()
}, '1, nil, "at the same time"', 'all wait at the same time' );
is_lua( q{
    local close = scripted({ "OK\r\n", "OK\r\n", "VERSION 1.6\r\n" }, 0)
    local m = object("scripted", 100)
    local ok, err, errors = m:flush_all()
    say(ok, err, errors["127.0.0.1:" .. fakes[3]], errors["127.0.0.1:" .. fakes[1]])
    close()
}, 'nil, "VERSION 1.6", "VERSION 1.6", nil', 'another reply than the right one' );

is_lua( q{ local v, err, errors = object("all_gone"):version() say(v, err, errors) },
    qq{nil, "no live upstreams", {["127.0.0.1:$dead"]="no live upstreams", ["127.0.0.2:$dead"]="no live upstreams"}}, 'of none' );

is_lua( q{ say(object("four"):verbosity(1)) }, '1', 'verbosity' );
like( lua( q{ say(object("with_dead"):verbosity(1)) } ), qr/\Anil, "no live upstreams", \{/, 'verbosity without the disabled one' );
is_lua( q{
    local m = object("four")
    assert(m:version())
    say(m:quit(), m:get_reused_times(), m:set("key", 3), (m:get("key")), m:close())
}, '1, 0, 1, "3", 1', 'quit, and the object is used again' );
is_lua( q{ local m = object("four") say(m:quit(), m:set("key", 3), m:close()) }, '1, 1, 1', 'quit with nothing open' );
is_lua( q{ local m = object("four") m:close() say(m:version()) }, 'nil, "closed"', 'after close' );

# A coroutine that is killed while it waits for all of them.
is_lua( q{
    local m = object("four")
    assert(m:version())
    local killed = ngx.thread.spawn(function() m:stats() end)
    ngx.thread.kill(killed)
    local versions = m:version()
    say(type(versions), m:set("key", 4), (m:get("key")), m:set_keepalive())
}, '"string", 1, "4", 1', 'after a thread that was killed' );
is_lua( q{
    local m = object("four")
    assert(m:version())
    local other = ngx.thread.spawn(function() return m:stats() end)
    local v, err, errors = m:version()
    local _, lines = ngx.thread.wait(other)
    say(v, err, #lines > 100, m:close())
}, 'nil, "socket busy reading", true, 1', 'two threads' );

is_deeply( [ $nginx->log_lines(qw( crit alert emerg )) ], [], 'nothing bad in the log' ) or diag( $nginx->log );
undef $nginx;
done_testing();
