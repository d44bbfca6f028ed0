package TestEnv;

use strict;
use warnings;

use Cwd ();
use File::Basename ();
use File::Path ();
use File::Spec ();

use TestEnv::Child ();
use TestEnv::Memcached ();
use TestEnv::Ports ();
use TestEnv::Reference ();
use TestEnv::Upstream ();

# The process that imports this file owns what it makes: forked fakes run END blocks too.
my $OWNER = $$;
my $ROOT  = Cwd::abs_path(
    File::Spec->catdir( File::Basename::dirname( File::Spec->rel2abs(__FILE__) ), '..', '..' ) );
my $MODULE = 'libngx_http_lua_memcached_module.so';
my $SERVROOT;    # set when this process chose the directory, and so removes it
my $READY;
my $SHARES;      # this suite runs over shared connections
my $GROUPS;      # its objects go to upstreams of one server

# Compiled code calls no hooks. Loops that go on for long would take minutes.
my $EVERY_LINE_GC = <<'LUA' =~ s/\s+/ /gr;
    do jit.off()
    local lines = 0
    debug.sethook(function()
        lines = lines + 1
        if lines < 3000 or lines % 100 == 0 then collectgarbage() end
    end, "l") end
LUA

sub import {
    my ( undef, %want ) = @_;
    return if $READY++;

    set_default( TEST_NGINX_SERVER_PORT => \&TestEnv::Ports::next_port );
    set_default( TEST_NGINX_UNUSED_PORT => \&TestEnv::Ports::next_port );
    set_default( TEST_NGINX_FAKE_PORT   => \&TestEnv::Ports::next_port );
    set_default(
        TEST_NGINX_SERVROOT => sub {
            return $SERVROOT = File::Spec->catdir( $ROOT, 't', "servroot_$$" );
        }
    );
    # three seconds are little on a busy machine
    set_default( TEST_NGINX_TIMEOUT => sub {20} );
    set_nginx();
    set_default( TEST_NGINX_LOAD_MODULES => sub { join ' ', modules( $want{module} // 1 ) } );
    if ( ( $ENV{TEST_NGINX_MULTIPLEX} // '' ) ne '' && ( $want{module} // 1 ) ) {
        die "TestEnv: the reference shares no connections\n" if reference_lib();
        $SHARES = 1;
    }
    if ( reference_lib() && defined( my $why = TestEnv::Reference::read_list( $ROOT, suite() ) ) ) {
        print "1..0 # SKIP $why\n";
        exit 0;
    }
    TestEnv::Memcached::start_default() if $want{memcached} // 1;
    if ( $ENV{TEST_NGINX_UPSTREAM} && ( $want{module} // 1 ) ) {
        my $reason = TestEnv::Upstream::read_list( $ROOT, suite() );
        die "TestEnv: not for upstreams: $reason\n" if defined $reason;
        TestEnv::Upstream::fakes();
        $GROUPS = 1;
    }
    offer_fallback();
    for my $sig (qw( HUP INT TERM )) {
        $SIG{$sig} ||= sub { exit 1 };    # so that END runs
    }
    return;
}

# The name of this suite, from the project's directory.
sub suite { return File::Spec->abs2rel( Cwd::abs_path($0), $ROOT ) }

sub set_default {
    my ( $name, $make ) = @_;
    $ENV{$name} = $make->() if !defined $ENV{$name} || $ENV{$name} eq '';
    return;
}

# /usr/sbin is not in every user's PATH.
sub set_nginx {
    return if $ENV{TEST_NGINX_BINARY};
    return if grep { -x File::Spec->catfile( $_, 'nginx' ) } File::Spec->path;
    -x '/usr/sbin/nginx' or die "TestEnv: nginx is not installed\n";
    $ENV{TEST_NGINX_BINARY} = '/usr/sbin/nginx';
    return;
}

# Absolute paths in load order: ours needs symbols of ngx_lua, and ngx_lua those of ndk.
sub modules {
    my ($with_ours) = @_;
    my $dir  = $ENV{NGINX_MODULES_PATH} || '/usr/lib/nginx/modules';
    my @list = map { "$dir/$_" } qw( ndk_http_module.so ngx_http_lua_module.so );
    if ( $with_ours && !reference_lib() ) {
        push @list, File::Spec->rel2abs( $ENV{TEST_NGINX_MEMCACHED_MODULE}
                || File::Spec->catfile( $ROOT, 'target', 'release', $MODULE ) );
    }
    for my $path (@list) {
        -e $path or die "TestEnv: no module $path (scripts/build makes ours, "
            . "libnginx-mod-http-lua brings the others)\n";
    }
    return @list;
}

sub offer_fallback {
    return if grep { !ref && -e "$_/Test/Nginx/Socket/Lua.pm" } @INC;
    push @INC, File::Spec->catdir( $ROOT, 't', 'lib', 'fallback' );
    return;
}

sub reference_lib {
    my $lib = $ENV{TEST_NGINX_REFERENCE_LIB} or return '';
    -e "$lib/resty/memcached.lua" or die "TestEnv: no $lib/resty/memcached.lua\n";
    return File::Spec->rel2abs($lib);
}

sub http_config {
    my $lib = reference_lib() or return '';
    return qq{lua_package_path "$lib/?.lua;;";\n};
}

# Lua that makes the table `kit`, the beginning of an init_by_lua_block.
sub lua_kit {
    my $lua = qq{package.path = "$ROOT/t/lib/?.lua;" .. package.path\n} . qq{kit = require "testkit"\n};
    if ( defined memcached_port() ) {
        $lua .= sprintf qq{kit.port, kit.unix = %s, "unix:%s"\n}, memcached_port(), memcached_sock();
    }
    $lua .= "kit.by_client = true\n" if $ENV{TEST_NGINX_CLIENT};
    $lua .= sprintf "kit.by_upstream, kit.free_ports = true, { %s }\n", join ', ', TestEnv::Upstream::fakes()
        if $GROUPS;
    return $lua;
}

# What suites begin with; see the POD.
sub head {
    my (%want) = @_;
    my $suite = caller;
    my $call  = sub { my $name = shift; return $suite->can($name)->(@_) };
    my $skip  = $want{skip} // ( defined $want{multiplex} ? 'the reference shares no connections' : undef );
    $call->( plan => skip_all => $skip ) if defined $skip && reference_lib();
    my ( $http, $lua ) = ( http_config(), lua_kit() );
    if ( $want{tls} ) {
        require TestCerts;
        $call->( plan => skip_all => 'the library has no sslhandshake' ) if !TestCerts::wanted();
        my ( $tls_http, $tls_lua ) = tls_head( $want{tls} );
        $http .= $tls_http;
        $lua  .= $tls_lua;
    }
    if ( defined $want{multiplex} ) {
        $http .= "lua_memcached_multiplex $want{multiplex};\n" if $want{multiplex};
        $lua  .= qq{mux = require "muxkit"\n};
    }
    $call->( repeat_each => $want{repeat} // 1 );
    my $tests = ( $want{tests} // 3 ) * $call->('blocks') + ( $want{more_tests} // 0 );
    $call->( plan => tests => $call->('repeat_each') * $tests );
    $call->('no_long_string');
    my ( $more_http, $more_lua ) = map { $_ // '' } @want{qw( http init )};
    return "$http$more_http\ninit_by_lua_block {\n$lua$more_lua\n}\n";
}

# A memcached with TLS and a web server for each of the certificates: text of the http block, and Lua.
sub tls_head {
    my ($certificates) = @_;
    $ENV{TEST_NGINX_CERTS} = TestCerts::dir();
    my $port = start_memcached( args => TestCerts::memcached_args('good') );
    my $http = TestCerts::web(@$certificates);
    my $web  = TestCerts::lua_ports();
    return ( $http, qq{tls = require "tlskit"\ntls.port, tls.web = $port, { $web }\n} );
}

# The directive for the http block that turns sharing on, unless that block has its own.
sub multiplex_config {
    my ($http) = @_;
    return '' if !$SHARES || ( $http // '' ) =~ /^\s*lua_memcached_multiplex\b/m;
    return "lua_memcached_multiplex $ENV{TEST_NGINX_MULTIPLEX};\n";
}

# Directives for the http block that make upstreams of the servers. Without those, `connect` means
# the servers themselves.
sub upstream_config { return $GROUPS ? TestEnv::Upstream::config() : '' }

# What the environment asks of each block.
sub prepare_block {
    my ($block) = @_;
    TestEnv::Reference::prepare($block) if reference_lib();
    if ( $SHARES && !defined $block->private ) {
        my $http = $block->http_config // '';
        $block->set_value( http_config => multiplex_config($http) . $http );
    }
    if ($GROUPS) {
        my $http   = $block->http_config // '';
        my $config = TestEnv::Upstream::prepare($block);
        $http =~ s/^kit[.]by_upstream, kit[.]free_ports = .*$//m if !defined $config;
        $block->set_value( http_config => ( $config // '' ) . $http );
    }
    if ( $ENV{TEST_NGINX_CLIENT} && defined $block->object ) {
        ( my $http = $block->http_config // '' ) =~ s/^kit[.]by_client = true$//m;
        $block->set_value( http_config => $http );
    }
    if ( $ENV{TEST_NGINX_EVERY_LINE_GC} && !defined $block->garbage ) {
        my $http = $block->http_config // '';
        # Ahead of the block's own code, if it has any there.
        $http =~ s/\binit_worker_by_lua_block \{\K/ $EVERY_LINE_GC/
            or $http .= "init_worker_by_lua_block { $EVERY_LINE_GC }\n";
        $block->set_value( http_config => $http );
    }
    set_whole( $block->whole );
    return;
}

# For the nginx that is started next: whether onebyte.c, if it is preloaded, lets all through.
sub set_whole {
    my ($reason) = @_;
    if   ( defined $reason ) { $ENV{ONEBYTE_OFF} = $reason }
    else                     { delete $ENV{ONEBYTE_OFF} }
    return;
}

# Once the suite is compiled, because only then Test::Nginx is there, if the suite uses it.
no warnings 'void';    # it is too late for that where this file is loaded later, and no matter
INIT {
    my $add = Test::Nginx::Socket->can('add_block_preprocessor');
    $add->( \&prepare_block ) if $add;
}
use warnings 'void';

sub root            { return $ROOT }
sub free_port       { return TestEnv::Ports::next_port() }
sub memcached_port  { return $ENV{TEST_NGINX_MEMCACHED_PORT} }
sub memcached_sock  { return $ENV{TEST_NGINX_MEMCACHED_SOCK} }
sub start_memcached { return TestEnv::Memcached::start(@_) }
sub stop_memcached  { return TestEnv::Memcached::stop(@_) }

END {
    if ( $$ == $OWNER ) {
        local ( $?, $@, $! );
        TestEnv::Memcached::stop_all();
        if ( defined $SERVROOT && !$ENV{TEST_NGINX_NO_CLEAN} ) {
            File::Path::remove_tree( $SERVROOT, { error => \my $ignored } );
        }
    }
}

1;
__END__

=head1 NAME

TestEnv - ports, servers and modules for one run of a suite

=head1 SYNOPSIS

    use lib 't/lib';
    use TestEnv;
    use Test::Nginx::Socket::Lua;

    our $HttpConfig = TestEnv::head( tests => 4, http => 'lua_code_cache off;' );

    run_tests();

    __DATA__

    === TEST 1: get of a missing key
    --- http_config eval: $::HttpConfig

=head1 DESCRIPTION

Sets, where the environment has not set them already, what a suite in Test::Nginx format needs, and
starts what it talks to. Everything is on the loopback interface, belongs to this process and ends
with it, so that several suites can run side by side in one checkout.

C<< use TestEnv memcached => 0 >> starts no memcached; C<< module => 0 >> does not load ours.

=head2 Environment set

=over

=item TEST_NGINX_SERVER_PORT, TEST_NGINX_SERVROOT

where nginx listens, and its prefix directory (removed at the end unless C<TEST_NGINX_NO_CLEAN>)

=item TEST_NGINX_MEMCACHED_PORT, TEST_NGINX_MEMCACHED_SOCK

two real memcached servers. A port or path that was set before and answers is used as it is.

=item TEST_NGINX_UNUSED_PORT, TEST_NGINX_FAKE_PORT

a port where nobody listens, and one for C<--- tcp_listen>

=item TEST_NGINX_TIMEOUT

how long a request may take, in seconds

=item TEST_NGINX_LOAD_MODULES

ndk, ngx_lua and this project's module, in that order

=back

=head2 Environment read

C<NGINX_MODULES_PATH> (default F</usr/lib/nginx/modules>), C<TEST_NGINX_MEMCACHED_MODULE> (default
F<target/release/libngx_http_lua_memcached_module.so>), C<TEST_NGINX_BINARY>,
C<TEST_NGINX_MEMCACHED_BINARY>, C<TEST_NGINX_NO_CLEAN>.

C<TEST_NGINX_REFERENCE_LIB> names the F<lib> directory of a pure-Lua lua-resty-memcached. Then our
module is not loaded and C<http_config()> points Lua at that directory: a suite that passes this way
states the reference's behaviour.

C<TEST_NGINX_MULTIPLEX> has the arguments of the directive C<lua_memcached_multiplex>, for instance
C<2>. Then every block gets it at http level, and so does every L<LiveNginx>: the whole of F<t/> runs
over shared connections. A block that is about private ones has a section C<--- private> with the
reason; text of an http block that says C<lua_memcached_multiplex> itself is left alone.

C<TEST_NGINX_CLIENT> has the objects that C<kit.connect> makes send their commands through clients
(F<t/lib/clientkit.lua>). A block that is about objects and their connections has a section
C<--- object> with the reason.

C<TEST_NGINX_UPSTREAM> makes upstream blocks of servers, see L<TestEnv::Upstream>.

=head2 Bytes one by one

F<t/lib/onebyte.c>, where it is preloaded into nginx (C<scripts/harden one-byte>), has nginx send and
receive one byte at a time. A block that counts writes, or needs bytes to be there together, has a
section C<--- whole> with the reason (a L<LiveNginx> an option of that name).

=head2 Garbage

C<TEST_NGINX_EVERY_LINE_GC> makes each worker collect all its garbage at each line of Lua that it runs,
except for blocks with a section C<--- garbage>, which has the reason.

=head1 FUNCTIONS

=head2 head(OPTION => VALUE, ...)

What suites in Test::Nginx format begin with. It calls C<repeat_each>, C<plan> and C<no_long_string> of
the suite, and returns text for C<--- http_config>, in which an C<init_by_lua_block> makes the global
C<kit> (F<t/lib/testkit.lua>). All options may be left out:

=over

=item tests => 3, more_tests => 0, repeat => 1

how many tests each block has, how many the suite has besides, and how often a block is repeated

=item skip => REASON

skips the suite when it runs against the reference

=item http => TEXT

further directives, ahead of the C<init_by_lua_block>

=item init => LUA

code that goes to the end of that block

=item multiplex => ARGUMENTS

The suite is about shared connections. It is skipped with the reference, the global C<mux> is
F<t/lib/muxkit.lua>, and C<lua_memcached_multiplex> has these arguments (none at all for C<0>).

=item tls => [ CERTIFICATE, ... ]

The suite is about TLS. It is skipped with a reference that has none, C<TEST_NGINX_CERTS> names the
directory of L<TestCerts>, and the global C<tls> is F<t/lib/tlskit.lua>: C<tls.port> is that of a
memcached with the certificate C<good>, C<tls.web> has those of the web servers with these certificates.

=back

=head2 Others

=over

=item lua_kit()

Lua for an C<init_by_lua_block> of a L<LiveNginx>: it makes F<t/lib> known to C<require>, and the
global C<kit> with C<kit.port> and C<kit.unix>, the two servers above

=item multiplex_config(TEXT)

the directive that C<TEST_NGINX_MULTIPLEX> asks for, ahead of this text of an http block; empty if
there is none or the text has one at the beginning of a line

=item upstream_config()

the blocks and directives that C<TEST_NGINX_UPSTREAM> asks for; empty without it

=item http_config()

text for C<--- http_config>; empty unless C<TEST_NGINX_REFERENCE_LIB> is set

=item memcached_port(), memcached_sock()

the two servers above

=item start_memcached(port => N, sock => PATH, args => [...])

another memcached; returns its port (or path). All options may be left out.

=item stop_memcached(PORT_OR_PATH)

ends one that was started here, and returns once it is gone

=item free_port(), root()

a further port reserved for this process; the project's directory

=back

=cut
