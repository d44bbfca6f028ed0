package Test::Nginx::Socket::Client;

use strict;
use warnings;

use Errno qw( EAGAIN EINTR );
use IO::Select ();
use IO::Socket::INET;
use Time::HiRes qw( sleep );

use Test::Nginx::Socket::Settings qw( %S );

# Sends a request and returns all bytes that came back until the server closed the connection.
# Nothing for $timeout seconds is a failure, unless the block says "abort".
sub talk {
    my ( $block, $request, $timeout ) = @_;
    my $name = $block->name;
    my $socket = IO::Socket::INET->new(
        PeerAddr => $S{server_addr},
        PeerPort => $S{server_port},
        Proto    => 'tcp',
        Timeout  => $timeout,
    );
    if ( !$socket ) {
        Test::More::fail("$name - connects to port $S{server_port}: $@");
        return '';
    }
    $socket->blocking(0);
    local $SIG{PIPE} = 'IGNORE';
    my $select  = IO::Select->new($socket);
    my @packets = @$request;
    my $out     = ( shift @packets )->{value};
    my $in      = '';
    while (1) {
        my $writing = $out ne '' || @packets;
        my ( $readable, $writable )
            = IO::Select->select( $select, $writing ? $select : undef, undef, $timeout );
        if ( !defined $readable ) {
            next if $! == EINTR;
            Test::More::fail("$name - client timed out after $timeout s")
                if !defined $block->abort;
            last;
        }
        if (@$readable) {
            my $count = sysread $socket, $in, 65_536, length $in;
            next if !defined $count && ( $! == EAGAIN || $! == EINTR );
            Test::More::diag("$name - reading the response: $!") if !defined $count;
            last if !$count;
        }
        next if !@$writable;
        if ( $out eq '' ) {
            my $packet = shift @packets;
            sleep $packet->{delay} if $packet->{delay};
            $out = $packet->{value};
        }
        my $count = syswrite $socket, $out;
        if ( defined $count ) {
            substr $out, 0, $count, '';
            if ( $out eq '' && !@packets && defined( my $how = $block->shutdown ) ) {
                shutdown $socket, $how eq '' ? 1 : $how;
            }
        }
        elsif ( $! != EAGAIN && $! != EINTR ) {
            $out     = '';    # the server has gone: what it said may still be there
            @packets = ();
        }
    }
    close $socket;
    sleep 0.005 if defined $block->abort;    # until nginx has seen it
    return $in;
}

# { code, head (raw), headers => { lower-case name => [values] }, body, rest }; code is undef if it
# is no response. rest is what follows the body.
sub parse {
    my ( $name, $raw, $request ) = @_;
    my %response = ( head => '', headers => {}, body => '', rest => '' );
    $raw //= '';
    my ( $head, $body ) = $raw =~ /\A(.*?\r\n)\r\n(.*)\z/s or return \%response;
    my ( $status, @lines ) = split /\r\n/, $head;
    $status =~ m{^HTTP/\d\.\d (\d+)} or return \%response;
    $response{code} = $1;
    $response{head} = $head;
    for my $line (@lines) {
        my ( $key, $value ) = split /:\s*/, $line, 2;
        push @{ $response{headers}{ lc $key } }, $value // '';
    }
    my ($coding) = @{ $response{headers}{'transfer-encoding'} || [] };
    my ($length) = @{ $response{headers}{'content-length'}    || [] };
    my $is_head = $request->[0]{value} =~ /^\s*HEAD\s/;

    if ( $response{code} == 304 || $response{code} == 101 ) {
        $response{body} = $body;
    }
    elsif ( defined $coding && $coding eq 'chunked' && !$is_head ) {
        @response{qw( body rest )} = dechunk( $name, $body );
        delete $response{code} if !defined $response{body};
    }
    elsif ( defined $length && $length =~ /^\d+$/ && length $body >= $length ) {
        $response{body} = substr $body, 0, $length;
        $response{rest} = substr $body, $length;
    }
    else {
        Test::More::diag( "$name - body cut off: $length bytes announced, " . length $body )
            if defined $length && !$is_head;
        $response{body} = $body;
    }
    return \%response;
}

# (body, what follows it); the body is undef after a failure.
sub dechunk {
    my ( $name, $raw ) = @_;
    my ( $body, $at ) = ( '', 0 );
    while (1) {
        pos($raw) = $at;
        if ( $raw !~ /\G[ \t]*([0-9A-Fa-f]+)[^\r\n]*\r\n/g ) {
            Test::More::fail("$name - chunked body without its last chunk");
            return ( undef, '' );
        }
        my $size = hex $1;
        $at = pos $raw;
        if ( !$size ) {
            $raw =~ /\G(?:[^\r\n]+\r\n)*\r\n/g or $raw =~ /\z/g;    # trailers
            return ( $body, substr $raw, pos $raw );
        }
        if ( substr( $raw, $at + $size, 2 ) ne "\r\n" ) {
            Test::More::fail("$name - chunk is cut off");
            return ( undef, '' );
        }
        $body .= substr $raw, $at, $size;
        $at += $size + 2;
    }
}

1;
__END__

=head1 NAME

Test::Nginx::Socket::Client - a small HTTP client: send bytes, read until close, take apart

=cut
