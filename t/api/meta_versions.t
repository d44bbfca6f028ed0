use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# What servers of other versions can do, and how it is found out.

our $HttpConfig = TestEnv::head( skip => 'the reference has no such methods', init => 'metakit = require "metakit"' );

run_tests();

__DATA__

=== TEST 1: what each version can do
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            for _, version in ipairs{ "1.4.15", "1.5.16", "1.6.9", "1.6.10", "1.6.12", "1.6.13", "1.6.18",
                                      "1.6.19", "1.6.20", "1.6.26", "1.6.27", "1.6.45", "2.0.0" } do
                local srv = metakit.server("VERSION " .. version, function(line)
                    local word, flags = line:match("^(%S+) %S+(.*)")
                    local found = flags:match(" c") and " c9" or ""
                    found = found .. (flags:match(" s") and " s1" or "")
                    return word == "mg" and "EN #\r\n" or word == "ma" and "VA 1 #\r\n7\r\n"
                        or "HD #" .. found .. "\r\n"
                end)
                local m = kit.connect(srv.port)
                local refused = {}
                for _, call in ipairs{
                    { "meta_get", { if_changed = 1, vivify = 1, recache = 1, touch = 1 } },
                    { "meta_arith", { cas = 1 } },
                    { "meta_set", { cas = 1 } },
                    { "meta_delete", { stale = true, ttl = 5 } },
                    { "meta_set", { return_cas = true } },
                    { "meta_delete", { cas = 1 } },
                    { "meta_set", { return_size = true } },
                    { "meta_set", { mode = "append", vivify = 5 } },
                    { "meta_set", { mode = "prepend", vivify = 5 } },
                    { "meta_set", { new_cas = 7 } },
                    { "meta_delete", { new_cas = 7, stale = true } },
                    { "meta_delete", { drop_value = true } },
                } do
                    local name, options = call[1], call[2]
                    local ok, err
                    if name == "meta_set" then ok, err = m:meta_set("k", "v", options)
                    else ok, err = m[name](m, "k", options) end
                    if err then refused[#refused + 1] = err:gsub("^not supported by memcached " .. version:gsub("%p", "%%%0") .. ": ", "") end
                end
                ngx.say(version, ": ", #refused == 12 and refused[1] or table.concat(refused, ", "))
                srv:close()
            end
        }
    }
--- request
GET /t
--- response_body
1.4.15: meta commands
1.5.16: meta commands
1.6.9: meta commands
1.6.10: return_cas, cas with delete, return_size, vivify with append, vivify with prepend, new_cas, new_cas, drop_value
1.6.12: return_cas, cas with delete, return_size, vivify with append, vivify with prepend, new_cas, new_cas, drop_value
1.6.13: return_size, vivify with append, vivify with prepend, new_cas, new_cas, drop_value
1.6.18: return_size, vivify with append, vivify with prepend, new_cas, new_cas, drop_value
1.6.19: return_size, vivify with append, vivify with prepend, new_cas, new_cas, drop_value
1.6.20: new_cas, new_cas, drop_value
1.6.26: new_cas, new_cas, drop_value
1.6.27: 
1.6.45: 
2.0.0: 
--- no_error_log
[error]



=== TEST 2: a connection asks once, and nothing else is sent before
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = metakit.server("VERSION 1.6.9", function() return "EN\r\n" end)
            local m = kit.connect(srv.port)
            kit.show("set", m:meta_set("k", "flush_all\r\n"))
            kit.show("get", m:meta_get("k"))
            kit.show("asked", metakit.asked(srv))
            kit.show("kept", m:set_keepalive())
            m = kit.connect(srv.port)
            kit.show("again", m:meta_get("k"))
            kit.show("asked", metakit.asked(srv))
            srv:close()

            srv = metakit.server("VERSION 1.6.18", function() return "EN\r\n" end)
            m = kit.connect(srv.port)
            kit.show("get", m:meta_get("k"))
            kit.show("refused", m:meta_get("k", { what = 1 }))
            kit.show("asked", metakit.asked(srv))
            kit.show("kept", m:set_keepalive())
            m = kit.connect(srv.port)
            kit.show("again", m:meta_get("k"))
            kit.show("asked", metakit.asked(srv))
            kit.show("by name", m:version(), m:meta_get("k"))
            kit.show("asked", metakit.asked(srv))
            srv:close()

            srv = metakit.server("VERSION 1.6.18", function() return "EN\r\n" end)
            m = kit.connect(srv.port)
            kit.show("told before", m:version(), m:meta_get("k"))
            kit.show("asked", metakit.asked(srv))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
set: nil, "not supported by memcached 1.6.9: meta commands"
get: nil, "not supported by memcached 1.6.9: meta commands"
asked: "version"
kept: 1
again: nil, "not supported by memcached 1.6.9: meta commands"
asked: ""
get: nil, nil
refused: nil, "bad options: there is no option \"what\""
asked: "version | mg k v"
kept: 1
again: nil, nil
asked: "mg k v"
by name: "1.6.18", nil, nil
asked: "version | mg k v"
told before: "1.6.18", nil, nil
asked: "version | mg k v"
--- no_error_log
[error]



