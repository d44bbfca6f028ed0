package ExampleConf;

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;

use LiveNginx;
use TestEnv;

# Starts nginx with a file of nginx-conf/ in its http block, as it is but for these:
#   the ports 8080 and 8081 of 127.0.0.1, and memcached's, of which `memcached` may be another
#   replace => { text => other text }   each must be there
#   http => more text for the http block
sub start {
    my ( $class, $name, %opt ) = @_;
    my $self = bless { port => TestEnv::free_port(), app => TestEnv::free_port() }, $class;
    my $memcached = $opt{memcached} // TestEnv::memcached_port();
    my $text      = text($name);
    my %replace   = (
        'listen 127.0.0.1:8080'  => "listen 127.0.0.1:$self->{port}",
        '"127.0.0.1", 11211'     => qq{"127.0.0.1", $memcached},
        %{ $opt{replace} // {} },
    );
    $replace{'http://127.0.0.1:8081'} = "http://127.0.0.1:$self->{app}" if $text =~ /:8081/;
    for my $old ( sort keys %replace ) {
        $text =~ s/\Q$old\E/$replace{$old}/g or die "ExampleConf: no $old in $name\n";
    }
    my $http = ( $opt{http} // '' ) =~ s/\@APP\@/127.0.0.1:$self->{app}/gr;
    $self->{nginx} = LiveNginx->start( http => "$text\n$http", server => '' );
    return $self;
}

sub text {
    my ($name) = @_;
    my $path = TestEnv::root() . "/nginx-conf/$name";
    open my $file, '<', $path or die "$path: $!\n";
    local $/;
    return scalar <$file>;
}

sub nginx { return $_[0]{nginx} }

# (status, body, { header => value }) of a request. Headers' names are in lower case.
#   method => 'GET', headers => { Name => value }, body => text
sub ask {
    my ( $self, $path, %opt ) = @_;
    my $socket = IO::Socket::INET->new( PeerAddr => "127.0.0.1:$self->{port}", Timeout => 5 )
        or return;
    my $body    = $opt{body} // '';
    my %headers = ( Host => 'site.test', %{ $opt{headers} // {} } );
    $headers{'Content-Length'} = length $body if length $body;
    print {$socket} ( $opt{method} // 'GET' ), " $path HTTP/1.0\r\n",
        ( map {"$_: $headers{$_}\r\n"} sort keys %headers ), "\r\n$body";
    my ( $answer, $watch ) = ( '', IO::Select->new($socket) );
    while ( $watch->can_read(30) ) {
        sysread( $socket, $answer, 65536, length $answer ) or last;
    }
    my ( $status, $head, $got ) = $answer =~ m{\AHTTP/1\.1 (\d+)[^\r]*\r\n(.*?)\r\n\r\n(.*)\z}s or return;
    my %got = map { /^([^:]+): (.*)$/ ? ( lc $1, $2 ) : () } split /\r\n/, $head;
    return ( $status, $got, \%got );
}

# The body with the status before it, which mostly is enough.
sub get {
    my ( $self, $path, %opt ) = @_;
    my ( $status, $body ) = $self->ask( $path, %opt );
    return defined $status ? "$status $body" : 'no answer';
}

# The answer of the real memcached to a command.
sub memcached {
    my ($command) = @_;
    my $socket = IO::Socket::INET->new( PeerAddr => '127.0.0.1:' . TestEnv::memcached_port() ) or die "memcached: $!";
    print {$socket} "$command\r\nquit\r\n";
    local $/;
    return scalar readline $socket;
}

# Nothing at level error or worse, and a graceful end.
sub ends_well {
    my ( $self, @levels ) = @_;
    my @bad = $self->{nginx}->log_lines( @levels ? @levels : qw( warn error crit alert emerg ) );
    Test::More::is_deeply( \@bad, [], 'nothing bad in the log' );
    Test::More::ok( $self->{nginx}->quit, 'ends' );
    return;
}

1;
__END__

=head1 NAME

ExampleConf - a configuration of nginx-conf/ at work

=head1 SYNOPSIS

    my $site = ExampleConf->start('session.conf');
    is $site->get('/'), "200 log in\n";
    $site->ends_well;

=cut
