# What nginx says when it loads the module in the wrong company: each message
# has to tell its reader what to do.
use lib 't/lib';
use strict;
use warnings;
use File::Temp ();
use Test::More;
use TestEnv memcached => 0;

plan skip_all => 'the reference is no nginx module' if $ENV{TEST_NGINX_REFERENCE_LIB};

my ( $ndk, $ngx_lua, $ours ) = split / /, $ENV{TEST_NGINX_LOAD_MODULES};
my $nginx = $ENV{TEST_NGINX_BINARY} || 'nginx';
my $dir   = File::Temp->newdir( 'loadXXXXXX', TMPDIR => 1 );

# nginx -t with these modules, in this order: what it says.
sub load {
    my $conf = join '', map {"load_module $_;\n"} @_;
    open my $file, '>', "$dir/nginx.conf" or die "nginx.conf: $!";
    print {$file} "${conf}pid $dir/pid;\nerror_log $dir/error.log;\nevents {}\nhttp { access_log off; }\n";
    close $file or die "nginx.conf: $!";
    return scalar `$nginx -t -p $dir -c $dir/nginx.conf -e stderr 2>&1`;
}

# A copy of ngx_lua in which SYMBOL has another name, as if it were an older one.
sub without {
    my ($symbol) = @_;
    open my $in, '<:raw', $ngx_lua or die "$ngx_lua: $!";
    my $bytes = do { local $/; <$in> };
    $bytes =~ s/\0\Q$symbol\E\0/"\0" . 'x' x length($symbol) . "\0"/e or die "no $symbol";
    open my $out, '>:raw', "$dir/old.so" or die "old.so: $!";
    print {$out} $bytes;
    close $out or die "old.so: $!";
    return "$dir/old.so";
}

like load( $ndk, $ngx_lua, $ours ), qr/test is successful/, 'after ngx_lua';

my $said = load( $ndk, $ours, $ngx_lua );
like $said, qr/\[emerg\].*is loaded before ngx_http_lua_module: move/, 'before ngx_lua';
unlike $said, qr/undefined symbol/, 'nothing of the linker';

$said = load($ours);
like $said, qr/\[emerg\].*needs ngx_http_lua_module, which is not loaded: add/, 'without ngx_lua';
unlike $said, qr/undefined symbol/, 'nothing of the linker';

my $symbol = 'ngx_http_lua_add_package_preload';
$said = load( $ndk, without($symbol), $ours );
like $said, qr/\[emerg\].*has no "$symbol": .* needs ngx_lua 0\.10\.\d+ or newer/, 'with another ngx_lua';

done_testing();
