use lib 't/lib';
use TestEnv memcached => 0;
use Test::Nginx::Socket::Lua;

# Connections that fail: split, cut, reset or stalled at every byte of every command's reply. Over
# private connections and, with TEST_NGINX_MULTIPLEX, over shared ones with others on them.

use FaultServer;

our $Slots      = 48;
our $Port       = FaultServer::start($Slots);
our $HttpConfig = TestEnv::head(
    tests => 5,
    http  => 'lua_socket_log_errors off;',
    init  => qq{
        faults = require "faultkit"
        cases = require "faultcases"
        faults.port, faults.slots = $Port, $Slots
        faults.shared = "@{[ $ENV{TEST_NGINX_MULTIPLEX} // '' ]}" ~= ""
    },
);

log_level('notice');
worker_connections(2048);
timeout(300);
run_tests();

__DATA__

=== TEST 1: intact replies, whole and a byte at a time
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            faults.run("whole", cases.intact("send"))
            faults.run("bytewise", cases.intact("drip"))
        }
    }
--- request
GET /t
--- response_body
whole: 87 cases, 0 failed
bytewise: 86 cases, 0 failed
--- no_error_log
[alert]
[crit]
[emerg]



=== TEST 2: in two parts, at every byte of every reply
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            faults.run("split", cases.at_every_offset("split"))
        }
    }
--- request
GET /t
--- response_body
split: 1710 cases, 0 failed
--- no_error_log
[alert]
[crit]
[emerg]



=== TEST 3: closed, at every byte of every reply
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            faults.run("close", cases.at_every_offset("close"))
        }
    }
--- request
GET /t
--- response_body
close: 1884 cases, 0 failed
--- no_error_log
[alert]
[crit]
[emerg]



=== TEST 4: reset, at every byte of every reply
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            faults.run("reset", cases.at_every_offset("reset"))
        }
    }
--- request
GET /t
--- response_body
reset: 1884 cases, 0 failed
--- no_error_log
[alert]
[crit]
[emerg]



=== TEST 5: stalled, at every byte of every reply
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            faults.run("stall", cases.at_every_offset("stall"))
        }
    }
--- request
GET /t
--- response_body
stall: 1797 cases, 0 failed
--- no_error_log
[alert]
[crit]
[emerg]



=== TEST 6: the server restarts, at every byte of every reply
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            faults.run("restart", cases.at_every_offset("restart"))
        }
    }
--- request
GET /t
--- response_body
restart: 1884 cases, 0 failed
--- no_error_log
[alert]
[crit]
[emerg]



=== TEST 7: closed, reset or out of step while it is idle
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            faults.run("late", cases.late())
        }
    }
--- request
GET /t
--- response_body
late: 1044 cases, 0 failed
--- no_error_log
[alert]
[crit]
[emerg]
