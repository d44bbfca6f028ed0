use strict;
use warnings;

use lib 't/lib';

use Test::More;
use TestEnv memcached => 0;
use GroupServers;
use LineServer;
use LiveNginx;

# Pipelines of server groups: split among the servers, sent to all before any is waited for, and
# answered in the caller's order.

my @ports = map { TestEnv::start_memcached() } 1 .. 5;
my $dead  = TestEnv::free_port();

# Answers as a memcached that has all keys, whose values are the keys.
sub reply {
    my ($line) = @_;
    return "VALUE $1 0 @{[ length $1 ]}\r\n$1\r\nEND\r\n" if $line =~ /\Aget (\S+)/;
    return "STORED\r\n"                                   if $line =~ /\A(?:set|add) /;
    return "17\r\n"                                       if $line =~ /\Aincr /;
    return "TOUCHED\r\n"                                  if $line =~ /\Atouch /;
    return "VERSION 1.6.9\r\n"                            if $line eq 'version';
    return "ERROR\r\n";
}

# Closes the connection instead of the third answer.
my $dying  = LineServer->start( sub { my ( $line, $n ) = @_; return $n < 3 ? reply($line) : undef } );
my $dying2 = LineServer->start( sub { my ( $line, $n ) = @_; return $n < 3 ? reply($line) : undef } );
my @silent = map {
    LineServer->start( sub { return '' } )
} 1 .. 2;
my $wrong  = LineServer->start( sub { return $_[0] =~ /\Aget / ? reply('get other') : reply( $_[0] ) } );
my $old    = LineServer->start( \&reply );
my $gutter = LineServer->start( \&reply );
my $stuck  = LineServer->start( sub { return $_[0] eq 'version' ? '' : reply( $_[0] ) } );

sub servers { my ( $rest, @list ) = @_; return join ' ', map {"server 127.0.0.1:$_ $rest;"} @list }

