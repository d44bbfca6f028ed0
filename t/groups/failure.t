use strict;
use warnings;

use lib 't/lib';

use IO::Socket::INET;
use Test::More;
use Time::HiRes qw( sleep );
use TestEnv memcached => 0;
use GroupServers;
use LiveNginx;

# What becomes of keys and commands when a server is away. A server of its own for each subtest.

my @ports = map { TestEnv::start_memcached() } 1 .. 3;
my $spare = TestEnv::start_memcached();
my $dead  = TestEnv::free_port();
# Accepts, and never answers.
my $silent = IO::Socket::INET->new( Listen => 50, LocalAddr => '127.0.0.1', LocalPort => 0 ) or die "listen: $!";

sub servers {
    my ( $rest, @list ) = @_;
    return join ' ', map {"server 127.0.0.1:$_ $rest;"} @list;
}

my $nginx = LiveNginx->start(
    http => qq{
        upstream three    { zone three 64k;   hash \$lua_memcached_key consistent; @{[ servers( 'max_fails=1 fail_timeout=1s', @ports ) ]} }
        upstream with_dead { zone with_dead 64k; lua_memcached_hash ketama; @{[ servers( 'max_fails=1 fail_timeout=60s', $ports[0], $dead, $ports[1] ) ]} }
        upstream all_dead { lua_memcached_hash modula; server 127.0.0.1:$dead max_fails=1; server 127.0.0.2:$dead max_fails=1; }
        upstream one_dead { server 127.0.0.1:$dead; }
        upstream off      { lua_memcached_hash modula; lua_memcached_failover off; @{[ servers( 'max_fails=1', $ports[0], $dead ) ]} }
        upstream gutter   {
            lua_memcached_hash modula; lua_memcached_failover backup exptime=60s;
            @{[ servers( 'max_fails=1', $dead ) ]} @{[ servers( '', $ports[0] ) ]} server 127.0.0.1:$spare backup;
        }
        upstream silent   { zone silent 64k; lua_memcached_hash modula; @{[ servers( 'max_fails=2', $ports[0], $silent->sockport ) ]} }
        upstream passed   { zone passed 64k; hash \$memcached_key consistent; @{[ servers( 'max_fails=1 fail_timeout=60s', $ports[0], $dead ) ]} }
        upstream told     { zone told 64k; hash \$memcached_key consistent; @{[ servers( 'max_fails=1 fail_timeout=60s', $ports[0], $dead ) ]} }
        upstream rr       { @{[ servers( '', @ports ) ]} }
        upstream spare    { server 127.0.0.1:$spare; }
        lua_memcached_upstream cache.test:11211 spare;
        lua_socket_log_errors off;
        init_by_lua_block {
            @{[ TestEnv::lua_kit() ]}
            require "awaykit"
            groupkit = require "groupkit"
            ports, spare = { @{[ join ', ', @ports ]} }, $spare
            function object(name, read)
                local m = require "resty.memcached":new()
                m:set_timeouts(1000, 1000, read or 1000)
                assert(m:connect(name))
                return m
            end
            -- A key of the server on this port, with this beginning.
        }
    },
    server => qq{
        set \$dead $dead;
        set \$silent @{[ $silent->sockport ]};
        location /passed/ { set \$memcached_key \$uri; memcached_pass passed; memcached_connect_timeout 1s; }
        location /told/   { set \$memcached_key \$uri; memcached_pass told; add_header X-Peer \$upstream_addr always; error_page 404 =200 /addr; }
    } . GroupServers::location(),
);

sub lua { return GroupServers::lua( $nginx, @_ ) }

sub log_count {
    my ($pattern) = @_;
    return scalar grep {/$pattern/} split /\n/, $nginx->log;
}

