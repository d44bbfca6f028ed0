package SoakLog;

use strict;
use warnings;

# Reads nginx's error.log while it grows, and finds what does not belong there.

# nginx's own lines about servers that are down, killed or cut.
my $USUAL = qr/ (?: connect | recv | send | writev ) \(\) \s .* failed \s \( (?: 2 | 32 | 104 | 111 ): \s
    | connect\(\)\ failed:\ \d+\ more\ lines?\ like\ this\ suppressed
    | SSL_\w+ \(\) \s failed \s .* (?: 32:\s | 104:\s | unexpected\ eof )
    | peer\ closed\ connection\ in\ SSL\ handshake /x;
my $CHUNK = 262_144;

sub of {
    my ( $class, $path ) = @_;
    open my $file, '<', $path or die "$path: $!\n";
    return bless { file => $file, rest => '' }, $class;
}

# Lines since the last time that should not be there.
sub bad_lines {
    my ($self) = @_;
    my @bad;
    seek $self->{file}, 0, 1;
    while ( sysread $self->{file}, $self->{rest}, $CHUNK, length $self->{rest} ) {
        my @lines = split /\n/, $self->{rest}, -1;
        $self->{rest} = pop @lines;
        for my $line (@lines) {
            next
                if $line !~ /exited (?:on signal|with (?:fatal )?code [^0])|panicked/
                && ( $line !~ /\[(?:error|crit|alert|emerg)\]/ || $line =~ $USUAL );
            push @bad, substr $line, 0, 400;
        }
    }
    return @bad;
}

1;
