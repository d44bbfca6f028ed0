use strict;
use warnings;
use lib 't/lib';

use POSIX ();
use Test::More;

use LiveNginx;
use TestEnv;

# Codecs that wait in a client's call: light threads that are killed in encode and decode, requests
# that end there, and reloads meanwhile. The client works on, and the worker leaves nothing behind.

plan skip_all => 'the reference has no clients' if TestEnv::reference_lib();

my $port  = TestEnv::memcached_port();
my $other = TestEnv::start_memcached();

my $http = <<"HTTP";
    upstream two { lua_memcached_hash ketama; server 127.0.0.1:$port; server 127.0.0.1:$other; }
    init_by_lua_block {
        @{[ TestEnv::lua_kit() ]}
        kit = require "testkit"
        -- how many wait in a codec
        inside = 0
        local function wait()
            inside = inside + 1
            while not gate do ngx.sleep(0.01) end
            inside = inside - 1
        end
        slow = {
            encode = function(value)
                if value == "slow" then wait() end
                return "<" .. tostring(value) .. ">", 5
            end,
            decode = function(text)
                if text:find("decode") then wait() end
                return text:match("^<(.*)>\$")
            end,
        }
        local new = require("resty.memcached.client").new
        clients = {}
        for _, server in ipairs{ "127.0.0.1:$port", "two" } do
            for _, multiplex in ipairs{ false, 2 } do
                clients[#clients + 1] = new{ server = server, multiplex = multiplex, codec = slow, timeouts = 2000 }
            end
        end
        -- those that wait in encode, and those that wait in decode
        calls = {
            function(m, key) return m:set(key, "slow") end,
            function(m, key) return m:meta_set(key, "slow") end,
            function(m, key) return m:pipeline(function(p) p:set(key, "slow") p:gat(key, 60) end) end,
            function(m) return m:get("decode") end,
            function(m) return m:gat("decode", 60) end,
            function(m) return m:meta_get("decode", { ttl = false }) end,
            function(m) return m:get{ "decode", "none" } end,
            function(m) return m:pipeline(function(p) p:meta_get("decode") p:gats("decode", 60) end) end,
        }
        function spawn()
            inside = 0
            local threads = {}
            for i, m in ipairs(clients) do
                assert(m:set("decode", "decode"))
                for j, call in ipairs(calls) do
                    threads[#threads + 1] = ngx.thread.spawn(function()
                        return kit.vals(call(m, "key" .. i .. "-" .. j))
                    end)
                end
            end
            kit.eventually(function() return inside == #threads end)
            return threads
        end
        -- what goes on of the calls that wait; says what each has returned that is not as it should be
        wanted = {
            '1', '{}, nil', '{{1}, {"slow", "5"}}, nil', '"decode", "5"', '"decode", "5"', '{value="decode"}, nil',
            '{decode={"decode", "5"}}, nil', nil,
        }
        function outcome(threads, killed)
            local n = 0
            for i, thread in ipairs(threads) do
                if not killed[i] then
                    local ok, got = ngx.thread.wait(thread)
                    local j = (i - 1) % #calls + 1
                    local want = wanted[j]
                    if j == #calls then got, want = got:gsub('"%d+"}}, nil\$', ""), '{{{value="decode"}}, {"decode", "5", ' end
                    if not ok or got ~= want then ngx.say(i, ": ", tostring(got)) end
                    n = n + 1
                end
            end
            return n
        end
        function works()
            for i, m in ipairs(clients) do
                if m:set("plain", i) ~= 1 or m:get("plain") ~= tostring(i) then ngx.say("client ", i, " does not work") end
            end
        end
    }
HTTP
my $server = <<'SERVER';
    location = /killed {
        content_by_lua_block {
            gate = false
            local threads, killed = spawn(), {}
            for i = 1, #threads, 2 do
                assert(ngx.thread.kill(threads[i]))
                killed[i] = true
            end
            works()
            collectgarbage()
            gate = true
            ngx.say(outcome(threads, killed), " of ", #threads)
            works()
        }
    }
    # ends while all of them wait
    location = /ends {
        content_by_lua_block {
            gate = false
            ngx.say(#spawn())
            ngx.exit(200)
        }
    }
    location = /works { content_by_lua_block { works() ngx.say("done") } }
    location = /ready { content_by_lua_block { ngx.print(tostring(ready)) } }
    # some are killed before the worker exits, some while it does, and the others go on
    location = /reload {
        content_by_lua_block {
            gate = false
            local threads, killed = spawn(), {}
            for i = 1, #threads, 3 do
                assert(ngx.thread.kill(threads[i]))
                killed[i] = true
            end
            ready = true
            if not kit.eventually(ngx.worker.exiting, 10) then ngx.say("no reload") end
            for i = 2, #threads, 3 do
                assert(ngx.thread.kill(threads[i]))
                killed[i] = true
            end
            works()
            gate = true
            ngx.say(outcome(threads, killed), " of ", #threads)
            works()
        }
    }
SERVER

my $nginx = LiveNginx->start( main => "worker_processes 1;\n", http => $http, server => $server );
my $in_worker = sub {
    my ($worker) = $nginx->workers;
    opendir my $dir, "/proc/$worker/fd" or die "fd: $!";
    return scalar grep {/\d/} readdir $dir;
};
is $nginx->get('/killed'), "16 of 32\n", 'killed: the others go on' for 1 .. 3;
is $nginx->get('/ends'),   "32\n",       'the request ends' for 1 .. 3;
is $nginx->get('/works'),  "done\n",     'the clients work on';
my $before = $in_worker->();
for ( 1 .. 20 ) { $nginx->get('/killed'); $nginx->get('/ends') }
is $nginx->get('/works'), "done\n", '... each time';
cmp_ok $in_worker->(), '<=', $before + 8, 'no connection is left behind';

for my $round ( 1 .. 3 ) {
    my ($old) = $nginx->workers;
    my $pid = open( my $answer, '-|' ) // die "fork: $!";
    if ( !$pid ) {
        print $nginx->get('/reload');
        close STDOUT;
        POSIX::_exit(0);
    }
    ok $nginx->wait_for( sub { $nginx->get('/ready') eq 'true' }, 10 ), "reload $round";
    $nginx->signal('HUP');
    is do { local $/; <$answer> }, "10 of 32\n", '... the others go on';
    ok $nginx->wait_for( sub { !grep { $_ == $old } $nginx->workers }, 10 ), '... and the worker goes';
    is $nginx->get('/works'), "done\n", '... and there is another one';
}
is_deeply [ $nginx->log_lines(qw( error crit alert emerg )) ], [], 'nothing bad in the log';
ok $nginx->quit, 'ends';
done_testing();
