use strict;
use warnings;
use lib 't/lib';

use File::Path qw( make_path );
use File::Temp ();
use Test::More;

use TestEnv memcached => 0;

# scripts/install on an nginx of this suite's own: a wrapper of the real one, whose directories are
# in a temporary directory.

plan skip_all => 'the reference is no nginx module' if $ENV{TEST_NGINX_REFERENCE_LIB};

my $root    = TestEnv::root();
my $binary  = $ENV{TEST_NGINX_BINARY} || 'nginx';
my $dir     = File::Temp->newdir( 'instXXXXXX', TMPDIR => 1 );
my ( $ndk, $ngx_lua, $ours ) = TestEnv::modules(1);
my $enabled = "$dir/etc/modules-enabled/60-mod-http-lua-memcached.conf";
my $module  = "$dir/modules/ngx_http_lua_memcached_module.so";
my $snippet = "$dir/share/modules-available/mod-http-lua-memcached.conf";
make_path map {"$dir/$_"} qw( etc/modules-enabled modules share bin log );

sub spill {
    my ( $path, $text, $mode ) = @_;
    open my $file, '>', $path or die "$path: $!";
    print {$file} $text;
    close $file or die "$path: $!";
    chmod $mode, $path if $mode;
    return;
}
my ($number) = `$binary -v 2>&1` =~ m{/([\d.]+)};

# What nginx -V says names these directories.
sub nginx_of_version {
    my ($version) = @_;
    spill( "$dir/bin/nginx", <<"END", 0755 );
#!/bin/sh
case \$1 in
-V) echo 'nginx version: nginx/$version
configure arguments: --prefix=$dir/share --conf-path=$dir/etc/nginx.conf --modules-path=$dir/modules' >&2 ;;
*) exec '$binary' "\$@" -p '$dir/' -e '$dir/log/start.log' -c '$dir/etc/nginx.conf' ;;
esac
END
    return;
}
# Without root: this directory is the user's own.
spill( "$dir/bin/sudo", qq{#!/bin/sh\nexec "\$\@"\n}, 0755 );

my $include = "include $dir/etc/modules-enabled/*.conf;\n";
sub configure {
    my ( $main, $http ) = @_;
    my $temps = join '', map {"${_}_temp_path $dir/log;\n"} qw( client_body proxy fastcgi uwsgi scgi );
    spill( "$dir/etc/nginx.conf",
        "pid $dir/log/pid;\nerror_log $dir/log/error.log;\n${main}events {}\nhttp { access_log off; $temps" . ( $http // '' ) . "}\n" );
    return;
}
my $lua = "$dir/etc/modules-enabled/50-mod-http-lua.conf";
sub with_lua { spill( $lua, "load_module $ndk;\nload_module $ngx_lua;\n" ); return }

# (exit status, what it said)
sub install {
    my (@args) = @_;
    local $ENV{PATH} = "$dir/bin:$ENV{PATH}";
    local $ENV{TEST_NGINX_BINARY} = "$dir/bin/nginx";
    my $pid = open my $out, '-|';
    defined $pid or die "fork: $!";
    if ( !$pid ) {
        open STDERR, '>&', \*STDOUT or die $!;
        exec "$root/scripts/install", @args or die $!;
    }
    my $said = do { local $/; <$out> };
    close $out;
    return ( $? >> 8, $said );
}
my $is_there = sub { join ' ', map { -e $_ || -l $_ ? 1 : 0 } $module, $snippet, $enabled };
my @module = ( '--module', $ours );

nginx_of_version($number);
with_lua();
configure($include);

# built elsewhere
my ( $status, $said ) = install(@module);
is $status, 0, 'installs' or diag $said;
like $said, qr/ngx_http_lua_memcached_module [\d.]+ for nginx \Q$number\E\n/, 'says which version';
like $said, qr/nginx -t accepts the configuration; to use the module: systemctl reload nginx\n/, 'and what to do';
is $is_there->(), '1 1 1', 'three files';
( $status, $said ) = install(@module);
like $said, qr/to use the module: systemctl restart nginx\n/, 'again: a restart is needed';

# --undo, and a site that needs the module
configure( $include, 'lua_memcached_multiplex 2;' );
( $status, $said ) = install('--undo');
is $status, 1, 'is not removed while the configuration needs it';
like $said, qr/unknown directive "lua_memcached_multiplex"/, '... nginx says where';
like $said, qr/everything is as it was before\. Remove the directives/, '... and what to do';
is $is_there->(), '1 1 1', '... and all is back';
configure($include);
( $status, $said ) = install('--undo');
is $status, 0, 'is removed';
like $said, qr/to drop the module from a running nginx: systemctl reload nginx\n/, '... and what to do';
is $is_there->(), '0 0 0', '... all three files';
( $status, $said ) = install('--undo');
is "$status $said", "0 ==> nothing to remove\n", 'nothing twice';

# without the include
configure("load_module $ndk;\nload_module $ngx_lua;\n");
( $status, $said ) = install(@module);
is $status, 0, 'without modules-enabled';
unlike $said, qr/to use the module/, '... it is not said to be ready';
like $said, qr/nginx does not load the module yet.*put this line at its top.*load_module \Q$module\E;/s, '... and what to do';
install('--undo');

# without ngx_lua
unlink $lua or die $!;
configure($include);
( $status, $said ) = install(@module);
is $status, 1, 'without ngx_lua';
like $said, qr/install Debian's package libnginx-mod-http-lua/, '... the package is named';
is $is_there->(), '0 0 0', '... and nothing stays';
with_lua();

# another nginx, another file
nginx_of_version('1.2.3');
( $status, $said ) = install(@module);
is $status, 1, 'built for another nginx';
like $said, qr/is built for nginx \Q$number\E, but this is nginx 1\.2\.3: build it for that version/, '... which is said';
is $is_there->(), '0 0 0', '... before anything is done';
nginx_of_version($number);
( $status, $said ) = install( '--module', $ngx_lua );
like $said, qr/is not this module/, 'another module';
( $status, $said ) = install( '--module', "$dir/none" );
like $said, qr/no such file/, 'no file';

# for packaging
( $status, $said ) = install( @module, '--destdir', "$dir/dest" );
is $status, 0, 'with --destdir';
ok -e "$dir/dest$module", '... it goes there';
is $is_there->(), '0 0 0', '... and nowhere else';

done_testing();
