package Test::Nginx::Socket::Request;

use strict;
use warnings;

use Test::Nginx::Socket::Settings qw( %S expand );

# A request is an array of packets; a packet is { value => bytes, delay => seconds or undef }.
sub from_block {
    my ($block) = @_;
    my $name = $block->name;
    if ( defined( my $raw = $block->raw_request ) ) {
        my $delay = $block->raw_request_middle_delay;
        my @parts = ref $raw ? @$raw : ($raw);
        return [ map { { value => $parts[$_], delay => $_ ? $delay : undef } } 0 .. $#parts ];
    }
    my $more = $block->more_headers || '';
    if ( my $list = $block->pipelined_requests ) {
        my $bytes = '';
        for my $i ( 0 .. $#$list ) {
            my $connection = $i == $#$list ? 'close' : 'keep-alive';
            $bytes .= build( $name, expand( $list->[$i] ), headers_for( $more, $i, $name ),
                $connection );
        }
        return [ { value => $bytes } ];
    }
    my $request = $block->request;
    my @list    = ref $request eq 'ARRAY' ? @$request : ($request);
    return map {
        [ { value => build( $name, $list[$_], headers_for( $more, $_, $name ), 'close' ) } ]
    } 0 .. $#list;
}

# more_headers is one text for all requests, or an array with one for each.
sub headers_for {
    my ( $more, $i, $name ) = @_;
    return $more if ref $more ne 'ARRAY';
    return $more->[$i] // Test::More::BAIL_OUT("$name - no more_headers for request $i");
}

# "METHOD [URI [VERSION]]", then the body. Leading comment lines are left out.
sub build {
    my ( $name, $text, $more, $connection ) = @_;
    Test::More::BAIL_OUT("$name - a request given as packets needs the full Test::Nginx")
        if ref $text;
    $text //= '';
    1 while $text =~ s/^\s*#[^\n]*\n\s*|^\s+//;
    my ( $line, $body ) = $text =~ /^([^\n]*)(?:\n(.*))?$/s;
    my ( $method, $uri, $version ) = split ' ', $line;
    Test::More::BAIL_OUT("$name - no request") if !defined $method;
    $uri     //= '/';
    $version //= 'HTTP/1.1';
    $body    //= '';

    my ( $chunked, $length, $host, $own_connection );
    my $headers = '';
    for my $header ( split /\r?\n/, $more ) {
        next if $header !~ /\S/ || $header =~ /^\s*#/;
        my ( $key, $value ) = split /:\s*/, $header, 2;
        $value //= '';
        $chunked        ||= lc $key eq 'transfer-encoding' && $value eq 'chunked';
        $length         ||= lc $key eq 'content-length';
        $host           ||= lc $key eq 'host';
        $own_connection ||= lc $key eq 'connection';
        $headers .= "$key: $value\r\n";
    }
    if ( $body ne '' && !$chunked && !$length ) {
        $body =~ s/^\s+|\s+$//g;
        $headers .= 'Content-Length: ' . length($body) . "\r\n";
    }
    return join '', "$method $uri $version\r\n",
        $host           ? () : "Host: $S{server_name}\r\n",
        $own_connection ? () : "Connection: $connection\r\n",
        $headers, "\r\n", $body;
}

1;
__END__

=head1 NAME

Test::Nginx::Socket::Request - the bytes to send, from a block's request sections

=cut
