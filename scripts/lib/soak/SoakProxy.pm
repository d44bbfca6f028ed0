package SoakProxy;

use strict;
use warnings;

use IO::Socket::INET;
use POSIX qw( EAGAIN EINTR );
use Socket qw( AF_UNIX IPPROTO_TCP PF_UNSPEC SOCK_STREAM SOL_SOCKET SO_LINGER TCP_NODELAY );
use Time::HiRes qw( time );

# A relay to a server, as a process of its own, which spoils connections when told to. The server
# loses nothing by that, so that whatever was stored must be found again.
#
#   cut          ends every connection: at once, or after a part of the next reply; by FIN or RST
#   stall S      passes nothing on for S seconds
#   split S      passes on in small pieces for S seconds
#   dead S       answers a key of some lists with an error line, as a proxy does whose server is away,
#                and then the rest of the list; for S seconds

my $CHUNK  = 65_536;
my $LIMIT  = 1_048_576;    # bytes that wait in one direction
my $CUT_BY = 0.2;          # seconds; until then a connection that is to be cut is gone

my ( %side, $stalled, $split, $dead );    # %side: by file descriptor

# start(listen port, server port): an object
sub start {
    my ( $class, $port, $to ) = @_;
    my $listen = IO::Socket::INET->new(
        LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 1024, ReuseAddr => 1, Blocking => 0 )
        or die "SoakProxy: port $port: $!\n";
    socketpair my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC or die "socketpair: $!\n";
    my $pid = fork // die "fork: $!\n";
    if ( !$pid ) {
        close $ours;
        $SIG{$_} = 'DEFAULT' for qw( HUP INT TERM ALRM __DIE__ __WARN__ );
        $SIG{PIPE} = 'IGNORE';
        eval { relay( $listen, $theirs, $to ); 1 } or print STDERR "SoakProxy: $@";
        POSIX::_exit(0);
    }
    return bless { pid => $pid, control => $ours }, $class;
}

sub tell {
    my ( $self, $what ) = @_;
    return syswrite $self->{control}, "$what\n";
}

# How many connections there are.
sub connections {
    my ($self) = @_;
    $self->tell('count') or return -1;
    my $line = readline $self->{control};
    return $line // -1;
}

sub pid { return $_[0]{pid} }

sub stop {
    my ($self) = @_;
    close delete $self->{control};
    local $?;
    waitpid $self->{pid}, 0;
    return;
}

sub relay {
    my ( $listen, $control, $to ) = @_;
    ( $stalled, $split, $dead ) = ( 0, 0, 0 );
    while (1) {
        my ( $readers, $writers ) = ( '', '' );
        vec( $readers, fileno $control, 1 ) = 1;
        if ( time >= $stalled ) {
            vec( $readers, fileno $listen, 1 ) = 1;
            for my $side ( values %side ) {
                vec( $readers, $side->{fd}, 1 ) = 1 if !$side->{eof} && length $side->{other}{out} < $LIMIT;
                vec( $writers, $side->{fd}, 1 ) = 1 if length $side->{out};
            }
        }
        select $readers, $writers, undef, 0.05;
        if ( vec $readers, fileno $control, 1 ) {
            sysread( $control, my $text, 4096 ) or return;
            obey( $control, $_ ) for split /\n/, $text;
            next;
        }
        for ( grep { $_->{cut_by} && $_->{cut_by} < time } values %side ) { cut($_) }
        admit( $listen, $to ) if vec $readers, fileno $listen, 1;
        for my $fd ( grep { vec $readers, $_, 1 } keys %side ) { take( $side{$fd} ) if $side{$fd} }
        for my $fd ( grep { vec $writers, $_, 1 } keys %side ) { give( $side{$fd} ) if $side{$fd} }
    }
}

sub obey {
    my ( $control, $what ) = @_;
    if ( $what eq 'count' ) {
        syswrite $control, keys(%side) / 2 . "\n";
    }
    elsif ( $what eq 'cut' ) {
        for my $side ( grep { $_->{client} } values %side ) {
            if ( rand() < 0.4 ) { cut($side); next }
            $side->{cut_by} = time + $CUT_BY;
        }
    }
    elsif ( my ( $how, $seconds ) = $what =~ /^(stall|split|dead) ([\d.]+)$/ ) {
        ( $how eq 'stall' ? $stalled : $how eq 'split' ? $split : $dead ) = time + $seconds;
    }
    return;
}

sub admit {
    my ( $listen, $to ) = @_;
    while ( my $client = $listen->accept ) {
        my $server = IO::Socket::INET->new( PeerAddr => "127.0.0.1:$to", Timeout => 5 ) or next;
        my @sides = map { { socket => $_, fd => fileno $_, out => '' } } $client, $server;
        $sides[0]{client} = 1;
        for ( 0, 1 ) {
            my $side = $sides[$_];
            $side->{other} = $sides[ 1 - $_ ];
            $side->{socket}->blocking(0);
            setsockopt $side->{socket}, IPPROTO_TCP, TCP_NODELAY, 1;
            $side{ $side->{fd} } = $side;
        }
    }
    return;
}

sub take {
    my ($side) = @_;
    my $other = $side->{other};
    my $from  = length $other->{out};
    my $got   = sysread $side->{socket}, $other->{out}, $CHUNK, $from;
    if ( $got && $side->{client} && time < $dead ) {
        my $text = substr $other->{out}, $from, $got, '';
        # memcached answers the unknown word with an error line; values have no such lines
        $text =~ s/^(gets?) \S+ (\S[^\r\n]*\r\n)/rand() < 0.3 ? "dead\r\n$1 $2" : $&/gem;
        $other->{out} .= $text;
    }
    return if !defined $got && ( $! == EAGAIN || $! == EINTR );
    if ( !$got ) {
        $side->{eof} = 1;
        end($side) if !length $other->{out};
    }
    return;
}

sub give {
    my ($side) = @_;
    my $length = length $side->{out};
    if ( $side->{cut_by} ) {
        syswrite $side->{socket}, $side->{out}, int rand $length;
        return cut($side);
    }
    $length = $length > 2_000 ? $length / 2 : 1 + rand 20 if time < $split;
    my $sent = syswrite $side->{socket}, $side->{out}, $length;
    if ( !defined $sent ) {
        return if $! == EAGAIN || $! == EINTR;
        return end($side);
    }
    substr $side->{out}, 0, $sent, '';
    end($side) if $side->{other}{eof} && !length $side->{out};
    return;
}

sub cut {
    my ($side) = @_;
    setsockopt $side->{socket}, SOL_SOCKET, SO_LINGER, pack 'II', 1, 0 if rand() < 0.5;
    return end($side);
}

sub end {
    my ($side) = @_;
    for ( $side, delete $side->{other} ) {
        delete $side{ $_->{fd} };
        delete $_->{other};
        close $_->{socket};
    }
    return;
}

1;
