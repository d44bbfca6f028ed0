use strict;
use warnings;

use lib 't/lib';

use Test::More;
use TestEnv memcached => 0;
use LiveNginx;
use Preload;

# Each allocation that an operation on a group makes fails in turn. Then some of its results are
# errors, none is wrong, and the next operation, with the same object, is right.

my @ports = map { TestEnv::start_memcached() } 1 .. 3;
my $list = join ' ', map {"server 127.0.0.1:$_ max_fails=0;"} @ports;

my $http = qq{
    upstream three { hash \$lua_memcached_key consistent; $list }
    lua_socket_log_errors off;
    init_by_lua_block {
        jit.off()    -- failalloc cannot read the stack beyond compiled code
        @{[ TestEnv::lua_kit() ]}
        require("ffi").cdef "long failalloc(int how, long n);"
        failalloc = require("ffi").C.failalloc
        function object()
            local m = require "resty.memcached":new()
            m:set_timeouts(1000, 1000, 1000)
            assert(m:connect("three"))
            return m
        end
        keys = {}
        for i = 1, 12 do keys[i] = "k %" .. i end
        -- Errors that are not for want of memory, and how many right results there are.
        local function look(right, count, err)
            local wrong
            for _, text in ipairs { "no memory", "not enough memory", "closed", "internal error", "could not", "no live upstreams" } do
                if err and tostring(err):find(text, 1, true) then return wrong, count end
            end
            if not right then wrong = tostring(err or "nothing") else count = count + 1 end
            return wrong, count
        end
        local function pipeline(m)
            local first = m:init_pipeline()
            if first then m:cancel_pipeline() return first, 0 end
            for i, key in ipairs(keys) do m:set(key, i) m:get(key) m:get("") end
            local results, err = m:commit_pipeline()
            if not results then return look(false, 0, err) end
            local wrong, count = nil, 0
            for i = 1, #keys do
                local set, get, refused = results[3 * i - 2], results[3 * i - 1], results[3 * i]
                local bad
                bad, count = look(set[1] == 1, count, set[2]) wrong = wrong or bad
                bad, count = look(get[1] == tostring(i), count, get[3]) wrong = wrong or bad
                bad, count = look(refused[3] == "ERROR", count, refused[3]) wrong = wrong or bad
            end
            return wrong, count
        end
        local function many(m)
            local found, err, errors = m:get(keys)
            if not found then return look(false, 0, err) end
            local wrong, count = nil, 0
            for i, key in ipairs(keys) do
                local item = found[key]
                local bad
                bad, count = look(item and item[1] == tostring(i), count, err) wrong = wrong or bad
            end
            return wrong, count
        end
        ops = { pipeline = pipeline, many = many }
    }
};
my $server = q{
    location = /op {
        content_by_lua_block {
            local how, n, op = tonumber(ngx.var.arg_how), tonumber(ngx.var.arg_n), ops[ngx.var.arg_op]
            local m = object()
            if ngx.var.arg_open == "1" then m:get(keys) end
            failalloc(how, n)
            local ok, wrong, count = pcall(op, m)
            local failures = tonumber(failalloc(0, 0))
            m:cancel_pipeline()
            local texts = { failures, ok and tostring(wrong) or "raised " .. wrong, ok and count or 0 }
            for name, again in pairs(ops) do texts[#texts + 1] = name .. ":" .. table.concat({ tostring((again(m))), (select(2, again(m))) }, ",") end
            m:set_keepalive()
            ngx.print(table.concat(texts, " "))
        }
    }
};
my $nginx = Preload::with( failalloc => sub { LiveNginx->start( http => $http, server => $server ) } );
my ($worker) = $nginx->workers;

for my $op (qw( pipeline many )) {
    my $all = $op eq 'pipeline' ? 36 : 12;
    for my $open ( 0, 1 ) {
        $nginx->get("/op?op=$op&open=$open&how=0&n=0") for 1 .. 2;
        for my $how ( 1, 2 ) {
            my ( $n, $failed, @wrong ) = ( 0, 0 );
            while ( ++$n < 3000 && @wrong < 4 ) {
                my $got = $nginx->get("/op?op=$op&open=$open&how=$how&n=$n") // 'no answer';
                my ( $failures, $said, $count, $after ) = $got =~ /\A(\d+) (.*?) (\d+) (\w+:.*)\z/ or do { push @wrong, "$n: $got"; next };
                last if $failures == 0;
                $failed++ if $count < $all;
                push @wrong, "$n: $said" if $said ne 'nil' && $said !~ /\Araised .*not enough memory/;
                push @wrong, "$n: then $after" if join( ' ', sort split / /, $after ) ne 'many:nil,12 pipeline:nil,36';
            }
            is_deeply( \@wrong, [], "$op, open $open, $how: @{[ $n - 1 ]} allocations, $failed with errors" );
            cmp_ok( $n, '<', 3000, '... to the last one' );
        }
    }
}
is_deeply( [ $nginx->workers ], [$worker], 'all by the same worker' );
my $known = qr/alloc|memalign|mmap|no memory|not enough memory/;
is_deeply( [ grep { !/$known/ } $nginx->log_lines(qw( error crit alert emerg )) ], [], 'nothing else in the log' );
ok( $nginx->quit, 'ends' );
done_testing();