my @three = @ports[ 0 .. 2 ];
my $nginx = LiveNginx->start(
    http => qq{
        upstream five   { zone five 64k; hash \$lua_memcached_key consistent; @{[ servers( '', @ports ) ]} }
        upstream crc    { hash \$lua_memcached_key; @{[ servers( '', @ports ) ]} }
        upstream ketama { lua_memcached_hash ketama; @{[ servers( '', @ports ) ]} }
        upstream one    { server 127.0.0.1:$ports[0]; }
        upstream next   { lua_memcached_hash ketama; @{[ servers( 'max_fails=3 fail_timeout=60s', @three, $dead ) ]} }
        upstream off    { lua_memcached_hash ketama; lua_memcached_failover off; @{[ servers( 'max_fails=0', @three, $dead ) ]} }
        upstream once   { lua_memcached_hash ketama; lua_memcached_failover off; @{[ servers( 'max_fails=1 fail_timeout=60s', @three, $dead ) ]} }
        upstream none   { lua_memcached_hash ketama; lua_memcached_failover off; @{[ servers( 'max_fails=0', $dead ) ]} server 127.0.0.2:$dead max_fails=0; }
        upstream dying  { lua_memcached_hash ketama; @{[ servers( 'max_fails=100', @three, $dying->port ) ]} }
        upstream twice  { lua_memcached_hash ketama; lua_memcached_failover off; @{[ servers( 'max_fails=2 fail_timeout=60s', @three, $dying2->port ) ]} }
        upstream silent { lua_memcached_hash ketama; @{[ servers( 'max_fails=100', @three, map { $_->port } @silent ) ]} }
        upstream wrong  { lua_memcached_hash ketama; @{[ servers( 'max_fails=100', @three, $wrong->port ) ]} }
        upstream old    { lua_memcached_hash ketama; @{[ servers( 'max_fails=100', @three, $old->port ) ]} }
        upstream stuck  { lua_memcached_hash ketama; @{[ servers( 'max_fails=100', @three, $stuck->port ) ]} }
        upstream gutter {
            lua_memcached_hash ketama; lua_memcached_failover backup exptime=60s;
            @{[ servers( 'max_fails=100', $dead ) ]} server 127.0.0.1:@{[ $gutter->port ]} backup;
        }
        lua_socket_log_errors off;
        init_by_lua_block {
            @{[ TestEnv::lua_kit() ]}
            require "awaykit"
            dead = "127.0.0.1:$dead"
            dying, dying2, wrong, old = "@{[ $dying->name ]}", "@{[ $dying2->name ]}", "@{[ $wrong->name ]}", "@{[ $old->name ]}"
            silent = { ["@{[ $silent[0]->name ]}"] = true, ["@{[ $silent[1]->name ]}"] = true }
            stuck, first = "@{[ $stuck->name ]}", $ports[0]
            function object(name, read, options)
                local m = require "resty.memcached":new(options)
                m:set_timeouts(1000, 1000, read or 2000)
                assert(m:connect(name))
                return m
            end
            function shown(result)
                local texts = {}
                for i = 1, table.maxn(result) do texts[i] = tostring(result[i]) end
                return table.concat(texts, ",")
            end
            function all(results)
                local texts = {}
                for i, result in ipairs(results) do texts[i] = shown(result) end
                return table.concat(texts, " ")
            end
            -- Commands of each kind for keys with this beginning.
            function fill(m, beginning, count)
                for i = 1, count do
                    local key = beginning .. i
                    m:set(key, i) m:get(key) m:incr(key, 1) m:append(key, "0") m:decr(key, 1) m:get(key)
                    m:touch(key, 50) m:gat(key, 60) m:add(key, "x") m:replace(key, "y") m:prepend(key, "z")
                    m:get(key) m:delete(key) m:get(key) m:set((key):rep(50), "too long") m:get("")
                end
            end
            -- The results of some gets: whether those of the other servers are right, how many are not, and
            -- those of this server, in order.
            function sorted(m, keys, server, results)
                local right, theirs, others, last = 0, {}, 0, nil
                for i, key in ipairs(keys) do
                    local result = results[i]
                    local at = m:server_of(key)
                    if at == server or type(server) == "table" and server[at] then
                        local text = shown(result)
                        if text ~= last then theirs[#theirs + 1] = text end
                        last = text
                    elseif result[1] == "v" .. i then
                        right = right + 1
                    else
                        others = others + 1
                    end
                end
                return right > 10 and "right" or "few", others, table.concat(theirs, " ")
            end
            function set_of(...)
                local texts = {}
                for text in pairs(...) do texts[#texts + 1] = text end
                return table.concat(texts, " ")
            end
            -- Gets of 200 keys in a pipeline, which all other servers have.
            function gets(name, server, read)
                local m, keys = object(name, read), {}
                for i = 1, 200 do keys[i] = "key" .. i end
                m:init_pipeline()
                for i, key in ipairs(keys) do
                    local at = m:server_of(key)
                    if at ~= server and not (type(server) == "table" and server[at]) then m:set(key, "v" .. i) end
                end
                assert(m:commit_pipeline())
                m:init_pipeline()
                for _, key in ipairs(keys) do m:get(key) end
                return m, keys
            end
        }
    },
    server => GroupServers::location(),
);

sub lua { return GroupServers::lua( $nginx, @_ ) }

# results

my $plain = lua(qq{ local m = object("one") m:connect("127.0.0.1", first) m:init_pipeline() fill(m, "kind 1%+/", 3) say(all(m:commit_pipeline())) });
like( $plain, qr/\A1 1,0 2 1 19 /, 'what one server answers' );
for my $name (qw( one five crc ketama next )) {
    is( lua(qq{ local m = object("$name") m:init_pipeline() fill(m, "kind 1%+/", 3) local r, err = m:commit_pipeline() say(all(r)) say(err and "" or "", m:set_keepalive()) }),
        "$plain 1", "$name: the same" );
    is( lua(qq{ local m, right = object("$name"), 0
        m:init_pipeline() for i = 1, 50 do m:set("found in %+/" .. i, i) end m:commit_pipeline()
        for i = 1, 50 do if m:get("found in %+/" .. i) == tostring(i) then right = right + 1 end end say(right) }),
        50, "$name: keys are where they are looked for" );
    is( lua(qq{ local m = object("$name", nil, { key_transform = { function(k) return "%2F" .. k end, function(k) return k end } }) local right = 0
        m:init_pipeline() for i = 1, 50 do m:set("own" .. i, i) end m:commit_pipeline()
        for i = 1, 50 do if m:get("own" .. i) == tostring(i) then right = right + 1 end end say(right) }),
        50, "$name: with another transform, too" );
}
is( lua(q{ local m = object("five") m:init_pipeline(10000) for i = 1, 5000 do m:set("many" .. i, i) m:get("many" .. i) end
    local r = m:commit_pipeline() local right = 0
    for i = 1, 5000 do if r[2 * i - 1][1] == 1 and r[2 * i][1] == tostring(i) then right = right + 1 end end say(#r, right) }),
    '10000 5000', '10,000 commands' );
is( lua(q{ local m = require "resty.memcached":new() m:init_pipeline() m:set("early", 5) m:get("early") m:connect("five")
    local r = m:commit_pipeline() say(all(r), m:get("early")) }), '1 5,0 5 0', 'opened before connect' );
is( lua(q{ local m, right = object("five"), 0 m:init_pipeline() for i = 1, 50 do m:set("moved" .. i, i) end
    m:close() m:connect("ketama") m:commit_pipeline()
    for i = 1, 50 do if m:get("moved" .. i) == tostring(i) then right = right + 1 end end say(right) }),
    50, 'split by the servers of when it is committed' );
is( lua(q{ local m = object("five") local early = m:init_pipeline() m:set("k", 1) say(early, m:init_pipeline()) m:cancel_pipeline()
    say("", m:commit_pipeline()) say("", (m:init_pipeline())) say("", m:commit_pipeline()) }),
    'nil already init pipeline nil no pipeline nil nil no more cmds', 'opened twice, cancelled, empty' );
is( lua(q{ local m = object("none") m:init_pipeline() m:get("") m:set(("k"):rep(251), 1) say(all(m:commit_pipeline())) }),
    'nil,nil,ERROR nil,CLIENT_ERROR bad command line format', 'only refused commands' );
is( lua(q{ local m = object("five") m:init_pipeline() m:set("k", "v") m:stats() m:verbosity(1) m:get("k")
    local r = m:commit_pipeline() say(shown(r[1]), shown(r[4]), shown(r[2])) say("", r[3][2] == r[2][2]) m:init_pipeline() m:stats() say("", all(m:commit_pipeline())) }),
    '1 v,0 nil,not for upstreams: a command without a key in a pipeline true nil,not for upstreams: a command without a key in a pipeline',
    'commands without a key: which of the servers?' );
is( lua(q{ local m = object("one") m:init_pipeline() m:set("k", "v") m:stats() m:verbosity(1) m:get("k")
    local r = m:commit_pipeline() say(#r[2][1] > 10, shown(r[3]), shown(r[4])) }), 'true 1 v,0', '... that there is' );
is( lua(q{ local codec = { encode = function(v) return "<" .. v .. ">", 7 end, decode = function(t) return t:match("<(.*)>") end }
    local m = object("five", nil, { codec = codec }) m:init_pipeline()
    for i = 1, 9 do m:set("coded" .. i, "c" .. i) m:get("coded" .. i) m:gats("coded" .. i, 0) m:meta_get("coded" .. i) end
    local r, right = m:commit_pipeline(), 0
    for i = 1, 9 do if r[4 * i - 2][1] == "c" .. i and r[4 * i - 1][1] == "c" .. i and r[4 * i][1].value == "c" .. i then right = right + 1 end end
    say(#r, right, object("five"):get("coded1")) }), '36 9 <c1> 7', 'a codec' );
is( lua(q{ local m = object("five") m:init_pipeline()
    for i = 1, 20 do m:meta_set("meta" .. i, i, { ttl = 100 }) m:meta_get("meta" .. i, { ttl = true }) m:meta_arith("meta" .. i, { delta = 3 }) m:meta_delete("meta" .. i) end
    local r, right = m:commit_pipeline(), 0
    for i = 1, 20 do if r[4 * i - 2][1].value == tostring(i) and r[4 * i - 2][1].ttl > 90 and r[4 * i - 1][1] == tostring(i + 3) and r[4 * i][1] == 1 then right = right + 1 end end
    say(#r, right) }), '80 20', 'meta commands: each server is asked for its version' );
is( lua(q{ local m, right, refused = object("old"), 0, {} m:init_pipeline()
    for i = 1, 40 do m:meta_set("meta" .. i, i) m:set("meta" .. i, i) end
    local r = m:commit_pipeline()
    for i = 1, 40 do
        local s = shown(r[2 * i - 1])
        if m:server_of("meta" .. i) == old then refused[s] = true elseif s == "table: " .. s:sub(8) and r[2 * i][1] == 1 then right = right + 1 end
        if r[2 * i][1] ~= 1 then refused[shown(r[2 * i])] = true end
    end
    say(right > 10, set_of(refused)) }),
    'true nil,not supported by memcached 1.6.9: meta commands', '... and what one cannot do is refused for it only' );
is( lua(q{ local m, right, others = object("stuck", 300), 0, {} m:init_pipeline()
    for i = 1, 40 do m:meta_get("none" .. i) end
    local r = m:commit_pipeline()
    for i = 1, 40 do if m:server_of("none" .. i) == stuck then others[shown(r[i])] = true elseif shown(r[i]) == "" then right = right + 1 end end
    say(right > 10, set_of(others)) }), 'true nil,timeout', '... or does not say what it can' );

# failures

is( lua(q{ local m, keys = gets("off", dead) say(sorted(m, keys, dead, m:commit_pipeline())) }),
    'right 0 nil,nil,connection refused', 'off: the error for the keys of one that is away' );
is( lua(q{ local m = object("none") m:init_pipeline() m:get("a") m:get("") m:set("b", 1) say(m:commit_pipeline()) }), 'nil connection refused', 'nobody is there' );
is( lua(q{ local m, texts = object("once"), {} for round = 1, 2 do m:init_pipeline() for i = 1, 30 do m:get("key" .. i) end
    local r = m:commit_pipeline() texts[round] = {}
    for i = 1, 30 do local err = r[i][3] if err then texts[round][err] = true end end end
    say(set_of(texts[1]), set_of(texts[2])) }), 'connection refused no live upstreams', 'disabled after the first failure' );
is( scalar( grep {/temporarily disabled: "\Q127.0.0.1:$dead\E" of "once"/} $nginx->log_lines('warn') ), 1, '... which is counted once' );
is( lua(q{ local m = object("once") m:init_pipeline() local n = 0 for i = 1, 30 do if not m:server_of("key" .. i) then m:get("key" .. i) n = n + 1 end end
    say(n > 0, m:commit_pipeline()) }), 'true nil no live upstreams', 'no server for any command' );

my $died = lua(q{ local m, keys = gets("dying", dying) say(sorted(m, keys, dying, m:commit_pipeline())) for i = 1, 60 do if m:server_of("key" .. i) ~= dying then say("", m:get("key" .. i) == "v" .. i, m:set_keepalive()) break end end });
like( $died, qr/\Aright 0 (?:key\d+,0 ){2}nil,nil,closed true 1\z/, 'one dies on the way: values, then its error' );
is( lua(q{ local m = object("dying") m:init_pipeline() for i = 1, 300 do if m:server_of("incr" .. i) == dying then m:incr("incr" .. i, 1) end end
    local r = m:commit_pipeline() say(r[1][1], r[2][1], r[3][1], r[3][2], r[4][1], r[4][2]) }), '17 17 nil closed nil closed', '... with increments' );
my %seen;
$seen{$_}++ for grep {/^incr/} $dying->lines;
is_deeply( [ grep { $seen{$_} > 1 } keys %seen ], [], '... none of which is repeated' );

is( lua(q{ local m, states = object("twice"), {} for round = 1, 3 do local n = 0
    m:init_pipeline() for i = 1, 300 do if m:server_of("key" .. i) == dying2 then m:get("key" .. i) n = n + 1 end end
    states[round] = n > 5 if n > 0 then m:commit_pipeline() end m:cancel_pipeline() end say(states[1], states[2], states[3]) }),
    'true true false', 'a commit counts one failure, whatever its length' );

my $stalled = lua(q{ local m, keys = gets("silent", silent, 1500) ngx.update_time() local t = ngx.now() local r = m:commit_pipeline() ngx.update_time()
    say(sorted(m, keys, silent, r)) say("", ngx.now() - t < 2.8) });
like( $stalled, qr/\Aright 0 nil,nil,timeout (?:nil,nil,closed nil,nil,timeout )?nil,nil,closed true\z/, 'two do not answer: one time limit' );
is( lua(q{ local m, keys = gets("wrong", wrong) say(sorted(m, keys, wrong, m:commit_pipeline())) }),
    'right 0 nil,nil,bad reply: unexpected key nil,nil,closed', 'one answers what nobody has asked for' );

my $exptimes = lua(q{ local m = object("gutter") m:init_pipeline()
    m:set("a", 1, 0) m:set("b", 1, 3600) m:set("c", 1, 10) m:set("d", 1, -1) m:touch("e", 0) m:gat("f", 3600) m:incr("g", 3600) m:get("h") m:set("i", 1, ngx.time() + 30)
    say(all(m:commit_pipeline())) local r, err = m:gat({ "j", "k" }, 0) say("", err) r, err = m:gats({ "l" }, 7) say("", err) });
is( $exptimes, '1 1 1 1 1 nil,nil,ERROR 17 h,0 1 ERROR ERROR', 'commands go to a backup server' );
is( join( ' ', map {s/ (\d{9,}) / absolute /r} $gutter->lines ),
    'set a 0 60 1 set b 0 60 1 set c 0 10 1 set d 0 -1 1 touch e 60 gat 60 f incr g 3600 get h set i 0 absolute 1 gat 60 j k gats 7 l', '... where nothing lives for long' );

# coroutines

sub sockets {
    my ($worker) = $nginx->workers;
    return scalar grep { ( readlink // '' ) =~ /\Asocket/ } glob "/proc/$worker/fd/*";
}
lua(q{ for i = 1, 3 do object("five"):get("k") end });
my $before = sockets();
is( lua(q{ local m, keys = gets("silent", silent)
    local t = ngx.thread.spawn(m.commit_pipeline, m) ngx.sleep(0.05) ngx.thread.kill(t)
    m:set_timeouts(1000, 1000, 200) m:init_pipeline() for _, key in ipairs(keys) do m:get(key) end
    local right, others, theirs = sorted(m, keys, silent, m:commit_pipeline()) say(right, others, theirs:find("timeout") and "timeout") }),
    'right 0 timeout', 'a killed thread: the object can be used again' );
is( lua(q{ for i = 1, 20 do local m = gets("silent", silent) local t = ngx.thread.spawn(m.commit_pipeline, m) ngx.sleep(0.01) ngx.thread.kill(t) end say("done") }), 'done', 'killed threads' );
cmp_ok( $nginx->wait_for( sub { sockets() <= $before + 8 } ) // 99, '<', 90, '... leave no connections' ) or diag sockets(), " of $before";
is( lua(q{ local m, keys = gets("silent", silent, 300) local first = m
    local t = ngx.thread.spawn(m.commit_pipeline, m) ngx.sleep(0.05)
    m:init_pipeline() for _, key in ipairs(keys) do if silent[m:server_of(key)] then m:get(key) end end local r, err = m:commit_pipeline()
    local busy = r and "answered" or err
    local ok, results = ngx.thread.wait(t) local right, others = sorted(m, keys, silent, results) say(right, others, busy) }),
    'right 0 socket busy reading', 'two threads with one object' );
is( lua(q{ local threads, right = {}, 0
    for n = 1, 20 do threads[n] = ngx.thread.spawn(function() local m = object("five") m:init_pipeline()
        for i = 1, 50 do local key = "t" .. n .. "." .. i m:set(key, n * i) m:get(key) end
        local r = m:commit_pipeline() for i = 1, 50 do if r[2 * i][1] == tostring(n * i) then right = right + 1 end end m:set_keepalive() end) end
    for n = 1, 20 do ngx.thread.wait(threads[n]) end say(right) }), '1000', 'twenty threads, each with its own' );
is( lua(q{ local m = object("five") m:init_pipeline() m:get("k") m:close() say(m:commit_pipeline()) }), 'nil closed', 'not connected any more' );

is_deeply( [ $nginx->log_lines(qw( crit alert emerg )) ], [], 'nothing bad in the log' );
for my $name (qw( five one )) {
    is( lua(qq{ local m = object("$name") m:set("beside", 1) m:init_pipeline() for i = 1, 20 do m:set("p" .. i, i) end
        say((m:flush_all())) say("", (m:version()):match("^1%.") ~= nil)
        local other = object("$name") say("", (other:get("beside"))) say("", (other:get("p7")))
        local r = m:commit_pipeline() say("", #r, r[20][1], (other:get("p7"))) }),
        '1 true nil nil 20 1 7', "$name: flush_all and version are executed at once, beside the pipeline" );
}

undef $nginx;
done_testing();
