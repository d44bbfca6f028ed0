use strict;
use warnings;
use lib 't/lib';

use IO::Socket::INET;
use POSIX ();
use Test::More;
use Time::HiRes qw( sleep time );

use TestEnv;
use LiveNginx;

# What is queued when a worker is told to exit is sent within a second, and nothing is lost in
# silence.

plan skip_all => 'the library has no queue' if TestEnv::reference_lib();

my $port = TestEnv::start_memcached();
my $http = qq{
    lua_memcached_queue timeout=5s max_operations=20000;
    init_by_lua_block {
        @{[ TestEnv::lua_kit() ]}
        kit.port = $port
        q = require("resty.memcached.queue").new("127.0.0.1", $port)
    }
};
my $server = q{
    # each request counts twice
    location = /count {
        content_by_lua_block {
            assert(q:incr("count", 1))
            ngx.print("counted")
        }
        log_by_lua_block { assert(q:incr("count", 1)) }
    }
    location = /value {
        content_by_lua_block {
            local memc = kit.connect(nil, nil, { multiplex = false })
            ngx.print((memc:get(ngx.var.arg_key)))
        }
    }
    location = /reset {
        content_by_lua_block {
            local memc = kit.connect(nil, nil, { multiplex = false })
            memc:set("count", 0)
            ngx.print("reset")
        }
    }
    location = /many {
        content_by_lua_block {
            for i = 1, tonumber(ngx.var.arg_n) do assert(q:incr("count", 1)) end
            ngx.print("queued")
        }
    }
    # to a server that accepts and never answers
    location = /stalled {
        content_by_lua_block {
            local s = require("resty.memcached.queue").new("127.0.0.1", tonumber(ngx.var.arg_port), { timeout = 60000 })
            for i = 1, 10 do assert(s:set("k", i)) end
            ngx.print("queued")
        }
    }
};

my $nginx = LiveNginx->start( http => $http, server => $server );

# Reloads under load: what was counted is seen.
is( $nginx->get('/reset'), 'reset', 'begin' );
my $load = $nginx->load( '/count', 3, qr/\Acounted/ );
for my $round ( 1 .. 6 ) {
    my ($old) = $nginx->workers;
    sleep 0.1;
    $nginx->signal('HUP');
    ok( $nginx->wait_for( sub { !grep { $_ == $old } $nginx->workers }, 20 ), "reload $round: the old worker goes" );
}
my ( $right, @wrong ) = $nginx->end_load($load);
cmp_ok( $right, '>', 50, 'the load was served' );
is_deeply( \@wrong, [], 'and each write was taken' );
ok( $nginx->wait_for( sub { $nginx->get('/value?key=count') == 2 * $right } ), 'all writes are seen' )
    or diag( $nginx->get('/value?key=count'), ' of ', 2 * $right );

# At once after many writes.
is( $nginx->get('/reset'), 'reset', 'begin' );
is( $nginx->get('/many?n=15000'), 'queued', 'many writes' );
my ($old) = $nginx->workers;
$nginx->signal('HUP');
ok( $nginx->wait_for( sub { !grep { $_ == $old } $nginx->workers }, 20 ), 'the worker goes' );
is( $nginx->get('/value?key=count'), 15000, 'after all was sent' );

# Servers that do not answer do not keep the worker.
for my $what ( [ 'accepts', 1 ], [ 'refuses', 0 ] ) {
    my ( $name, $listens ) = @$what;
    my $silent = IO::Socket::INET->new( LocalAddr => '127.0.0.1', Listen => 5, Proto => 'tcp' );
    my $at     = $silent->sockport;
    close $silent if !$listens;
    is( $nginx->get("/stalled?port=$at"), 'queued', "$name: writes" );
    sleep 0.1;
    ($old) = $nginx->workers;
    my $from = time;
    $nginx->signal('HUP');
    ok( $nginx->wait_for( sub { !grep { $_ == $old } $nginx->workers }, 20 ), "$name: the worker goes" );
    my $took = time - $from;
    cmp_ok( $took, '>', 0.7, "$name: not before there was time" );
    cmp_ok( $took, '<', 5, "$name: soon" );
    my $words = $listens ? 'lost' : 'dropped';
    like(
        $nginx->log,
        qr/lua memcached queue: $words: 10 writes: .*memcached: 127\.0\.0\.1:$at$/m,
        "$name: and that is told"
    );
}

# The end of nginx.
is( $nginx->get('/reset'), 'reset', 'begin' );
is( $nginx->get('/many?n=10000'), 'queued', 'many writes' );
ok( $nginx->quit(20), 'ends' );
my $memcached = IO::Socket::INET->new( PeerAddr => "127.0.0.1:$port" );
print {$memcached} "get count\r\n";
my @reply = map { scalar <$memcached> } 1 .. 2;
is( $reply[1], "10000\r\n", 'after all was sent' );

my @logged = grep { !/lua memcached queue|connect\(\) failed/ } $nginx->log_lines(qw( error crit alert emerg ));
is_deeply( \@logged, [], 'nothing bad in the log' );

# TERM: what can be sent without waiting is sent, and the rest is told.
my $silent = IO::Socket::INET->new( LocalAddr => '127.0.0.1', Listen => 5, Proto => 'tcp' );
my $other = LiveNginx->start( http => $http, server => $server );
is( $other->get( '/stalled?port=' . $silent->sockport ), 'queued', 'writes' );
sleep 0.1;
my ($worker) = $other->workers;
$other->signal('TERM');
ok( $other->wait_for( sub { !LiveNginx->alive($worker) }, 10 ), 'ends at once' );
like( $other->log, qr/lua memcached queue: lost: 10 writes: closed/, 'and tells what had no reply' );

# worker_shutdown_timeout is a limit, too.
my $short = LiveNginx->start(
    main   => "worker_processes 1;\nworker_shutdown_timeout 200ms;\n",
    http   => $http,
    server => $server,
);
is( $short->get( '/stalled?port=' . $silent->sockport ), 'queued', 'writes' );
sleep 0.1;
my $took = $short->quit(20);
ok( $took, 'ends' );
is_deeply( [ $short->log_lines(qw( crit alert emerg )) ], [], 'nothing bad in the log' );
done_testing();
