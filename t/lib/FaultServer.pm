package FaultServer;

use strict;
use warnings;

use Errno qw( EAGAIN EINTR EWOULDBLOCK );
use File::Spec ();
use IO::Socket::INET;
use POSIX ();
use Socket qw( IPPROTO_TCP SHUT_WR SO_LINGER SOL_SOCKET SOMAXCONN TCP_NODELAY );
use Time::HiRes qw( sleep time );

# Seconds between two bytes of "drip".
my $DRIP = 0.001;

my ( $child, $owner );

# Starts a server with $slots slots; returns its port once it answers.
sub start {
    my ($slots) = @_;
    require TestEnv;
    my $port = TestEnv::free_port();
    $owner = $$;
    $child = TestEnv::Child::spawn( [ $^X, File::Spec->rel2abs(__FILE__), $port, $slots ] );
    my $until = time + 10;
    while ( time < $until ) {
        return $port if IO::Socket::INET->new( PeerAddr => '127.0.0.1', PeerPort => $port );
        sleep 0.01;
    }
    die "FaultServer: does not answer on port $port\n";
}

sub stop {
    TestEnv::Child::stop( $child, TERM => 2 ) if $child;
    undef $child;
    return;
}

END { stop() if $child && $owner == $$ }

# The server itself. A peer is a connection: its handle, its slot (none: it gives orders), what
# was received and not used (in), what is to be sent (out), the rest of its script (acts).

my ( $PORT, %peer, %door, @slot, @due );
my ( $readers, $writers ) = ( '', '' );
my $serial = 0;

sub serve {
    ( $PORT, my $slots ) = @_;
    $SIG{PIPE} = 'IGNORE';
    $slot[$_] = { number => $_, seen => [], peers => {}, again => '' } for 1 .. $slots;
    opened($_) for @slot[ 1 .. $slots ];
    opened(undef);    # last: whoever reaches this one finds them all
    while (1) {
        my $wait = @due ? $due[0][0] - time : undef;
        $wait = 0 if defined $wait && $wait < 0;
        my $n = select my $read = $readers, my $write = $writers, undef, $wait;
        if ( $n > 0 ) {
            each_of( $write, sub { $peer{ $_[0] } && written( $peer{ $_[0] } ) } );
            each_of( $read,
                sub { $door{ $_[0] } ? accepted( $door{ $_[0] } ) : $peer{ $_[0] } && readable( $peer{ $_[0] } ) } );
        }
        my $now = time;
        while ( @due && $due[0][0] <= $now ) {
            my $who = ( shift @due )->[1];
            act($who) if $who->{fh};
        }
    }
}

sub each_of {
    my ( $set, $do ) = @_;
    my $bits = unpack 'b*', $set;
    my $at   = -1;
    $do->($at) while ( $at = index $bits, '1', $at + 1 ) >= 0;
    return;
}

# Listens for a slot or, without one, for orders.
sub opened {
    my ($slot) = @_;
    my $addr = $slot ? "127.0.9.$slot->{number}" : '127.0.0.1';
    my $fh   = IO::Socket::INET->new(
        LocalAddr => $addr,
        LocalPort => $PORT,
        Listen    => SOMAXCONN,
        ReuseAddr => 1,
        Blocking  => 0,
    ) or die "FaultServer: $addr:$PORT: $!\n";
    $door{ fileno $fh } = { fh => $fh, slot => $slot };
    $slot->{door} = fileno $fh if $slot;
    vec( $readers, fileno $fh, 1 ) = 1;
    return;
}

sub accepted {
    my ($door) = @_;
    while ( my $fh = $door->{fh}->accept ) {
        $fh->blocking(0);
        setsockopt $fh, IPPROTO_TCP, TCP_NODELAY, 1;
        my $slot = $door->{slot};
        my $who  = {
            fh     => $fh,
            fd     => fileno $fh,
            slot   => $slot,
            serial => ++$serial,
            in     => '',
            out    => '',
        };
        $peer{ $who->{fd} } = $who;
        vec( $readers, $who->{fd}, 1 ) = 1;
        next if !$slot;
        $slot->{peers}{$serial} = $who;
        # a script for no request begins at once
        if ( $slot->{acts} && $slot->{request} eq '' ) { begin($who) }
    }
    return;
}

