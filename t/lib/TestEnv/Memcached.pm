package TestEnv::Memcached;

use strict;
use warnings;

use File::Temp ();
use IO::Socket::INET;
use IO::Socket::UNIX;
use Time::HiRes qw( sleep time );

use TestEnv::Child ();
use TestEnv::Ports ();

my %pid;    # address (port or path) => pid
my $dir;    # of the unix sockets; File::Temp removes it

# The two servers every suite may count on.
sub start_default {
    my @wait;
    for my $var (qw( TEST_NGINX_MEMCACHED_PORT TEST_NGINX_MEMCACHED_SOCK )) {
        next if defined $ENV{$var} && answers( $ENV{$var} );
        $ENV{$var} ||= $var =~ /PORT/ ? TestEnv::Ports::next_port() : sock_path('mc.sock');
        push @wait, launch( $ENV{$var} );
    }
    await($_) for @wait;
    return;
}

sub start {
    my %opt = @_;
    my $address = $opt{sock} // $opt{port} // TestEnv::Ports::next_port();
    launch( $address, @{ $opt{args} || [] } );
    return await($address);
}

sub launch {
    my ( $address, @args ) = @_;
    my $binary = $ENV{TEST_NGINX_MEMCACHED_BINARY}
        || ( grep { -x } map { "$_/memcached" } split( /:/, $ENV{PATH} ), '/usr/bin' )[0];
    $binary && -x $binary or die "TestEnv: memcached is not installed\n";
    my @where
        = $address =~ m{/} ? ( -s => $address, -a => '0777' )
        :                    ( -l => '127.0.0.1', -p => $address, -U => 0 );
    $pid{$address} = TestEnv::Child::spawn(
        [ $binary, @where, @args ],
        user   => 'nobody',
        stdout => '/dev/null',
        stderr => '/dev/null',    # the command verbosity makes it talkative
    );
    return $address;
}

sub await {
    my ($address) = @_;
    my $until = time + 10;
    while ( !answers($address) ) {
        if ( defined TestEnv::Child::ended( $pid{$address} ) ) {
            delete $pid{$address};
            die "TestEnv: memcached on $address ended at once\n";
        }
        die "TestEnv: memcached on $address does not answer\n" if time > $until;
        sleep 0.003;
    }
    return $address;
}

sub answers {
    my ($address) = @_;
    return defined(
        $address =~ m{/}
        ? IO::Socket::UNIX->new( Peer => $address )
        : IO::Socket::INET->new( PeerAddr => '127.0.0.1', PeerPort => $address )
    );
}

# The process of a server that was started here.
sub pid { return $pid{ $_[0] } }

sub stop {
    my ($address) = @_;
    my $child = delete $pid{$address} or return;
    TestEnv::Child::stop( $child, KILL => 2 );    # on TERM it ends at its next one-second tick
    unlink $address if $address =~ m{/};
    return;
}

sub stop_all {
    stop($_) for keys %pid;
    return;
}

# Short, because a unix address holds 107 bytes, and writable for the server's user.
sub sock_path {
    my ($name) = @_;
    if ( !$dir ) {
        $dir = File::Temp->newdir( 'tnXXXXXX', DIR => -w '/tmp' ? '/tmp' : File::Spec->tmpdir );
        chmod 0755, "$dir";
        chown +( getpwnam 'nobody' )[ 2, 3 ], "$dir" if $> == 0;
    }
    return "$dir/$name";
}

1;
__END__

=head1 NAME

TestEnv::Memcached - real memcached servers for a suite

=head1 DESCRIPTION

An address is a port on 127.0.0.1 or the path of a unix socket. C<start_default()> makes sure of the
two that C<TEST_NGINX_MEMCACHED_PORT> and C<TEST_NGINX_MEMCACHED_SOCK> name, C<start(%options)>
starts another, C<pid(ADDRESS)> is its process, C<stop(ADDRESS)> and C<stop_all()> end what was started here. A server that cannot
be had is an error, never a skipped test.

=cut
