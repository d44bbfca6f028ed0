use strict;
use warnings;
use lib 't/lib';

use Test::More;

use TestEnv;
use DnsServer;
use LiveNginx;
use Preload;
use TestCerts;

# Each allocation that a request makes in the module, or in what the module calls, fails in turn.
# Then the operation returns an error or what it returns otherwise; it never ends the worker, and
# the next request is right.

plan skip_all => 'the reference allocates in Lua only' if $ENV{TEST_NGINX_REFERENCE_LIB};

my $certs = TestCerts::dir();
my $tls_port = TestEnv::start_memcached( args => TestCerts::memcached_args('good') );
my $dns_port = DnsServer::start();

my $http = TestEnv::http_config() . qq{
    lua_socket_log_errors off;
    resolver 127.0.0.1:$dns_port ipv6=off;
    resolver_timeout 1s;
    lua_ssl_protocols TLSv1.2 TLSv1.3;
    lua_ssl_trusted_certificate $certs/ca.pem;
    init_by_lua_block {
        jit.off()    -- failalloc cannot read the stack beyond compiled code
        @{[ TestEnv::lua_kit() ]}
        refused = $ENV{TEST_NGINX_UNUSED_PORT}
        tls_port = $tls_port
        unix = "unix:$ENV{TEST_NGINX_MEMCACHED_SOCK}"
        ops = require "allops"
        grouped = @{[ $ENV{TEST_NGINX_UPSTREAM} ? 'true' : 'false' ]}    -- then there is no option pool, nor raw use
        require("ffi").cdef "long failalloc(int how, long n);"
        failalloc = require("ffi").C.failalloc
    }
};
my $server = q{
    # one operation, with memory scarce meanwhile: failures, and what it returned
    location = /op {
        content_by_lua_block {
            local how, n = tonumber(ngx.var.arg_how), tonumber(ngx.var.arg_n)
            local prepare, op = unpack(ops[ngx.var.arg_op])
            local memc = prepare()
            failalloc(how, n)
            local said = kit.vals(pcall(op, memc))
            ngx.print(tonumber(failalloc(0, 0)), " ", said)
        }
    }
    location = /works {
        content_by_lua_block {
            local op = ngx.var.arg_op or ""
            if op:find("^tls") then
                local m = kit.connect(tls_port, { pool = "after" })
                assert(m:sslhandshake(nil, "memcached.test", true))
                assert(kit.in_step(m) == "yes")
                m:close()
            elseif op:find("^name") then
                local m = kit.new()
                assert(m:connect(op .. ".works.one.test", kit.port))
                m:close()
            end
            local m = kit.connect()
            m:set("after", "all")
            ngx.print(kit.vals(m:get("after")), " ", kit.in_step(m), " ", (m:set_keepalive()))
        }
    }
    # no memory for a while: what whoever asks is told, and what it is like after
    location = /starve {
        content_by_lua_block {
            local held, said = {}, {}
            for i = 1, 5 do held[i] = kit.connect() end
            failalloc(2, 1)
            for i = 1, 100 do
                local memc = kit.new()
                local ok, err = memc:connect("127.0.0.1", kit.port, not grouped and { pool = "starve" .. i } or nil)
                said[err or "connected"] = true
                local ok, err = held[i % 5 + 1]:set("x", ("x"):rep(5000))
                said[err or "stored"] = true
            end
            failalloc(0, 0)
            local kinds, in_step = {}, 0
            for text in pairs(said) do kinds[#kinds + 1] = text end
            for i = 1, 5 do in_step = in_step + (kit.in_step(held[i]) == "yes" and 1 or 0) end
            ngx.print(table.concat(kinds, ", "), "; in step: ", in_step)
        }
    }
    location = /lua {
        content_by_lua_block {
            local big = ("x"):rep(1000 * 1000)
            local memc = kit.connect()
            assert(memc:set("huge", big))
            local function get() return memc:get("huge") end
            local said = ({
                get = get,
                gets = function() return memc:gets("huge") end,
                many = function() return memc:get({ "huge", "other" }) end,
                pipeline = function()
                    memc:init_pipeline()
                    get()
                    return memc:commit_pipeline()
                end,
                receive = function()
                    memc.sock:send("get huge\r\n")
                    memc.sock:receive()
                    return memc.sock:receive(1000 * 1000), memc.sock:receive(), memc.sock:receive()
                end,
            })[ngx.var.arg_what]
            big = nil
            collectgarbage()
            failalloc(3, 500 * 1000)
            local ok, err = pcall(said)
            failalloc(0, 0)
            if ngx.var.arg_what == "receive" then
                memc.sock:receive()
                memc.sock:receive()
            end
            ngx.print(kit.vals(err), ", then ", kit.vals(kit.in_step(memc)))
            memc:close()
        }
    }
    location = /ops { content_by_lua_block { ngx.print(table.concat(ops.names, " ")) } }
};
my $nginx = Preload::with( failalloc => sub { LiveNginx->start( http => $http, server => $server ) } );
my $right = '"all", "0" yes 1';
is( $nginx->get('/works'), $right, 'with enough memory it works' );
my ($worker) = $nginx->workers;

# What an operation may say instead of its result; a certificate that OpenSSL has no memory to verify
# is a bad one, for whatever reason, by number.
my $no_memory = qr/no memory|not enough memory|cannot allocate memory|closed|error|failed|too many|could not|mismatch|nil, "\d+: /;

# OpenSSL makes thousands for a handshake: beyond the first ones, some of them fail, unless all are
# asked for, which takes five minutes.
my $step = $ENV{TEST_NGINX_EACH_ALLOCATION} ? 1 : 29;
my $most = 20_000;

# how => 1: one allocation fails; 2: it and all later ones.
for my $how ( 1, 2 ) {
    my $kind = $how == 1 ? 'one failure' : 'failures from some point on';
    for my $op ( split ' ', $nginx->get('/ops') ) {
        $nginx->get("/op?op=$op&how=0&n=0") for 1 .. 2;
        my ( undef, $usual ) = split ' ', $nginx->get("/op?op=$op&how=0&n=0"), 2;
        my ( $n, $failed, @wrong ) = ( 0, 0 );
        while ( ( $n += $n < 60 ? 1 : $step ) < $most ) {
            my $got = $nginx->get("/op?op=$op&how=$how&n=$n") // 'no answer';
            my ( $failures, $said ) = $got =~ /\A(\d+) (.*)\z/s;
            if ( !defined $failures ) {
                push @wrong, "$n: $got" if $got ne 'status 500';
            }
            else {
                last if $failures == 0;
                $failed++ if $said ne $usual;
                push @wrong, "$n: $said" if $said ne $usual && $said !~ $no_memory;
            }
            my $after = $nginx->get("/works?op=$op") // 'no answer';
            push @wrong, "$n: then $after" if $after ne $right;
            last if @wrong > 3;
        }
        is_deeply( \@wrong, [], "$kind: $op, " . ( $n - 1 ) . " allocations, $failed errors" );
        cmp_ok( $n, '<', $most, "$kind: $op: to the last one" );
    }
}

# Memory stays away.
# connecting to a group needs none, and on shared connections there may be enough for the rest
my $told = $ENV{TEST_NGINX_UPSTREAM} ? qr/no memory|connected|stored/ : qr/no memory/;
like( $nginx->get('/starve'), qr{\A(?:connected, |stored, )*(?:$told)(?:, connected|, stored)*; in step: 5\z}, 'no memory for a while' );
is( $nginx->get('/works'), $right, 'with enough memory again it works' );

# LuaJIT finds no memory for a result.
for my $what ( qw( get gets many pipeline ), $ENV{TEST_NGINX_UPSTREAM} ? () : 'receive' ) {
    is( $nginx->get("/lua?what=$what"), '"not enough memory", then "yes"', "LuaJIT has no memory: $what" );
}
is_deeply( [ $nginx->workers ], [$worker], 'all by the same worker' );

# The first request of a worker, which makes more than later ones find.
for my $how ( 1, 2 ) {
    my ( $n, $failures, @wrong ) = ( 0, 1 );
    while ( $failures && ++$n < 200 && @wrong < 4 ) {
        my ($old) = $nginx->workers;
        $nginx->signal('HUP');
        my $now;
        $nginx->wait_for( sub { ( $now, my @more ) = $nginx->workers; $now && !@more && $now != $old } );
        my $got = $nginx->get("/op?op=first&how=$how&n=$n") // 'no answer';
        ( $failures, my $said ) = $got =~ /\A(\d+) (.*)\z/s;
        push @wrong, "$n: $got" if !defined $failures || $said ne 'true, 6, nil' && $said !~ $no_memory;
        my $after = $nginx->get('/works') // 'no answer';
        push @wrong, "$n: then $after" if $after ne $right;
        push @wrong, "$n: another worker" if "@{[ $nginx->workers ]}" ne $now;
    }
    is_deeply( \@wrong, [], "first request, $how: " . ( $n - 1 ) . ' allocations' );
    cmp_ok( $n, '>', 20, 'there are many' );
    cmp_ok( $n, '<', 200, 'to the last one' );
}

# OpenSSL says it in many ways; an answer comes too late for a look-up that was given up.
my $said = qr{alloc|memalign|mmap|no memory|not enough memory|connect\(\) failed|SSL: error|unexpected DNS response|wrong ident \d+ in DNS response};
is_deeply( [ grep { !m{$said} } $nginx->log_lines(qw( error crit alert emerg )) ], [], 'nothing else in the log' );
ok( $nginx->quit, 'ends' );
done_testing();
