use strict;
use warnings;

use lib 't/lib';

use File::Temp ();
use Test::More;
use Time::HiRes qw( sleep time );
use TestEnv memcached => 0;
use DnsList;
use GroupServers;
use LiveNginx;
use Preload;

# The servers of a block change because its name has other addresses: `resolve`, which nginx has since 1.27.3.
# An older one is asked whether it refuses it. elsewhere.c has nginx connect to memcacheds of this machine.

my @ports = map { TestEnv::start_memcached() } 1 .. 3;
my @at    = map {"127.0.1.$_"} 1 .. 3;
my $dns   = DnsList->start( @at[ 0, 1 ] );
my @names = map {"$_:11211"} @at;

local $ENV{ELSEWHERE} = join ' ', map {"$names[$_]=127.0.0.1:$ports[$_]"} 0 .. 2;
my $block = sub {
    my ( $name, $method ) = @_;
    return qq{
        upstream $name {
            zone $name 128k; $method;
            resolver 127.0.0.1:@{[ $dns->port ]} valid=1s ipv6=off;
            server cache.test:11211 resolve;
        }
    };
};
my $start = sub {
    return Preload::with( elsewhere => sub { LiveNginx->start(
        main => "env ELSEWHERE;\nworker_processes 2;\n",
        http => $block->( five => 'lua_memcached_hash crc' ) . $block->( home => 'lua_memcached_hash ketama' ) . qq{
            lua_socket_log_errors off;
            @{[ GroupServers::init(qq{
                ports = { @{[ join ', ', @ports ]} }
                at = { @{[ join ', ', map {qq{["$names[$_]"] = $_}} 0 .. 2 ]} }
                -- Each server has each key, with a value that names both.
                function fill()
                    for n, port in ipairs(ports) do
                        local m = object_at(port)
                        for i = 1, 200 do assert(m:set("key" .. i, n - 1 .. ":" .. i)) end
                        m:set_keepalive()
                    end
                end
                function object_at(port)
                    local m = require "resty.memcached":new()
                    m:set_timeout(5000)
                    assert(m:connect("127.0.0.1", port))
                    return m
                end
                -- The servers of all keys, as the numbers of their names; or the error.
                function homes(name)
                    local m, found, list = object(name), {}, {}
                    for i = 1, 200 do
                        local server, err = m:server_of("key" .. i)
                        if not server then return err end
                        found[at[server]] = true
                    end
                    for n = 0, 2 do if found[n] then list[#list + 1] = n end end
                    return table.concat(list, " ")
                end
            }) ]}
        },
        server => GroupServers::location() . q{
            # gets and lists of keys: how many values are missing or are another key's
            location = /load {
                content_by_lua_block {
                    local wrong, why = 0, ""
                    local m = object("five", 5000, 5000)
                    local function check(i, value, err)
                        if not value or not value:find("^[012]:" .. i .. "$") then wrong, why = wrong + 1, why .. " " .. tostring(err or value) end
                    end
                    local keys = {}
                    for i = 1, 40 do
                        local value, _, err = m:get("key" .. i)
                        check(i, value, err)
                        keys[i] = "key" .. i
                    end
                    local found, err = m:get(keys)
                    for i = 1, 40 do check(i, found and found[keys[i]] and found[keys[i]][1], err) end
                    m:set_keepalive(10000, 10)
                    ngx.print(wrong, why)
                }
            }
        },
    ) } );
};

my ($binary) = grep {-x} $ENV{TEST_NGINX_BINARY} || (), map {"$_/nginx"} split( /:/, $ENV{PATH} ), '/usr/sbin';
my ( $major, $minor, $patch ) = `$binary -v 2>&1` =~ m{nginx/(\d+)\.(\d+)\.(\d+)} or die "$binary -v says no version";
if ( $major * 1e6 + $minor * 1e3 + $patch < 1_027_003 ) {
    my $conf = File::Temp->new;
    print {$conf} "events {} http { upstream a { zone a 64k; server cache.test:11211 resolve; } }";
    $conf->flush;
    like( scalar `$binary -t -e stderr -c $conf 2>&1`, qr/invalid parameter "resolve"/, "nginx $major.$minor.$patch refuses it" );
    done_testing();
    exit;
}

my $nginx = $start->();
sub lua { return GroupServers::lua( $nginx, @_ ) }

# What workers say of the servers, once all agree: 0: not in time.
sub becomes {
    my ( $name, $list ) = @_;
    my ( $same, $until ) = ( 0, time + 20 );
    while ( $same < 12 && time < $until ) {
        $same = lua(qq{ say(homes("$name")) }) eq $list ? $same + 1 : 0;
        sleep 0.05 if !$same;
    }
    return $same;
}

is( lua('fill() say("filled")'), 'filled', 'each server has each key' );
ok( becomes( five => '0 1' ), 'the addresses of the name' );
ok( becomes( home => '0' ) || becomes( home => '1' ), 'ketama: a name is one server, at one of its addresses' );
is( $nginx->get('/load'), '0', 'each key is found' );
$dns->names(@at);
ok( becomes( five => '0 1 2' ), 'one more' );
is( $nginx->get('/load'), '0', '... each key is found' );
$dns->names( $at[2] );
ok( becomes( five => '2' ), 'one of three' );
ok( becomes( home => '2' ), '... with ketama' );
is( lua(q{ local m = object("home") say((m:get("key7"))) }), '2:7', '... which has all keys' );

# connections to those that are gone
sub connections { return GroupServers::stat_of( $_[0], 'curr_connections' ) }
$nginx->get('/load') for 1 .. 10;
my $until = time + 20;
sleep 0.05 while ( connections( $ports[0] ) > 2 || connections( $ports[1] ) > 2 ) && time < $until;
cmp_ok( connections( $ports[$_] ), '<=', 2, "no connection is kept to server $_" ) for 0, 1;

my ( $requests, @wrong ) = (0);
my @lists = ( [0], [ 1, 2 ], [ 0, 2 ], [1], [ 0, 1, 2 ], [2] );
for my $n ( 0 .. 11 ) {
    $dns->names( @at[ @{ $lists[ $n % @lists ] } ] );
    my $end = time + 1.3;
    while ( time < $end ) {
        my $said = $nginx->get('/load');
        push @wrong, $said if $said ne '0';
        $requests++;
    }
}
is( "@wrong", '', "twelve changes under load: no error, no wrong value ($requests requests)" );

$dns->names();
ok( becomes( five => 'no live upstreams' ), 'a name that is not known any more' );
is( lua(q{ say(object("five"):get("key1")) }), 'nil nil no live upstreams', '... an error' );
$dns->names( @at[ 0, 2 ] );
ok( becomes( five => '0 2' ), '... and is known again' );
is( $nginx->get('/load'), '0', '... each key is found' );
is( scalar( grep {/exited on signal|internal error/} split /\n/, $nginx->log ), 0, 'no worker has ended' );

done_testing();
