use strict;
use warnings;
use lib 't/lib';

use IO::Select;
use POSIX ();
use Test::More;

use TestEnv;
use LiveNginx;

# Directives are those of the location, with what it inherits, and after a reload the new ones.
# A silent server makes read timeouts visible, the real one the size and the time of pools.

my $http = TestEnv::http_config() . qq{
    init_by_lua_block {
        @{[ TestEnv::lua_kit() ]}

        -- how long a get waits for a server that says nothing
        function waits()
            local srv = kit.fake(function(c) while c:line() do end end)
            local m = require "resty.memcached":new()
            m:connect("127.0.0.1", srv.port, { pool = "silent" .. srv.port })
            local ms, _, _, err = kit.timed(m.get, m, "k")
            srv:close()
            ngx.print(err, " ", ms < 150 and "short" or ms < 400 and "middle" or "long")
        end

        -- how many of three connections a pool keeps, and whether they are there later
        function keeps()
            local memcs, pool = {}, "keeps" .. ngx.var.uri
            for i = 1, 3 do memcs[i] = kit.connect(nil, { pool = pool }) end
            for i = 1, 3 do memcs[i]:set_keepalive() end
            local kept = 0
            for i = 1, 3 do
                memcs[i] = kit.connect(nil, { pool = pool })
                if memcs[i]:get_reused_times() > 0 then kept = kept + 1 end
            end
            for i = 1, 3 do memcs[i]:set_keepalive() end
            ngx.sleep(0.15)
            local later = kit.connect(nil, { pool = pool }):get_reused_times() > 0
            ngx.print(kept, " ", later and "still there" or "gone")
        end

        -- whether a value of 2000 bytes is accepted
        function accepts()
            local m = kit.connect()
            m:set("directives", ("v"):rep(2000))
            local value, _, err = m:get("directives")
            ngx.print(value and #value or err)
        end
    }
    lua_socket_log_errors off;
    lua_socket_read_timeout 70ms;
    lua_socket_pool_size 2;
    lua_socket_keepalive_timeout 60ms;
};
my $server = q{
    lua_socket_keepalive_timeout 10s;
    location = /waits { content_by_lua_block { waits() } }
    location = /waits-own {
        lua_socket_read_timeout 250ms;
        content_by_lua_block { waits() }
    }
    location /nested/ {
        lua_socket_read_timeout 250ms;
        location = /nested/waits { content_by_lua_block { waits() } }
    }
    location = /if {
        set $slow 1;
        if ($slow) {
            lua_socket_read_timeout 250ms;
            content_by_lua_block { waits() }
        }
    }
    location = /keeps { content_by_lua_block { keeps() } }
    location = /keeps-own {
        lua_socket_pool_size 1;
        lua_socket_keepalive_timeout 60ms;
        content_by_lua_block { keeps() }
    }
    location = /accepts { content_by_lua_block { accepts() } }
    location = /accepts-own {
        lua_memcached_max_value_size 1000;
        content_by_lua_block { accepts() }
    }
};

# The directives of this module are not known to the reference.
if ( $ENV{TEST_NGINX_REFERENCE_LIB} ) {
    $server =~ s/lua_memcached_max_value_size 1000;//;
}

my $nginx = LiveNginx->start( private => 'the sizes of pools', http => $http, server => $server );
is( $nginx->get('/waits'),        'timeout short',  'inherited from http' );
is( $nginx->get('/waits-own'),    'timeout middle', 'of the location' );
is( $nginx->get('/nested/waits'), 'timeout middle', 'inherited from the location around it' );
is( $nginx->get('/if'),           'timeout middle', 'of an if block' );
is( $nginx->get('/keeps'),        '2 still there',  'size from http, time from server' );
is( $nginx->get('/keeps-own'),    '1 gone',         'both of the location' );
is( $nginx->get('/accepts'),      '2000',           'the default limit of values' );
SKIP: {
    skip 'a directive of this module', 1 if $ENV{TEST_NGINX_REFERENCE_LIB};
    is(
        $nginx->get('/accepts-own'),
        'bad reply: value of 2000 bytes exceeds the limit of 1000',
        'a limit of the location'
    );
}

my ($old) = $nginx->workers;
$nginx->configure(
    sub {
        s/lua_socket_read_timeout 70ms/lua_socket_read_timeout 250ms/;
        s/lua_socket_pool_size 2/lua_socket_pool_size 3/;
        s/lua_memcached_max_value_size 1000/lua_memcached_max_value_size 3000/;
    }
);
$nginx->signal('HUP');
$nginx->wait_for( sub { my @workers = $nginx->workers; @workers == 1 && $workers[0] != $old } );
is( $nginx->get('/waits'),       'timeout middle', 'after a reload: of http' );
is( $nginx->get('/keeps'),       '3 still there',  'after a reload: a pool' );
is( $nginx->get('/accepts-own'), '2000',           'after a reload: of a location' );

is_deeply( [ $nginx->log_lines(qw( error crit alert emerg )) ], [], 'nothing bad in the log' );
ok( $nginx->quit, 'ends' );
done_testing();
