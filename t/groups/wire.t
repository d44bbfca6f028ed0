use strict;
use warnings;

use lib 't/lib';

use Test::More;
use TestEnv memcached => 0;
use GroupServers;
use LateServer;
use LiveNginx;

# What the servers of a group get to see, by servers that note it.

my @noted = map { GroupServers->note } 1 .. 3;
my @ports = map { $_->port } @noted;
my $spare = GroupServers->note;
my $other = GroupServers->note;
my $late  = GroupServers->note( silent => 1 );
my $dead  = TestEnv::free_port();
my %late  = LateServer::start();
my $rest  = 'max_fails=1 fail_timeout=60s';
my $two   = GroupServers::lines( 'backup', $spare->port, $other->port );

my $nginx = LiveNginx->start(
    http => qq{
        upstream three { zone three 64k; lua_memcached_hash ketama; @{[ GroupServers::lines( $rest, @ports ) ]} }
        upstream none  { lua_memcached_hash modula; @{[ GroupServers::lines( $rest, $dead, $late{full} ) ]} }
        upstream gutter {
            zone gutter 64k; lua_memcached_hash modula; lua_memcached_failover backup exptime=60s;
            @{[ GroupServers::lines( $rest, @ports[ 0, 1 ], $dead ) ]} $two
        }
        upstream brief {
            zone brief 64k; lua_memcached_hash modula; lua_memcached_failover backup exptime=5s;
            @{[ GroupServers::lines( $rest, $dead ) ]} server 127.0.0.1:@{[ $ports[0] ]}; server 127.0.0.1:@{[ $spare->port ]} backup;
        }
        upstream home {
            zone home 64k; lua_memcached_hash modula; lua_memcached_failover backup;
            @{[ GroupServers::lines( 'max_fails=1 fail_timeout=1s', $ports[0], $ports[2] ) ]} server 127.0.0.1:@{[ $spare->port ]} backup;
        }
        upstream late { zone late 64k; lua_memcached_hash modula; @{[ GroupServers::lines( 'max_fails=2 fail_timeout=60s', $late->port, $ports[0] ) ]} }
        upstream full { zone full 64k; hash \$lua_memcached_key consistent; @{[ GroupServers::lines( $rest, @ports, $late{full} ) ]} }
        upstream full_off { lua_memcached_hash ketama; lua_memcached_failover off; @{[ GroupServers::lines( $rest, @ports, $late{full} ) ]} }
        lua_socket_log_errors off;
        @{[ GroupServers::init() ]}
    },
    server => GroupServers::location(),
);

sub lua { return GroupServers::lua( $nginx, @_ ) }
sub forget { $_->forget for @noted, $spare, $other, $late; return }

subtest 'connect, and keys that no server gets' => sub {
    forget();
    is( lua(q{ local m = object("three") say(m:get_reused_times(), m:close()) }), '0 1', 'connect and close' );
    is( lua(q{ local m = object("three") say(m:set_keepalive()) say("", m:get("k")) }), '1 nil nil closed', 'set_keepalive' );
    is( lua(q{ local m = object("none") say(m:get("")) say("", m:set(("k"):rep(251), 1)) say("", m:get("a b")) }),
        'nil nil ERROR nil CLIENT_ERROR bad command line format nil nil bad key: contains whitespace or control characters',
        'keys that are refused' );
    is( scalar( map { $_->notes } @noted, $spare, $late ), 0, 'no server sees anything of it' );
    is( lua(q{ local m = object("three") m:get("k") say(m:close()) }), '1', 'one get' );
    is_deeply( [ sort map { scalar $_->notes } @noted ], [ 0, 0, 2 ], '... is one connection, to one server' );
    is( lua(q{ local m = object("three") for i = 1, 30 do m:get("k" .. i) end local a = m:get_reused_times() m:set_keepalive()
        m = object("three") m:get("k1") local b = m:get_reused_times() for i = 1, 30 do m:get("k" .. i) end say(a, b > 0, m:get_reused_times() > 0, m:close()) }),
        '0 true true 1', 'get_reused_times is the least of all' );
};