=== TEST 3: another server in its place is asked anew
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local versions = { "VERSION 1.6.38", "VERSION 1.6.9" }
            local srv = metakit.server(function(index) return versions[index] or versions[2] end,
                function(line) return line:match("^ms") and "HD #\r\n" or "EN\r\n" end)
            local m = kit.connect(srv.port, nil, { multiplex = false })
            kit.show("new", m:meta_set("k", "v"))
            m:close()
            m = kit.connect(srv.port, nil, { multiplex = false })
            kit.show("old", m:meta_set("k", "flush_all\r\n"))
            kit.show("asked", metakit.asked(srv))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
new: {}, nil
old: nil, "not supported by memcached 1.6.9: meta commands"
asked: "version | ms k 1 | version"
--- no_error_log
[error]



=== TEST 4: servers whose version is no number
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            for _, mn in ipairs{ "MN", "ERROR", "CLIENT_ERROR unknown command" } do
                local srv = metakit.server("VERSION proxy", nil, mn)
                local m = kit.connect(srv.port)
                kit.show("set", m:meta_set("k", "v"))
                kit.show("set", m:meta_set("k", "v", { return_size = true }))
                kit.show("delete", m:meta_delete("k"))
                kit.show("asked", metakit.asked(srv))
                -- its answer to mn still holds
                kit.show("version", m:version(), m:meta_delete("k"))
                kit.show("asked", metakit.asked(srv))
                srv:close()
            end
        }
    }
--- request
GET /t
--- response_body
set: {}, nil
set: nil, "not supported by this server: return_size"
delete: 1, nil
asked: "version | mn | ms k 1 | md k"
version: "proxy", 1, nil
asked: "version | md k"
set: nil, "not supported by this server: meta commands"
set: nil, "not supported by this server: meta commands"
delete: nil, "not supported by this server: meta commands"
asked: "version | mn"
version: "proxy", nil, "not supported by this server: meta commands"
asked: "version"
set: nil, "not supported by this server: meta commands"
set: nil, "not supported by this server: meta commands"
delete: nil, "not supported by this server: meta commands"
asked: "version | mn"
version: "proxy", nil, "not supported by this server: meta commands"
asked: "version"
--- no_error_log
[error]



=== TEST 5: servers that do not tell
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        lua_socket_log_errors off;
        content_by_lua_block {
            for _, version in ipairs{ "ERROR", "SERVER_ERROR busy", "VERSION", "OK", "" } do
                local srv = metakit.server(version)
                local m = kit.connect(srv.port)
                kit.show("set", m:meta_set("k", "v"))
                kit.show("asked", metakit.asked(srv), kit.trim(m:set_keepalive()))
                m = kit.connect(srv.port)
                m:init_pipeline()
                m:meta_set("k", "v")
                kit.show("pipeline", m:commit_pipeline())
                kit.show("asked", metakit.asked(srv))
                srv:close()
            end
            local srv = metakit.server("VERSION proxy", nil, "what")
            local m = kit.connect(srv.port)
            kit.show("set", m:meta_set("k", "v"))
            kit.show("asked", metakit.asked(srv), kit.trim(m:set_keepalive()))
            srv:close()
            srv = kit.fake(function(c)
                c:line()
                c:close()
            end)
            m = kit.connect(srv.port)
            kit.show("closed", m:meta_set("k", "v"))
            srv:close()
            srv = kit.fake(function(c) c:line() end)
            m = kit.connect(srv.port)
            m:set_timeout(50)
            kit.show("silent", m:meta_set("k", "v"))
            srv:close()
        }
    }
--- request
GET /t
--- response_body
set: nil, "ERROR"
asked: "version", 1
pipeline: nil, "ERROR"
asked: "version"
set: nil, "SERVER_ERROR busy"
asked: "version", 1
pipeline: nil, "SERVER_ERROR busy"
asked: "version"
set: nil, "VERSION"
asked: "version", nil, "closed"
pipeline: nil, "VERSION"
asked: "version"
set: nil, "OK"
asked: "version", nil, "closed"
pipeline: nil, "OK"
asked: "version"
set: nil, ""
asked: "version", nil, "closed"
pipeline: nil, ""
asked: "version"
set: nil, "what"
asked: "version | mn", nil, "closed"
closed: nil, "closed"
silent: nil, "timeout"
--- no_error_log
[error]



