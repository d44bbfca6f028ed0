use strict;
use warnings;
use lib 't/lib';

use Test::More;

use TestEnv;
use LiveNginx;
use Preload;

# A connection is lost while the socket takes no more, and there is no memory to keep what was not sent
# for the next one. Then that is dropped, which is told; nothing overtakes it.

plan skip_all => 'the library has no queue' if TestEnv::reference_lib();

my @memcached = ( args => [ '-m', 256 ] );
my $port      = TestEnv::start_memcached(@memcached);
my $http      = qq{
    lua_socket_log_errors off;
    init_by_lua_block {
        jit.off()    -- failalloc cannot read the stack beyond compiled code
        @{[ TestEnv::lua_kit() ]}
        kit.port = $port
        q = require("resty.memcached.queue").new("127.0.0.1", $port, { timeout = 20000, max_size = 64 * 1024 * 1024 })
        require("ffi").cdef "long failalloc(int how, long n);"
        failalloc = require("ffi").C.failalloc
    }
};
my $server = q{
    # more than the kernel keeps for a server that stands still
    location = /fill {
        content_by_lua_block {
            local value = ("v"):rep(500 * 1000)
            for i = 1, 40 do assert(q:set("k" .. i, value)) end
            ngx.print("queued")
        }
    }
    location = /pending { content_by_lua_block { ngx.print((q:pending())) } }
    location = /fail {
        content_by_lua_block {
            failalloc(1, tonumber(ngx.var.arg_n))
            ngx.print("armed")
        }
    }
    # whether an allocation has failed, what became of the writes, and whether none is missing
    location = /end {
        content_by_lua_block {
            local failed, counts = tonumber(failalloc(0, 0)), q:counts()
            local sum = q:pending() + counts.done + counts.unmet + counts.refused + counts.lost + counts.dropped
            ngx.print(failed, " ", counts.lost, " ", counts.dropped, " ", counts.taken == sum and "all" or "wrong")
        }
    }
    location = /next {
        content_by_lua_block {
            assert(q:set("next", ngx.var.arg_n))
            while q:pending() > 0 do ngx.sleep(0.005) end
            ngx.print((kit.connect(nil, nil, { multiplex = false }):get("next")))
        }
    }
};
my $nginx = Preload::with( failalloc => sub { LiveNginx->start( http => $http, server => $server ) } );
my ($worker) = $nginx->workers;
is( $nginx->get('/next?n=0'), 0, 'a connection' );

my ( $n, $failures, $drops, @wrong ) = ( 0, 1, 0 );
my ( $lost_before, $dropped_before ) = ( 0, 0 );
while ( $failures && ++$n < 60 && @wrong < 4 ) {
    my $pid = TestEnv::Memcached::pid($port);
    kill STOP => $pid;
    $nginx->get('/fill');
    my $from = length $nginx->log;
    $nginx->get("/fail?n=$n");
    TestEnv::stop_memcached($port);
    my $gone = $nginx->wait_for( sub { substr( $nginx->log, $from ) =~ /(?:recv|send)\(\) failed/ } );
    ( $failures, my ( $lost_now, $dropped_now ), my $sum ) = split / /, $nginx->get('/end') // '0 0 0 none';
    my ( $lost, $dropped ) = ( $lost_now - $lost_before, $dropped_now - $dropped_before );
    push @wrong, "$n: not lost" if !$gone;
    push @wrong, "$n: $sum" if $sum ne 'all';
    push @wrong, "$n: lost $lost of 40" if $lost < 1 || $lost > 39;
    push @wrong, "$n: lost $lost, dropped $dropped" if $dropped && $lost + $dropped != 40;
    $drops++ if $dropped;
    ( $lost_before, $dropped_before ) = ( $lost_now, $dropped_now );
    TestEnv::start_memcached( port => $port, @memcached );
    my $next = $nginx->get("/next?n=$n") // 'no answer';
    push @wrong, "$n: then $next" if $next ne $n;
}
is_deeply( \@wrong, [], 'each of ' . ( $n - 1 ) . ' allocations' );
cmp_ok( $n, '<', 60, '... to the last one' );
cmp_ok( $drops, '>', 3, 'some of them are for what is kept' );
like( $nginx->log, qr/lua memcached queue: dropped: [1-9]\d? writes?: no memory, memcached: 127\.0\.0\.1:$port\n/, 'which is told' );
is_deeply( [ $nginx->workers ], [$worker], 'all by the same worker' );
ok( $nginx->quit(20), 'ends' );
my $said = qr/lua memcached queue: (?:lost|dropped|cannot connect)|(?:connect|recv|send)\(\) failed|no memory|alloc/;
is_deeply( [ grep { !/$said/ } $nginx->log_lines(qw( error crit alert emerg )) ], [], 'nothing else in the log' );
done_testing();
