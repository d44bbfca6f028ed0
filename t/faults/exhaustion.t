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

# When connections become scarce, nginx closes requests that linger to get one: in the middle of
# whatever asks for it, and with it run their log phase and their clean-up.

my $http = TestEnv::http_config() . qq{
    lua_socket_log_errors off;
    init_by_lua_block {
        port = $ENV{TEST_NGINX_MEMCACHED_PORT}
        function connect()
            local memc = require "resty.memcached":new()
            memc:set_timeout(1000)
            local ok, err = memc:connect("127.0.0.1", port)
            return ok and memc, err
        end
    }
};
my $server = q{
    lingering_close always;
    lingering_time 20s;
    lingering_timeout 20s;
    location = /lingers {
        content_by_lua_block {
            local memc, err = connect()
            if memc then
                memc:get("x")
                memc:set_keepalive(0, 1)
            end
            ngx.say(memc and "ok" or err)
        }
        log_by_lua_block {
            collectgarbage()
            pcall(require "resty.memcached".new)
        }
    }
    location = /many {
        content_by_lua_block {
            local memcs, err = {}
            for i = 1, 60 do
                memcs[i], err = connect()
                if err then break end
            end
            ngx.print(#memcs > 3 and "many" or #memcs, " ", err)
            for i = 1, #memcs do memcs[i]:close() end
        }
    }
    location = /works {
        content_by_lua_block {
            local memc, err = connect()
            ngx.print(memc and memc:set("k", 1) or err)
        }
    }
};

my $nginx = LiveNginx->start( private => 'needs many connections', http => $http, server => $server );
$nginx->configure( sub {s/worker_connections 512/worker_connections 40/} );
my ($old) = $nginx->workers;
$nginx->signal('HUP');
$nginx->wait_for( sub { my @workers = $nginx->workers; @workers == 1 && $workers[0] != $old } );
my ($worker) = $nginx->workers;

for my $round ( 1 .. 3 ) {
    my @clients;
    for ( 1 .. 12 ) {
        my $client = IO::Socket::INET->new( PeerAddr => '127.0.0.1:' . $nginx->port, Timeout => 5 ) or next;
        print {$client} "GET /lingers HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nmore";
        IO::Select->new($client)->can_read(3);
        push @clients, $client;
    }
    is(
        $nginx->get('/many'),
        'many worker_connections are not enough',
        "round $round: an error when there are no more connections"
    );
    is( $nginx->get('/works'), '1', "round $round: and the next request is served" );
}
is_deeply( [ $nginx->workers ], [$worker], 'by the same worker' );
is_deeply(
    [ grep { !/worker_connections are not enough/ } $nginx->log_lines(qw( error crit alert emerg )) ],
    [], 'nothing else in the log'
);
ok( $nginx->quit, 'ends' );
done_testing();
