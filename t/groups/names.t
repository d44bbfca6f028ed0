use strict;
use warnings;

use lib 't/lib';

use Test::More;
use TestEnv memcached => 0;
use GroupServers;
use LiveNginx;
use Preload;

# Names with several addresses: one server with one place in the distribution, by its first usable address.
# elsewhere.c gives names their addresses, and has nginx connect to memcacheds of this machine.

my @ports = map { TestEnv::start_memcached() } 1 .. 3;
my $dead  = TestEnv::free_port();
my $rest  = 'max_fails=1 fail_timeout=60s';

local $ENV{ELSEWHERE} = join ' ', 'two.test=127.0.1.1,127.0.1.2', 'half.test=127.0.1.3,127.0.1.2',
    "127.0.1.1:11211=127.0.0.1:$ports[0]", "127.0.1.2:11211=127.0.0.1:$ports[1]", "127.0.1.3:11211=127.0.0.1:$dead";
my $nginx = Preload::with( elsewhere => sub { LiveNginx->start(
    main => "env ELSEWHERE;\n",
    http => qq{
        upstream two     { lua_memcached_hash ketama; server two.test:11211; server 127.0.0.1:$ports[2]; }
        upstream half    { lua_memcached_hash ketama; server half.test:11211 $rest; server 127.0.0.1:$ports[2]; }
        upstream off     { lua_memcached_hash ketama; lua_memcached_failover off; server half.test:11211 $rest; server 127.0.0.1:$ports[2]; }
        upstream crc     { lua_memcached_hash crc; server two.test:11211; server 127.0.0.1:$ports[2]; }
        upstream twice   { lua_memcached_hash modula; server 127.0.0.1:$ports[0]; server 127.0.0.1:$ports[0]; server 127.0.0.1:$ports[2]; }
        lua_socket_log_errors off;
        @{[ GroupServers::init(q{
            -- who takes 300 keys, in the order of their names
            function takers(m)
                local counts, names = {}, {}
                for i = 1, 300 do
                    local name = m:server_of("key" .. i)
                    if not counts[name] then names[#names + 1] = name end
                    counts[name] = (counts[name] or 0) + 1
                end
                table.sort(names)
                return table.concat(names, " "), counts
            end
        }) ]}
    },
    server => GroupServers::location(),
) } );

sub lua { return GroupServers::lua( $nginx, @_ ) }
my $other = "127.0.0.1:$ports[2]";

is( lua(q{ say((takers(object("two")))) }), "$other 127.0.1.1:11211", 'the first address, always' );
is( lua(q{ say((takers(object("crc")))) }), "$other 127.0.1.1:11211 127.0.1.2:11211", 'crc: each address, as nginx does' );
is( lua(q{ local m = object("two") local wrong = 0
    for i = 1, 300 do if m:set("key" .. i, i) ~= 1 or m:get("key" .. i) ~= tostring(i) then wrong = wrong + 1 end end
    say(wrong, m:close()) }), '0 1', 'values are stored' );
my $keys = lua(q{ local _, counts = takers(object("two")) say(counts["127.0.1.1:11211"]) });
cmp_ok( $keys, '>', 50, '... many of them there' );
sub items { return GroupServers::stat_of( $_[0], 'curr_items' ) }
is( items( $ports[0] ), $keys, '... as many as it is said to take' );
is( items( $ports[1] ), 0,     '... and none at the other address' );

is( lua(q{ local m = object("half") local _, before = takers(m)
    for i = 1, 300 do m:set("key" .. i, i) end
    local names, after = takers(m)
    say(names, before["127.0.1.3:11211"] == after["127.0.1.2:11211"]) }),
    "$other 127.0.1.2:11211 true", 'if it is away, its keys go to the next address and not to other servers' );
is( lua(q{ local m = object("off") local k
    for i = 1, 300 do k = "key" .. i if m:server_of(k) == "127.0.1.3:11211" then break end end
    say((m:set(k, 1))) say("", m:set(k, 1)) say("", (m:server_of(k))) }),
    '1 1 127.0.1.2:11211', '... without failover as well' );
is( lua(q{ local _, counts = takers(object("twice")) say(counts["127.0.0.1:} . $ports[0] . q{"] or 0) }),
    lua(q{ local _, counts = takers(object("twice")) say(300 - counts["} . $other . q{"]) }), 'the same line twice is one server' );

my @told = $nginx->log =~ /\[notice\] .*?(upstream "\w+": server "\S+" has \d+ addresses, of which the first usable one is used) in \S+:\d+/g;
my $line = sub { return qq{upstream "$_[0]": server "$_[1]:11211" has 2 addresses, of which the first usable one is used} };
is_deeply( \@told, [ $line->( 'two', 'two.test' ), map { $line->( $_, 'half.test' ) } qw( half off ) ], 'the log says so once' );

done_testing();
