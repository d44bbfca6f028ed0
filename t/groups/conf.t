# What nginx -t says about upstream blocks that are used by key.

use strict;
use warnings;

use lib 't/lib';

use File::Temp qw( tempdir );
use Test::More;
use TestEnv memcached => 0;

my $prefix = tempdir( CLEANUP => 1 );
mkdir "$prefix/$_" or die "$prefix/$_: $!" for qw( logs temp );
# Debian's package of a load balancer that keeps its servers where only it finds them.
my $fair = ( $ENV{NGINX_MODULES_PATH} || '/usr/lib/nginx/modules' ) . '/ngx_http_upstream_fair_module.so';
-e $fair or die "no $fair: install libnginx-mod-http-upstream-fair\n";
my $load  = join '', map {"load_module $_;\n"} $fair, TestEnv::modules(1);
my $temps = join '', map {"${_}_temp_path temp;\n"} qw( client_body proxy fastcgi uwsgi scgi );
my $head  = "${load}error_log stderr info; pid nginx.pid; events {}\nhttp {\n$temps";
my $nginx = $ENV{TEST_NGINX_BINARY} || 'nginx';

# What nginx -t says about an http block, and whether it accepts it.
sub check {
    my ($http) = @_;
    open my $file, '>', "$prefix/nginx.conf" or die "nginx.conf: $!";
    print {$file} "$head$http\n}\n";
    close $file or die "nginx.conf: $!";
    my $pid = open my $out, '-|';
    defined $pid or die "fork: $!";
    if ( !$pid ) {
        open STDERR, '>&', \*STDOUT or die $!;
        exec $nginx, '-t', '-p', "$prefix/", '-c', 'nginx.conf', '-e', 'stderr' or die "$nginx: $!";
    }
    my $said = do { local $/; <$out> };
    close $out;
    return ( $? == 0, $said );
}

sub accepts {
    my ( $name, $http ) = @_;
    my ( $accepted, $said ) = check($http);
    ok( $accepted, "accepts $name" ) or diag($said);
    unlike( $said, qr/\[(?:warn|error|crit|alert|emerg)\]/, '... and has no complaint' );
    return;
}

