package Test::Nginx::Socket::TcpFake;

use strict;
use warnings;

use IO::Socket::INET;
use IO::Socket::UNIX;
use POSIX ();
use Time::HiRes qw( sleep time );

use Test::Nginx::Socket::Settings qw( expand seconds );

# A child that serves one connection of --- tcp_listen; undef if the block has none.
sub start {
    my ( $class, $block ) = @_;
    my $target = expand( scalar $block->tcp_listen ) // return;
    my $name   = $block->name;
    Test::More::BAIL_OUT("$name - tcp_listen without tcp_reply or tcp_shutdown")
        if !defined $block->tcp_reply && !defined $block->tcp_shutdown;
    my $listener = listen_on($target)
        or Test::More::BAIL_OUT("$name - cannot listen on $target: $!");

    my $query = $block->tcp_query;
    my $self  = bless {
        block    => $block,
        listener => $listener,
        length   => $block->tcp_query_len // ( defined $query ? length $query : undef ),
    }, $class;
    open $self->{received}, '+>', undef or die "temporary file: $!";
    $self->{pid} = fork // die "fork: $!";
    if ( !$self->{pid} ) {
        $SIG{$_} = 'DEFAULT' for qw( HUP INT TERM QUIT );
        $SIG{PIPE} = 'IGNORE';
        eval { $self->serve; 1 } or print STDERR "$name - tcp server: $@";
        POSIX::_exit(0);
    }
    return $self;
}

sub listen_on {
    my ($target) = @_;
    if ( $target =~ /^\d+$/ ) {
        return IO::Socket::INET->new(
            LocalAddr => '127.0.0.1',
            LocalPort => $target,
            Proto     => 'tcp',
            ReuseAddr => 1,
            Listen    => 5,
        );
    }
    unlink $target;
    return IO::Socket::UNIX->new( Local => $target, Listen => 5 );
}

sub serve {
    my ($self) = @_;
    my $block  = $self->{block};
    my $client = $self->{listener}->accept or die "accept: $!\n";
    my ( $read, $write ) = ( 1, 1 );
    if ( defined( my $how = $block->tcp_shutdown ) ) {
        sleep seconds( $block->tcp_shutdown_delay ) if $block->tcp_shutdown_delay;
        $client->shutdown($how);
        $how == 1 ? ( $write = 0 ) : ( $read = 0 );
    }
    my $query = '';
    while ($read) {
        my $count = sysread $client, $query, 65_536, length $query;
        last if !$count;
        syswrite $self->{received}, $query, $count, length($query) - $count;
        last if length $query >= ( $self->{length} // 0 );
    }
    if ( my $delay = seconds( scalar $block->tcp_reply_delay ) ) { sleep $delay }

    my $reply = $block->tcp_reply;
    $reply = $reply->($query) if ref $reply eq 'CODE';
    if ( $write && defined $reply ) {
        for my $part ( ref $reply ? @$reply : $reply ) {
            my $sent = 0;
            while ( $sent < length $part ) {
                $sent += syswrite( $client, $part, length($part) - $sent, $sent )
                    // last;
            }
        }
    }
    if ( defined $block->tcp_no_close ) { sleep 1 while 1 }
    close $client;
    return;
}

# Ends the child and gives one test for tcp_query, one for tcp_query_len.
sub check {
    my ($self) = @_;
    my $block  = $self->{block};
    my $until  = time + 0.05;
    while ( defined $self->{length} && -s $self->{received} < $self->{length} && time < $until ) {
        sleep 0.003;
    }
    kill KILL => $self->{pid};
    {
        local $?;
        waitpid $self->{pid}, 0;
    }
    close $self->{listener};
    sysseek $self->{received}, 0, 0;
    my $got = '';
    1 while sysread $self->{received}, $got, 65_536, length $got;

    if ( defined( my $want = $block->tcp_query ) ) {
        ref $want
            ? Test::More::like( $got, $want, $block->name . ' - tcp_query' )
            : Test::Base::is( $got, $want, $block->name . ' - tcp_query' );
    }
    if ( defined( my $want = $block->tcp_query_len ) ) {
        Test::More::is( length $got, $want, $block->name . ' - tcp_query_len' );
    }
    return;
}

1;
__END__

=head1 NAME

Test::Nginx::Socket::TcpFake - the scripted server of --- tcp_listen

=head1 DESCRIPTION

Listens on a port of 127.0.0.1 or a unix path and serves one connection: reads C<tcp_query_len>
bytes (or the length of C<tcp_query>, or whatever comes first), waits C<tcp_reply_delay>, sends
C<tcp_reply> (text, array of texts, or a function of the query that returns one) and closes, unless
C<tcp_no_close>. Further connections are accepted by the kernel and never answered.

=cut