sub gone {
    my ($who) = @_;
    my $fh = delete $who->{fh} or return;
    vec( $readers, $who->{fd}, 1 ) = 0;
    vec( $writers, $who->{fd}, 1 ) = 0;
    delete $peer{ $who->{fd} };
    close $fh;
    my $slot = $who->{slot} or return;
    note_unheard($who);
    delete $slot->{peers}{ $who->{serial} };
    return if !$slot->{victim} || $slot->{victim} != $who;
    finished($slot);
    notify( $slot, 'gone' );
    return;
}

sub readable {
    my ($who) = @_;
    my $n = sysread $who->{fh}, $who->{in}, 65536, length $who->{in};
    if ( !$n ) {
        return if !defined $n && ( $! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR );
        return gone($who);
    }
    return $who->{slot} ? answer($who) : order($who);
}

sub written {
    my ($who) = @_;
    say_to( $who, '' );
    act($who) if $who->{fh} && $who->{acts} && $who->{out} eq '';
    return;
}

# Sends now what the socket takes, the rest as it can.
sub say_to {
    my ( $who, $text ) = @_;
    return if !$who->{fh};
    $who->{out} .= $text;
    while ( $who->{out} ne '' ) {
        my $n = syswrite $who->{fh}, $who->{out};
        if ( !defined $n ) {
            last if $! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR;
            return gone($who);
        }
        substr $who->{out}, 0, $n, '';
    }
    vec( $writers, $who->{fd}, 1 ) = $who->{out} ne '' ? 1 : 0;
    return;
}

# The bytes that stand for the digits of a script's opaques, see faultcases.lua; and what the server
# says it is.
my @OPAQUES = map { join '', map {chr} 0x80 + 8 * $_ .. 0x87 + 8 * $_ } 0 .. 3;
my $VERSION = '1.6.45';