# The whole text is compared, with the line of the http block's text where the error is.
sub refuses {
    my ( $name, $http, $text, $line ) = @_;
    my ( $accepted, $said ) = check($http);
    ok( !$accepted, "refuses $name" );
    my ($emerg) = $said =~ /\[emerg\] \d+#\d+: (.*)/;
    $line += ( $head =~ tr/\n// );
    is( $emerg, "$text in $prefix/nginx.conf:$line", '... and says why and where' );
    return;
}

# Accepted, with these warnings, each with its line as above.
sub warns {
    my ( $name, $http, @texts ) = @_;
    my ( $accepted, $said ) = check($http);
    ok( $accepted, "accepts $name" ) or diag($said);
    my @told = $said =~ /\[warn\] \d+#\d+: (.*)/g;
    is_deeply( \@told, [ map {"$_->[0] in $prefix/nginx.conf:" . ( $_->[1] + ( $head =~ tr/\n// ) )} @texts ], '... and warns' );
    return;
}

sub upstream { return "upstream cache-group { $_[0] }" }

my $two   = 'server 127.0.0.1:11311; server 127.0.0.1:11312;';
my $key   = 'map $uri $cache_key { default $uri; }';

# lua_memcached_hash
accepts( "lua_memcached_hash $_", upstream("lua_memcached_hash $_; $two") )
    for 'consistent', 'crc', 'ketama', 'ketama_unweighted', 'modula', 'modula hash=crc',
    'ketama hash=fnv1a_64 "hash_tag={}"', 'crc hash_tag=<>', 'ketama_unweighted hash=md5';
my $methods = '"consistent", "crc", "ketama", "ketama_unweighted" and "modula"';
for my $case (
    [ 'jump',          qq{does not know the method "jump", only $methods} ],
    [ 'Ketama',        qq{does not know the method "Ketama", only $methods} ],
    [ 'ketama hash=sha1',
        'does not know the hash "sha1", only "one_at_a_time", "md5", "crc" and "fnv1a_64"' ],
    [ 'consistent hash=md5', 'takes no "hash" with "consistent", which is a method of nginx' ],
    [ 'ketama hash_tag=x',   'needs two characters in "hash_tag", as in "hash_tag={}" with the quotes' ],
    [ 'ketama hash=md5 hash=md5', 'has "hash" twice' ],
    [ 'ketama weighted',          'takes only the parameters "hash" and "hash_tag"' ],
    [ 'crc; lua_memcached_hash crc', 'is duplicate' ],
    )
{
    my ( $arguments, $text ) = @$case;
    refuses(
        "lua_memcached_hash $arguments", upstream("lua_memcached_hash $arguments; $two"),
        qq{"lua_memcached_hash" directive $text}, 1
    );
}
refuses( 'no method', upstream("lua_memcached_hash; $two"),
    'invalid number of arguments in "lua_memcached_hash" directive', 1 );
refuses( 'a method outside of an upstream', 'lua_memcached_hash crc;',
    '"lua_memcached_hash" directive is not allowed here', 1 );

# Two methods
my $or = 'other users of it would look for keys in other servers';
accepts( 'the same twice',
    $key . upstream("hash \$cache_key consistent; lua_memcached_hash consistent; $two") );
accepts( 'the same twice, crc', $key . upstream("lua_memcached_hash crc; hash \$cache_key; $two") );
for my $case (
    [ 'ketama',              'consistent', 'ketama',                 'hash ... consistent' ],
    [ 'crc',                 'consistent', 'crc',                    'hash ... consistent' ],
    [ 'consistent',          '',           'consistent',             'hash ...' ],
    [ 'modula hash=md5',     '',           'modula hash=md5',        'hash ...' ],
    [ 'crc hash_tag=<>',     '',           'crc hash_tag=<>',        'hash ...' ],
    )
{
    my ( $said, $consistent, $shown, $own ) = @$case;
    for my $keepalive ( '', 'keepalive 4;' ) {
        refuses(
            "$said with hash $consistent $keepalive",
            $key . upstream("lua_memcached_hash $said; hash \$cache_key $consistent; $two $keepalive"),
            qq{upstream "cache-group": "lua_memcached_hash $shown" and "$own" in one upstream: $or}, 1
        );
    }
}
accepts( 'ketama beside least_conn, which has no keys',
    upstream("lua_memcached_hash ketama; $two least_conn;") );

# $lua_memcached_key
for my $consistent ( '', ' consistent' ) {
    accepts( "hash \$lua_memcached_key$consistent",
        upstream("hash \$lua_memcached_key$consistent; $two lua_memcached_failover off;") );
}

# lua_memcached_failover
my $backup = 'server 127.0.0.1:11313 backup;';
accepts( "lua_memcached_failover $_",
    upstream("lua_memcached_hash ketama; lua_memcached_failover $_; $two $backup") )
    for 'next', 'off', 'backup', 'backup exptime=10s', 'backup exptime=30d', 'backup exptime=90';
accepts( 'failover beside hash',
    $key . upstream("hash \$cache_key consistent; lua_memcached_failover off; $two") );
accepts( 'failover of one server', upstream('lua_memcached_failover off; server 127.0.0.1:11311;') );
accepts( 'one server and one for backup',
    upstream("lua_memcached_failover backup; server 127.0.0.1:11311; $backup") );
for my $case (
    [ 'on',                   'needs "next", "off" or "backup"' ],
    [ 'off exptime=5s',       'takes one parameter, "exptime", with "backup" only' ],
    [ 'backup 5s',            'takes one parameter, "exptime", with "backup" only' ],
    [ 'backup exptime=0',     'needs an "exptime" from 1s to 30d' ],
    [ 'backup exptime=31d',   'needs an "exptime" from 1s to 30d' ],
    [ 'backup exptime=',      'needs an "exptime" from 1s to 30d' ],
    [ 'backup exptime=1x',    'needs an "exptime" from 1s to 30d' ],
    [ 'off; lua_memcached_failover off', 'is duplicate' ],
    )
{
    my ( $arguments, $text ) = @$case;
    refuses(
        "lua_memcached_failover $arguments",
        upstream("lua_memcached_hash ketama; lua_memcached_failover $arguments; $two $backup"),
        qq{"lua_memcached_failover" directive $text}, 1
    );
}
refuses(
    'backup without a server for it',
    upstream("lua_memcached_hash ketama; lua_memcached_failover backup; $two"),
    'upstream "cache-group": "lua_memcached_failover backup" needs a "backup" server', 1
);

# Several servers and no method
my $by_key = 'upstream "cache-group" does not distribute by key '
    . '(add "hash $memcached_key consistent" or "lua_memcached_hash")';
refuses( "no method: $_", upstream("$two $_"), $by_key, 1 )
    for 'lua_memcached_failover off;', 'lua_memcached_check interval=5s;',
    'least_conn; lua_memcached_failover off;', 'keepalive 4; lua_memcached_failover off;';
refuses( 'no method for two backup servers',
    upstream("server 127.0.0.1:11311; $backup server 127.0.0.1:11314 backup; lua_memcached_failover backup;"),
    $by_key, 1 );
refuses(
    'a block of which another module chooses servers',
    upstream("$two balancer_by_lua_block { } lua_memcached_failover off;"), $by_key, 1
);
my $foreign = 'the servers of upstream "cache-group" are known to its load balancing module only';
refuses( 'servers that only another module knows', upstream("$two fair; lua_memcached_hash ketama;"), $foreign, 1 );
refuses( '... in place of a server', "lua_memcached_upstream a:1 cache-group;\n" . upstream("$two fair;"),
    qq{"lua_memcached_upstream" directive: $foreign}, 1 );
accepts( 'blocks without a word of ours',
    upstream("$two keepalive 4;") . 'upstream b { server 127.0.0.1:1 weight=5000; server 127.0.0.1:2; }' );

# Weights
refuses(
    "weights of $_->[0]",
    upstream("$_->[1] server 127.0.0.1:11311 weight=4096; server 127.0.0.1:11312;"),
    'upstream "cache-group": sum of weights exceeds 4096 (a weight of 1 is 160 points)', 1
    )
    for [ 'consistent', 'lua_memcached_hash consistent;' ],
    [ 'hash consistent', 'hash x consistent; lua_memcached_failover off;' ],
    [ 'hash consistent in keepalive', 'hash x consistent; lua_memcached_failover off; keepalive 2;' ];
accepts( "weights of $_",
    upstream("lua_memcached_hash $_; server 127.0.0.1:1 weight=600000; server 127.0.0.1:2 weight=300000;") )
    for 'ketama', 'ketama_unweighted', 'modula', 'crc';
accepts( 'the most weight',
    upstream('lua_memcached_hash consistent; server 127.0.0.1:1 weight=4095; server 127.0.0.1:2;') );

# Ports
my $port_80 = sub { return qq{upstream "$_[0]": server "$_[1]" has no port, nginx's default is 80} };
warns(
    'servers without a port', upstream('lua_memcached_hash ketama; server 127.0.0.1; server 127.0.0.1:80; server [::1]; server unix:/m; server 127.0.0.2 backup;'),
    [ $port_80->( 'cache-group', '127.0.0.1' ), 1 ], [ $port_80->( 'cache-group', '[::1]' ), 1 ], [ $port_80->( 'cache-group', '127.0.0.2' ), 1 ]
);
warns( 'one that stands for a server', "\nlua_memcached_upstream a:1 one; lua_memcached_upstream a:2 one;\nupstream one { server 127.0.0.1; }",
    [ $port_80->( 'one', '127.0.0.1' ), 3 ] );
warns( 'a named one, once', upstream('lua_memcached_hash ketama; server localhost;'),
    [ $port_80->( 'cache-group', 'localhost' ), 1 ] );
accepts( 'those of blocks that may be for something else', upstream('hash $uri consistent; server 127.0.0.1; server 127.0.0.2;') );

# lua_memcached_check
accepts( "lua_memcached_check $_", upstream("lua_memcached_hash ketama; lua_memcached_check $_; $two") )
    for 'interval=5s', 'interval=100ms passes=3 timeout=50ms', 'timeout=1s interval=1m';
for my $case (
    [ 'passes=1',              'needs an "interval"' ],
    [ 'interval=0',            'needs an "interval" of 10ms or more' ],
    [ 'interval=x',            'needs an "interval" of 10ms or more' ],
    [ 'interval=5s passes=0',  'needs a number of "passes" from 1 to 100' ],
    [ 'interval=5s passes=101', 'needs a number of "passes" from 1 to 100' ],
    [ 'interval=5s passes=-1', 'needs a number of "passes" from 1 to 100' ],
    [ 'interval=5s timeout=0', 'needs a "timeout" of 10ms or more' ],
    [ 'interval=5s rise=1',    'takes only the parameters "interval", "passes" and "timeout"' ],
    [ 'interval=5s interval=5s', 'has a parameter twice' ],
    [ 'interval=5s; lua_memcached_check interval=5s', 'is duplicate' ],
    )
{
    my ( $arguments, $text ) = @$case;
    refuses(
        "lua_memcached_check $arguments",
        upstream("lua_memcached_hash ketama; lua_memcached_check $arguments; $two"),
        qq{"lua_memcached_check" directive $text}, 1
    );
}

# lua_memcached_discover
accepts( "lua_memcached_discover $_",
    upstream("lua_memcached_hash ketama; lua_memcached_discover $_; server 127.0.0.1:11311;") )
    for 'elasticache', 'elasticache interval=10s', 'elasticache name=ip interval=1s',
    'elasticache name=host';
for my $case (
    [ 'consul',                     'needs "elasticache"' ],
    [ 'elasticache2',               'needs "elasticache"' ],
    [ 'interval=10s',               'needs "elasticache"' ],
    [ 'elasticache interval=999ms', 'needs an "interval" of 1s or more' ],
    [ 'elasticache name=dns',       'needs "name=host" or "name=ip"' ],
    [ 'elasticache port=1',         'takes only the parameters "interval" and "name"' ],
    [ 'elasticache; lua_memcached_discover elasticache', 'is duplicate' ],
    )
{
    my ( $arguments, $text ) = @$case;
    refuses(
        "lua_memcached_discover $arguments",
        upstream("lua_memcached_hash ketama; lua_memcached_discover $arguments; server 127.0.0.1:11311;"),
        qq{"lua_memcached_discover" directive $text}, 1
    );
}
refuses(
    'a discovered list without a method',
    upstream('lua_memcached_discover elasticache; server 127.0.0.1:11311;'),
    'upstream "cache-group": "lua_memcached_discover" needs "lua_memcached_hash"', 1
);

# lua_memcached_upstream
my $group = upstream("lua_memcached_hash ketama; $two");
accepts( "lua_memcached_upstream $_ cache-group", "lua_memcached_upstream $_ cache-group; $group" )
    for '127.0.0.1:11211', 'memcached.example:1', '[::1]:65535';
accepts( 'it in all contexts, before and behind the upstream', <<"END" );
lua_memcached_upstream a:1 Cache-Group; lua_memcached_upstream a:2 one;
$group
upstream one { server 127.0.0.1:11311; }
server {
    lua_memcached_upstream a:1 one;
    location / { lua_memcached_upstream a:1 cache-group; }
}
END
for my $case (
    ( map { [ $_, 'needs HOST:PORT and the name of an upstream' ] }
        'a', ':1', 'a:', 'a:0', 'a:65536', 'a:1x', 'a:+1', '::1:11211', 'unix:/run/memcached.sock' ),
    [ 'a:1 cache-group; lua_memcached_upstream A:1', 'is duplicate' ],
    )
{
    my ( $arguments, $text ) = @$case;
    refuses(
        "lua_memcached_upstream $arguments",
        "lua_memcached_upstream $arguments cache-group; $group",
        qq{"lua_memcached_upstream" directive $text}, 1
    );
}
my $mapped = '"lua_memcached_upstream" directive:';
refuses( 'a name that is no upstream', "\n$group\nlua_memcached_upstream a:1 cache;",
    qq{$mapped there is no upstream "cache"}, 3 );
refuses( 'a name that is an implicit upstream',
    "$group server { location / { proxy_pass http://127.0.0.1:9; }\nlua_memcached_upstream a:1 127.0.0.1; }",
    qq{$mapped there is no upstream "127.0.0.1"}, 2 );
refuses( 'an upstream that has no method',
    "lua_memcached_upstream a:1 cache-group;\n" . upstream($two), qq{$mapped $by_key}, 1 );
refuses( 'an upstream with too much weight',
    "lua_memcached_upstream a:1 cache-group;\n"
        . upstream('hash x consistent; server 127.0.0.1:1 weight=5000; server 127.0.0.1:2;'),
    qq{$mapped upstream "cache-group": sum of weights exceeds 4096 (a weight of 1 is 160 points)}, 1 );

done_testing();
