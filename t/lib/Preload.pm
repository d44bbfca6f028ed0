package Preload;

use strict;
use warnings;

use Cwd            ();
use File::Basename ();
use File::Temp     ();

my $HERE = Cwd::abs_path( File::Basename::dirname(__FILE__) );
my $dir;

# Compiles t/lib/$name.c and has nginx, started by the code, load it ahead of all else. Returns what
# the code returns. `peerdown` and the like are written for nginx's own headers.
sub with {
    my ( $name, $code ) = @_;
    $dir ||= File::Temp->newdir( 'preXXXXXX', TMPDIR => 1 );
    chmod 0755, "$dir";
    my $made = "$dir/$name.so";
    if ( !-e $made ) {
        my @cc = ( $ENV{CC} || 'cc', qw( -std=gnu11 -O1 -Wall -Wextra -Werror -shared -fPIC ) );
        push @cc, nginx_headers() if source_of($name) =~ /#include <ngx_/;
        system( @cc, '-o', $made, "$HERE/$name.c" ) == 0 or die "Preload: cannot compile $name.c\n";
    }
    local $ENV{LD_PRELOAD} = $made;
    return $code->();
}

sub source_of {
    my ($name) = @_;
    open my $in, '<', "$HERE/$name.c" or die "Preload: $name.c: $!\n";
    local $/;
    return readline $in;
}

# Where they are, as options of the compiler; what they warn of is not our business.
sub nginx_headers {
    my ( $source, $build ) = @ENV{qw( NGINX_SOURCE_DIR NGINX_BUILD_DIR )};
    defined $source && defined $build or die "Preload: NGINX_SOURCE_DIR and NGINX_BUILD_DIR must name a configured nginx\n";
    my @folders = map {"$source/src/$_"} qw( core event event/modules event/quic os/unix http http/modules http/v2 http/v3 );
    return map { ( '-isystem', $_ ) } $build, grep {-d} @folders;
}

1;
__END__

=head1 NAME

Preload - small C libraries that change what nginx gets from the C library

=head1 SYNOPSIS

    my $nginx = Preload::with( failalloc => sub { LiveNginx->start(...) } );

=cut
