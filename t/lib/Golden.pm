package Golden;

use strict;
use warnings;

use TestEnv;

# The vectors of src/distribution/golden, with servers of this machine in the place of those they name.

my %METHOD = ( consistent => 'hash $memcached_key consistent;', crc => 'hash $memcached_key;' );

# Of them, those with vectors that an upstream block can have.
sub files { return qw( nginx libmemcached php twemproxy ) }

sub folder { return TestEnv::root() . '/src/distribution/golden' }

# All vectors whose servers an upstream block can name: { file, name, method, servers, is_dead, is_nginx },
# the latter for those that nginx distributes. `servers` has { name, weight, down, address, port }: the
# address that nginx connects to, and the port of the memcached that is there instead. One that is
# `down` is marked so; where the vector is_dead, it is to be stopped instead.
sub vectors {
    my @vectors;
    for my $file ( files() ) {
        open my $in, '<', folder() . "/$file.txt" or die "$file: $!";
        while (<$in>) {
            my $vector = $vectors[-1];
            if ( my ($name) = /^\[(.*)\]/ ) {
                push @vectors, { file => $file, name => $name, servers => [], is_dead => 0 + ( $name =~ /dead/ ) };
            }
            elsif ( my ( $method, $parameters ) = /^method (\S+)(.*)/ ) {
                $vector->{method}   = "$method$parameters";
                $vector->{is_nginx} = exists $METHOD{$method};
            }
            elsif ( my ( $server, $weight, $down ) = /^server (\S+) weight=(\d+)( down)?/ ) {
                my $has_port = $server =~ /:\d+\z/ && $server !~ /\]\z/;
                push @{ $vector->{servers} },
                    { name => $server, weight => $weight, down => $down, address => $has_port ? $server : "$server:80" };
            }
            elsif (/^nick/) { $vectors[-1]{is_nick} = 1 }
        }
        close $in or die "$file: $!";
    }
    # a name for a server is twemproxy's only
    return grep { !$_->{is_nick} } @vectors;
}

# Gives each server of these vectors a memcached that it has alone in each vector, and returns what
# elsewhere.c wants to know, and the ports.
sub place {
    my (@vectors) = @_;
    my ( %of, %taken, %names, @ports );
    for my $vector ( sort { @{ $b->{servers} } <=> @{ $a->{servers} } } @vectors ) {
        for my $server ( @{ $vector->{servers} } ) {
            my $name = $server->{address};
            next if defined $of{$name};
            # in none of the vectors with this server another has it
            my %others = map { $_ => 1 } grep {defined} map { $of{ $_->{address} } }
                map { @{ $_->{servers} } }
                grep { grep { $_->{address} eq $name } @{ $_->{servers} } } @vectors;
            my $at = 0;
            $at++ while $others{$at};
            $of{$name} = $at;
        }
    }
    my @pairs;
    for my $name ( sort keys %of ) {
        my $at = $of{$name};
        my $port = $ports[$at] //= TestEnv::Memcached::launch( TestEnv::free_port(), qw( -t 1 -m 16 ) );
        my ( $host, $number ) = $name =~ /\A(.*):(\d+)\z/;
        if ( $host =~ /[a-z]/ && $host !~ /\A\[/ ) {
            $names{$host} //= '10.9.0.' . ( 1 + keys %names );
            $host = $names{$host};
        }
        push @pairs, "$host:$number=127.0.0.1:$port";
        for my $vector (@vectors) { $_->{port} = $port for grep { $_->{address} eq $name } @{ $vector->{servers} } }
    }
    TestEnv::Memcached::await($_) for @ports;
    return ( join( ' ', @pairs, map {"$_=$names{$_}"} sort keys %names ), @ports );
}

# The upstream block of a vector, `how` instead of its method.
sub upstream {
    my ( $vector, $how, $more ) = @_;
    ( my $quoted = $vector->{method} ) =~ s/(hash_tag=\S+)/"$1"/;
    my $method = $METHOD{ $vector->{method} };
    my $servers = join ' ', map {
        my $down = $_->{down} && !$vector->{is_dead} ? ' down' : '';
        "server $_->{name} weight=$_->{weight}$down;"
    } @{ $vector->{servers} };
    return sprintf "upstream %s { %s %s %s }\n", $vector->{name}, $how // $method // "lua_memcached_hash $quoted;", $servers, $more // '';
}

# { ["name"] = { port, ... }, ... } for Lua.
sub ports {
    my (@vectors) = @_;
    return '{ ' . join( ', ', map { qq(["$_->{name}"] = { ) . join( ', ', map { $_->{port} } @{ $_->{servers} } ) . ' }' } @vectors ) . ' }';
}

1;
