package LateServer;

use strict;
use warnings;

use File::Spec ();
use IO::Select ();
use IO::Socket::INET;
use Socket qw( INADDR_LOOPBACK pack_sockaddr_in );
use Time::HiRes qw( sleep time );

my ( $child, $owner );

# Starts servers in a child process, which ends with this one; returns their ports by name:
#   slow    answers each get after 20 ms, with the value "v" for each key
#   silent  accepts, reads and never answers
#   full    has no place for another connection: a connect stays pending
sub start {
    require TestEnv;
    my @listeners = map { listener() } 1 .. 3;
    my @ports     = map { $_->sockport } @listeners;
    close $_ for @listeners;
    $owner = $$;
    $child = TestEnv::Child::spawn( [ $^X, File::Spec->rel2abs(__FILE__), @ports ] );
    my %port;
    @port{qw( slow silent full )} = @ports;
    my $until = time + 10;
    while ( time < $until ) {
        # it listens there last
        return %port if IO::Socket::INET->new( PeerAddr => "127.0.0.1:$port{silent}", Timeout => 1 );
        sleep 0.02;
    }
    die "LateServer: does not listen on port $port{silent}\n";
}

sub stop {
    TestEnv::Child::stop( $child, TERM => 2 ) if $child;
    undef $child;
    return;
}

END { stop() if $child && $owner == $$ }

sub listener {
    my ( $port, $backlog ) = @_;
    my $socket = IO::Socket::INET->new(
        LocalAddr => '127.0.0.1',
        LocalPort => $port // 0,
        Listen    => $backlog || 100,
        ReuseAddr => 1,
        Proto     => 'tcp',
    ) or die "LateServer: $!\n";
    return $socket;
}

sub serve {
    my ( $slow_port, $silent_port, $full_port ) = @_;
    local $SIG{PIPE} = 'IGNORE';
    my $full = listener( $full_port, 1 );
    listen $full, 0 or die "LateServer: $!\n";
    # what there is place for
    my @waiting;
    for ( 1 .. 3 ) {
        my $socket = IO::Socket::INET->new( Proto => 'tcp', Blocking => 0 ) or die "LateServer: $!\n";
        connect $socket, pack_sockaddr_in( $full_port, INADDR_LOOPBACK );
        push @waiting, $socket;
        sleep 0.02;
    }
    my $slow   = listener($slow_port);
    my $silent = listener($silent_port);
    my $select = IO::Select->new( $slow, $silent );
    my ( %slow, %input, @due );
    while (1) {
        my $wait = @due ? $due[0][0] - time : 1;
        for my $socket ( $select->can_read( $wait > 0 ? $wait : 0 ) ) {
            if ( $socket == $slow || $socket == $silent ) {
                my $client = $socket->accept or next;
                $client->blocking(0);
                ( $slow{$client}, $input{$client} ) = ( $socket == $slow, '' );
                $select->add($client);
                next;
            }
            if ( !sysread $socket, $input{$socket}, 65536, length $input{$socket} ) {
                $select->remove($socket);
                close $socket;
                next;
            }
            while ( $input{$socket} =~ s/\A([^\n]*?)\r?\n// ) {
                my ( $verb, @keys ) = split / /, $1;
                next if !$slow{$socket} || $verb ne 'get';
                my $reply = join '', ( map {"VALUE $_ 0 1\r\nv\r\n"} @keys ), "END\r\n";
                push @due, [ time + 0.02, $socket, $reply ];
            }
        }
        while ( @due && $due[0][0] <= time ) {
            my ( undef, $socket, $reply ) = @{ shift @due };
            syswrite $socket, $reply if $socket->opened;
        }
    }
    return;
}

# Run as a program, it is the child.
serve(@ARGV) if !caller;

1;
__END__

=head1 NAME

LateServer - servers that answer late or never

=head1 SYNOPSIS

    my %port = LateServer::start();
