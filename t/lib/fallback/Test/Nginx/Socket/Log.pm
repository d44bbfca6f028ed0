package Test::Nginx::Socket::Log;

use strict;
use warnings;

use Time::HiRes qw( sleep time );

use Test::Nginx::Socket::Settings qw( %S expand path );

# What is logged after the client got the end of the response (e.g. when a pool is destroyed) comes
# within this time; a line that is still missing is waited for up to the second one. Seconds.
my $SETTLE  = $ENV{TEST_NGINX_SLEEP} || 0.01;
my $MISSING = 0.3;

my $position = 0;    # error.log has been read up to here

sub rewind { $position = 0; return }

# The tests of one request; $repetition counts from 0.
sub check {
    my ( $block, $repetition ) = @_;
    my $name  = $block->name;
    my $where = "(repetition $repetition)";
    my @want  = patterns( $block->error_log );
    my $grep  = $block->grep_error_log;
    $grep = $grep->[$repetition] if ref $grep eq 'ARRAY';
    Test::More::BAIL_OUT("$name - grep_error_log and grep_error_log_out go together")
        if defined $block->grep_error_log != defined $block->grep_error_log_out;

    my $lines = read_error_log(@want);
    if ( defined $grep ) {
        grepped( $block, $lines, $grep, $repetition );
    }
    expect( $name, 'error.log', $lines, $where, @want );
    refuse( $name, 'error.log', $lines, $where, patterns( $block->no_error_log ) );
    remark( $block, $lines );

    return if defined $block->ignore_response;
    return if !defined $block->access_log && !defined $block->no_access_log;
    my $access = read_lines( path('logs/access.log'), 0 );
    expect( $name, 'access.log', $access, $where, patterns( $block->access_log ) );
    refuse( $name, 'access.log', $access, $where, patterns( $block->no_access_log ) );
    return;
}

# After nginx has stopped.
sub check_shutdown {
    my ($block) = @_;
    my @want = patterns( $block->shutdown_error_log );
    my @not  = patterns( $block->no_shutdown_error_log );
    return if !@want && !@not;
    my $lines = read_lines( path('logs/error.log'), $S{accum_error_log} ? 0 : $position );
    expect( $block->name, 'error.log', $lines, '(shutdown)', @want );
    refuse( $block->name, 'error.log', $lines, '(shutdown)', @not );
    return;
}

sub read_error_log {
    my (@want) = @_;
    sleep $SETTLE;
    my $until = time + $MISSING;
    my $from  = $S{accum_error_log} ? 0 : $position;
    while (1) {
        my ( $lines, $end ) = read_lines( path('logs/error.log'), $from );
        my $complete = !grep { my $p = $_; !grep { matches( $_, $p ) } @$lines } @want;
        if ( $complete || time > $until ) {
            $position = $end;
            return $lines;
        }
        sleep 0.01;
    }
}

sub read_lines {
    my ( $path, $from ) = @_;
    open my $file, '<', $path or return ( [], $from );
    seek $file, $from, 0;
    my @lines = <$file>;
    my $end   = tell $file;
    return wantarray ? ( \@lines, $end ) : \@lines;
}

# A section is text (a pattern a line), a regex, or an array of both.
sub patterns {
    my ($section) = @_;
    return if !defined $section;
    return grep { defined } @$section if ref $section eq 'ARRAY';
    return $section if ref $section;
    chomp $section;
    return split /\n+/, $section;
}

sub matches {
    my ( $line, $pattern ) = @_;
    return ref $pattern ? $line =~ $pattern : index( $line, $pattern ) >= 0;
}

sub expect {
    my ( $name, $file, $lines, $where, @patterns ) = @_;
    for my $pattern (@patterns) {
        Test::More::ok(
            scalar( grep { matches( $_, $pattern ) } @$lines ),
            "$name - pattern \"$pattern\" in $file $where"
        );
    }
    return;
}

sub refuse {
    my ( $name, $file, $lines, $where, @patterns ) = @_;
    for my $pattern (@patterns) {
        my @found = grep { matches( $_, $pattern ) } @$lines;
        Test::More::ok( !@found, "$name - pattern \"$pattern\" not in $file $where" )
            or Test::More::diag( @found > 10 ? @found[ 0 .. 9 ] : @found );
    }
    return;
}

# The matched parts of the lines, one a line, against the expected text or regex.
sub grepped {
    my ( $block, $lines, $grep, $repetition ) = @_;
    my $wanted = $block->grep_error_log_out;
    $wanted = $wanted->[$repetition] if ref $wanted eq 'ARRAY';
    my $pattern = ref $grep ? $grep : qr/\Q$grep\E/;
    my $got     = '';
    for my $line (@$lines) {
        next if $line !~ $pattern;
        my $match = substr $line, $-[0], $+[0] - $-[0];
        $got .= "$match\n" if $match !~ /\n/;
    }
    my $title = $block->name . " - grep_error_log_out (repetition $repetition)";
    return ref $wanted
        ? Test::More::like( $got, $wanted, $title )
        : Test::Base::is( $got, expand($wanted), $title );
}

# Trouble that the block does not mention: shown, and a crash fails.
sub remark {
    my ( $block, $lines ) = @_;
    my $name = $block->name;
    return if defined $block->must_die;
    for my $word ( '[alert', '[crit', '[emerg', 'writing a global lua variable' ) {
        next
            if grep { index( $_, $word ) >= 0 || index( $_, quotemeta $word ) >= 0 }
            map { patterns( scalar $block->$_ ) } qw( error_log no_error_log );
        Test::More::diag("$name - $_") for grep { index( $_, $word ) >= 0 } @$lines;
    }
    for my $line (@$lines) {
        Test::More::fail("$name - $line") if $line =~ /\bAssertion .*?failed\b|exited on signal/;
    }
    return;
}

1;
__END__

=head1 NAME

Test::Nginx::Socket::Log - compares error.log and access.log with what the block expects

=cut