subtest 'an object that is connected to one of the servers has the same connections' => sub {
    forget();
    is( lua(qq{ local m = object("three") for i = 1, 30 do m:get("k" .. i) end m:set_keepalive()
        local one = require "resty.memcached":new() one:connect("127.0.0.1", $ports[1]) say(one:get_reused_times() > 0, (one:set_keepalive()))
        m = object("three") for i = 1, 30 do m:get("k" .. i) end say("", m:get_reused_times() > 0, m:set_keepalive()) }),
        'true 1 true 1', 'taken from the pool' );
    cmp_ok( $noted[1]->connects, '<=', 1, '... which is one' );
};

subtest 'a list is one command for each server' => sub {
    forget();
    is( lua(q{ local m = object("three") local keys = {} for i = 1, 100 do keys[i] = "list" .. i end keys[101] = "list7" say((m:get(keys)) ~= nil, m:close()) }), 'true 1', 'got' );
    my @lists = map { [ grep {/^get /} $_->commands ] } @noted;
    is_deeply( [ map { scalar @$_ } @lists ], [ 1, 1, 1 ], 'one get each' );
    my @numbers = map { [ $_->[0] =~ /list(\d+)/g ] } @lists;
    my $home = join ' ', map { my $at = $_; map {"$_=$at"} @{ $numbers[$at] } } 0 .. 2;
    cmp_ok( scalar( map {@$_} @numbers ), '>=', 100, 'all keys' );
    for (@numbers) {
        my @once = grep { $_ != 7 } @$_;
        is( "@once", join( ' ', sort { $a <=> $b } @once ), 'in the order they were given' );
    }
};

