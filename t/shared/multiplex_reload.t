use strict;
use warnings;
use lib 't/lib';

use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Test::More;
use Time::HiRes qw( sleep );

use TestEnv;
use LiveNginx;

# Shared connections and the end of a worker: by a reload, by QUIT; and servers that go and come.

plan skip_all => 'the reference shares no connections' if TestEnv::reference_lib();

my $port = TestEnv::start_memcached();
my $http = qq{
    lua_memcached_multiplex 2;
    lua_socket_log_errors off;
    init_by_lua_block {
        @{[ TestEnv::lua_kit() ]}
        kit.port = $port
    }
};
my $server = q{
    location = /work {
        content_by_lua_block {
            local key = ngx.var.arg_key
            local m = kit.connect()
            m:set(key, key)
            ngx.sleep(0.002)
            local value, _, err = m:get(key)
            ngx.print(value == key and "yes" or err or "no")
            m:set_keepalive()
        }
    }
    # waits for a server that takes its time, while the worker exits
    location = /slow {
        content_by_lua_block {
            local srv = kit.fake(function(c)
                while c:line() do
                    for _ = 1, 800 do
                        if ngx.worker.exiting() then break end
                        ngx.sleep(0.01)
                    end
                    ngx.sleep(0.05)
                    c:send("VALUE k 0 1\r\nv\r\nEND\r\n")
                end
            end)
            local m, n = kit.connect(srv.port), kit.connect(srv.port)
            m:set_timeout(10000)
            n:set_timeout(10000)
            local t = ngx.thread.spawn(function() return (m:get("k")) end)
            local first = n:get("k")
            local exiting = ngx.worker.exiting()
            local _, other = ngx.thread.wait(t)
            local later = n:get("k")
            srv:close()
            ngx.print(first, other, later, " ", exiting)
        }
    }
    location = /timer {
        content_by_lua_block {
            ngx.timer.at(0, function()
                local m = kit.connect()
                m:set("timer", "running")
                while not ngx.worker.exiting() do ngx.sleep(0.01) end
                ngx.sleep(0.05)
                ngx.log(ngx.WARN, "the timer: ", (m:get("timer")), " ", (m:set_keepalive()))
            end)
            ngx.print("started")
        }
    }
    # ends its operation itself, long before its time
    location = /killed {
        content_by_lua_block {
            ngx.timer.at(0, function()
                local srv = kit.fake(function(c) while c:line() do end end)
                local m = kit.new()
                m:set_timeout(30000)
                m:connect("127.0.0.1", srv.port)
                local t = ngx.thread.spawn(function() m:get("k") end)
                while not ngx.worker.exiting() do ngx.sleep(0.01) end
                ngx.log(ngx.WARN, "it was killed: ", ngx.thread.kill(t))
                srv:close()
            end)
            ngx.print("started")
        }
    }
    location = /left {
        content_by_lua_block {
            local m = kit.connect()
            ngx.thread.spawn(function() m:get("left") end)
            ngx.print("left")
            ngx.exit(200)
        }
    }
};

my $nginx = LiveNginx->start( private => 'says so itself', http => $http, server => $server );

# Reloads under load: no operation fails, and old workers go.
my $load = $nginx->load( '/work', 4, qr/\Ayes/ );
for my $round ( 1 .. 10 ) {
    my ($old) = $nginx->workers;
    sleep 0.05;
    $nginx->signal('HUP');
    ok( $nginx->wait_for( sub { !grep { $_ == $old } $nginx->workers }, 20 ), "reload $round: the old worker goes" );
}
my ( $right, @wrong ) = $nginx->end_load($load);
cmp_ok( $right, '>', 100, 'the load was served' );
is_deeply( \@wrong, [], 'and no operation failed' );

# A worker that is told to exit waits for the operations under way.
my $reader = IO::Socket::INET->new( PeerAddr => '127.0.0.1:' . $nginx->port );
print {$reader} "GET /slow HTTP/1.0\r\n\r\n";
sleep 0.2;
my ($old) = $nginx->workers;
$nginx->signal('HUP');
my $answer = do { local $/; <$reader> };
like( $answer, qr/\r\n\r\nvvv true/, 'a worker that exits answers what it was asked before' );
ok( $nginx->wait_for( sub { !grep { $_ == $old } $nginx->workers }, 20 ), 'and goes' );

is( $nginx->get('/timer'), 'started', 'a timer' );
sleep 0.1;
($old) = $nginx->workers;
$nginx->signal('HUP');
ok( $nginx->wait_for( sub { !grep { $_ == $old } $nginx->workers }, 20 ), 'a worker with a timer goes' );
like( $nginx->log, qr/the timer: running 1/, 'after the timer has done its work' );

is( $nginx->get('/killed'), 'started', 'an operation with much time' );
sleep 0.1;
($old) = $nginx->workers;
$nginx->signal('HUP');
ok( $nginx->wait_for( sub { !grep { $_ == $old } $nginx->workers }, 20 ), 'a worker does not wait for what nobody waits for' );
like( $nginx->log, qr/it was killed: 1/, 'after it was given up' );

# The server goes and comes.
is( $nginx->get('/work?key=before'), 'yes', 'before the server is restarted' );
TestEnv::stop_memcached($port);
# of a group, the first command connects
my $fails = $ENV{TEST_NGINX_UPSTREAM} ? qr/\Aconnection refused\z/ : qr/status 500/;
like( $nginx->get('/work?key=meanwhile'), $fails, 'meanwhile connect fails' );
TestEnv::start_memcached( port => $port );
is( $nginx->get('/work?key=after'), 'yes', 'after it' );

is( $nginx->get('/left'), 'left', 'an operation that was left' );
is( $nginx->get('/work?key=last'), 'yes', 'idle connections remain' );
my $took = $nginx->quit;
ok( $took, 'ends' );
cmp_ok( $took // 99, '<', 2, 'without waiting for idle connections' );
my @logged = grep { !/assertion|connection refused|connect\(\) failed/ } $nginx->log_lines(qw( error crit alert emerg ));
is_deeply( \@logged, [], 'nothing bad in the log' );
done_testing();
