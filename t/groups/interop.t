use strict;
use warnings;

use lib 't/lib';

use File::Temp ();
use Test::More;
use TestEnv memcached => 0;
use Golden;
use LiveNginx;
use Preload;

# Groups beside other clients of the same servers: what Lua writes, they read, and the other way round, with
# all keys of src/distribution/golden. The clients are those that Debian has: nginx's memc module,
# pylibmc, php-memcached, and twemproxy in front of the servers. memcached_pass is in golden.t.

my $modules = $ENV{NGINX_MODULES_PATH} || '/usr/lib/nginx/modules';
my $memc    = "$modules/ngx_http_memc_module.so";

# Debian's python3, not another one that comes first.
my $python = '/usr/bin/python3';
( my $proxy ) = grep {-x} map {"$_/nutcracker"} split( /:/, $ENV{PATH} ), '/usr/sbin';
-e $memc or die "no $memc: install libnginx-mod-http-memc\n";
$proxy or die "no nutcracker: install it\n";
system("$python -c 'import pylibmc'") == 0 or die "no pylibmc: install python3-pylibmc\n";

my %vector = map { $_->{name} => $_ } Golden::vectors();
my %of     = (
    memc   => [qw( nginx-consistent-five_equal nginx-consistent-four_weighted nginx-plain-five_equal nginx-plain-four_weighted )],
    pylibmc => [
        [ 'libmemcached-ketama_weighted-five_equal',  'ketama' ],
        [ 'libmemcached-ketama_weighted-names',       'ketama' ],
        [ 'php-libketama-four_weighted',              'ketama', 'weighted' ],
        [ 'libmemcached-ketama-default-five_equal',   'ketama_unweighted' ],
        [ 'libmemcached-modula-default',              'modula' ],
    ],
    twemproxy => [
        [ 'twemproxy-ketama-md5-five_equal',          'md5',           'ketama' ],
        [ 'twemproxy-ketama-md5-four_weighted',       'md5',           'ketama' ],
        [ 'twemproxy-ketama-fnv1a_64-five_equal',     'fnv1a_64',      'ketama' ],
        [ 'twemproxy-ketama-md5-hash_tag-five_equal', 'md5',           'ketama', '{}' ],
        [ 'twemproxy-modula-crc32-four_weighted',     'crc32',         'modula' ],
        [ 'twemproxy-modula-one_at_a_time-five_equal', 'one_at_a_time', 'modula' ],
    ],
);
my %used = map { $_ => $vector{$_} // die $_ } @{ $of{memc} }, map { $_->[0] } map {@$_} @of{qw( pylibmc twemproxy )};
my ($elsewhere) = Golden::place( values %used );
my $golden = Golden::folder();
local $ENV{ELSEWHERE} = $elsewhere;

# All keys, in hex, for the clients that are programs.
my $keys = File::Temp->new;
open my $in, '<', "$golden/keys.txt" or die "keys.txt: $!";
my $count = 0;
while ( my $key = <$in> ) {
    chomp $key;
    $key =~ s/%([0-9A-F]{2})/chr hex $1/ge;
    print {$keys} unpack( 'H*', $key ), "\n";
    $count++;
}
close $in or die "keys.txt: $!";
close $keys or die "keys: $!";

my $nginx = Preload::with( elsewhere => sub { LiveNginx->start(
    main => "load_module $memc;\nenv ELSEWHERE;\nworker_processes 1;\n",
    http => qq{
        @{[ map { Golden::upstream( $_, $_->{is_nginx} ? $_->{method} eq 'crc' ? 'hash $memc_key;' : 'hash $memc_key consistent;' : undef ) } values %used ]}
        init_by_lua_block {
            @{[ TestEnv::lua_kit() ]}
            groupkit = require "groupkit"
            keys = groupkit.keys("$golden")
        }
    },
    server => join( '', map {qq{
        location = /memc/$_ {
            set_by_lua_block \$memc_cmd { return ngx.var.arg_cmd }
            set_by_lua_block \$memc_key { return ngx.unescape_uri(ngx.var.arg_key) }
            set_by_lua_block \$memc_value { return ngx.unescape_uri(ngx.var.arg_value or "") }
            memc_pass $_;
        }
    }} @{ $of{memc} } ) . q{
        location = /set {
            content_by_lua_block {
                local m, right = groupkit.object(), 0
                assert(m:connect(ngx.var.arg_name, tonumber(ngx.var.arg_port)))
                for i, key in ipairs(keys) do
                    if m:set(key, ngx.var.arg_prefix .. i) == 1 then right = right + 1 end
                end
                m:set_keepalive()
                ngx.print(right)
            }
        }
        location = /get {
            content_by_lua_block {
                local m, right = groupkit.object(), 0
                assert(m:connect(ngx.var.arg_name, tonumber(ngx.var.arg_port)))
                for i = 1, #keys, 100 do
                    local last = math.min(i + 99, #keys)
                    local found, err, errors = m:get { unpack(keys, i, last) }
                    if err then ngx.log(ngx.ERR, err) end
                    for j = i, last do
                        local item = found[keys[j]]
                        if item and item[1] == ngx.var.arg_prefix .. j and item[2] == "0" then right = right + 1 end
                    end
                end
                m:set_keepalive()
                ngx.print(right)
            }
        }
        # What memc does with all keys that it sends as they are.
        location = /memc {
            content_by_lua_block {
                local cmd, right, asked = ngx.var.arg_cmd, 0, 0
                for i = 1, #keys, 100 do
                    local requests, values = {}, {}
                    for j = i, math.min(i + 99, #keys) do
                        if not keys[j]:find("%", 1, true) then
                            values[#values + 1] = ngx.var.arg_prefix .. j
                            requests[#requests + 1] = { "/memc/" .. ngx.var.arg_name,
                                { args = { cmd = cmd, key = keys[j], value = values[#values] } } }
                        end
                    end
                    asked = asked + #requests
                    for j, answer in ipairs { ngx.location.capture_multi(requests) } do
                        if cmd == "get" and answer.status == 200 and answer.body == values[j]
                            or cmd == "set" and answer.status == 201 then right = right + 1 end
                    end
                end
                ngx.print(right == asked and right > 2900 and "all" or right .. " of " .. asked)
            }
        }
    },
) } );

sub lua { my ( $path, $name, $prefix, $port ) = @_; return $nginx->get( "/$path?name=$name&prefix=$prefix" . ( $port ? "&port=$port" : '' ) ) }

my $round = 0;
for my $name ( @{ $of{memc} } ) {
    my $mine = 'lua' . ++$round;
    is( lua( set => $name, $mine ), $count, "$name: Lua writes" );
    is( $nginx->get("/memc?name=$name&cmd=get&prefix=$mine"), 'all', '... memc reads' );
    is( $nginx->get("/memc?name=$name&cmd=set&prefix=memc$round"), 'all', '... memc writes' );
    # those with a % are still Lua's
    cmp_ok( lua( get => $name, "memc$round" ), '>', 2900, '... Lua reads' );
}

# What a program prints that connects elsewhere.
sub run {
    my (@command) = @_;
    return Preload::with(
        elsewhere => sub {
            # PHP has its extensions look for functions in their own libraries first
            local $ENV{LD_PRELOAD} = "$ENV{LD_PRELOAD} libmemcached.so.11" if "@command" =~ /\Aphp /;
            my $said = qx{timeout 60 @command <$keys 2>&1};
            return $said;
        }
    );
}

for my $client ( [ pylibmc => "$python t/lib/peer.py" ], [ 'php-memcached' => 'php t/lib/peer.php' ] ) {
    my ( $who, $program ) = @$client;
    for ( @{ $of{pylibmc} } ) {
        my ( $name, $kind, $weighted ) = @$_;
        my @servers = map { $_->{address} . ( $weighted ? "=$_->{weight}" : '' ) } @{ $vector{$name}{servers} };
        $round++;
        is( lua( set => $name, "lua$round." ), $count, "$name: Lua writes" );
        my ( $right, $refused ) = split / /, run( $program, $kind, 'get', "lua$round.", @servers );
        is( $right, $count - ( $refused // 0 ), "... $who reads" );
        is( run( $program, $kind, 'set', "peer$round.", @servers ), "$right $refused", "... $who writes" );
        is( lua( get => $name, "peer$round." ), $right, '... Lua reads' );
        cmp_ok( $right, '>=', 2838, '... all but those with UTF-8 at least' );
    }
}

for ( @{ $of{twemproxy} } ) {
    my ( $name, $hash, $distribution, $tag ) = @$_;
    my $port = TestEnv::free_port();
    my $conf = File::Temp->new;
    print {$conf} "pool:\n  listen: 127.0.0.1:$port\n  hash: $hash\n  distribution: $distribution\n  timeout: 5000\n",
        ( $tag ? "  hash_tag: \"$tag\"\n" : '' ), "  servers:\n", map {"   - $_->{address}:$_->{weight}\n"} @{ $vector{$name}{servers} };
    close $conf or die "conf: $!";
    my $pid = Preload::with( elsewhere => sub {
        TestEnv::Child::spawn( [ $proxy, '-c', "$conf", '-a', '127.0.0.1', '-s', TestEnv::free_port() ], stderr => "$nginx->{dir}/logs/twemproxy" );
    } );
    $nginx->wait_for( sub { TestEnv::Memcached::answers($port) } ) or die "twemproxy does not start\n" . LiveNginx::slurp("$nginx->{dir}/logs/twemproxy");
    $round++;
    is( lua( set => $name, "lua$round." ), $count, "$name: Lua writes" );
    is( lua( get => '127.0.0.1', "lua$round.", $port ), $count, '... and reads through twemproxy' );
    is( lua( set => '127.0.0.1', "proxy$round.", $port ), $count, '... writes through twemproxy' );
    is( lua( get => $name, "proxy$round." ), $count, '... and reads' );
    TestEnv::Child::stop( $pid, TERM => 2 );
}

is_deeply( [ $nginx->log_lines(qw( error crit alert emerg )) ], [], 'nothing bad in the log' ) or diag( $nginx->log );
undef $nginx;
done_testing();
