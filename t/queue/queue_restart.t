use strict;
use warnings;
use lib 't/lib';

use Test::More;
use Time::HiRes qw( sleep );

use TestEnv;
use LiveNginx;

# A memcached that restarts, or stands still for a while; and many writes: all that the server has
# acknowledged is seen there. QUEUE_WRITES: how many.

plan skip_all => 'the library has no queue' if TestEnv::reference_lib();

my $many = $ENV{QUEUE_WRITES} || 50_000;
my $port = TestEnv::start_memcached( args => [ '-m', 256 ] );
my $http = qq{
    lua_socket_log_errors off;
    init_by_lua_block {
        @{[ TestEnv::lua_kit() ]}
        kit.port = $port
        q = require("resty.memcached.queue").new("127.0.0.1", $port, { timeout = 10000 })
    }
};
my $server = q{
    location = /set {
        content_by_lua_block {
            for i = 1, 100 do assert(q:set("k" .. i, ngx.var.arg_v .. i)) end
            ngx.print("queued")
        }
    }
    location = /seen {
        content_by_lua_block {
            local memc, n = kit.connect(nil, nil, { multiplex = false }), 0
            for i = 1, 100 do
                if memc:get("k" .. i) == ngx.var.arg_v .. i then n = n + 1 end
            end
            ngx.print(n)
        }
    }
    location = /pending { content_by_lua_block { ngx.print((q:pending())) } }
    location = /counts { content_by_lua_block { ngx.print(kit.vals(q:counts())) } }
    # as many as the queue takes, in each iteration of the event loop
    location = /many {
        content_by_lua_block {
            local n, waits = tonumber(ngx.var.arg_n), 0
            for i = 1, n do
                while true do
                    local ok, err = q:incr("many", 1)
                    if ok then break end
                    if err ~= "queue full" then return ngx.print(err) end
                    waits = waits + 1
                    ngx.sleep(0.001)
                end
            end
            while q:pending() > 0 do ngx.sleep(0.001) end
            ngx.print((kit.connect(nil, nil, { multiplex = false }):get("many")))
        }
    }
    location = /zero { content_by_lua_block { ngx.print(kit.connect():set("many", 0)) } }
};
my $nginx = LiveNginx->start( http => $http, server => $server );

sub empty {
    return $nginx->wait_for( sub { $nginx->get('/pending') eq '0' }, 20 );
}

is( $nginx->get('/set?v=a'), 'queued', 'a server' );
ok( empty(), 'the queue gets empty' );
is( $nginx->get('/seen?v=a'), 100, 'all is seen' );

# It is away.
TestEnv::stop_memcached($port);
is( $nginx->get('/set?v=b'), 'queued', 'no server' );
sleep 0.3;
is( $nginx->get('/pending'), 100, 'writes wait' );
TestEnv::start_memcached( port => $port, args => [ '-m', 256 ] );
ok( empty(), 'the queue gets empty' );
is( $nginx->get('/seen?v=b'), 100, 'all is seen' );

# It stands still.
my $pid = TestEnv::Memcached::pid($port);
kill STOP => $pid;
is( $nginx->get('/set?v=c'), 'queued', 'a server that stands still' );
sleep 0.5;
is( $nginx->get('/pending'), 100, 'writes wait' );
kill CONT => $pid;
ok( empty(), 'the queue gets empty' );
is( $nginx->get('/seen?v=c'), 100, 'all is seen' );
is(
    $nginx->get('/counts'),
    '{done=300, dropped=0, full=0, lost=0, refused=0, taken=300, unmet=0}',
    'nothing was lost'
);

# Many writes.
is( $nginx->get('/zero'), 1, 'begin' );
is( $nginx->get("/many?n=$many"), $many, "$many writes are seen" );
ok( $nginx->quit(20), 'ends' );
is_deeply( [ $nginx->log_lines(qw( crit alert emerg )) ], [], 'nothing bad in the log' );
done_testing();
