package DnsServer;

use strict;
use warnings;

use File::Spec ();
use IO::Select ();
use IO::Socket::INET;
use Time::HiRes qw( sleep time );

# What the last two labels of a name stand for: addresses (A, AAAA), the answer's code, its delay
# in seconds. Seconds to live are 300 unless given. The IPv6 address is one that any kernel with
# IPv6 reaches, and the same servers listen there.
my %ZONE = (
    'one.test'     => { a => ['127.0.0.1'] },
    'short.test'   => { a => ['127.0.0.1'], ttl => 0 },
    'two.test'     => { a => [ '127.0.0.1', '127.0.0.2' ] },
    'far.test'     => { a => ['127.0.0.2'] },
    'v6.test'      => { aaaa => ['::ffff:127.0.0.1'] },
    'both.test'    => { a => ['127.0.0.1'], aaaa => ['::ffff:127.0.0.1'] },
    'alias.test'   => { cname => 'one.test', a => ['127.0.0.1'] },
    'tc.test'      => { a => [ map {"127.0.0.$_"} 1 .. 60 ], truncated => 1 },
    'slow.test'    => { a => ['127.0.0.1'], delay => 0.2 },
    'never.test'   => { silent => 1 },
    'empty.test'   => {},
    'form.test'    => { code => 1 },
    'fail.test'    => { code => 2 },
    'nx.test'      => { code => 3 },
    'notimp.test'  => { code => 4 },
    'refused.test' => { code => 5 },
);
my %TYPE = ( a => 1, aaaa => 28 );

my ( $child, $owner );

# Starts a server on 127.0.0.1, both UDP and TCP; returns its port once it answers.
sub start {
    require TestEnv;
    my $port = TestEnv::free_port();
    $owner = $$;
    $child = TestEnv::Child::spawn( [ $^X, File::Spec->rel2abs(__FILE__), $port ] );
    my $client = IO::Socket::INET->new( PeerAddr => "127.0.0.1:$port", Proto => 'udp' )
        or die "DnsServer: $!\n";
    my $until = time + 10;
    while ( time < $until ) {
        send $client, '? up', 0;
        return $port if IO::Select->new($client)->can_read(0.05) && defined recv $client, my $got, 64, 0;
        sleep 0.01;
    }
    die "DnsServer: does not answer on port $port\n";
}

sub stop {
    TestEnv::Child::stop( $child, TERM => 2 ) if $child;
    undef $child;
    return;
}

END { stop() if $child && $owner == $$ }

# The server itself.

my ( %asked, %told, @due, %stream );

sub serve {
    my ($port) = @_;
    my %where = ( LocalAddr => '127.0.0.1', LocalPort => $port );
    my $udp = IO::Socket::INET->new( %where, Proto => 'udp' ) or die "udp: $!\n";
    my $tcp = IO::Socket::INET->new( %where, Proto => 'tcp', Listen => 64, ReuseAddr => 1 )
        or die "tcp: $!\n";
    my $select = IO::Select->new( $udp, $tcp );
    while (1) {
        my ($next) = sort { $a <=> $b } map { $_->[0] } @due;
        my $wait = defined $next ? $next - time : 1;
        for my $ready ( $select->can_read( $wait > 0 ? $wait : 0 ) ) {
            if    ( $ready == $udp ) { datagram($udp) }
            elsif ( $ready == $tcp ) { $select->add( scalar $tcp->accept ) }
            elsif ( !chunk($ready) ) {
                $select->remove($ready);
                delete $stream{$ready};
                close $ready;
            }
        }
        my $now = time;
        $_->[1]->() for grep { $_->[0] <= $now } @due;
        @due = grep { $_->[0] > $now } @due;
    }
}

