# The configurations in nginx-conf/ are accepted by nginx as they are shipped.

use strict;
use warnings;

use lib 't/lib';

use File::Basename qw( basename );
use File::Temp qw( tempdir );
use Test::More;
use TestCerts;
use TestEnv memcached => 0;

plan skip_all => 'the configurations load the module' if TestEnv::reference_lib();

my $prefix = tempdir( CLEANUP => 1 );

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
    # the system may have no package with the usual certificates
    my $certs = TestCerts::dir();
    $text =~ s{/etc/ssl/certs/ca-certificates\.crt}{$certs/ca.pem};
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

# As it is, but for the place of the modules, and ports that are free.
sub with_ports {
    my ($text) = @_;
    my %port = map { ( $_ => TestEnv::free_port() ) } 8080, 8081;
    $text =~ s/127\.0\.0\.1:(808[01])\b/127.0.0.1:$port{$1}/g;
    return $text;
}
my $modules = join '', map {"load_module modules/$_;\n"} qw( ndk_http_module.so ngx_http_lua_module.so );

my $demo = with_ports( read_conf('demo.conf') );
$demo =~ s{^load_module /usr/lib/nginx/modules/}{load_module modules/}mg == 3 or die 'not three modules';
accepts( 'demo.conf', $demo );

# One line for an existing site.
my $line = read_conf('drop-in.conf');
is( join( '', grep { !/^\s*(?:#|$)/ } split /^/, $line ),
    "load_module modules/ngx_http_lua_memcached_module.so;\n", 'drop-in.conf is one line' );
my $site = "events {}\nhttp {\n$temp_paths    access_log off;\n%s}\n";
my $drop_in = "$modules$line" . sprintf $site, '';
accepts( 'drop-in.conf', "error_log $prefix/error.log;\n$drop_in" );

# The others are for its http block. t/examples has what they do.
my @others = grep { !/^(?:demo|drop-in)\.conf$/ } map { basename($_) } glob TestEnv::root() . '/nginx-conf/*.conf';
cmp_ok( scalar @others, '>=', 6, 'configurations for the http block' );
for my $name (@others) {
    my $text = read_conf($name);
    # that of groups shows two groups, and both kinds of readers
    my $most = $name eq 'groups.conf' ? 130 : 60;
    cmp_ok( scalar( split /\n/, $text ), '<', $most, "$name is short" );
    ( my $suite = $name ) =~ s/\.conf$/.t/;
    ok( -e TestEnv::root() . '/t/examples/site_' . $suite =~ tr/-/_/r, '... and has a suite' );
    accepts( $name, "error_log $prefix/error.log;\n$modules$line" . sprintf $site, with_ports($text) );
}

# The order that the comments ask for is needed indeed.
my ($accepted) = check( 'wrong-order.conf', "$line$modules" . sprintf $site, '' );
ok( !$accepted, 'our module before ngx_lua is refused' );

done_testing();
