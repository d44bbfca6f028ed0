use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

our $HttpConfig = TestEnv::head();

run_tests();

__DATA__

=== TEST 1: meta_get
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local m = kit.fresh()
            kit.show("miss", m:meta_get("k"))
            m:set("k", "value", 100, 7)
            kit.show("value", m:meta_get("k"))
            kit.show("empty options", m:meta_get("k", {}))
            kit.show("nothing", m:meta_get("k", { value = false }))
            local item = m:meta_get("k", { flags = true, cas = true, ttl = true, size = true, hit = true,
                last_access = true })
            local _, _, cas = m:gets("k")
            kit.show("cas", item.cas == cas, type(cas))
            item.cas = nil
            kit.show("all", item)
            kit.show("touch", m:meta_get("k", { touch = 50, ttl = true, value = false }))
            kit.show("touch text", m:meta_get("k", { touch = "60", ttl = true, value = false }))
            kit.show("touch and recache", m:meta_get("k", { touch = 300, recache = 200, ttl = true, value = false }))
            kit.show("no bump", m:meta_get("k", { no_bump = true }))
            kit.show("if changed, other", m:meta_get("k", { if_changed = "1" }))
            m:set("k", "")
            kit.show("no expiry", m:meta_get("k", { ttl = true }))
            kit.show("key", m:meta_set("a b\r\n", "x"), m:meta_get("a b\r\n"), m:get("a b\r\n"))
            kit.show("in step", kit.in_step(m))
        }
    }
--- request
GET /t
--- response_body
--- no_error_log
[error]
