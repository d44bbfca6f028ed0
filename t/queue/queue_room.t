use strict;
use warnings;
use lib 't/lib';

use IO::Socket::INET;
use Test::More;
use Time::HiRes qw( sleep );

use TestEnv;
use LiveNginx;

# nginx closes idle clients when connections are scarce, and their log phase writes: while the queue
# is being opened, and again after each restart of the server. Each request is counted all the same.

plan skip_all => 'the library has no queue' if TestEnv::reference_lib();

my $port = TestEnv::start_memcached();
my $http = qq{
    keepalive_timeout 60s;
    lua_socket_log_errors off;
    init_by_lua_block {
        @{[ TestEnv::lua_kit() ]}
        q = require("resty.memcached.queue").new("127.0.0.1", $port, { timeout = 20000 })
        ended = 0
    }
};
my $server = q{
    location = /count {
        content_by_lua_block { ngx.print("counted") }
        log_by_lua_block {
            assert(q:incr("count", 1))
            ended = ended + 1
        }
    }
    location = /ended { content_by_lua_block { ngx.print(ended) } }
    location = /pending { content_by_lua_block { ngx.print((q:pending())) } }
};
my $nginx = LiveNginx->start( http => $http, server => $server, connections => 24 );

sub ask {
    my ( $command, $lines ) = @_;
    my $memcached = IO::Socket::INET->new( PeerAddr => "127.0.0.1:$port" ) or return 'no memcached';
    print {$memcached} "$command\r\n";
    return join '', map { scalar <$memcached> } 1 .. $lines;
}

my $total = 0;
for my $round ( 1 .. 3 ) {
    is( ask( "set count 0 0 1\r\n0", 1 ), "STORED\r\n", "round $round" );
    $total = $nginx->get('/ended');
    my @clients;
    for ( 1 .. 40 ) {
        my $client = IO::Socket::INET->new( PeerAddr => '127.0.0.1:' . $nginx->port, Timeout => 10 ) or next;
        print {$client} "GET /count HTTP/1.1\r\nHost: localhost\r\n\r\n";
        sysread $client, my $answer, 4096;
        push @clients, $client;
    }
    ok( $nginx->wait_for( sub { $nginx->get('/pending') eq '0' }, 20 ), 'the queue gets empty' );
    my $ended = $nginx->get('/ended') - $total;
    cmp_ok( $ended, '>=', 40, 'requests have ended' );
    like( ask( 'get count', 2 ), qr/\r\n$ended\r\n/, 'each was counted' );
    TestEnv::stop_memcached($port);
    TestEnv::start_memcached( port => $port );
}
ok( $nginx->quit(20), 'ends' );
my @logged = grep { !/worker_connections are not enough|connect\(\) failed/ } $nginx->log_lines(qw( error crit alert emerg ));
is_deeply( \@logged, [], 'nothing bad in the log' );
done_testing();
