use strict;
use warnings;
use lib 't/lib';

use File::Temp ();
use IO::Socket::INET;
use Test::More;

use TestEnv;
use LiveNginx;

# Each command of a background queue in each phase, and where no event loop runs.

plan skip_all => 'the library has no queue' if TestEnv::reference_lib();

my $certs = File::Temp->newdir( 'tlsXXXXXX', TMPDIR => 1 );
chmod 0755, "$certs";
system( "openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=server.test "
        . "-keyout $certs/key.pem -out $certs/cert.pem >$certs/log 2>&1" ) == 0
    or die 'openssl makes no certificate';
chmod 0644, "$certs/key.pem";
my $tls = TestEnv::free_port();

my $http = qq{
    lua_shared_dict said 1m;
    init_by_lua_block {
        @{[ TestEnv::lua_kit() ]}
        local queue = require "resty.memcached.queue"
        shared_queue = assert(queue.new("127.0.0.1", kit.port))
        in_init = kit.vals(shared_queue:set("init", 1))
        in_init = in_init .. " " .. kit.vals(shared_queue:delete("init")) .. " "
            .. kit.vals(shared_queue:pending())

        -- every command, and whether it was taken
        function everything(phase, q)
            q = q or shared_queue
            local results = {}
            local function result(...)
                results[#results + 1] = kit.vals(...)
            end
            local function key(name) return phase .. ":" .. name end
            result(q:set(key "set", "value", 0, 7))
            result(q:add(key "add", { "v", { 1, 2 } }, 100))
            result(q:set(key "replaced", "old"))
            result(q:replace(key "replaced", "new"))
            result(q:set(key "joined", "m"))
            result(q:append(key "joined", "z"))
            result(q:prepend(key "joined", "a"))
            result(q:set(key "deleted", "there"))
            result(q:delete(key "deleted"))
            result(q:set(key "number", 5))
            result(q:incr(key "number", 7))
            result(q:decr(key "number", 2))
            result(q:set(key "touched", "short", 0))
            result(q:touch(key "touched", 1000))
            ngx.shared.said:set(phase, table.concat(results, " "))
        end

        function seen(phase)
            local memc = kit.new()
            if phase == "unix" then memc:connect(kit.unix) else memc:connect("127.0.0.1", kit.port) end
            local function get(name)
                local value, flags = memc:get(phase .. ":" .. name)
                return tostring(value) .. (flags and flags ~= "0" and "/" .. flags or "")
            end
            local all = {}
            for i, name in ipairs{ "set", "add", "replaced", "joined", "deleted", "number", "touched" } do
                all[i] = get(name)
            end
            memc:set_keepalive()
            return table.concat(all, " ")
        end
    }
    init_worker_by_lua_block { everything("init_worker") }
    exit_worker_by_lua_block { everything("exit_worker") }
    ssl_session_store_by_lua_block { everything("ssl_session_store") }
    ssl_session_fetch_by_lua_block { everything("ssl_session_fetch") }
    upstream balanced {
        server 0.0.0.1;
        balancer_by_lua_block {
            everything("balancer")
            require("ngx.balancer").set_current_peer("127.0.0.1", tonumber(ngx.var.server_port))
        }
    }
    server {
        listen 127.0.0.1:$tls ssl;
        ssl_certificate $certs/cert.pem;
        ssl_certificate_key $certs/key.pem;
        ssl_protocols TLSv1.2;
        ssl_session_tickets off;
        ssl_session_cache shared:sessions:1m;
        ssl_certificate_by_lua_block { everything("ssl_certificate") }
        ssl_client_hello_by_lua_block { everything("ssl_client_hello") }
        location / { return 200 "tls"; }
    }
};
my $server = qq{
    location = /init { content_by_lua_block { ngx.print(in_init) } }
    location = /phases {
        set_by_lua_block \$x { everything("set") return 1 }
        rewrite_by_lua_block { everything("rewrite") }
        access_by_lua_block { everything("access") }
        content_by_lua_block { everything("content") ngx.print("body") }
        header_filter_by_lua_block { everything("header_filter") }
        body_filter_by_lua_block { if ngx.arg[2] then everything("body_filter") end }
        log_by_lua_block { everything("log") }
    }
    location = /plain { return 200 "plain"; }
    location = /balancer { proxy_pass http://balanced/plain; }
    location = /timer {
        content_by_lua_block {
            ngx.timer.at(0, function() everything("timer") end)
            ngx.print("started")
        }
    }
    location = /thread {
        content_by_lua_block {
            ngx.thread.wait(ngx.thread.spawn(function()
                coroutine.wrap(function() everything("thread") end)()
            end))
            ngx.print("done")
        }
    }
    location = /subrequest {
        content_by_lua_block {
            ngx.print(ngx.location.capture("/in_subrequest").body)
        }
    }
    location = /in_subrequest {
        internal;
        content_by_lua_block { ngx.print("sub") }
        header_filter_by_lua_block { everything("subrequest") }
    }
    # one made in the log phase, by a request that ends with it
    location = /new {
        return 204;
        log_by_lua_block {
            everything("new", require("resty.memcached.queue").new("127.0.0.1", kit.port))
        }
    }
    location = /unix {
        return 204;
        log_by_lua_block {
            everything("unix", require("resty.memcached.queue").new(kit.unix, { timeout = 500 }))
        }
    }
    location = /handshake {
        content_by_lua_block {
            local sock = ngx.socket.tcp()
            sock:settimeout(5000)
            assert(sock:connect("127.0.0.1", $tls))
            local session = assert(sock:sslhandshake(nil, "server.test", false))
            sock:send("GET / HTTP/1.0\\r\\n\\r\\n")
            sock:receive("*a")
            sock:close()
            sock = ngx.socket.tcp()
            assert(sock:connect("127.0.0.1", $tls))
            sock:sslhandshake(session, "server.test", false)
            sock:close()
            ngx.print("done")
        }
    }
    location = /said { content_by_lua_block { ngx.print((ngx.shared.said:get(ngx.var.arg_phase))) } }
    location = /seen { content_by_lua_block { ngx.print(seen(ngx.var.arg_phase)) } }
    location = /counts {
        content_by_lua_block {
            kit.eventually(function() return shared_queue:pending() == 0 end)
            ngx.print(kit.vals(shared_queue:counts()), " ", kit.vals(shared_queue:pending()))
        }
    }
};

my $nginx = LiveNginx->start( http => $http, server => $server );

like(
    $nginx->get('/init'),
    qr/\Anil, "no event loop: a queue takes writes in worker processes only" nil, "no event loop: .*" 0, 0\z/,
    'init_by_lua: an object can be made, and takes no writes'
);
$nginx->get($_) for qw( /phases /balancer /timer /thread /subrequest /new /unix /handshake );

my $ok   = join ' ', (1) x 14;
my $seen = 'value/7 v12 new amz nil 10 short';
my @phases = qw( init_worker set rewrite access content header_filter body_filter log balancer timer
    thread subrequest new unix ssl_certificate ssl_client_hello ssl_session_store ssl_session_fetch );
for my $phase (@phases) {
    $nginx->wait_for( sub { $nginx->get("/said?phase=$phase") ne 'nil' } );
    is( $nginx->get("/said?phase=$phase"), $ok, "$phase: all commands are taken" );
    $nginx->wait_for( sub { $nginx->get("/seen?phase=$phase") eq $seen } );
    is( $nginx->get("/seen?phase=$phase"), $seen, "$phase: and were executed" );
}

# All objects of a server have one queue in a worker.
my ( $done, $taken, $unmet )
    = $nginx->get('/counts') =~ /\A\{done=(\d+), dropped=0, full=0, lost=0, refused=0, taken=(\d+), unmet=(\d+)\} 0, 0\z/;
cmp_ok( $taken // 0, '>=', 14 * ( @phases - 1 ), 'each of them is counted' );
is( $taken, $done + $unmet, 'and is over' );

# At the end of a worker, what can be sent at once is sent.
my ($old) = $nginx->workers;
$nginx->signal('HUP');
ok( $nginx->wait_for( sub { !grep { $_ == $old } $nginx->workers }, 20 ), 'the worker goes' );
is( $nginx->get('/said?phase=exit_worker'), $ok, 'exit_worker: all commands are taken' );

ok( $nginx->quit(20), 'ends' );
my @logged = grep { !/lua memcached queue: dropped: \d+ writes: the worker ends/ }
    $nginx->log_lines(qw( error crit alert emerg ));
is_deeply( \@logged, [], 'nothing bad in the log' );
done_testing();
