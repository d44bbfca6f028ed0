use lib 't/lib';
use TestEnv memcached => 0;
use Test::Nginx::Socket::Lua;

# Faults as in faults.t and faults_replies.t, met by clients, and by objects of groups.

use FaultServer;

our $Slots      = 40;
our $Port       = FaultServer::start($Slots);
our $HttpConfig = TestEnv::head(
    skip  => 'the reference has neither',
    tests => 5,
    # a server that fails is not left out
    http => join( "\n",
        'lua_socket_log_errors off;',
        map {"upstream slot$_ { lua_memcached_hash ketama; server 127.0.9.$_:$Port max_fails=0; }"} 1 .. $Slots ),
    init => qq{
        faults, cases, ways = require "faultkit", require "faultcases", require "faultways"
        faults.port, faults.slots = $Port, $Slots
        cases.others = 1
    },
);

log_level('notice');
worker_connections(2048);
timeout(300);
run_tests();

__DATA__

=== TEST 1: closed at every byte of every reply
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block { ways.run("close", cases.at_every_offset("close")) }
    }
--- request
GET /t
--- response_body
close, private client: 1753 cases, 0 failed
close, private client of a group: 1632 cases, 0 failed
close, private object of a group: 1738 cases, 0 failed
close, shared client: 1632 cases, 0 failed
close, shared client of a group: 1632 cases, 0 failed
close, shared object of a group: 1738 cases, 0 failed
--- no_error_log
[alert]
[crit]
[emerg]



=== TEST 2: another byte, at every byte of every reply
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block { ways.run("change", cases.at_every_offset("change")) }
    }
--- request
GET /t
--- response_body
change, private client: 1596 cases, 0 failed
change, private client of a group: 1488 cases, 0 failed
change, private object of a group: 1587 cases, 0 failed
change, shared client: 1488 cases, 0 failed
change, shared client of a group: 1488 cases, 0 failed
change, shared object of a group: 1587 cases, 0 failed
--- no_error_log
[alert]
[crit]
[emerg]



=== TEST 3: every reply to every command
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block { ways.run("crossed", cases.crossed()) }
    }
--- request
GET /t
--- response_body
crossed, private client: 4233 cases, 0 failed
crossed, private client of a group: 3876 cases, 0 failed
crossed, private object of a group: 3978 cases, 0 failed
crossed, shared client: 3876 cases, 0 failed
crossed, shared client of a group: 3876 cases, 0 failed
crossed, shared object of a group: 3978 cases, 0 failed
--- no_error_log
[alert]
[crit]
[emerg]
