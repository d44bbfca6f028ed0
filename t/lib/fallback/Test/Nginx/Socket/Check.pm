package Test::Nginx::Socket::Check;

use strict;
use warnings;

use Test::Nginx::Socket::Settings qw( %S expand );

# All tests of one response. %at: index of the request, and whether the block has many.
sub response {
    my ( $block, $got, %at ) = @_;
    my $name = $block->name;
    my $want = sub {
        my ($section) = @_;
        my $value = $block->$section;
        return if !defined $value;
        return $value->[ $at{index} ] if ref $value eq 'ARRAY';
        Test::More::BAIL_OUT("$name - $section has to be an array: there are several requests")
            if $at{many};
        return $value;
    };
    my $where = $at{many} ? " (request $at{index})" : '';

    if ( defined( my $like = $want->('error_code_like') ) ) {
        Test::More::like( $got->{code} // '', qr/$like/sm, "$name - status code$where" );
    }
    else {
        Test::More::is( $got->{code} // '', $want->('error_code') // 200,
            "$name - status code$where" );
    }
    if ( defined( my $like = $want->('raw_response_headers_like') ) ) {
        Test::More::like( $got->{head}, qr/$like/s, "$name - raw headers like$where" );
    }
    if ( defined( my $unlike = $want->('raw_response_headers_unlike') ) ) {
        Test::More::unlike( $got->{head}, qr/$unlike/s, "$name - raw headers unlike$where" );
    }
    headers( $got, $want, $name, $where );
    body( $got, $want, $name, $where );
    return;
}

sub headers {
    my ( $got, $want, $name, $where ) = @_;
    if ( defined( my $text = $want->('response_headers') ) ) {
        my $wanted = parse($text);
        for my $key ( sort keys %$wanted ) {
            if ( defined $wanted->{$key} ) {
                ( my $value = $wanted->{$key} ) =~ s/\$ServerPort(?:ForClient)?\b/$S{server_port}/g;
                Test::More::is( value( $got, $key ), $value, "$name - header $key$where" );
            }
            else {
                Test::More::unlike( $got->{head}, qr/^\s*\Q$key\E\s*:/m,
                    "$name - no header $key$where" );
            }
        }
    }
    elsif ( defined( my $like = $want->('response_headers_like') ) ) {
        my $wanted = parse($like);
        for my $key ( sort keys %$wanted ) {
            my $pattern = $wanted->{$key} // '';
            Test::More::like( value( $got, $key ), qr/^$pattern$/, "$name - header $key$where" );
        }
    }
    return;
}

# "Name: value" or "! Name" (must be absent: undef), one a line.
sub parse {
    my ($text) = @_;
    my %wanted;
    for my $line ( split /\n/, $text ) {
        $line =~ s/^\s+|\s+$//g;
        next if $line eq '';
        if ( $line =~ s/^!\s*// ) {
            $wanted{$line} = undef;
            next;
        }
        my ( $key, $value ) = split /\s*:\s*/, $line, 2;
        $wanted{$key} = $value;
    }
    return \%wanted;
}

sub value {
    my ( $got, $key ) = @_;
    return join ', ', @{ $got->{headers}{ lc $key } || [] };
}

# The first of the three sections that the block has counts.
sub body {
    my ( $got, $want, $name, $where ) = @_;
    if ( defined( my $wanted = $want->('response_body') ) ) {
        if ( ref $wanted ) {
            Test::More::like( $got->{body}, $wanted, "$name - response body$where" );
            return;
        }
        $wanted =~ s/\$ServerPort(?:ForClient)?\b/$S{server_port}/g;
        Test::Base::is( $got->{body}, expand($wanted), "$name - response body$where" );
    }
    elsif ( defined( my $like = $want->('response_body_like') ) ) {
        Test::More::like( $got->{body}, qr/$like/s, "$name - response body like$where" );
    }
    elsif ( defined( my $unlike = $want->('response_body_unlike') ) ) {
        Test::More::unlike( $got->{body}, qr/$unlike/s, "$name - response body unlike$where" );
    }
    return;
}

1;
__END__

=head1 NAME

Test::Nginx::Socket::Check - compares a response with what the block expects

=cut
