package Preload;

use strict;
use warnings;

use Cwd            ();
use File::Basename ();
use File::Temp     ();

my $HERE = Cwd::abs_path( File::Basename::dirname(__FILE__) );
my $dir;

# Compiles t/lib/$name.c and has nginx, started by the code, load it ahead of all else. Returns what
# the code returns.
sub with {
    my ( $name, $code ) = @_;
    $dir ||= File::Temp->newdir( 'preXXXXXX', TMPDIR => 1 );
    chmod 0755, "$dir";
    my $made = "$dir/$name.so";
    if ( !-e $made ) {
        my @cc = ( $ENV{CC} || 'cc', qw( -std=gnu11 -O1 -Wall -Wextra -Werror -shared -fPIC ) );
        system( @cc, '-o', $made, "$HERE/$name.c" ) == 0 or die "Preload: cannot compile $name.c\n";
    }
    local $ENV{LD_PRELOAD} = $made;
    return $code->();
}

1;
__END__

=head1 NAME

Preload - small C libraries that change what nginx gets from the C library

=head1 SYNOPSIS

    my $nginx = Preload::with( failalloc => sub { LiveNginx->start(...) } );

=cut
