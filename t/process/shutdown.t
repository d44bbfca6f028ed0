use strict;
use warnings;
use lib 't/lib';

use Test::More;
use Time::HiRes qw( sleep );

use TestEnv;
use LiveNginx;

# worker_shutdown_timeout: nginx has all connections closed then. Requests end with theirs, but
# timers have none: what they wait for is over, however far it has got.

my $http = TestEnv::http_config() . qq{
    lua_socket_log_errors off;
    init_by_lua_block {
        @{[ TestEnv::lua_kit() ]}
        -- the kernel answers there, and nobody else
        silent = function() return kit.listen().port end
        local function new()
            local memc = kit.new()
            memc:set_timeout(60000)
            return memc
        end
        local function connected(port, opts)
            local memc = new()
            assert(memc:connect("127.0.0.1", port or kit.port, opts))
            return memc
        end
        ops = {
            get = function() return connected(silent()):get("x") end,
            multi = function() return connected(silent()):get{ "x", "y" } end,
            pipeline = function()
                local memc = connected(silent())
                memc:init_pipeline()
                memc:get("x")
                memc:set("y", 1)
                return memc:commit_pipeline()
            end,
            receive = function() return connected(silent()).sock:receive() end,
            -- more than a socket takes
            set = function()
                return connected(silent()):set("x", ("x"):rep(2e7))
            end,
            send = function()
                return connected(silent()).sock:send(("x"):rep(2e7))
            end,
            -- nobody answers to the SYN
            connect = function()
                local full = kit.listen{ backlog = 0 }
                for i = 1, 3 do full:knock() end
                return new():connect("127.0.0.1", full.port)
            end,
            queued = function()
                local held = connected(silent(), { pool = "one", pool_size = 1, backlog = 1 })
                ngx.thread.spawn(function() held:get("x") end)
                local ok, err = new():connect("127.0.0.1", kit.port, { pool = "one" })
                return nil, err or ok and "closed"
            end,
        }
    }
};
my $server = q{
    location = /ops {
        content_by_lua_block {
            local names = {}
            for name in pairs(ops) do names[#names + 1] = name end
            table.sort(names)
            ngx.print(table.concat(names, " "))
        }
    }
    # in a timer
    location = /start {
        content_by_lua_block {
            local name = ngx.var.arg_op
            ngx.timer.at(0, function()
                local said = { pcall(ops[name]) }
                ngx.log(ngx.NOTICE, "TOLD ", name, ": ", kit.vals(unpack(said, 1, table.maxn(said))))
            end)
            ngx.print("started")
        }
    }
    # in a request
    location = /run { content_by_lua_block { ngx.print(kit.vals(ops[ngx.var.arg_op]())) } }
    location = /idle { content_by_lua_block { ngx.print((kit.connect():set_keepalive(0))) } }
};

my $nginx = LiveNginx->start(
    main   => "worker_processes 1;\nworker_shutdown_timeout 300ms;\n",
    http   => $http,
    server => $server,
);

for my $op ( split ' ', $nginx->get('/ops') ) {
    my ($old) = $nginx->workers;
    is( $nginx->get('/idle'), 1, "$op: an idle connection" );
    is( $nginx->get("/start?op=$op"), 'started', "$op: a timer" );
    my $client = IO::Socket::INET->new( PeerAddr => '127.0.0.1:' . $nginx->port );
    print {$client} "GET /run?op=$op HTTP/1.0\r\n\r\n" if $op ne 'queued';
    sleep 0.3;
    $nginx->signal('HUP');
    my $took = $nginx->wait_for( sub { !grep { $_ == $old } $nginx->workers }, 20 );
    cmp_ok( $took // 99, '<', 20, "$op: the worker goes" );
    my ($said) = $nginx->log =~ /TOLD $op: (.*?), context/;
    like( $said, qr/\Atrue, .*"closed"/, "$op: the timer is told" );
}
ok( $nginx->quit(20), 'ends' );
is_deeply( [ $nginx->log_lines(qw( crit alert emerg )) ], [], 'nothing bad in the log' );
done_testing();
