use lib 't/lib';
use TestEnv;
use DnsServer;
use Test::Nginx::Socket::Lua;

# lua_memcached_queue, and names of servers, which the resolver of the http block looks up.

$ENV{TEST_NGINX_DNS_PORT} = DnsServer::start();

my @bad = (
    [ 'on',               'takes only the parameters "max_operations", "max_size" and "timeout"' ],
    [ 'max_operations=0', 'needs a positive number of operations in "max_operations"' ],
    [ 'max_operations=x', 'needs a positive number of operations in "max_operations"' ],
    [ 'max_size=0',       'needs a positive size in "max_size"' ],
    [ 'max_size=1q',      'needs a positive size in "max_size"' ],
    [ 'timeout=0',        'needs a positive time in "timeout"' ],
    [ 'timeout=1x',       'needs a positive time in "timeout"' ],
    [ 'timeout=1s timeout=2s', 'takes each parameter only once' ],
    [ 'timeout=1s; lua_memcached_queue timeout=1s', 'is duplicate' ],
    [ '',                 'invalid number of arguments in "lua_memcached_queue" directive' ],
);

my $text = do { local $/; <DATA> };
my $n    = 2;
for my $case (@bad) {
    $n++;
    $text .= <<"BLOCK";

=== TEST $n: bad arguments: $case->[0]
--- http_config eval: \$::HttpConfig
--- config
    lua_memcached_queue $case->[0];
    location = /t { return 204; }
--- must_die
--- error_log
$case->[1]
--- no_error_log
[alert]
--- suppress_stderr



BLOCK
}
Test::Base::spec_string($text);

our $HttpConfig = TestEnv::head(
    skip => 'the library has no queue',
    init => qq{ require("dnskit").port = $ENV{TEST_NGINX_DNS_PORT} },
);

run_tests();

__DATA__

=== TEST 1: a name is looked up, and again for each connection
--- http_config eval
$::HttpConfig . "resolver 127.0.0.1:$ENV{TEST_NGINX_DNS_PORT} ipv6=off;\n"
--- config
    location = /t {
        content_by_lua_block {
            local queue = require "resty.memcached.queue"
            local q = queue.new("q1.one.test", kit.port, { timeout = 5000 })
            for i = 1, 10 do assert(q:set("name", i)) end
            kit.show("drained", kit.eventually(function() return q:pending() == 0 end))
            kit.show("seen", (kit.connect():get("name")))
            assert(q:set("name", 11))
            kit.show("drained", kit.eventually(function() return q:pending() == 0 end))
            kit.show("asked", kit.asked("q1.one.test"))
            kit.show("counts", q:counts())
        }
    }
--- request
GET /t
--- response_body
drained: true
seen: "10"
drained: true
asked: 1
counts: {done=11, dropped=0, full=0, lost=0, refused=0, taken=11, unmet=0}
--- no_error_log
[error]



=== TEST 2: a name that is not there
--- http_config eval
$::HttpConfig . "resolver 127.0.0.1:$ENV{TEST_NGINX_DNS_PORT} ipv6=off;\n"
--- config
    location = /t {
        content_by_lua_block {
            local queue = require "resty.memcached.queue"
            local q = queue.new("nxdomain.test", kit.port, { timeout = 300 })
            assert(q:set("name", 1))
            kit.show("drained", kit.eventually(function() return q:pending() == 0 end))
            kit.show("counts", q:counts())
        }
    }
--- request
GET /t
--- response_body
drained: true
counts: {done=0, dropped=1, full=0, lost=0, refused=0, taken=1, unmet=0}
--- error_log
nxdomain.test could not be resolved (3: Host not found)



