use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# lua_memcached_max_value_size: its values, and what 0 means.

my $text = do { local $/; <DATA> };
my $n    = 2;
my @bad  = ( map { [ $_, 'needs a size such as 512k, 1m or 2g, or 0 for no limit' ] }
        '1t', 'x', '-1', '1.5m', '99999999999g', '""' );
for my $case ( @bad, [ '1k; lua_memcached_max_value_size 1k', 'is duplicate' ],
    [ '', 'invalid number of arguments in "lua_memcached_max_value_size" directive' ] )
{
    $n++;
    $text .= <<"BLOCK";

=== TEST $n: bad value: $case->[0]
--- http_config eval: \$::HttpConfig
--- config
    lua_memcached_max_value_size $case->[0];
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
    skip => 'a directive of this module',
    init => q{
        -- what became of a value of so many bytes
        function value_of(size)
            local srv = kit.fake(function(c)
                c:line()
                c:send("VALUE k 0 " .. size .. "\r\n" .. ("v"):rep(size) .. "\r\nEND\r\n")
                c:drain(0.5)
            end)
            local m = kit.connect(srv.port)
            local value, _, err = m:get("k")
            srv:close()
            return value and #value or err
        end
    },
);

run_tests();

__DATA__

=== TEST 1: 0 is no limit, also for what inherits it, and g is a size
--- http_config eval: $::HttpConfig . "lua_memcached_max_value_size 0;"
--- config
    location = /t {
        content_by_lua_block {
            local port = $TEST_NGINX_SERVER_PORT
            for _, path in ipairs{ "/inherits", "/two", "/giga", "/zero" } do
                kit.show(path, kit.http(port, path))
            end
        }
    }
    location = /inherits { content_by_lua_block { ngx.print(value_of(200 * 1000)) } }
    location = /two {
        lua_memcached_max_value_size 2k;
        content_by_lua_block { ngx.print(value_of(2048), " ", value_of(2049)) }
        }
    location = /giga {
        lua_memcached_max_value_size 1g;
        content_by_lua_block { ngx.print(value_of(200 * 1000)) }
    }
    location /deep/ {
        lua_memcached_max_value_size 1;
        location = /deep/zero {
            lua_memcached_max_value_size 0;
            content_by_lua_block { ngx.print(value_of(2)) }
        }
    }
    location = /zero { content_by_lua_block { ngx.print(kit.http($TEST_NGINX_SERVER_PORT, "/deep/zero")) } }
--- request
GET /t
--- response_body
/inherits: "200000"
/two: "2048 bad reply: value of 2049 bytes exceeds the limit of 2048"
/giga: "200000"
/zero: "2"
--- no_error_log
[error]



=== TEST 2: without a limit, a length that nobody has memory for is an error
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        lua_memcached_max_value_size 0;
        content_by_lua_block {
            for _, size in ipairs{ "9223372036854775807", "18446744073709551615", "18446744073709551616" } do
                local srv = kit.fake(function(c)
                    c:line()
                    c:send("VALUE k 0 " .. size .. "\r\n")
                    c:drain(0.5)
                end)
                local m = kit.connect(srv.port)
                kit.show("get", m:get("k"))
                srv:close()
            end
            kit.show("next", kit.in_step(kit.connect()))
        }
    }
--- request
GET /t
--- response_body
get: nil, nil, "no memory for the reply"
get: nil, nil, "no memory for the reply"
get: nil, nil, "bad reply: value length out of range"
next: "yes"
--- no_error_log
[error]