subtest 'connect' => sub {
    is( lua(q{ say(object("all_dead"):get_reused_times()) }), '0', 'opens nothing' );
    is( lua(q{ say(require "resty.memcached":new():connect("no-such-block")) }), 'nil missing the port number', 'no block' );
    like( lua(q{ say(require "resty.memcached":new():connect("rr")) }),
        qr/\Anil upstream "rr" does not distribute by key/, 'a block without a method' );
    like( lua(q{ require "resty.memcached":new():connect("three", nil, { pool = "p" }) }),
        qr/raised .*bad argument #3 to 'connect' \("pool" is not for upstreams\)/, 'pool' );
    is( lua(q{ local m = require "resty.memcached":new() say(m:connect("three", { pool_size = 5 })) say("", m:set("k", 1), m:server_of("k") ~= nil) }),
        '1 1 true', 'options as the second argument' );
    like( lua(q{ local m = require "resty.memcached":new() say(m:connect("three", 11211)) say("", m:server_of("k")) }),
        qr/\Anil no resolver defined to resolve "three" nil not connected to an upstream\z/, 'with a port it is the name of a host' );
    is( lua(q{ local m = object("three") say(m:close()) }),         '1', 'close' );
    is( lua(q{ local m = object("three") say(m:set_keepalive()) }), '1', 'set_keepalive' );
    is( lua(q{ local m = object("three") m:close() say(m:get("k")) }), 'nil nil closed', 'a command after close' );
    is( lua(q{ local m = object("three") say(m.sock:send("version\r\n")) }),
        'nil not for upstreams: no server chosen', 'raw data' );
    is( lua(q{ local m = object("three") say(m:get("")) }), 'nil nil ERROR', 'an empty key' );
    like( lua(q{ local m = object("all_dead") say(m:set(("k"):rep(251), 1)) }),
        qr/\Anil CLIENT_ERROR /, 'a key that is too long asks no server' );
    is( lua(q{ local m = require "resty.memcached":new() say(m:connect("cache.test", 11211)) say("", m:set("mapped", 1), m:server_of("mapped")) }),
        "1 1 127.0.0.1:$spare", 'lua_memcached_upstream' );
    is( lua(q{ local m = object("three") assert(m:set("k", 1)) assert(m:connect("127.0.0.1", spare)) say(m:set("k", 2), m:server_of("k")) }),
        '1 nil not connected to an upstream', 'from a group to a server' );
    is( lua(q{ local m = require "resty.memcached":new() assert(m:connect("127.0.0.1", spare)) assert(m:connect("three")) say(m:set("k", 2), m:close()) }),
        '1 1', 'from a server to a group' );
    is( lua(q{ local m = object("three") assert(m:set("k", 1)) m:set_keepalive() m = object("three") m:get("k") say(m:get_reused_times() > 0) }),
        'true', 'connections are kept' );
};

subtest 'a server that is not there: next' => sub {
    my $moved = lua(qq{
        local m = object("with_dead")
        local key = key_of(m, $dead)
        local others = {}
        for i = 1, 300 do others["k" .. i] = m:server_of("k" .. i) end
        local ok = m:set(key, "v")
        local there, unmoved, changed = m:server_of(key), 0, 0
        for k, server in pairs(others) do
            local now = m:server_of(k)
            if server ~= "127.0.0.1:$dead" then if now ~= server then unmoved = unmoved + 1 end
            elseif now == server then changed = changed + 1 end
        end
        say(ok, there ~= "127.0.0.1:$dead", m:get(key))
        say("", unmoved, changed)
    });
    is( $moved, '1 true v 0 0 0', 'the next server has it, and nothing else moves' );
    is( log_count(qr/upstream server temporarily disabled.*with_dead/), 1, 'it is told once' );
    is( lua(q{ say(object("with_dead"):get("other")) }), 'nil nil nil', 'another object does not try it' );
    is( log_count(qr/upstream server temporarily disabled.*with_dead/), 1, '... nor tells it again' );
};

subtest 'all are away' => sub {
    is( lua(q{ say(object("all_dead"):get("k")) }), 'nil nil connection refused', 'the error of the last' );
    is( lua(q{ say(object("all_dead"):get("k")) }), 'nil nil no live upstreams',  'then nobody is asked' );
    is( lua(q{ say(object("all_dead"):set("k", 1)) }), 'nil no live upstreams', 'another command' );
    is( lua(q{ local m = object("one_dead") say(m:get("k")) say("", m:get("k")) }),
        'nil nil connection refused nil nil connection refused', 'a single server is never disabled' );
};

subtest 'off' => sub {
    is( lua(qq{ local m = object("off") local k = key_of(m, $dead) say(m:incr(k, 1)) say("", m:incr(k, 1)) say("", m:get(k)) }),
        'nil connection refused nil no live upstreams nil nil no live upstreams', 'its keys fail' );
    is( lua(qq{ local m = object("off") local k = key_of(m, $ports[0]) say(m:set(k, 1)) }), '1', 'others do not' );
};

subtest 'backup' => sub {
    my $exptimes = lua(qq{
        local m = object("gutter")
        local key = key_of(m, $dead)
        local s = require "resty.memcached":new()
        assert(s:connect("127.0.0.1", spare))
        local texts = {}
        for _, exptime in ipairs { 0, 3600, 10, ngx.time() + 40 * 86400, -1 } do
            s:delete(key)
            assert(m:set(key, "v", exptime))
            s.sock:send("mg " .. key .. " t" .. string.char(13, 10))
            texts[#texts + 1] = s.sock:receive()
        end
        m:set(key, "v", 10) m:touch(key, 3600)
        s.sock:send("mg " .. key .. " t" .. string.char(13, 10))
        texts[#texts + 1] = s.sock:receive()
        say(m:server_of(key), table.concat(texts, ","))
    });
    like( $exptimes, qr/\A127\.0\.0\.1:$spare HD t(?:60|59),HD t(?:60|59),HD t(?:10|9),HD t(?:60|59),EN,HD t(?:60|59)\z/,
        'what is stored there soon expires' );
    is( lua(qq{ local m = object("gutter") local k = key_of(m, $ports[0]) m:set(k, 1)
        local s = require "resty.memcached":new() s:connect("127.0.0.1", spare) say(s:get(k)) }),
        'nil nil nil', 'backups get nothing else' );
};

subtest 'a server that does not answer' => sub {
    my $port = $silent->sockport;
    my $said = lua(qq{
        local m = object("silent", 150)
        local slow, fast = key_of(m, $port), key_of(m, $ports[0])
        say(m:incr(slow, 1)) say("", m:set(fast, 1)) say("", m:incr(slow, 1)) say("", m:set(slow, 1))
    });
    is( $said, 'nil timeout 1 nil timeout 1', 'an error, then the next server has its keys' );
    my $commands = 0;
    $silent->blocking(0);
    while ( my $client = $silent->accept ) {
        $client->blocking(0);
        my $got = '';
        sysread $client, $got, 1000;
        $commands += () = $got =~ /incr/g;
    }
    is( $commands, 2, 'each command was sent once' );
    is( log_count(qr/temporarily disabled.*silent/), 1, 'it is disabled by two failures' );
};

subtest 'disabled by memcached_pass' => sub {
    my $key = lua(qq{ say(key_of(object("passed"), $dead, "/passed/")) });
    like( $nginx->get($key), qr/^status (?:404|502)/, 'memcached_pass fails' );
    my $before = log_count(qr/temporarily disabled/);
    is( lua(qq{ local m = object("passed") say(m:server_of("$key")) say("", m:get("$key")) }),
        "127.0.0.1:$ports[0] nil nil nil", 'Lua does not try it' );
    is( log_count(qr/temporarily disabled/), $before, '... and has nothing to tell' );
};

subtest 'disabled by Lua' => sub {
    my $key = lua(qq{ say(key_of(object("told"), $dead, "/told/")) });
    is( lua(qq{ say(object("told"):set("$key", "moved")) }), 1, 'Lua disables it' );
    my $before = log_count(qr/connect\(\) failed/);
    ok( defined $nginx->get($key), 'memcached_pass' );
    is( log_count(qr/connect\(\) failed/), $before, '... does not try it' );
};

subtest 'a server goes and comes back' => sub {
    my $port = $ports[1];
    my $key  = lua(qq{ say(key_of(object("three"), $port, "gone")) });
    is( lua(qq{ say(object("three"):set("$key", "home")) }), 1, 'stored' );
    TestEnv::stop_memcached($port);
    is( lua(qq{ local m = object("three") say(m:get("$key")) }), 'nil nil nil', 'the next server misses it' );
    is( log_count(qr/temporarily disabled.*three/), 1, 'it is disabled' );
    TestEnv::start_memcached( port => $port );
    is( lua(qq{ say(object("three"):server_of("$key") == "127.0.0.1:$port") }), 'false', 'for a while' );
    sleep 2.2;
    is( lua(qq{ local m = object("three") say(m:set("$key", "again"), m:server_of("$key")) }),
        "1 127.0.0.1:$port", 'then it is tried' );
    is( log_count(qr{"127\.0\.0\.1:\d+" of "three" is used again}), 1, '... and used again' );
};

subtest 'a server that closes' => sub {
    my $port = $ports[2];
    my $said = lua(qq{
        local m = object("three")
        local key = key_of(m, $port, "closes")
        assert(m:set(key, "v"))
        say(m:get(key))
    });
    is( $said, 'v 0', 'is there' );
    TestEnv::stop_memcached($port);
    TestEnv::start_memcached( port => $port );
    is( lua(qq{ local m = object("three") local k = key_of(m, $port, "closes") local v = m:get(k) say(v, (m:set(k, 1))) }), 'nil 1', 'pooled connections are replaced' );
    is( lua(q{ local m = object("three") local t = ngx.thread.spawn(m.get, m, "k") ngx.thread.kill(t) say(m:set("k", 1)) }),
        '1', 'a killed thread leaves the object usable' );
};

subtest 'other phases, other configurations' => sub {
    is( lua(q{ local done
        ngx.timer.at(0, function() local m = object("spare") done = m:set("timer", 1) m:set_keepalive() end)
        for _ = 1, 100 do ngx.sleep(0.01) if done then break end end
        say(done) }), '1', 'a timer' );
    is( lua(q{ kept = object("spare") say(kept:set("kept", 1)) }), '1', 'an object that is kept' );
    is( lua(q{ say(kept:get("kept")) }), '1 0', '... in the next request' );
    is( lua(qq{ say(kept:server_of("k")) }), "127.0.0.1:$spare", 'before a reload' );
    my ($old) = $nginx->workers;
    $nginx->configure( sub { s/upstream spare    \{ server 127\.0\.0\.1:\d+/upstream spare { server 127.0.0.1:$ports[0]/ } );
    $nginx->signal('HUP');
    $nginx->wait_for( sub { !grep { $_ == $old } $nginx->workers } );
    is( lua(q{ say(object("spare"):server_of("k")) }), "127.0.0.1:$ports[0]", 'after a reload' );
};

is_deeply( [ $nginx->log_lines(qw( crit alert emerg )) ], [], 'nothing bad in the log' );
undef $nginx;
done_testing();