=== TEST 6: what a server cannot do of a pipeline
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            for _, version in ipairs{ "VERSION 1.6.9", "VERSION 1.6.18", "VERSION 1.6.38", "VERSION proxy" } do
                local srv = metakit.server(version, function(line)
                    local word = line:match("^%S+")
                    return ({ get = "END\r\n", mg = "EN\r\n", delete = "NOT_FOUND\r\n" })[word]
                        or line:match(" s") and "HD # s1\r\n"
                end)
                local m = kit.connect(srv.port)
                for _ = 1, 2 do
                    m:init_pipeline()
                    m:meta_set("k", "v", { return_size = true })
                    m:get("k")
                    m:meta_get("k")
                    m:meta_delete("k", { drop_value = true })
                    m:meta_delete("k", { what = true })
                    m:delete("k")
                    m:meta_delete("k", { drop_value = true })
                    kit.show(version, m:commit_pipeline())
                    kit.show("asked", metakit.asked(srv))
                end
                m:init_pipeline()
                m:meta_delete("k", { drop_value = true })
                kit.show("one", m:commit_pipeline())
                kit.show("asked", metakit.asked(srv))
                srv:close()
            end
        }
    }
--- request
GET /t
--- response_body
VERSION 1.6.9: {{nil, "not supported by memcached 1.6.9: meta commands"}, {}, {nil, "not supported by memcached 1.6.9: meta commands"}, {nil, "not supported by memcached 1.6.9: meta commands"}, {nil, "bad options: there is no option \"what\""}, {nil, "NOT_FOUND"}, {nil, "not supported by memcached 1.6.9: meta commands"}}, nil
asked: "version | get k | delete k"
VERSION 1.6.9: {{nil, "not supported by memcached 1.6.9: meta commands"}, {}, {nil, "not supported by memcached 1.6.9: meta commands"}, {nil, "not supported by memcached 1.6.9: meta commands"}, {nil, "bad options: there is no option \"what\""}, {nil, "NOT_FOUND"}, {nil, "not supported by memcached 1.6.9: meta commands"}}, nil
asked: "get k | delete k"
one: {{nil, "not supported by memcached 1.6.9: meta commands"}}, nil
asked: ""
VERSION 1.6.18: {{nil, "not supported by memcached 1.6.18: return_size"}, {}, {}, {nil, "not supported by memcached 1.6.18: drop_value"}, {nil, "bad options: there is no option \"what\""}, {nil, "NOT_FOUND"}, {nil, "not supported by memcached 1.6.18: drop_value"}}, nil
asked: "version | get k | mg k v | delete k"
VERSION 1.6.18: {{nil, "not supported by memcached 1.6.18: return_size"}, {}, {}, {nil, "not supported by memcached 1.6.18: drop_value"}, {nil, "bad options: there is no option \"what\""}, {nil, "NOT_FOUND"}, {nil, "not supported by memcached 1.6.18: drop_value"}}, nil
asked: "get k | mg k v | delete k"
one: {{nil, "not supported by memcached 1.6.18: drop_value"}}, nil
asked: ""
VERSION 1.6.38: {{{size=1}}, {}, {}, {1}, {nil, "bad options: there is no option \"what\""}, {nil, "NOT_FOUND"}, {1}}, nil
asked: "version | ms k 1 s | get k | mg k v | md k x | delete k | md k x"
VERSION 1.6.38: {{{size=1}}, {}, {}, {1}, {nil, "bad options: there is no option \"what\""}, {nil, "NOT_FOUND"}, {1}}, nil
asked: "ms k 1 s | get k | mg k v | md k x | delete k | md k x"
one: {{1}}, nil
asked: "md k x"
VERSION proxy: {{nil, "not supported by this server: return_size"}, {}, {}, {nil, "not supported by this server: drop_value"}, {nil, "bad options: there is no option \"what\""}, {nil, "NOT_FOUND"}, {nil, "not supported by this server: drop_value"}}, nil
asked: "version | mn | get k | mg k v | delete k"
VERSION proxy: {{nil, "not supported by this server: return_size"}, {}, {}, {nil, "not supported by this server: drop_value"}, {nil, "bad options: there is no option \"what\""}, {nil, "NOT_FOUND"}, {nil, "not supported by this server: drop_value"}}, nil
asked: "get k | mg k v | delete k"
one: {{nil, "not supported by this server: drop_value"}}, nil
asked: ""
--- error_log
lua memcached command refused: pipeline: not supported by memcached 1.6.18: return_size



=== TEST 7: many at once on connections of which nothing is known
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            local srv = metakit.server("VERSION 1.6.18", function(line)
                return "VA 1 #\r\n" .. line:match("k(%d)") .. "\r\n"
            end)
            local threads, wrong = {}, 0
            for i = 1, 60 do
                threads[i] = ngx.thread.spawn(function()
                    local m = kit.connect(srv.port)
                    for _ = 1, 3 do
                        local item, err = m:meta_get("k" .. i % 10)
                        if not item or item.value ~= tostring(i % 10) then
                            wrong = wrong + 1
                            ngx.say("got ", kit.fmt(item), " ", err)
                        end
                    end
                    m:set_keepalive()
                end)
            end
            for i = 1, 60 do ngx.thread.wait(threads[i]) end
            kit.show("wrong", wrong)
            srv:close()
        }
    }
--- request
GET /t
--- response_body
wrong: 0
--- no_error_log
[error]
