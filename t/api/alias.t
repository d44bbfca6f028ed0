use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# What `lua_memcached_alias` registers is no behaviour of the reference.
plan tests => 18;

our $HttpConfig = TestEnv::http_config();

run_tests();

__DATA__

=== TEST 1: the same module under further names, in every place and VM
--- http_config eval
$::HttpConfig . q{
    lua_memcached_alias nginx.memcached;
    lua_memcached_alias my.cache;
    init_by_lua_block {
        early = require "nginx.memcached"
    }
}
--- config
    location = /t {
        content_by_lua_block {
            local memcached = require "nginx.memcached"
            ngx.say(memcached == require "resty.memcached", " ", memcached == require "my.cache",
                " ", memcached == early)
            local memc = memcached:new()
            ngx.say(memc:connect("127.0.0.1", $TEST_NGINX_MEMCACHED_PORT))
            ngx.say(memc:set("alias", "value"), " ", (memc:get("alias")))
            ngx.say(memc:set_keepalive())
        }
    }
--- request
GET /t
--- response_body
true true true
1
1 value
1
--- no_error_log
[error]



=== TEST 2: a VM for every request
--- http_config eval
$::HttpConfig . q{
    lua_code_cache off;
    lua_memcached_alias my.cache;
}
--- config
    location = /t {
        content_by_lua_block {
            ngx.say(require "my.cache" == require "resty.memcached", " ",
                require "my.cache"._VERSION)
        }
    }
--- request
GET /t
--- response_body
true 0.17



=== TEST 3: no alias unless asked for
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            ngx.say(package.preload["nginx.memcached"] == nil)
        }
    }
--- request
GET /t
--- response_body
true
--- no_error_log
[error]



=== TEST 4: an alias given twice
--- http_config eval
$::HttpConfig . q{
    lua_memcached_alias my.cache;
    lua_memcached_alias my.cache;
}
--- config
--- must_die
--- error_log
"lua_memcached_alias" directive is duplicate



=== TEST 5: the module's own name
--- http_config eval
$::HttpConfig . q{
    lua_memcached_alias resty.memcached;
}
--- config
--- must_die
--- error_log
"lua_memcached_alias" directive is duplicate



=== TEST 6: the name of the module's other module
--- http_config eval
$::HttpConfig . q{
    lua_memcached_alias resty.memcached.status;
}
--- config
--- must_die
--- error_log
"lua_memcached_alias" directive is duplicate: this name is there without an alias



=== TEST 7: no name of a module
--- http_config eval
$::HttpConfig . q{
    lua_memcached_alias "nginx.memcached ";
}
--- config
--- must_die
--- error_log
"lua_memcached_alias" directive needs the name of a Lua module, without spaces and control characters



=== TEST 8: no name at all
--- http_config eval
$::HttpConfig . q{
    lua_memcached_alias "";
}
--- config
--- must_die
--- error_log
"lua_memcached_alias" directive needs the name of a Lua module
