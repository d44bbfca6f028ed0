use strict;
use warnings;

use lib 't/lib';

use Test::More;
use TestEnv memcached => 0;
use Golden;
use LiveNginx;
use Preload;

# What Lua stores lies in the server that other implementations chose for its key, and memcached_pass finds
# it there: for all keys of all vectors whose servers an upstream block can name. Addresses and names
# are those of the vectors; elsewhere.c has nginx connect to memcacheds of this machine.

my @vectors = Golden::vectors();
my ( $elsewhere, @ports ) = Golden::place(@vectors);
my $golden = Golden::folder();
my @nginx  = grep { $_->{is_nginx} } @vectors;

local $ENV{ELSEWHERE} = $elsewhere;
my $nginx = Preload::with( elsewhere => sub { LiveNginx->start(
    main => "env ELSEWHERE;\nworker_processes 1;\n",
    connections => 2048,
    http => qq{
        @{[ join '', map { Golden::upstream( $_, undef, $_->{is_nginx} && 'keepalive 40;' ) } @vectors ]}
        lua_socket_log_errors off;
        # thousands of subrequests of one request are cheap if they are small
        memcached_buffer_size 1k;
        subrequest_output_buffer_size 1k;
        init_by_lua_block {
            @{[ TestEnv::lua_kit() ]}
            groupkit = require "groupkit"
            ports, vectors = @{[ Golden::ports(@vectors) ]}, {}
            all_keys = groupkit.keys("$golden")
            for file in ("@{[ Golden::files() ]}"):gmatch("%S+") do
                for name, vector in pairs(groupkit.vectors("$golden", file)) do vectors[name] = vector end
            end
            -- what nginx sends for a key; whether it can be sent as it is
            wire, is_raw = {}, {}
            local function look_at(keys)
                for _, key in ipairs(keys) do
                    wire[key] = key:gsub("[%c %%]", function(c) return c == "\\127" and c or ("%%%02X"):format(c:byte()) end)
                    is_raw[key] = not key:find("[%c%s]")
                end
            end
            look_at(all_keys)
            for _, vector in pairs(vectors) do look_at(vector.keys) end
        }
    },
    server => join( '', map {qq{
        location = /pass/$_->{name} {
            set \$memcached_key \$wanted;
            memcached_pass $_->{name};
        }
    }} @nginx ) . q{
        location = /store {
            set $wanted "";
            content_by_lua_block {
                local name = ngx.var.arg_name
                local vector = vectors[name]
                local keys = #vector.keys > 0 and vector.keys or all_keys
                local raw, escaping = groupkit.object(), require "resty.memcached":new()
                escaping:set_timeouts(20000, 20000, 20000)
                assert(raw:connect(name)) assert(escaping:connect(name))
                local at = {}
                for i, port in ipairs(ports[name]) do
                    at[i] = groupkit.object()
                    -- one that refuses connections
                    at[i].is_there = at[i]:connect("127.0.0.1", port) == 1
                end
                local wrong, first = 0, ""
                local function check(right, ...)
                    if right then return end
                    wrong = wrong + 1
                    if first == "" then first = table.concat({ ... }, " ") end
                end
                local lists, value, passed, stored = {}, {}, {}, { raw = 0, escaped = 0, pass = 0 }
                for i = 1, #at do lists[i] = {} end
                -- some by commands of their own, most by pipelines
                local open = { [raw] = {}, [escaping] = {} }
                local function commit(m)
                    local queued = open[m]
                    if #queued == 0 then return end
                    local results, err = m:commit_pipeline()
                    for i, key in ipairs(queued) do
                        local result = results and results[i] or { nil, err }
                        check(result[1] == 1, "set", key, tostring(result[2]))
                    end
                    open[m] = {}
                end
                local function store(m, i, kind, sent)
                    local list = lists[vector.chosen[i]]
                    value[sent] = kind .. i .. name
                    list[#list + 1] = sent
                    stored[kind] = stored[kind] + 1
                    if stored[kind] > 50 then
                        if #open[m] == 0 then m:init_pipeline(500) end
                        table.insert(open[m], keys[i])
                    end
                    local ok, err = m:set(keys[i], value[sent])
                    check(ok == 1, "set", keys[i], tostring(err))
                    if #open[m] == 500 then commit(m) end
                    if sent == wire[keys[i]] then passed[#passed + 1] = { keys[i], value[sent] } end
                end
                for i, key in ipairs(keys) do
                    -- that of another one already
                    if is_raw[key] and not value[key] then store(raw, i, "raw", key) end
                    -- nginx's methods hash what is not yet escaped, the others what is sent
                    local escaped = ngx.var.arg_pass and ngx.escape_uri(key) or key
                    if escaped ~= key and #escaped <= 250 and not value[escaped] then store(escaping, i, "escaped", escaped) end
                end
                commit(raw) commit(escaping)
                -- each is in its server
                for s, list in ipairs(lists) do
                    for i = 1, #list, 500 do
                        local last = math.min(i + 499, #list)
                        local found = assert(at[s]:get({ unpack(list, i, last) }))
                        for j = i, last do
                            local key = list[j]
                            check(found[key] and found[key][1] == value[key], key, "is not in server", s)
                        end
                    end
                    check(at[s].is_there or #list == 0, "keys of a dead server")
                end
                -- Lua finds those that were stored one by one, and a part of the others
                local list = {}
                for i, key in ipairs(keys) do
                    if (i <= 100 or i % 8 == 0) and (value[key] or ""):find("^raw") then list[#list + 1] = key end
                end
                local results = assert(raw:get(list))
                for _, key in ipairs(list) do check(results[key] and results[key][1] == value[key], key, "is not found") end
                -- and memcached_pass
                for i = 1, ngx.var.arg_pass and #passed or 0, 40 do
                    local requests = {}
                    for j = i, math.min(i + 39, #passed) do
                        requests[#requests + 1] = { "/pass/" .. name, { vars = { wanted = passed[j][1] } } }
                    end
                    for j, answer in ipairs { ngx.location.capture_multi(requests) } do
                        local key, want = unpack(passed[i + j - 1])
                        stored.pass = stored.pass + 1
                        check(answer.status == 200 and answer.body == want, "memcached_pass", key, answer.status)
                    end
                end
                raw:set_keepalive() escaping:set_keepalive()
                for _, m in ipairs(at) do if m.is_there then m:set_keepalive() end end
                ngx.say("wrong ", wrong, first == "" and "" or ": " .. first)
                ngx.print(stored.raw, " ", stored.escaped, " ", stored.pass)
            }
        }
    },
) } );

is( scalar @vectors, 52, 'all vectors but the one with nicknames, which nginx has not' );
my %most = ( raw => 0, escaped => 0, pass => 0 );
for my $vector ( sort { $a->{is_dead} <=> $b->{is_dead} } @vectors ) {
    if ( $vector->{is_dead} ) {
        TestEnv::stop_memcached( $_->{port} ) for grep { $_->{down} } @{ $vector->{servers} };
    }
    my $pass = $vector->{is_nginx} ? '&pass=1' : '';
    my $said = $nginx->get("/store?name=$vector->{name}$pass") // 'nothing';
    my ( $wrong, $raw, $escaped, $passed ) = $said =~ /\A(.*)\n(\d+) (\d+) (\d+)\z/;
    is( $wrong // $said, 'wrong 0', "$vector->{name}: each key lies where others put it" . ( $pass && ', and memcached_pass finds it' ) );
    # the vector with keys of its own is about those that are escaped
    my @least = $vector->{name} =~ /escaped/ ? ( 3, 111, 110 ) : $pass ? ( 3018, 1293, 3018 ) : ( 3018, 0, 0 );
    is_deeply( [ $raw, $escaped, $passed ], \@least, '... that is, all of them as they are, the escaped ones, and by memcached_pass' );
}

# those with directives of ours are told of at the start, the others when they are first used
my @told = map {/\[warn\] .*(upstream ".*" has no port, nginx's default is 80) in /} $nginx->log_lines('warn');
my @without = map { my $name = $_->{name}; map {qq{upstream "$name": server "$_->{name}" has no port, nginx's default is 80}}
    grep { "$_->{name}:80" eq $_->{address} } @{ $_->{servers} } } @vectors;
ok( @without > 0, 'some names have no port' );
is_deeply( [ sort @told ], [ sort @without ], '... which is told once of each' );
is_deeply( [ $nginx->log_lines(qw( crit alert emerg )) ], [], 'nothing bad in the log' ) or diag( $nginx->log );
undef $nginx;
done_testing();
