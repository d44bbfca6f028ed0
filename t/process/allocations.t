use strict;
use warnings;
use lib 't/lib';

use Test::More;

use TestEnv;
use LiveNginx;
use Preload;

# A worker that has served some requests makes no allocation for another one, except for lists, by their
# number of keys, and for pipelines. (What nginx takes for a request, and Lua, is not counted.)

plan skip_all => 'the reference allocates in Lua only' if TestEnv::reference_lib();

my $http = TestEnv::http_config() . qq{
    init_by_lua_block {
        @{[ TestEnv::lua_kit() ]}
        require("ffi").cdef "long failalloc(int how, long n);"
        failalloc = require("ffi").C.failalloc
        keys = {}
        for i = 1, 20 do keys[i] = "key" .. i end
        ops = {
            get = function(m, i) assert(m:get(keys[i])) end,
            set = function(m, i) assert(m:set(keys[i], "value")) end,
            incr = function(m) m:incr("number", 1) end,
            list = function(m) assert(m:get(keys).key20) end,
            pipeline = function(m)
                m:init_pipeline()
                for i = 1, 5 do m:get(keys[i]) end
                assert(#assert(m:commit_pipeline()) == 5)
            end,
        }
        function use(op, shared, i)
            local m = require "resty.memcached":new{ multiplex = shared == "1" and 2 }
            m:set_timeout(10000)
            assert(m:connect("127.0.0.1", kit.port))
            op(m, i)
            op(m, i)
            assert(m:set_keepalive(10000, 10))
        end
    }
};
my $server = q{
    location = /values {
        content_by_lua_block {
            local m = kit.connect()
            for i = 1, #keys do assert(m:set(keys[i], "value")) end
            assert(m:set("number", 1))
            m:close()
            ngx.print("there")
        }
    }
    location = /count { content_by_lua_block { ngx.print(tonumber(failalloc(tonumber(ngx.var.arg_how), 0))) } }
    location = /one {
        content_by_lua_block {
            use(ops[ngx.var.arg_op], ngx.var.arg_shared, 1)
            collectgarbage()
            ngx.print("done")
        }
    }
    # several objects at once, which are all there until the request ends
    location = /together {
        content_by_lua_block {
            local threads = {}
            for i = 1, 10 do threads[i] = ngx.thread.spawn(use, ops[ngx.var.arg_op], ngx.var.arg_shared, i) end
            for i = 1, 10 do assert(ngx.thread.wait(threads[i])) end
            collectgarbage()
            ngx.print("done")
        }
    }
};
my $nginx = Preload::with( failalloc => sub { LiveNginx->start( http => $http, server => $server ) } );
is( $nginx->get('/values'), 'there', 'values' );

# For one operation, at most; a buffer that grows once more makes one, too.
my %most = ( get => 0, set => 0, incr => 0, list => 1, pipeline => 8 );

for my $shared ( 0, 1 ) {
    my $kind = $shared ? 'shared' : 'private';
    for my $way (qw( one together )) {
        for my $op ( sort keys %most ) {
            my $request = "/$way?op=$op&shared=$shared";
            my $name    = "$kind, $way: $op";
            is( $nginx->get($request), 'done', $name ) for 1 .. 10;
            $nginx->get('/count?how=4');
            my @said = map { $nginx->get($request) } 1 .. 10;
            my $made = $nginx->get('/count?how=0');
            my $operations = 10 * 2 * ( $way eq 'one' ? 1 : 10 );
            cmp_ok( $made, '<=', $operations * $most{$op} + 20, "$name: $operations times" );
            cmp_ok( $made, '>', 0, '... counted' ) if $most{$op};
            is( "@said", join( q{ }, ('done') x 10 ), '... done each time' );
        }
    }
}
ok( $nginx->quit, 'ends' );
done_testing();