# "? NAME" instead of a query asks how often NAME was asked for; "= NAME TTL WHAT..." says what it
# stands for from now on: IPv4 addresses, the code of an error, or "silent".
sub datagram {
    my ($udp) = @_;
    my $peer = recv $udp, my $query, 4096, 0;
    return if !defined $peer;
    if ( $query =~ /\A\? (.*)/s ) {
        send $udp, $asked{ lc $1 } || 0, 0, $peer;
        return;
    }
    if ( $query =~ /\A= (.*)/s ) {
        my ( $name, $ttl, @what ) = split ' ', lc $1;
        $told{$name} =
              $what[0] eq 'silent' ? { silent => 1 }
            : $what[0] =~ /[.]/    ? { a => \@what, ttl => $ttl }
            :                        { code => $what[0] };
        send $udp, 'done', 0, $peer;
        return;
    }
    answer( $query, 0, sub { send $udp, $_[0], 0, $peer } );
    return;
}

sub chunk {
    my ($client) = @_;
    sysread $client, $stream{$client}, 4096, length( $stream{$client} // '' ) or return 0;
    while ( $stream{$client} =~ s/\A(..)//s ) {
        my $length = unpack 'n', $1;
        if ( length $stream{$client} < $length ) {
            substr $stream{$client}, 0, 0, $1;
            last;
        }
        my $query = substr $stream{$client}, 0, $length, '';
        answer( $query, 1, sub { syswrite $client, pack 'n/a', $_[0] } );
    }
    return 1;
}

sub answer {
    my ( $query, $is_tcp, $reply ) = @_;
    my ( $id, $flags ) = unpack 'nn', $query;
    my ( $name, $end ) = name_at( $query, 12 );
    return if !defined $name;
    my $type = unpack "x$end n", $query;
    $asked{ lc $name }++;
    my ($key) = lc($name) =~ /([^.]*\.[^.]*)\z/;
    my $zone = $told{ lc $name } || $ZONE{ $key // '' } || { code => 3 };
    return if $zone->{silent};

    my $cut     = $zone->{truncated} && !$is_tcp;
    my @records = $cut ? () : records( $zone, $type );
    my $message = join '',
        pack( 'n6', $id, 0x8180 | ( $cut ? 0x200 : 0 ) | ( $zone->{code} || 0 ), 1,
        scalar @records, 0, 0 ),
        substr( $query, 12, $end + 4 - 12 ), @records;
    return $reply->($message) if !$zone->{delay};
    push @due, [ time + $zone->{delay}, sub { $reply->($message) } ];
    return;
}

# Owner names point at the question (offset 12), or at the alias's target.
sub records {
    my ( $zone, $type ) = @_;
    my $ttl   = $zone->{ttl} // 300;
    my $owner = pack 'n', 0xC00C;
    my @list;
    if ( $zone->{cname} ) {
        my $target = join( '', map { pack 'C/a', $_ } split /\./, $zone->{cname} ) . "\0";
        push @list, $owner . pack 'nnNn/a', 5, 1, $ttl, $target;
        $owner = $target;
    }
    for my $kind (qw( a aaaa )) {
        next if $type != $TYPE{$kind};
        my $family = $kind eq 'a' ? AF_INET : Socket::AF_INET6();
        push @list, map { $owner . pack 'nnNn/a', $type, 1, $ttl, Socket::inet_pton( $family, $_ ) }
            @{ $zone->{$kind} || [] };
    }
    return @list;
}

# (name, offset behind it), or nothing if the name is too long for one. Queries are not compressed.
sub name_at {
    my ( $query, $at ) = @_;
    my @labels;
    while ( my $length = unpack "x$at C", $query ) {
        return if $length > 63 || $at > 12 + 255;
        push @labels, substr $query, $at + 1, $length;
        $at += 1 + $length;
    }
    return ( join( '.', @labels ), $at + 1 );
}

serve(@ARGV) if !caller;

1;
__END__

=head1 NAME

DnsServer - a scripted name server on loopback

=head1 SYNOPSIS

    use TestEnv;
    use DnsServer;
    my $port = DnsServer::start();

=head1 DESCRIPTION

C<start()> runs this file as a process of its own, which ends with the suite. What it answers
depends on the last two labels of a name (the table on top), so that C<a.one.test> and
C<b.one.test> are different names with one behaviour. Any other name does not exist.

A datagram C<? NAME> is answered with the number of queries for NAME so far, in decimal. One that is
C<= NAME TTL ADDRESS...> changes what NAME stands for, and so do C<= NAME TTL CODE> and
C<= NAME TTL silent>.

=cut
