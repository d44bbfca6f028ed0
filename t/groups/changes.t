use strict;
use warnings;

use lib 't/lib';

use IO::Socket::INET;
use Test::More;
use Time::HiRes qw( sleep time );
use TestEnv memcached => 0;
use Endpoint;
use LiveNginx;

# A group's list of servers changes while it is used.

my $CHANGES = 20;
my $GETS    = 10_000;
my $CONFIG  = 'config get cluster';
my $SHARED  = $ENV{TEST_NGINX_MULTIPLEX};

my @nodes = map { TestEnv::start_memcached() } 1 .. 4;
my $ends  = Endpoint->start(8);
my ( $many, $idle, $used, $under_way, $stays, $goes, $holds, $slow ) = $ends->ports;

sub list {
    my ( $version, @ports ) = @_;
    return Endpoint::list( $version, map {"a|127.0.0.1|$_"} @ports );
}

sub discover {
    my ( $name, $port ) = @_;
    return "upstream $name { lua_memcached_hash ketama; lua_memcached_discover elasticache interval=1s name=ip; server 127.0.0.1:$port; }\n";
}

# The lists: each has other servers than the one before, the last one the first two.
my @lists = map { list( $_, $nodes[ $_ % 4 ], $nodes[ ( $_ + 1 + $_ % 3 ) % 4 ] ) } 1 .. $CHANGES - 1;
push @lists, list( $CHANGES, @nodes[ 0, 1 ] );

$ends->says( $_, {} ) for $ends->ports;
for my $port ( $stays, $goes, $holds ) {
    $ends->says( $port, { get => "END\r\n" } );
}
$ends->says( $slow, { get => { late => [ 3, "VALUE slow 0 4\r\nlate\r\nEND\r\n" ] } } );
$ends->says( $idle, { $CONFIG => list( 1, $stays, $goes ) } );
$ends->says( $used,      { $CONFIG => list( 1, $stays, $holds ) } );
$ends->says( $under_way, { $CONFIG => list( 1, $slow ) } );

my $http = join q{}, discover( many => $many ), discover( idle => $idle ), discover( used => $used ), discover( under_way => $under_way ), qq{
        lua_socket_log_errors on;
        init_by_lua_block {
            @{[ TestEnv::lua_kit() ]}
            ports = { @{[ join ', ', @nodes ]} }
            function object(name)
                local m = require "resty.memcached":new()
                m:set_timeouts(5000, 5000, 5000)
                assert(m:connect(name))
                return m
            end
            function at(port)
                return "127.0.0.1:" .. port
            end
            -- Keys of the servers at these ports, once there is a list that has them all.
            function keys_of(m, ...)
                for _ = 1, 500 do
                    local found, count = {}, 0
                    for i = 1, 200 do
                        local server = m:server_of("key" .. i)
                        if server and not found[server] then found[server], count = "key" .. i, count + 1 end
                    end
                    local keys = {}
                    for i, port in ipairs { ... } do keys[i] = found[at(port)] end
                    if #keys == select("#", ...) and count == #keys then return unpack(keys) end
                    ngx.sleep(0.01)
                end
                error("there is no such list")
            end
        }
    };
my $server = qq{
    # each server has each key, with a value that names both
    location = /fill {
        content_by_lua_block {
            for _, port in ipairs(ports) do
                local m = require "resty.memcached":new()
                assert(m:connect("127.0.0.1", port))
                for i = 1, 1000 do assert(m:set("key" .. i, "key" .. i .. " at " .. port)) end
                m:close()
            end
            ngx.print("filled")
        }
    }
    location = /gets {
        content_by_lua_block {
            local m = object("many")
            for n = 1, 25 do
                local key = "key" .. math.random(1000)
                local value, _, err = m:get(key)
                if err then return ngx.print("error ", err) end
                if not value or value:match("^%S+") ~= key then return ngx.print("wrong value ", value) end
            end
            assert(m:set_keepalive())
            ngx.print("right")
        }
    }
    location = /idle {
        content_by_lua_block {
            local m = object("idle")
            local one, two = keys_of(m, $stays, $goes)
            m:get(one) m:get(two)
            ngx.print(tostring(m:set_keepalive()))
        }
    }
    location = /used {
        content_by_lua_block {
            local m = object("used")
            local one, two = keys_of(m, $stays, $holds)
            m:get(one) m:get(two)
            keys_of(m, $stays)
            ngx.sleep(0.5)
            local _, _, err = m:get(two)
            ngx.print(tostring(err), " ", tostring(m:set_keepalive()))
        }
    }
    location = /under_way {
        content_by_lua_block {
            local m = object("under_way")
            keys_of(m, $slow)
            local value, _, err = m:get("slow")
            ngx.print(tostring(value), " ", tostring(err), " ", m:server_of("slow") ~= at($slow) and "moved" or "there", " ", tostring(m:set_keepalive()))
        }
    }
};

my $nginx = LiveNginx->start( http => $http, server => $server );

# Whether a condition comes true. The machine may be busy.
sub until_true { return $nginx->wait_for( $_[0], 60 ) }

