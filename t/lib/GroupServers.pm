package GroupServers;

use strict;
use warnings;

use File::Temp ();
use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Time::HiRes qw( sleep time );

use TestEnv;

# For suites about upstream blocks: servers that note what they get, and Lua to run in nginx.

my %ANSWER = (
    get => "END\r\n", gets => "END\r\n", incr => "1\r\n", decr => "1\r\n", touch => "TOUCHED\r\n",
    delete => "DELETED\r\n", version => "VERSION 1.6.18\r\n", flush_all => "OK\r\n", mn => "MN\r\n",
);
my @children;
my $owner = $$;
END {
    if ( $$ == $owner ) {
        local $?;
        for (@children) { kill KILL => $_; waitpid $_, 0 }
    }
}

# note(port => N, silent => 1): a server that notes its connections and commands, and answers each command
# (silent: none). Returns an object; its port may be chosen.
sub note {
    my ( $class, %opt ) = @_;
    my $self = bless { port => $opt{port} // TestEnv::free_port(), file => File::Temp->new }, $class;
    my $listen = IO::Socket::INET->new( Listen => 128, LocalAddr => '127.0.0.1', LocalPort => $self->{port}, ReuseAddr => 1 )
        or die "listen: $!";
    $self->{pid} = fork // die "fork: $!";
    if ( $self->{pid} ) { push @children, $self->{pid}; return $self }
    eval { serve( $listen, $self->{file}, $opt{silent} ) };
    POSIX::_exit(0);
}

sub serve {
    my ( $listen, $notes, $silent ) = @_;
    my ( $watch, %got ) = IO::Select->new($listen);
    while (1) {
        for my $socket ( $watch->can_read ) {
            if ( $socket == $listen ) {
                $watch->add( scalar $listen->accept );
                syswrite $notes, "connect\n";
                next;
            }
            if ( !sysread $socket, $got{$socket}, 65_536, length( $got{$socket} // '' ) ) {
                $watch->remove($socket);
                close $socket;
                next;
            }
            while ( $got{$socket} =~ s/\A([^\r\n]*)\r\n// ) {
                my $line = $1;
                my ($bytes) = $line =~ /\A(?:set|add|replace|append|prepend|cas) \S+ \S+ \S+ (\d+)/;
                if ( defined $bytes && length $got{$socket} < $bytes + 2 ) {
                    substr $got{$socket}, 0, 0, "$line\r\n";
                    last;
                }
                substr $got{$socket}, 0, $bytes + 2, '' if defined $bytes;
                syswrite $notes, "$line\n";
                next if $silent;
                my ($word) = $line =~ /\A(\w+)/;
                syswrite $socket, defined $bytes ? "STORED\r\n" : $ANSWER{$word} // "ERROR\r\n";
            }
        }
    }
    return;
}

sub port { return $_[0]{port} }

# All that was noted until now, or since the last `forget`.
sub notes {
    my ($self) = @_;
    my @lines = split /\n/, LiveNginx::slurp("$self->{file}");
    splice @lines, 0, $self->{seen} // 0;
    return @lines;
}

# The file that it notes all in, for workers to look at, and how long that is now.
sub file {
    my ($self) = @_;
    chmod 0644, "$self->{file}";
    return ( "$self->{file}", -s "$self->{file}" );
}

sub forget { my ($self) = @_; $self->{seen} += () = $self->notes; return }

sub connects { return scalar grep { $_ eq 'connect' } $_[0]->notes }
sub commands { my @all = grep { $_ ne 'connect' } $_[0]->notes; return @all }

sub stop {
    my ($self) = @_;
    local $?;
    kill KILL => $self->{pid};
    waitpid $self->{pid}, 0;
    @children = grep { $_ != $self->{pid} } @children;
    return;
}

# `server` lines for these ports.
sub lines {
    my ( $rest, @ports ) = @_;
    return join ' ', map {"server 127.0.0.1:$_ $rest;"} @ports;
}

# A number out of the statistics of the memcached on this port.
sub stat_of {
    my ( $port, $name ) = @_;
    my $memcached = IO::Socket::INET->new("127.0.0.1:$port") or die "memcached: $!";
    print {$memcached} "stats\r\n";
    while ( defined( my $line = <$memcached> ) ) { return $1 if $line =~ /^STAT \Q$name\E (\d+)/ }
    return;
}

# For an http block: the functions of awaykit.lua.
sub init {
    my ($more) = @_;
    return 'init_by_lua_block { ' . TestEnv::lua_kit() . ' require "awaykit" ' . ( $more // '' ) . ' }';
}

# For a server block: what `lua` needs.
sub location {
    return q{
        location = /lua {
            content_by_lua_block {
                local f = assert(loadstring(ngx.unescape_uri(ngx.var.arg_code)))
                local ok, err = pcall(f)
                if not ok then ngx.print("raised ", err) end
            }
        }
    };
}

sub path_of {
    my ($code) = @_;
    $code =~ s/\s+/ /g;
    $code =~ s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/ge;
    return "/lua?code=$code";
}

# What this code prints.
sub lua {
    my ( $nginx, $code ) = @_;
    return $nginx->get( path_of($code) );
}

# What it prints when so many requests run it at the same time.
sub together {
    my ( $nginx, $count, $code ) = @_;
    my @sockets = map {
        IO::Socket::INET->new( PeerAddr => '127.0.0.1:' . $nginx->port ) or die "nginx: $!"
    } 1 .. $count;
    print {$_} 'GET ' . path_of($code) . " HTTP/1.0\r\n\r\n" for @sockets;
    local $/;
    return map { ( split /\r\n\r\n/, readline($_) // '', 2 )[1] // 'no answer' } @sockets;
}

# How many lines of the log match.
sub logged {
    my ( $nginx, $pattern ) = @_;
    return scalar grep {/$pattern/} split /\n/, $nginx->log;
}

1;
