use strict;
use warnings;
use lib 't/lib';

use Test::More;

use LiveNginx;
use TestEnv;

# Which version runs, and where it shares connections: in error.log, in Lua and in the file.

plan skip_all => 'the reference is no nginx module' if $ENV{TEST_NGINX_REFERENCE_LIB};

sub version_of {
    my ($file) = @_;
    open my $in, '<', TestEnv::root() . "/$file" or die "$file: $!";
    my ($version) = do { local $/; <$in> }
        =~ /^name = "ngx_http_lua_memcached_module"\nversion = "([\d.]+)"/m;
    return $version;
}
my $version = version_of('Cargo.toml');
my $binary  = $ENV{TEST_NGINX_BINARY} || 'nginx';
my ($nginx_version) = `$binary -v 2>&1` =~ m{/([\d.]+)};
is version_of($_), $version, "the same version in $_" for qw( Cargo.lock fuzz/Cargo.lock );

my $module = ( TestEnv::modules(1) )[-1];
open my $file, '<:raw', $module or die "$module: $!";
my $bytes = do { local $/; <$file> };
like $bytes, qr/\0ngx_http_lua_memcached_module \Q$version\E for nginx \Q$nginx_version\E\0/, 'in the file';

my $server = q{
    location = /version {
        content_by_lua_block {
            local status = require "resty.memcached.status"
            ngx.print(status.version, " ", status.built_for_nginx, " ", ngx.config.ngx_lua_version)
        }
    }
    location = /names {
        content_by_lua_block {
            local names = {}
            for name in pairs(require "resty.memcached") do names[#names + 1] = name end
            table.sort(names)
            ngx.print(table.concat(names, " "))
        }
    }
};
my $nginx = LiveNginx->start( private => 'says itself what is shared', http => '', server => $server );
my ( $got, $for, $lua ) = split / /, $nginx->get('/version');
is "$got $for", "$version $nginx_version", 'in Lua';
unlike $nginx->get('/names'), qr/version .*version|status/, 'the module has the names of the library';

$lua = sprintf '%d.%d.%d', $lua / 1_000_000, $lua / 1_000 % 1_000, $lua % 1_000;
my $line = qr/\[notice\] \S+ ngx_http_lua_memcached_module \Q$version\E, built for nginx \Q$nginx_version\E, runs with ngx_lua \Q$lua\E, shared connections: (.*)/;
is_deeply [ $nginx->log =~ /$line/g ], ['off'], 'in error.log, once';

# After a reload it is said again.
my $at = sub {
    my ( $http, @locations ) = @_;
    my $lines = () = $nginx->log =~ /$line/g;
    my $n     = 0;
    my $text  = join '', map { $n++; "\n    location = /share$n { lua_memcached_multiplex $_; }\n" } @locations;
    $nginx->configure(
        sub {
            s/\n +location = \/share.*?\}\n//gs;
            s/^ *lua_memcached_multiplex.*\n//gm;
            s/(?=\n +location = \/version)/$text/;
            s/(?=server \{)/lua_memcached_multiplex $http;\n/;
        }
    );
    $nginx->signal('HUP');
    $nginx->wait_for( sub { ( () = $nginx->log =~ /$line/g ) > $lines } );
    return ( $nginx->log =~ /$line/g )[-1];
};
like $at->( 2, 'off', 4 ), qr{\A2 in \S+/nginx\.conf:\d+, 4 in \S+/nginx\.conf:\d+\z}, 'where it is on';
like $at->( 'off', 1 .. 7 ), qr{\A1 in \S+:\d+, 2 in \S+:\d+, 3 in \S+:\d+, 4 in \S+:\d+ and in 3 more places\z},
    'not more than a few places';
is $at->('off'), 'off', 'where it was on is forgotten';

# A test of the configuration is no start.
my $lines = () = $nginx->log =~ /$line/g;
system "$binary -t -p $nginx->{dir}/ -c nginx.conf -e logs/error.log >/dev/null 2>&1";
is $?, 0, 'nginx -t';
is( ( () = $nginx->log =~ /$line/g ), $lines, 'says nothing' );

is_deeply [ $nginx->log_lines(qw( error crit alert emerg )) ], [], 'nothing bad in the log';
ok $nginx->quit, 'ends';
done_testing();
