use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# Replies to meta commands that no server should send: the connection is closed, and nothing of
# them is taken for an answer.

our $HttpConfig = TestEnv::head( skip => 'the reference has no such methods', init => 'metakit = require "metakit"' );

run_tests();

__DATA__

=== TEST 1: what closes the connection, and what does not
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        lua_socket_log_errors off;
        content_by_lua_block {
            local reply
            local srv = metakit.server("VERSION 1.6.38", function() return reply end)
            local function try(text, name, ...)
                reply = text:gsub("|", "\r\n")
                local m = kit.connect(srv.port)
                local res = kit.vals(kit.trim(m[name](m, ...)))
                ngx.say(name, " ", text, ": ", res, "; ", kit.vals(kit.trim(m:set_keepalive())))
            end
            for _, text in ipairs{
                "EN|", "EN #|", "EN O1|", "HD #|", "VA 1 #|x|", "VA 1 #  W |x|", "VA 1|x|", "VA 1 O1|x|",
                "VA 1 # c1|x|", "VA 1 # W W|x|", "VA 2 #|x|", "VA 0 #|x|", "VA x #|x|", "VA -1 #|x|",
                "VA 99999999999 #|", "VA 99999999999999999999 #|", "NF #|", "END|", "VALUE k 0 1|x|END|",
                "ERROR|", "CLIENT_ERROR bad command line format|", "SERVER_ERROR out of memory|", "|",
            } do
                try(text, "meta_get", "k")
            end
            try("VA 1 # t5 f0|x|", "meta_get", "k", { flags = true, ttl = true })
            try("VA 1 # f0|x|", "meta_get", "k", { flags = true, ttl = true })
            try("VA 1 # f0 tx|x|", "meta_get", "k", { flags = true, ttl = true })
            for _, text in ipairs{
                "HD #|", "HD|", "NS #|", "EX #|", "NF #|", "EN #|", "STORED|", "HD # c1|",
                "ERROR|", "CLIENT_ERROR bad data chunk|", "SERVER_ERROR object too large for cache|",
            } do
                try(text, "meta_set", "k", "v")
            end
            for _, text in ipairs{ "HD #|", "NF #|", "EX #|", "NS #|", "DELETED|", "ERROR|" } do
                try(text, "meta_delete", "k")
            end
            for _, text in ipairs{
                "VA 1 #|7|", "VA 2 #|7 |", "VA 0 #||", "HD #|", "NF #|", "NS #|", "EX #|", "17|",
                "CLIENT_ERROR cannot increment or decrement non-numeric value|",
            } do
                try(text, "meta_arith", "k")
            end
            srv:close()
        }
    }