# What was received, with those bytes for opaques; and the opaques.
sub disguised {
    my ($text) = @_;
    my @found;
    $text =~ s/ O\K([0-9a-f]{8})(?= |\r)/push @found, $1; $OPAQUES[$#found]/eg;
    $text =~ s/ O\K([0-9a-f]{1,8})\z/substr $OPAQUES[@found], 0, length $1/e;
    return ( $text, @found );
}

# A script's text with the opaques of its request.
sub undisguised {
    my ( $text, @found ) = @_;
    my %digit;
    for my $opaque (@found) {
        $digit{ chr 0x80 + keys %digit } = $_ for split //, $opaque;
    }
    return $text =~ s{([\x80-\x9f])}{ $digit{$1} // $1 }egr;
}

# Requests of a slot's connection: the one that the script is for, and gets of keys that say what
# they are for. The value has the connection's number.
sub answer {
    my ($who) = @_;
    my $slot = $who->{slot};
    note_unheard($who) if $who->{deaf};
    while ( $who->{in} ne '' && !$who->{acts} && !$who->{deaf} && $who->{fh} ) {
        my $want = $slot->{acts} || $slot->{again} ne '' ? $slot->{request} : '';
        my $is_meta = ( $slot->{request} // '' ) =~ /\x80/;
        my ( $in, @opaques ) = $is_meta ? disguised( $who->{in} ) : $who->{in};
        if ( $want ne '' && index( $in, $want ) == 0 ) {
            substr $who->{in}, 0, length $want, '';
            if ( $slot->{acts} ) {
                $_->[1] = undisguised( $_->[1], @opaques ) for grep { $_->[0] =~ /send|drip/ } @{ $slot->{acts} };
                begin($who);
            }
            else {
                push @{ $slot->{seen} }, "again=$who->{serial}";
                say_to( $who, $slot->{again} );
            }
        }
        elsif ( $who->{in} =~ s/\Aget ((?:nb|probe)\w*)\r\n// ) {
            push @{ $slot->{seen} }, "$1=$who->{serial}";
            my $value = "$1\@$who->{serial}";
            say_to( $who, "VALUE $1 0 " . length($value) . "\r\n$value\r\nEND\r\n" );
        }
        elsif ( $is_meta && $who->{in} =~ s/\Aversion\r\n// ) {
            say_to( $who, "VERSION $VERSION\r\n" );
        }
        elsif ( $is_meta && index( "version\r\n", $who->{in} ) == 0
            || $want ne '' && index( $want, $in ) == 0 || "get nb\nget probe" =~ /^\Q$who->{in}\E/m ) {
            last;    # more is to come
        }
        elsif ( $who->{in} =~ s/\A(get (?:nb|probe)[^\n]*\z)// ) {
            $who->{in} = $1;
            last;
        }
        else {
            $who->{in} =~ s/[^ -~]/./g;
            push @{ $slot->{seen} }, 'surprise=' . $who->{serial};
            say_to( $who, 'SERVER_ERROR unexpected request: ' . substr( $who->{in}, 0, 60 ) . "\r\n" );
            $who->{in} = '';
        }
    }
    return;
}

# What is asked on a connection that answers nothing any more.
sub note_unheard {
    my ($who) = @_;
    push @{ $who->{slot}{seen} }, "$1=$who->{serial}" while $who->{in} =~ s/\Aget ((?:nb|probe)\w*)\r\n//;
    return;
}

sub begin {
    my ($who) = @_;
    my $slot = $who->{slot};
    push @{ $slot->{seen} }, "victim=$who->{serial}";
    $slot->{victim} = $who;
    $who->{acts}    = delete $slot->{acts};
    act($who);
    return;
}

# Goes on with a script, until it has to wait.
sub act {
    my ($who) = @_;
    my $acts = $who->{acts} or return;
    while ( $who->{fh} && $who->{out} eq '' && @$acts ) {
        my ( $do, $data ) = @{ $acts->[0] };
        if ( $do eq 'drip' && length $data > 1 ) {
            $acts->[0][1] = substr $data, 1;
            say_to( $who, substr $data, 0, 1 );
            return later( $who, $DRIP );
        }
        if ( $do eq 'flood' ) {    # without end
            $who->{slot}{flooded} += 65536;
            say_to( $who, 'x' x 65536 );
            next;
        }
        shift @$acts;
        if    ( $do eq 'send' || $do eq 'drip' ) { say_to( $who, $data ) }
        elsif ( $do eq 'pause' ) { return later( $who, $data / 1000 ) }
        elsif ( $do eq 'hold' )  { $who->{deaf} = 1 }
        elsif ( $do eq 'fin' ) {
            shutdown $who->{fh}, SHUT_WR;
            $who->{deaf} = 1;
        }
        elsif ( $do eq 'rst' ) {
            setsockopt $who->{fh}, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
            gone($who);
        }
        elsif ( $do eq 'down' ) { down( $who->{slot} ) }
    }
    if ( !@$acts && $who->{out} eq '' || !$who->{fh} ) {
        delete $who->{acts};
        answer($who) if $who->{fh};
        finished( $who->{slot} );
    }
    return;
}

sub later {
    my ( $who, $seconds ) = @_;
    @due = sort { $a->[0] <=> $b->[0] } @due, [ time + $seconds, $who ];
    return;
}

sub down {
    my ($slot) = @_;
    if ( my $door = delete $door{ delete $slot->{door} // -1 } ) {
        vec( $readers, fileno $door->{fh}, 1 ) = 0;
        close $door->{fh};
    }
    my $victim = delete $slot->{victim};
    gone($_) for values %{ $slot->{peers} };
    $slot->{victim} = $victim;
    finished($slot);    # not before all are closed
    return;
}

sub finished {
    my ($slot) = @_;
    $slot->{finished} = 1;
    notify( $slot, 'done' );
    return;
}

# Answers the order of this kind that waits for the slot.
sub notify {
    my ( $slot, $kind ) = @_;
    my $who = delete $slot->{asked}{$kind} or return;
    report( $who, $slot );
    return;
}

sub report {
    my ( $who, $slot ) = @_;
    say_to( $who, join( ' ', @{ $slot->{seen} }, 'flooded=' . ( $slot->{flooded} || 0 ) ) . "\n" );
    return;
}

sub order {
    my ($who) = @_;
    while ( $who->{in} =~ /\A(\w+) (\d+)(?: (\d+) (\d+) (\d+))?\n/ ) {
        my ( $what, $slot, $request, $acts, $again ) = ( $1, $slot[$2], $3 || 0, $4 || 0, $5 || 0 );
        my $head = $+[0];
        return if length( $who->{in} ) < $head + $request + $acts + $again;
        substr $who->{in}, 0, $head, '';
        $request = substr $who->{in}, 0, $request, '';
        $acts    = substr $who->{in}, 0, $acts,    '';
        $again   = substr $who->{in}, 0, $again,   '';
        if ( $what eq 'script' ) {
            my @list;
            while ( $acts =~ s/\A(\w+) (d?)(\d+)\n// ) {
                push @list, [ $1, $2 ? substr $acts, 0, $3, '' : $3 ];
            }
            @$slot{qw( request acts again seen asked )} = ( $request, \@list, $again, [], {} );
            delete @$slot{qw( victim finished flooded )};
            say_to( $who, "ok\n" );
        }
        elsif ( $what eq 'done' ) {
            $slot->{finished} ? report( $who, $slot ) : ( $slot->{asked}{done} = $who );
        }
        elsif ( $what eq 'gone' || $what eq 'release' ) {
            my $victim = $slot->{victim};
            if    ( !$victim || !$victim->{fh} ) { report( $who, $slot ); next }
            shutdown $victim->{fh}, SHUT_WR if $what eq 'release';
            $slot->{asked}{gone} = $who;
        }
        elsif ( $what eq 'seen' ) { report( $who, $slot ) }
        elsif ( $what eq 'down' ) { down($slot);   say_to( $who, "ok\n" ) }
        elsif ( $what eq 'up' )   { opened($slot) if !$slot->{door}; say_to( $who, "ok\n" ) }
    }
    return;
}

serve(@ARGV) if !caller;

1;
__END__

=head1 NAME

FaultServer - a memcached that fails as it is told to

=head1 SYNOPSIS

    use TestEnv;
    use FaultServer;
    my $port = FaultServer::start(48);

=head1 DESCRIPTION

C<start(N)> runs this file as a process of its own, which ends with the suite. It listens at
127.0.9.1 to 127.0.9.N, its I<slots>, and takes orders at 127.0.0.1, all with the port returned.
Each slot has one script at a time. F<t/lib/faultkit.lua> speaks for the suites.

A connection to a slot is answered like this: C<get> of a key that begins with C<nb> or C<probe> is a
hit with the value C<KEY@NUMBER>, the number being that of the connection. The request that the
slot's script is for, which has to be there byte for byte, starts the script; with an empty request
it starts as a connection is accepted. When that request comes again, it may have an answer. All else gets a SERVER_ERROR that quotes it.

=head2 Orders

=over

=item script SLOT LENGTH LENGTH LENGTH

followed by the request, the script's steps and what is answered when the request comes again: C<send dN>, C<drip dN> (one byte a millisecond),
each with N bytes behind the line; C<pause MS>; C<flood 0> (bytes until the client closes); C<fin 0>;
C<rst 0>; C<hold 0> (nothing is answered any more); C<down 0> (the slot listens no more and closes all
its connections). After them, unless it was one of the last four, the connection goes on as before.

=item done SLOT, gone SLOT, release SLOT, seen SLOT

answered when the script is finished; when the script's connection is closed; the same, after a FIN
on it; at once. The answer has a word for each request, C<KEY=NUMBER> or C<victim=NUMBER>, and
C<flooded=BYTES>.

=item down SLOT, up SLOT

=back

=cut