subtest 'what backups get' => sub {
    forget();
    is( lua(qq{ local m = object("gutter") local n = 0
        for i = 1, 200 do local k = "home" .. i if m:server_of(k) ~= "127.0.0.1:$dead" then
            m:set(k, 1) m:get(k) m:delete(k) n = n + 1 end end
        say(n > 50, m:close()) }), 'true 1', 'keys of servers that are there' );
    is( scalar( map { $_->notes } $spare, $other ), 0, 'backups see nothing of them' );
    my $soon = time + 30;
    my $said = lua(qq{
        local m = object("gutter")
        local k = key_of(m, $dead)
        local wrong = 0
        for i, exptime in ipairs { 0, 3600, 10, 60, 61, $soon, $soon + 3600, 2592001, -1 } do
            if m:set(k, "v" .. i, exptime) ~= 1 then wrong = wrong + 1 end
        end
        if m:set(k, "default") ~= 1 then wrong = wrong + 1 end
        for _, name in ipairs { "add", "replace", "append", "prepend" } do
            if m[name](m, k, name, 3600) ~= 1 then wrong = wrong + 1 end
        end
        if m:cas(k, "cas", "1", 0) ~= 1 then wrong = wrong + 1 end
        for _, exptime in ipairs { 0, 3600, 10, -1 } do
            if m:touch(k, exptime) ~= 1 then wrong = wrong + 1 end
        end
        if m:delete(k) ~= 1 or m:incr(k, 1) ~= "1" then wrong = wrong + 1 end
        m:get(k)
        say(wrong, k)
    });
    my ($key) = ( $said // '' ) =~ /\A0 (\S+)\z/;
    ok( defined $key, 'all are stored' ) or diag($said);
    my ($gutter) = grep { $_->commands } $spare, $other;
    my @commands = map {s/ \Q$key\E / /r} grep {defined} $gutter->commands;
    is_deeply(
        \@commands,
        [
            ( map {"set 0 $_ 2"} 60, 60, 10, 60, 60, $soon, 60, 2592001, -1 ), 'set 0 60 7',
            'add 0 60 3', 'replace 0 60 7', 'append 0 60 6', 'prepend 0 60 7', 'cas 0 60 3 1',
            'touch 60', 'touch 60', 'touch 10', 'touch -1', "delete $key", 'incr 1', "get $key",
        ],
        'the least of what is asked for and 60 s; a delete is there only'
    );
    is( scalar( grep { $_ ne 'connect' } map { $_->notes } grep { $_ != $gutter } $spare, $other ), 0, 'one of the backups has the key' );
    like( lua(qq{ local m = object("brief") local k = key_of(m, $dead) say(m:set(k, 1, 60)) }), qr/\A1/, 'another bound' );
    like( join( "\n", $spare->commands ), qr/^set \S+ 0 5 1$/m, '... is heeded' );
    forget();
    is( lua(qq{ local m = object("three") m:set("k", 1, 3600) m:set("k", 1) say(m:close()) }), '1', 'not of groups without backups' );
    is( join( '', map { $_->commands } @noted ), 'set k 0 3600 1set k 0 0 1', 'an exptime stays as it is' );
};

subtest 'home again' => sub {
    my $key = lua(qq{ say(key_of(object("home"), $ports[2])) });
    forget();
    is( lua(q{ local m = object("home") for i = 1, 100 do m:set("up" .. i, 1, 3600) m:get("up" .. i) end say(m:close()) }), '1', 'all are there' );
    is( scalar $spare->notes, 0, '... so the backup sees nothing' );
    $noted[2]->stop;
    forget();
    is( lua(qq{ local m = object("home") say(m:set("$key", 1)) say("", (m:server_of("$key"))) }), '1 127.0.0.1:' . $spare->port, 'away' );
    $noted[2] = GroupServers->note( port => $ports[2] );
    sleep 3;
    forget();
    is( lua(qq{ local m = object("home") m:get("$key") m:get("$key") say(m:set("$key", 1, 3600)) }), '1', 'back' );
    is( join( ',', $noted[2]->commands ), "get $key,get $key,set $key 0 3600 1", 'reads and writes go home' );
    is( scalar $spare->notes, 0, '... and no more to the backup' );
};

subtest 'nothing that was sent is repeated' => sub {
    forget();
    my $said = lua(qq{
        local m = object("late", 100)
        local k = key_of(m, @{[ $late->port ]})
        say(m:incr(k, 1))
        say("", m:append(k, "x"))
        say("", m:incr(k, 1))
    });
    is( $said, 'nil timeout nil timeout 1', 'two failures, then another server has the key' );
    is( join( ',', map {s/ \S*?\d+ / K /r} $late->commands ), 'incr K 1,append K 0 0 1', 'the server gets each command once' );
    is( scalar( grep {/append/} map { $_->commands } @noted ), 0, '... and no other gets it' );
};

subtest 'packets vanish: connect comes to no end' => sub {
    forget();
    my $key = lua(qq{ say(key_of(object("full"), $late{full})) });
    is( lua(qq{ local m = object("full", 1000, 200) say(within(900, m.set, m, "$key", 1)) }), 'quick 1 nil nil nil', 'after the connect timeout the next server has it' );
    is( GroupServers::logged( $nginx, qr/temporarily disabled.*"full"/ ), 1, '... which is told' );
    is( lua(qq{ local m = object("full", 1000, 200) say(within(150, m.set, m, "$key", 1)) }), 'quick 1 nil nil nil', 'the next command does not wait' );
    is( scalar( grep {/^set/} map { $_->commands } @noted ), 2, 'both were stored' );
    my $off = lua(qq{ say(key_of(object("full_off"), $late{full})) });
    is( lua(qq{ local m = object("full_off", 1000, 200) say(m:get("$off")) say("", m:get("$off")) }), 'nil nil timeout nil nil no live upstreams', 'off: an error' );
};

is_deeply( [ $nginx->log_lines(qw( crit alert emerg )) ], [], 'nothing bad in the log' ) or diag( $nginx->log );
undef $nginx;
done_testing();
