use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# Where sharing is switched on, and for whom.

my @bad = (
    [ '0',                  'needs "off" or a number of connections from 1 to 64' ],
    [ '65',                 'needs "off" or a number of connections from 1 to 64' ],
    [ '-1',                 'needs "off" or a number of connections from 1 to 64' ],
    [ 'on',                 'needs "off" or a number of connections from 1 to 64' ],
    [ '2x',                 'needs "off" or a number of connections from 1 to 64' ],
    [ 'max_operations=5',   'needs "off" or a number of connections from 1 to 64' ],
    [ 'off max_size=1m',    '"off" takes no parameters' ],
    [ '2 max_operations=0', 'needs a positive number of operations in "max_operations"' ],
    [ '2 max_operations=x', 'needs a positive number of operations in "max_operations"' ],
    [ '2 max_size=0',       'needs a positive size in "max_size"' ],
    [ '2 max_size=1q',      'needs a positive size in "max_size"' ],
    [ '2 max_size=1m max_size=2m', 'takes each parameter only once' ],
    [ '2 max_operations=1 max_operations=1', 'takes each parameter only once' ],
    [ '2 more=1',           'takes only the parameters "max_operations" and "max_size"' ],
    [ '2; lua_memcached_multiplex off', 'is duplicate' ],
    [ '',                   'invalid number of arguments in "lua_memcached_multiplex" directive' ],
);

# The directive with each of the bad arguments.
my $text = do { local $/; <DATA> };
my $n    = 5;
for my $case (@bad) {
    $n++;
    $text .= <<"BLOCK";

=== TEST $n: bad arguments: $case->[0]
--- http_config eval: \$::HttpConfig
--- config
    lua_memcached_multiplex $case->[0];
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
    multiplex => 0,
    init      => q{
        -- How many connections two sessions at once make; with_options[i] is what
        -- the i-th one is made with.
        function sharing(with_options)
            local srv = mux.server()
            local memcs = {}
            for i = 1, 2 do
                memcs[i] = kit.connect(srv.port, nil, with_options and with_options[i])
                assert(memcs[i]:get("k"):lower() == "k")
            end
            srv:close()
            return srv.accepted == 1 and "shared" or "private"
        end
    },
);

run_tests();

__DATA__

=== TEST 1: http, server, location
--- private: says so itself
--- http_config eval
"$::HttpConfig lua_memcached_multiplex 2 max_operations=100 max_size=1m;"
--- config
    location = /http { content_by_lua_block { ngx.print(sharing()) } }
    location /off {
        lua_memcached_multiplex off;
        content_by_lua_block { ngx.print(sharing()) }
        location = /off/inherited { content_by_lua_block { ngx.print(sharing()) } }
        location = /off/on {
            lua_memcached_multiplex 1;
            content_by_lua_block { ngx.print(sharing()) }
        }
    }
    location = /t {
        content_by_lua_block {
            for _, path in ipairs{ "/http", "/off", "/off/inherited", "/off/on" } do
                kit.show(path, kit.http($TEST_NGINX_SERVER_PORT, path))
            end
        }
    }
--- request
GET /t
--- response_body
/http: "shared"
/off: "private"
/off/inherited: "private"
/off/on: "shared"
--- no_error_log
[error]



=== TEST 2: off unless asked for
--- private: says so itself
--- http_config eval: $::HttpConfig
--- config
    location = /default { content_by_lua_block { ngx.print(sharing()) } }
    location = /on {
        lua_memcached_multiplex 64;
        content_by_lua_block { ngx.print(sharing()) }
    }
    location = /t {
        content_by_lua_block {
            for _, path in ipairs{ "/default", "/on" } do
                kit.show(path, kit.http($TEST_NGINX_SERVER_PORT, path))
            end
        }
    }
--- request
GET /t
--- response_body
/default: "private"
/on: "shared"
--- no_error_log
[error]



=== TEST 3: the option of an object goes before the directive
--- private: says so itself
--- http_config eval: $::HttpConfig
--- config
    location = /on {
        lua_memcached_multiplex 2;
        content_by_lua_block {
            ngx.print(sharing{ { multiplex = false }, { multiplex = false } }, " ",
                sharing{ { multiplex = false }, {} }, " ", sharing{ {}, { multiplex = 1 } }, " ",
                sharing{ { multiplex = nil }, {} })
        }
    }
    location = /t {
        content_by_lua_block {
            kit.show("off", sharing{ { multiplex = 1 }, { multiplex = 1 } })
            kit.show("off", sharing{ { multiplex = 1 }, {} })
            kit.show("off", sharing{ { multiplex = 64 }, { multiplex = 2 } })
            kit.show("on", kit.http($TEST_NGINX_SERVER_PORT, "/on"))
            local transform = { key_transform = { string.upper, string.lower }, multiplex = 2 }
            kit.show("with other options", sharing{ transform, transform } )
        }
    }
--- request
GET /t
--- response_body
off: "shared"
off: "private"
off: "shared"
on: "private private shared shared"
with other options: "shared"
--- no_error_log
[error]



=== TEST 4: bad values of the option
--- private: says so itself
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local memcached = require "resty.memcached"
            for _, value in ipairs{ 0, -1, 65, 1.5, 0/0, 1/0, true, "2", {} } do
                local m, err = memcached:new{ multiplex = value }
                kit.show(type(value), m, err)
            end
            for _, value in ipairs{ 1, 64, 2.0 } do
                kit.show(value, type((memcached:new{ multiplex = value })))
            end
            kit.show("false", type((memcached:new{ multiplex = false })))
        }
    }
--- request
GET /t
--- response_body
number: nil, "bad multiplex option: expecting false or an integer from 1 to 64"
number: nil, "bad multiplex option: expecting false or an integer from 1 to 64"
number: nil, "bad multiplex option: expecting false or an integer from 1 to 64"
number: nil, "bad multiplex option: expecting false or an integer from 1 to 64"
number: nil, "bad multiplex option: expecting false or an integer from 1 to 64"
number: nil, "bad multiplex option: expecting false or an integer from 1 to 64"
boolean: nil, "bad multiplex option: expecting false or an integer from 1 to 64"
string: nil, "bad multiplex option: expecting false or an integer from 1 to 64"
table: nil, "bad multiplex option: expecting false or an integer from 1 to 64"
1: "table"
64: "table"
2: "table"
false: "table"
--- no_error_log
[error]



=== TEST 5: the number, the bounds and the size limit are those of who asks
--- private: says so itself
--- http_config eval: $::HttpConfig
--- config
    location = /small {
        lua_memcached_multiplex 1;
        lua_memcached_max_value_size 100;
        content_by_lua_block {
            local m = kit.connect()
            local _, _, err = m:get("conf_big")
            ngx.print(err)
        }
    }
    location = /large {
        lua_memcached_multiplex 1;
        content_by_lua_block {
            local m = kit.connect()
            ngx.print(#m:get("conf_big"))
        }
    }
    location = /t {
        content_by_lua_block {
            kit.connect():set("conf_big", ("v"):rep(200))
            for _, path in ipairs{ "/small", "/large", "/small", "/large" } do
                kit.show(path, kit.http($TEST_NGINX_SERVER_PORT, path))
            end
        }
    }
--- request
GET /t
--- response_body
/small: "bad reply: value of 200 bytes exceeds the limit of 100"
/large: "200"
/small: "bad reply: value of 200 bytes exceeds the limit of 100"
/large: "200"
--- no_error_log
[error]
