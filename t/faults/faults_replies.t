use lib 't/lib';
use TestEnv memcached => 0;
use Test::Nginx::Socket::Lua;

# Replies that are wrong: every byte of every command's reply another one, too many or missing,
# every field, every line end, every reply to every other command. What they have to give says
# t/lib/faultoracle.lua.

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
        cases.others = 4
    },
);

log_level('notice');
worker_connections(2048);
timeout(300);
run_tests();

__DATA__

=== TEST 1: another byte, at every byte of every reply
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            faults.run("change", cases.at_every_offset("change"))
        }
    }
--- request
GET /t
--- response_body
change: 6853 cases, 0 failed
--- no_error_log
[alert]
[crit]
[emerg]



=== TEST 2: one byte more, at every byte of every reply
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            faults.run("insert", cases.at_every_offset("insert"))
        }
    }
--- request
GET /t
--- response_body
insert: 7536 cases, 0 failed
--- no_error_log
[alert]
[crit]
[emerg]



=== TEST 3: one byte less, at every byte of every reply
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            faults.run("omit", cases.at_every_offset("omit"))
        }
    }
--- request
GET /t
--- response_body
omit: 1797 cases, 0 failed
--- no_error_log
[alert]
[crit]
[emerg]



=== TEST 4: junk for the rest, at every byte of every reply
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            faults.run("junk", cases.at_every_offset("junk"))
        }
    }
--- request
GET /t
--- response_body
junk: 1884 cases, 0 failed
--- no_error_log
[alert]
[crit]
[emerg]



=== TEST 5: no end of it, at every byte of every reply
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            faults.run("endless", cases.at_every_offset("endless"))
        }
    }
--- request
GET /t
--- response_body
endless: 1884 cases, 0 failed
--- no_error_log
[alert]
[crit]
[emerg]



=== TEST 6: every field of every VALUE line
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            faults.run("headers", cases.headers())
        }
    }
--- request
GET /t
--- response_body
headers: 594 cases, 0 failed
--- no_error_log
[alert]
[crit]
[emerg]



=== TEST 7: every line end
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            faults.run("line ends", cases.line_ends())
        }
    }
--- request
GET /t
--- response_body
line ends: 760 cases, 0 failed
--- no_error_log
[alert]
[crit]
[emerg]



=== TEST 8: every reply to every command
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            faults.run("crossed", cases.crossed())
        }
    }
--- request
GET /t
--- response_body
crossed: 4437 cases, 0 failed
--- no_error_log
[alert]
[crit]
[emerg]



=== TEST 9: every reply with more behind it
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            faults.run("unsolicited", cases.with_more())
        }
    }
--- request
GET /t
--- response_body
unsolicited: 870 cases, 0 failed
--- no_error_log
[alert]
[crit]
[emerg]



=== TEST 10: every word of meta commands' replies
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            faults.run("words", cases.words())
        }
    }
--- request
GET /t
--- response_body
words: 3786 cases, 0 failed
--- no_error_log
[alert]
[crit]
[emerg]