# A request whose answer is read later.
sub begin {
    my ($path) = @_;
    my $socket = IO::Socket::INET->new( PeerAddr => '127.0.0.1:' . $nginx->port ) or die "connect: $!\n";
    print {$socket} "GET $path HTTP/1.0\r\nHost: localhost\r\n\r\n";
    return $socket;
}

sub finish {
    my ($socket) = @_;
    my $answer = do { local $/; readline $socket };
    return $answer =~ s/\A.*?\r\n\r\n//sr;
}

# Connections to a memcached, the one that asks not counted.
sub connections {
    my ($port) = @_;
    my $socket = IO::Socket::INET->new( PeerAddr => "127.0.0.1:$port" ) or die "connect: $!\n";
    print {$socket} "stats\r\n";
    my $count;
    while ( my $line = <$socket> ) {
        $count = $1 - 1 if $line =~ /curr_connections (\d+)/;
        last if $line =~ /\AEND/;
    }
    return $count;
}

subtest 'idle connections' => sub {
    is( $nginx->get('/idle'), '1', 'both servers are used' );
    my $kept = $ends->connections($stays);
    cmp_ok( $kept, '>', 0, 'a connection to one' );
    cmp_ok( $ends->connections($goes), '>', 0, 'and to the other' );
    my $opened = $ends->asked( $stays, 'opened' );
    $ends->says( $idle, { $CONFIG => list( 2, $stays ) } );
    ok( until_true( sub { $ends->connections($goes) == 0 } ), 'of the one that goes they are closed' );
    is( $ends->connections($stays), $kept, 'of the one that stays they are not' );
    $ends->says( $idle, { $CONFIG => list( 3, $stays, $goes ) } );
    is( $nginx->get('/idle'), '1', 'it comes back' );
    is( $ends->asked( $stays, 'opened' ), $opened, 'kept connections are used' );
    cmp_ok( $ends->connections($goes), '>', 0, 'and those that were closed are opened' );
    sleep 2.5;
    cmp_ok( $ends->connections($goes), '>', 0, '... and stay' );
};

subtest 'connections in use' => sub {
    my $request = begin('/used');
    ok( until_true( sub { grep { $_->[1] =~ /\Aget/ } $ends->seen($holds) } ), 'in use' );
    my $open = $ends->connections($holds);
    $ends->says( $used, { $CONFIG => list( 2, $stays ) } );
    if ($SHARED) {
        ok( until_true( sub { $ends->connections($holds) == 0 } ), 'shared ones that have nothing to do are closed' );
    }
    else {
        ok( until_true( sub { $nginx->log =~ /upstream "used" has 1 server,/ } ), 'the list changes' );
        sleep 0.2;
        is( $ends->connections($holds), $open, 'private ones stay while they are used' );
    }
    is( finish($request), 'nil 1', 'the object goes on with the new list' );
    ok( until_true( sub { $ends->connections($holds) == 0 } ), 'set_keepalive does not keep it' );
    cmp_ok( $ends->connections($stays), '>', 0, '... but the other' );
};

subtest 'commands under way' => sub {
    my $request = begin('/under_way');
    ok( until_true( sub { $ends->asked( $slow, 'get slow' ) } ), 'a command' );
    $ends->says( $under_way, { $CONFIG => list( 2, $stays ) } );
    ok( until_true( sub { $nginx->log =~ /upstream "under_way" has 1 server, version 2/ } ), 'the list changes' );
    cmp_ok( $ends->connections($slow), '>', 0, 'its connection stays' );
    is( finish($request), 'late nil moved 1', 'it is answered' );
    ok( until_true( sub { $ends->connections($slow) == 0 } ), 'then the connection goes' );
};

subtest "$GETS gets, $CHANGES changes" => sub {
    my @before = map { connections($_) } @nodes;
    is( $nginx->get('/fill'), 'filled', 'values' );
    $ends->says( $many, { $CONFIG => \@lists } );
    ok( until_true( sub { $nginx->log =~ /upstream "many" has 2 servers, version 1 / } ), 'the first list' );
    my $load = $nginx->load( '/gets', 2, qr/\Aright\z/ );
    ok( until_true( sub { $nginx->log =~ /upstream "many" has 2 servers, version $CHANGES / } ), 'the last list' );
    my ( $right, @wrong ) = $nginx->end_load($load);
    cmp_ok( $right * 25, '>=', $GETS, 'gets' );
    is_deeply( \@wrong, [], 'without an error or a wrong value' );
    my $changes = () = $nginx->log =~ /upstream "many" has 2 servers/g;
    is( $changes, $CHANGES, 'changes' );
    for my $gone ( 2, 3 ) {
        ok( until_true( sub { connections( $nodes[$gone] ) == $before[$gone] } ), "server $gone has no connection any more" )
            or diag( connections( $nodes[$gone] ) );
    }
    cmp_ok( connections( $nodes[0] ), '>', $before[0], 'one that stays has some' );
};

is_deeply( [ $nginx->log_lines(qw( error crit alert emerg )) ], [], 'nothing bad in the log' );
ok( $nginx->quit(60), 'nginx ends' );
is_deeply( [ $nginx->log_lines(qw( error crit alert emerg )) ], [], '... without a word' );
undef $nginx;
done_testing();
