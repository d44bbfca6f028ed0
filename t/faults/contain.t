use strict;
use warnings;
use lib 't/lib';

use Test::More;

use TestEnv;
use DnsServer;
use LiveNginx;
use TestCerts;

# A module with the feature fault-injection panics where it is told to: at each of its points in
# turn, for each kind of operation. Then the operation returns an error, nobody waits for ever, the
# operator is told, and the worker goes on.

my $module = $ENV{TEST_NGINX_FAULT_MODULE}
    or plan skip_all => 'needs TEST_NGINX_FAULT_MODULE, which scripts/test builds';
-e $module or die "no module $module\n";

my $certs    = TestCerts::dir();
my $tls_port = TestEnv::start_memcached( args => TestCerts::memcached_args('good') );
my $dns_port = DnsServer::start();

my $http = qq{
    lua_socket_log_errors off;
    resolver 127.0.0.1:$dns_port ipv6=off;
    lua_ssl_protocols TLSv1.2 TLSv1.3;
    lua_ssl_trusted_certificate $certs/ca.pem;
    init_by_lua_block {
        @{[ TestEnv::lua_kit() ]}
        refused = $ENV{TEST_NGINX_UNUSED_PORT}
        tls_port = $tls_port
        unix = "unix:$ENV{TEST_NGINX_MEMCACHED_SOCK}"
        ops = require "allops"
        local ffi = require "ffi"
        ffi.cdef "int ngx_http_lua_memcached_fault(int n);"
        fault = ffi.C.ngx_http_lua_memcached_fault
    }
};
my $server = q{
    # one operation: what was left of n, and what it returned
    location = /op {
        content_by_lua_block {
            local prepare, op = unpack(ops[ngx.var.arg_op])
            local memc = prepare()
            fault(tonumber(ngx.var.arg_n))
            local said = kit.vals(pcall(op, memc))
            ngx.print(fault(0), " ", said)
        }
    }
    # the same, for what happens when the request ends, or after
    location = /late {
        content_by_lua_block {
            local m, idle = kit.connect(), kit.connect()
            m:set("x", 1)
            idle:set_keepalive(5)
            fault(tonumber(ngx.var.arg_n))
            ngx.say("late")
        }
    }
    location = /left { content_by_lua_block { ngx.sleep(0.02) ngx.print(fault(0)) } }
    location = /works {
        content_by_lua_block {
            local m = kit.connect()
            m:set("after", "all")
            ngx.print(kit.vals(m:get("after")), " ", kit.in_step(m), " ", (m:set_keepalive()))
        }
    }
    # others wait meanwhile
    location = /others {
        content_by_lua_block {
            local srv = kit.fake(function(c) while c:line() do end end)
            local function wait()
                local memc = kit.new()
                memc:set_timeout(20000)
                memc:connect("127.0.0.1", srv.port)
                return memc, memc:get("never")
            end
            local threads, said = {}, {}
            for i = 1, 5 do threads[i] = ngx.thread.spawn(wait) end
            ngx.sleep(0.05)
            local memc = kit.connect()
            -- of a group, the first command connects
            memc:get("x")
            fault(1)
            said[1] = kit.vals(memc:get("x"))
            for i = 1, 5 do
                local _, memc, value, flags, err = ngx.thread.wait(threads[i])
                said[i + 1] = kit.vals(value, err, memc:connect("127.0.0.1", kit.port))
            end
            srv:close()
            ngx.print(table.concat(said, "; "))
        }
    }
    location = /ops { content_by_lua_block { ngx.print(table.concat(ops.names, " ")) } }
};

my $nginx = do {
    local $ENV{TEST_NGINX_LOAD_MODULES}
        = join ' ', ( split ' ', $ENV{TEST_NGINX_LOAD_MODULES} )[ 0, 1 ], $module;
    LiveNginx->start( http => $http, server => $server );
};
my $right = '"all", "0" yes 1';
is( $nginx->get('/works'), $right, 'it works' );
my ($worker) = $nginx->workers;

my $panics = 0;
for my $op ( split ' ', $nginx->get('/ops') ) {
    my ( undef, $usual ) = split ' ', $nginx->get("/op?op=$op&n=0"), 2;
    my ( $n, @wrong ) = (0);
    while ( ++$n < 1000 && @wrong < 4 ) {
        my $got = $nginx->get("/op?op=$op&n=$n") // 'no answer';
        my ( $left, $said ) = $got =~ /\A(\d+) (.*)\z/s;
        last if $left;
        $panics++;
        if ( !defined $left || $said ne $usual && $said !~ /internal error|no memory|closed|not initialized/ ) {
            push @wrong, "$n: $got";
        }
        my $after = $nginx->get('/works') // 'no answer';
        push @wrong, "$n: then $after" if $after ne $right;
    }
    is_deeply( \@wrong, [], "$op: at " . ( $n - 1 ) . ' points' );
    cmp_ok( $n, '<', 1000, "$op: to the last one" );
}

# The worker's state is asked for while it is in use: nothing comes of it.
my $reentries = 0;
for my $op ( split ' ', $nginx->get('/ops') ) {
    my ( undef, $usual ) = split ' ', $nginx->get("/op?op=$op&n=0"), 2;
    my ( $n, @wrong ) = (0);
    while ( ++$n < 1000 && @wrong < 4 ) {
        my $got = $nginx->get("/op?op=$op&n=-$n") // 'no answer';
        my ( $left, $said ) = $got =~ /\A(-?\d+) (.*)\z/s;
        last if $left;
        $reentries++;
        push @wrong, "$n: $got" if !defined $left || $said ne $usual;
    }
    is_deeply( \@wrong, [], "$op: asks for the state at " . ( $n - 1 ) . ' points' );
}
cmp_ok( $reentries, '>', 100, "$reentries times" );

for my $n ( 1 .. 8 ) {
    $nginx->get("/late?n=$n");
    my $left = $nginx->get('/left') // 'no answer';
    $panics++ if $left eq '0';
    is( $nginx->get('/works'), $right, "when a request ends, at point $n" );
}

is( $nginx->get('/others'),
    join( '; ', 'nil, nil, "internal error"', ('nil, "internal error", 1') x 5 ),
    'those who wait are told, and can connect again' );
$panics++;
is( $nginx->get('/works'), $right, 'and it works' );

cmp_ok( $panics, '>', 100, "$panics panics" );
is_deeply( [ $nginx->workers ], [$worker], 'one worker' );
my @log = $nginx->log_lines(qw( crit alert emerg ));
my @in_use = grep {/lua memcached internal error: the worker's state is in use/} @log;
is( scalar @in_use, $reentries, 'each has told the operator' );
@log = grep { !/the worker's state is in use/ } @log;
is( scalar @log, $panics, 'each panic, too' );
is_deeply( [ grep { !m{lua memcached internal error in src/\S+:\d+: as asked for by a test} } @log ],
    [], 'and nothing else did' );
ok( $nginx->quit, 'ends' );
done_testing();
