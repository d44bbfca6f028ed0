use strict;
use warnings;
use lib 't/lib';

use Test::More;

use TestEnv;
use LiveNginx;

# No free file descriptors in the worker, and no free connections in memcached: an error each time,
# and all is well as soon as there are some again.

my $few  = TestEnv::start_memcached( args => [qw( -t 1 -c 24 -o maxconns_fast )] );
my $slow = TestEnv::start_memcached( args => [qw( -t 1 -c 24 -o no_maxconns_fast )] );

my $http = TestEnv::http_config() . qq{
    lua_socket_log_errors off;
    init_by_lua_block {
        @{[ TestEnv::lua_kit() ]}
        few, slow = $few, $slow
        pools = 0
        -- an object with a connection that nobody else has
        function open(port)
            local memc = require "resty.memcached":new()
            memc:set_timeouts(300, 300, 300)
            pools = pools + 1
            local ok, err = memc:connect("127.0.0.1", port, { pool = "own" .. pools })
            return ok and memc, err
        end
        -- all descriptors but n are taken; f(); they are there again
        function scarce(n, f, ...)
            local files = {}
            repeat
                local file = io.open("/dev/null")
                files[#files + 1] = file
            until not file
            for i = 1, n do files[#files - i + 1]:close() end
            local function free(...)
                for i = 1, #files - n do files[i]:close() end
                return ...
            end
            return free(f(...))
        end
    }
};
my $server = q{
    location = /connect {
        content_by_lua_block {
            local said = scarce(0, function() return kit.vals(open(kit.port)) end)
            local memc, err = open(kit.port)
            ngx.print(said, " ", memc and kit.in_step(memc) or err)
        }
    }
    location = /last {
        content_by_lua_block {
            local said = scarce(2, function()
                local first, second, third = open(kit.port), open(kit.port), kit.vals(open(kit.port))
                return kit.in_step(first) .. " " .. kit.in_step(second) .. " " .. third
            end)
            ngx.print(said)
        }
    }
    location = /open {
        content_by_lua_block {
            local memc = kit.connect()
            memc:set("k", "v")
            local said = scarce(0, function()
                local value = memc:get("k")
                return kit.vals(value, memc:set("k", ("x"):rep(1e5)), memc:set_keepalive())
            end)
            ngx.print(said)
        }
    }
    location = /lost {
        content_by_lua_block {
            local srv = kit.fake(function(c) if c:line() then c:close() end end)
            local memc = require "resty.memcached":new()
            memc:set_timeouts(1000, 1000, 1000)
            memc:connect("127.0.0.1", srv.port, { pool = "lost" })
            local said = scarce(1, function()
                local _, _, err = memc:get("k")
                local _, _, again = memc:get("k")
                return kit.vals(err, again)
            end)
            srv:close()
            ngx.print(said)
        }
    }
    location = /resolve {
        content_by_lua_block {
            ngx.print((scarce(0, function()
                local memc = require "resty.memcached":new()
                memc:set_timeouts(500, 500, 500)
                return memc:connect("some.host", 1) and "connected" or "an error"
            end)))
        }
    }
    # somebody else has all connections of the server
    location = /full {
        content_by_lua_block {
            local port = ngx.var.arg_slow and slow or few
            local others, answer = {}
            repeat
                local sock = ngx.socket.tcp()
                sock:settimeout(300)
                answer = sock:connect("127.0.0.1", port) and sock:send("version\r\n") and sock:receive()
                others[#others + 1] = sock
            until not answer or not answer:find("^VERSION") or #others > 30
            local kinds = {}
            for i = 1, 5 do
                local memc, err = open(port)
                if memc then
                    local ok
                    ok, err = memc:set("k", 1)
                    -- it does not get into a pool
                    if memc:set_keepalive() then err = "kept" end
                end
                kinds[tostring(err)] = true
            end
            for i = 1, #others do others[i]:close() end
            local texts = {}
            for text in pairs(kinds) do texts[#texts + 1] = text end
            table.sort(texts)
            ngx.print(#others > 5 and "full" or #others, ": ", table.concat(texts, ", "))
        }
    }
    location = /after {
        content_by_lua_block {
            local port = ngx.var.arg_slow and slow or few
            local right = 0
            for try = 1, 100 do
                local memc = open(port)
                if memc and memc:set("x", 1) then
                    right = right + 1
                    memc:close()
                else
                    ngx.sleep(0.05)
                end
                if right == 10 then break end
            end
            ngx.print(right)
        }
    }
    location = /works { content_by_lua_block { ngx.print(kit.in_step(kit.connect())) } }
};

my $nginx = LiveNginx->start(
    main   => "worker_processes 1; worker_rlimit_nofile 100;\n",
    http   => $http,
    server => $server
);
is( $nginx->get('/works'), 'yes', 'it works' );
my ($worker) = $nginx->workers;
for my $round ( 1 .. 3 ) {
    is( $nginx->get('/connect'), 'nil, "too many open files" yes', "round $round: no descriptor" );
    is( $nginx->get('/last'), 'yes yes nil, "too many open files"', "round $round: two are left" );
    is( $nginx->get('/open'), '"v", 1, 1', "round $round: what is open needs none" );
    is( $nginx->get('/lost'), '"closed", "closed"', "round $round: a connection is lost" );
    is( $nginx->get('/resolve'), 'an error', "round $round: a name" );
    is( $nginx->get('/works'), 'yes', "round $round: and it works" );
}
my $refusal = qr/ERROR Too many open connections|bad reply: unsolicited data|closed|connection reset by peer|broken pipe/;
like( $nginx->get('/full') // 'no answer', qr/\Afull: (?:$refusal)(?:, (?:$refusal))*\z/, 'a server that takes no more' );
is( $nginx->get('/after'), 10, 'it does so no more' );
is( $nginx->get('/full?slow=1'), 'full: timeout', 'one that leaves them waiting' );
is( $nginx->get('/after?slow=1'), 10, 'it does so no more' );
is( $nginx->get('/works'), 'yes', 'and it works' );
is_deeply( [ $nginx->workers ], [$worker], 'by the same worker' );
is_deeply( [ grep { !/\(24: Too many open files\)/ } $nginx->log_lines(qw( error crit alert emerg )) ],
    [], 'nothing else in the log' );
ok( $nginx->quit, 'ends' );
done_testing();
