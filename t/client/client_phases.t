use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# Where a client can be made and used.
our $HttpConfig = TestEnv::head(
    skip => 'the reference has no clients',
    init => q{
        memc = require("resty.memcached.client").new{ server = "127.0.0.1:" .. kit.port, timeouts = 5000 }
        said = { init = select(2, pcall(memc.get, memc, "k")) }
    },
    http => q{
        init_worker_by_lua_block {
            said.init_worker = select(2, pcall(memc.get, memc, "k"))
            ngx.timer.at(0, function() timer = memc:set("timer", "from a timer") end)
        }
    },
);

run_tests();

__DATA__

=== TEST 1: phases that wait
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        rewrite_by_lua_block { memc:set("k", "rewrite") }
        access_by_lua_block { memc:append("k", " access") }
        content_by_lua_block {
            kit.show("content", memc:get("k"))
            kit.show("timer", kit.eventually(function() return timer == 1 end), memc:get("timer"))
            kit.show("subrequest", ngx.location.capture("/sub").body)
        }
    }
    location = /sub {
        content_by_lua_block { ngx.print((memc:get("k"))) }
    }
--- request
GET /t
--- response_body
content: "rewrite access", "0"
timer: true, "from a timer", "0"
subrequest: "rewrite access"
--- no_error_log
[error]



=== TEST 2: phases that cannot
--- http_config eval: $::HttpConfig
--- config
    location = /filters {
        content_by_lua_block { ngx.say("ok") }
        header_filter_by_lua_block { said.header_filter = select(2, pcall(memc.get, memc, "k")) }
        body_filter_by_lua_block { said.body_filter = select(2, pcall(memc.get, memc, "k")) }
        log_by_lua_block {
            for i = 1, 10 do pcall(memc.get, memc, "k") end
            said.log = select(2, pcall(memc.get, memc, "k"))
            said.pipeline = select(2, pcall(memc.pipeline, memc, function(p) p:get("k") end))
        }
    }
    location = /set {
        set_by_lua_block $x { said.set = select(2, pcall(memc.get, memc, "k")) }
        return 204;
    }
    location = /t {
        content_by_lua_block {
            kit.eventually(function() return timer end) -- it uses the client, too
            memc:get("k")
            local objects = memc.spare_count
            kit.http(ngx.var.server_port, "/filters")
            kit.http(ngx.var.server_port, "/set")
            kit.eventually(function() return said.pipeline end)
            for _, phase in ipairs{ "init", "init_worker", "header_filter", "body_filter", "log", "pipeline", "set" } do
                ngx.say(phase, ": ", (tostring(said[phase]):gsub("^[^ ]-:%d+: ", "")))
            end
            kit.show("objects are kept", objects == memc.spare_count)
            kit.show("content", memc:set("k", 1))
            kit.show("a C function", kit.raise_text(table.sort, { 1, 2 }, function() return memc:get("k") end))
            kit.show("content", memc:get("k"))
        }
    }
--- request
GET /t
--- response_body
init: no request found
init_worker: API disabled in the context of init_worker_by_lua*
header_filter: API disabled in the context of header_filter_by_lua*
body_filter: API disabled in the context of body_filter_by_lua*
log: API disabled in the context of log_by_lua*
pipeline: API disabled in the context of log_by_lua*
set: API disabled in the context of set_by_lua*
objects are kept: true
content: 1
a C function: "attempt to yield across C-call boundary"
content: "1", "0"
--- no_error_log
[error]



=== TEST 3: a client in a file that is required, with and without lua_code_cache
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            package.preload["app.cache"] = function()
                local memc = require("resty.memcached.client").new{ server = "127.0.0.1:" .. kit.port }
                return { put = function(k, v) return memc:set(k, v) end, find = function(k) return memc:get(k) end }
            end
            kit.show("put", require("app.cache").put("m", "v"))
            kit.show("find", require("app.cache").find("m"))
            for i = 1, 3 do kit.show("another VM", kit.http(ngx.var.server_port, "/off")) end
        }
    }
    location = /off {
        lua_code_cache off;
        content_by_lua_block {
            local memc = require("resty.memcached.client").new{ server = "127.0.0.1:$TEST_NGINX_MEMCACHED_PORT" }
            ngx.say((memc:get("m")))
        }
    }
--- request
GET /t
--- response_body
put: 1
find: "v", "0"
another VM: "v"
another VM: "v"
another VM: "v"
--- no_error_log
[error]
