use strict;
use warnings;

use lib 't/lib';

use Test::More;
use TestEnv memcached => 0;
use GroupServers;
use LiveNginx;

# Objects with a codec over a group.

my @ports = map { TestEnv::start_memcached() } 1 .. 3;

my $nginx = LiveNginx->start(
    http => qq{
        upstream three { lua_memcached_hash ketama; @{[ map {"server 127.0.0.1:$_;"} @ports ]} }
        upstream lame { lua_memcached_hash ketama; lua_memcached_failover off; server 127.0.0.1:$ports[0] max_fails=0;
            server 127.0.0.1:$ENV{TEST_NGINX_UNUSED_PORT} max_fails=0; }
        init_by_lua_block {
            @{[ TestEnv::lua_kit() ]}
            kit, memcached = require "testkit", require "resty.memcached"
            ports = { @{[ join ', ', @ports ]} }
            -- values are numbers
            number = { encode = function(value, flags)
                if type(value) ~= "number" then return nil, "no number" end
                return "<" .. value .. ">", flags or 5
            end, decode = function(text, flags)
                local value = tonumber(text:match("^<(.*)>\$"))
                if not value then return nil, "no number in " .. text end
                return value
            end }
            function object(codec)
                local m = assert(memcached:new{ codec = codec })
                m:set_timeouts(1000, 1000, 1000)
                assert(m:connect("three"))
                return m
            end
            function say(...) ngx.print(kit.vals(...)) end
        }
    },
    server => GroupServers::location(),
);

sub lua { return GroupServers::lua( $nginx, @_ ) }

sub is_lua { my ( $code, $want, $name ) = @_; return is( lua($code), $want, $name ) }

is_lua( q{
    local m, raw = object(number), object(nil)
    local wrong = {}
    for i = 1, 30 do
        local key = "codec" .. i
        m:delete(key)
        local ok = m:set(key, i) == 1 and m:get(key) == i and raw:get(key) == "<" .. i .. ">"
            and select(2, raw:get(key)) == "5"
            and select(2, m:add(key, 1)) == "NOT_STORED" and m:replace(key, i + 0.5, 0, 9) == 1
            and m:gat(key, 100) == i + 0.5 and select(2, raw:get(key)) == "9"
            and m:gats(key, 100) == i + 0.5
            and m:cas(key, i, (select(3, m:gets(key)))) == 1
            and m:meta_get(key).value == i and m:meta_set(key, i + 1) ~= nil and m:get(key) == i + 1
        if not ok then wrong[#wrong + 1] = key end
    end
    say(#wrong, m:set("codec1", "text")) say(" ", raw:set("codec2", "x"), m:get("codec2"))
}, '0, nil, "no number"" ", 1, nil, nil, "no number in x"', 'one key' );
is_lua( q{
    local m = object(number)
    local keys = {}
    for i = 1, 50 do keys[i] = "list" .. i assert(m:set(keys[i], i)) end
    object(nil):set("list3", "x")
    local wrong = 0
    for _, method in ipairs{ "get", "gets", "gat", "gats" } do
        local found, err = m[method](m, keys, 100)
        if err then wrong = wrong + 1 end
        for i = 1, 50 do
            local item = found[keys[i]]
            if i == 3 then
                if item[1] ~= nil or item.err ~= "no number in x" then wrong = wrong + 1 end
            elseif item[1] ~= i then
                wrong = wrong + 1
            end
        end
    end
    say(wrong)
}, '0', 'lists' );
is_lua( q{
    local function errors(codec)
        local m = assert(memcached:new{ codec = codec })
        m:set_timeouts(1000, 1000, 1000)
        assert(m:connect("lame"))
        local all = {}
        for _, method in ipairs{ "get", "gets", "gat", "gats" } do
            local found, err, errors = m[method](m, { "list1", "list2", "list4", "list5", "list6", "list7" }, 100)
            all[#all + 1] = kit.vals(found ~= nil, err, errors)
        end
        return table.concat(all, " ")
    end
    local plain, coded = errors(nil), errors(number)
    say(plain == coded, coded:find("refused") ~= nil, select(2, coded:gsub("= ?\"connection refused", "")))
}, 'true, true, 4', 'the errors of servers' );
is_lua( q{
    local m = object("php")
    local ok = true
    for i, value in ipairs{ "text", 12, 1.5, true } do
        ok = ok and m:set("php" .. i, value) == 1 and m:get("php" .. i) == value
    end
    say(ok, m:set_keepalive())
}, 'true, 1', 'the codec "php"' );
is_lua( q{
    local m = object(number)
    assert(not m:init_pipeline())
    for i = 1, 20 do m:set("piped" .. i, i) m:get("piped" .. i) end
    local results = assert(m:commit_pipeline())
    local wrong = 0
    for i = 1, 20 do if results[2 * i][1] ~= i then wrong = wrong + 1 end end
    say(wrong, #results)
}, '0, 40', 'a pipeline' );
is_lua( q{ local m = object(number) say(m:version() ~= nil, m:flush_all(), m:get("list1")) }, 'true, 1, nil, nil, nil', 'commands without a key' );

is_deeply( [ $nginx->log_lines(qw( crit alert emerg )) ], [], 'nothing bad in the log' ) or diag( $nginx->log );
undef $nginx;
done_testing();