--- request
GET /t
--- response_body
meta_get EN|: nil; 1
meta_get EN #|: nil; 1
meta_get EN O1|: nil, "bad reply: unexpected opaque"; nil, "closed"
meta_get HD #|: nil, "bad reply: unexpected line"; nil, "closed"
meta_get VA 1 #|x|: {value="x"}; 1
meta_get VA 1 #  W |x|: {value="x", won=true}; 1
meta_get VA 1|x|: nil, "bad reply: unexpected opaque"; nil, "closed"
meta_get VA 1 O1|x|: nil, "bad reply: unexpected opaque"; nil, "closed"
meta_get VA 1 # c1|x|: nil, "bad reply: unexpected flags"; nil, "closed"
meta_get VA 1 # W W|x|: nil, "bad reply: unexpected flags"; nil, "closed"
meta_get VA 2 #|x|: nil, "bad reply: no CRLF after value"; nil, "closed"
meta_get VA 0 #|x|: nil, "bad reply: no CRLF after value"; nil, "closed"
meta_get VA x #|x|: nil, "bad reply: unexpected line"; nil, "closed"
meta_get VA -1 #|x|: nil, "bad reply: unexpected line"; nil, "closed"
meta_get VA 99999999999 #|: nil, "bad reply: value of 99999999999 bytes exceeds the limit of 134217728"; nil, "closed"
meta_get VA 99999999999999999999 #|: nil, "bad reply: value length out of range"; nil, "closed"
meta_get NF #|: nil, "bad reply: unexpected line"; nil, "closed"
meta_get END|: nil, "bad reply: unexpected line"; nil, "closed"
meta_get VALUE k 0 1|x|END|: nil, "bad reply: unexpected line"; nil, "closed"
meta_get ERROR|: nil, "ERROR"; 1
meta_get CLIENT_ERROR bad command line format|: nil, "CLIENT_ERROR bad command line format"; 1
meta_get SERVER_ERROR out of memory|: nil, "SERVER_ERROR out of memory"; 1
meta_get |: nil, "bad reply: unexpected line"; nil, "closed"
meta_get VA 1 # t5 f0|x|: {flags="0", ttl=5, value="x"}; 1
meta_get VA 1 # f0|x|: nil, "bad reply: unexpected flags"; nil, "closed"
meta_get VA 1 # f0 tx|x|: nil, "bad reply: unexpected flags"; nil, "closed"
meta_set HD #|: {}; 1
meta_set HD|: nil, "bad reply: unexpected opaque"; nil, "closed"
meta_set NS #|: nil, "NOT_STORED"; 1
meta_set EX #|: nil, "EXISTS"; 1
meta_set NF #|: nil, "NOT_FOUND"; 1
meta_set EN #|: nil, "bad reply: unexpected line"; nil, "closed"
meta_set STORED|: nil, "bad reply: unexpected line"; nil, "closed"
meta_set HD # c1|: nil, "bad reply: unexpected flags"; nil, "closed"
meta_set ERROR|: nil, "ERROR"; nil, "closed"
meta_set CLIENT_ERROR bad data chunk|: nil, "CLIENT_ERROR bad data chunk"; nil, "closed"
meta_set SERVER_ERROR object too large for cache|: nil, "SERVER_ERROR object too large for cache"; 1
meta_delete HD #|: 1; 1
meta_delete NF #|: nil, "NOT_FOUND"; 1
meta_delete EX #|: nil, "EXISTS"; 1
meta_delete NS #|: nil, "bad reply: unexpected line"; nil, "closed"
meta_delete DELETED|: nil, "bad reply: unexpected line"; nil, "closed"
meta_delete ERROR|: nil, "ERROR"; 1
meta_arith VA 1 #|7|: "7"; 1
meta_arith VA 2 #|7 |: nil, "bad reply: value is not a number"; nil, "closed"
meta_arith VA 0 #||: nil, "bad reply: value is not a number"; nil, "closed"
meta_arith HD #|: nil, "bad reply: unexpected line"; nil, "closed"
meta_arith NF #|: nil, "NOT_FOUND"; 1
meta_arith NS #|: nil, "NOT_STORED"; 1
meta_arith EX #|: nil, "EXISTS"; 1
meta_arith 17|: nil, "bad reply: unexpected line"; nil, "closed"
meta_arith CLIENT_ERROR cannot increment or decrement non-numeric value|: nil, "CLIENT_ERROR cannot increment or decrement non-numeric value"; 1
--- no_error_log
[error]



=== TEST 2: a reply that belongs to another command
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        lua_socket_log_errors off;
        content_by_lua_block {
            -- as a proxy would that mixes up its connections: the opaque of the command before
            local last
            local srv = kit.fake(function(c)
                while true do
                    local line = c:line()
                    if not line then return end
                    local opaque = line:match(" (O%x+)")
                    if not opaque then c:send("VERSION 1.6.38\r\n")
                    else
                        c:send("VA 1 " .. (last or opaque) .. "\r\nx\r\n")
                        last = opaque
                    end
                end
            end)
            local m = kit.connect(srv.port)
            kit.show("first", m:meta_get("a"))
            kit.show("second", m:meta_get("b"))
            kit.show("third", m:meta_get("b"))
            last = nil
            m = kit.connect(srv.port)
            m:init_pipeline()
            for i = 1, 4 do m:meta_get("k" .. i) end
            kit.show("pipeline", m:commit_pipeline())
            srv:close()
        }
    }
--- request
GET /t
--- response_body
first: {value="x"}, nil
second: nil, "bad reply: unexpected opaque"
third: nil, "closed"
pipeline: {{{value="x"}}, {nil, "bad reply: unexpected opaque"}, {nil, "closed"}, {nil, "closed"}}, nil
--- no_error_log
[error]



=== TEST 3: a value that comes in pieces, and one that is too large
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        lua_socket_log_errors off;
        lua_memcached_max_value_size 100k;
        content_by_lua_block {
            local size, piece
            local srv = kit.fake(function(c)
                while true do
                    local line = c:line()
                    if not line then return end
                    local opaque = line:match(" (O%x+)")
                    if not opaque then c:send("VERSION 1.6.38\r\n")
                    else
                        c:trickle("VA " .. size .. " " .. opaque .. " W\r\n" .. ("x"):rep(size) .. "\r\n", piece, 0.0005)
                    end
                end
            end)
            for _, case in ipairs{ { 0, 1 }, { 40, 1 }, { 8192, 1000 }, { 8193, 1000 }, { 102400, 30000 },
                                   { 102401, 200000 } } do
                size, piece = case[1], case[2]
                local m = kit.connect(srv.port)
                local item, err = m:meta_get("k")
                kit.show(size, item and item.value == ("x"):rep(size), item and item.won, err)
            end
            srv:close()
        }
    }
--- request
GET /t
--- response_body
0: true, true, nil
40: true, true, nil
8192: true, true, nil
8193: true, true, nil
102400: true, true, nil
102401: nil, nil, "bad reply: value of 102401 bytes exceeds the limit of 102400"
--- no_error_log
[error]
