# The configurations in nginx-conf/ are accepted by nginx as they are shipped.

use strict;
use warnings;

use lib 't/lib';

use File::Basename qw( basename );
use File::Temp qw( tempdir );
use Test::More;
use TestEnv memcached => 0;

plan skip_all => 'the configurations load the module' if TestEnv::reference_lib();

my $prefix = tempdir( CLEANUP => 1 );
my $ours   = ( TestEnv::modules(1) )[-1];

# nginx resolves a relative load_module against its prefix. Packages and
# scripts/install name the module without cargo's "lib".
mkdir "$prefix/modules" or die "$prefix/modules: $!";
for my $path ( TestEnv::modules(1) ) {
    ( my $name = basename($path) ) =~ s/^lib//;
    symlink $path, "$prefix/modules/$name" or die "$name: $!";
}

# Debian's directories belong to the system's nginx, and nginx -t would change
# their owner to the user of the configuration that it tests.
my $temp_paths = join '', map { "    ${_}_temp_path $prefix/$_;\n" }
    qw( client_body proxy fastcgi uwsgi scgi );

sub read_conf {
    my ($name) = @_;
    open my $file, '<', TestEnv::root() . "/nginx-conf/$name" or die "$name: $!";
    local $/;
    return scalar <$file>;
}

# What nginx -t says about the text, and whether it accepts it.
sub check {
    my ( $name, $text ) = @_;
    open my $file, '>', "$prefix/$name" or die "$name: $!";
    print $file $text;
    close $file or die "$name: $!";

    my $nginx = $ENV{TEST_NGINX_BINARY} || 'nginx';
    my $globals = $text =~ /^pid /m ? '' : "pid $prefix/nginx.pid;";
    my $pid = open my $out, '-|';
    defined $pid or die "fork: $!";
    if ( !$pid ) {
        open STDERR, '>&', \*STDOUT or die $!;
        exec $nginx, '-t', '-e', "$prefix/start.log", '-p', "$prefix/", '-c', "$prefix/$name",
            '-g', $globals or die "$nginx: $!";
    }
    my $said = do { local $/; <$out> };
    close $out;
    return ( $? == 0, $said );
}

sub accepts {
    my ( $name, $text ) = @_;
    my ( $accepted, $said ) = check( $name, $text );
    ok( $accepted, "nginx -t accepts $name" ) or diag($said);
    unlike( $said, qr/\[(?:warn|error|crit|alert|emerg)\]/, "... and has no complaint" );
    return;
}

my $demo = read_conf('demo.conf');
my %value = (
    MODULES_PATH   => "$prefix/modules",
    MODULE         => $ours,
    LISTEN_PORT    => TestEnv::free_port(),
    MEMCACHED_PORT => TestEnv::free_port(),
);
$demo =~ s/^#.*\n//mg;
$demo =~ s/\@([A-Z_]+)\@/$value{$1} \/\/ "(no value for $1)"/ge;
accepts( 'demo.conf', $demo );

my $drop_in = read_conf('drop-in.conf');
my $port    = TestEnv::free_port();
$drop_in =~ s{/var/log/nginx}{$prefix}g;
$drop_in =~ s{(?<=listen 127\.0\.0\.1:)\d+}{$port};
$drop_in =~ s/^(http \{\n)/$1$temp_paths/m or die 'no http block';
$drop_in =~ s{^user .*\n}{}m if $> != 0;    # only root can change it; nginx warns
accepts( 'drop-in.conf', $drop_in );

# The order that the comments ask for is needed indeed.
( my $wrong_order = $drop_in )
    =~ s{^(load_module \S+lua_module\.so;\n)(load_module \S+\n)}{$2$1}m;
my ($accepted) = check( 'wrong-order.conf', $wrong_order );
ok( !$accepted, 'our module before ngx_lua is refused' );

done_testing();
