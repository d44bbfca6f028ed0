package DocPages;

use strict;
use warnings;

use File::Temp ();
use IO::Socket::INET;
use Time::HiRes qw( sleep time );

use LiveNginx ();
use TestCerts ();
use TestEnv;

*slurp = \&LiveNginx::slurp;

# Examples have timeouts for production. Here the machine may be busy.
my $PATIENCE = 20;
# Names that the pages use, and what stands for them.
my %FILE = ( 'memcached-ca.pem' => 'ca.pem', 'client.pem' => 'client.pem', 'client.key' => 'client.key' );
my %HOST = ( 'cache.example' => 'memcached.test' );
# Commands in `sh` blocks, besides the scripts.
my %COMMAND = map { $_ => 1 } qw( cp grep memcached mv nginx rm systemctl tar );

# The fenced blocks of a page: { lang, text, line }.
sub blocks {
    my ($path) = @_;
    open my $in, '<', $path or die "$path: $!\n";
    my ( @blocks, $open );
    while ( my $line = <$in> ) {
        if ( !$open ) {
            next if $line !~ /^```(.*)$/;
            ( my $lang = $1 ) =~ s/\s+\z//;
            $open = { lang => $lang, text => '', line => $. };
        }
        elsif ( $line =~ /^```\s*$/ ) {
            push @blocks, $open;
            undef $open;
        }
        else { $open->{text} .= $line }
    }
    die "$path: the block of line $open->{line} does not end\n" if $open;
    return @blocks;
}

# Runs all blocks of a page: a list of [ NAME, FAULT ], where FAULT is undef if all went well.
sub run {
    my ( $path, $title ) = @_;
    my $self = bless {
        dir   => File::Temp->newdir( 'pageXXXXXX', TMPDIR => 1 ),
        title => $title,
        text  => scalar slurp($path),
    }, __PACKAGE__;
    chmod 0755, "$self->{dir}";
    mkdir "$self->{dir}/$_" for qw( logs temp lua );
    $self->start_servers;
    my @results;
    for my $block ( blocks($path) ) {
        my $way = __PACKAGE__->can("run_$block->{lang}");
        my $fault =
              $block->{lang} eq 'text' ? next
            : !$way                    ? "blocks of \"$block->{lang}\" are unknown to DocPages"
            :                            eval { $way->( $self, $block ) } // $@;
        push @results, [ "$title line $block->{line}: $block->{lang}", $fault || undef ];
    }
    push @results, [ "$title: what nginx said at the end", $self->end_nginx || undef ];
    TestEnv::stop_memcached($_) for @{ $self->{memcached} };
    return @results;
}

# ---- what stands for the servers and files of the page ----------------------

sub start_servers {
    my ($self) = @_;
    my $plain = TestEnv::start_memcached();
    my %port = ( 11211 => $plain, map { $_ => TestEnv::free_port() } 8080, 8081, 11219 );
    $self->{memcached} = [$plain];
    if ( $self->{text} =~ /\bsslhandshake\b/ && $self->{text} =~ /\b11213\b/ ) {
        my $dir = TestCerts::dir();
        $port{11212} = TestEnv::start_memcached( args => TestCerts::memcached_args('good') );
        $port{11213} = TestEnv::start_memcached(
            args => TestCerts::memcached_args( 'good', 'ssl_verify_mode=2', "ssl_ca_cert=$dir/ca.pem" ) );
        push @{ $self->{memcached} }, @port{ 11212, 11213 };
    }
    # those of an upstream block
    for my $port ( grep { !$port{$_} } $self->{text} =~ /\bserver 127\.0\.0\.1:(\d+)\b/g ) {
        push @{ $self->{memcached} }, $port{$port} = TestEnv::start_memcached();
    }
    $self->{port} = \%port;
    return;
}

# The text of a block as it is run here.
sub here {
    my ( $self, $text ) = @_;
    my $port = $self->{port};
    $text =~ s{^\s*include (nginx-conf/[\w.-]+);$}{ slurp( TestEnv::root() . "/$1" ) }mge;
    $text =~ s/\b(\d{4,5})\b/$port->{$1} \/\/ $1/ge;
    $text =~ s/\blisten \K(?=\d+;)/127.0.0.1:/g;
    $text =~ s{/etc/nginx/([\w.-]+\.(?:pem|key))}{ $FILE{$1} ? TestCerts::dir() . "/$FILE{$1}" : $& }ge;
    $text =~ s{/var/log/nginx/}{logs/}g;
    $text =~ s{/etc/nginx/lua\b}{$self->{dir}/lua}g;
    $text =~ s/\b\Q$_\E\b/$HOST{$_}/g for keys %HOST;
    $text =~ s/\bset_timeouts\(\K([\d, ]+)(?=\))/join ', ', map { $_ * $PATIENCE } split m{, *}, $1/ge;
    $text =~ s/\btimeouts = \{\K([^{}]+)(?=\})/ $1 =~ s{(\d+)}{ $1 * $PATIENCE }ger /gex;
    $text =~ s/\b(\d+)ms;/$1 * $PATIENCE . 'ms;'/ge;
    return $text;
}

# ---- nginx ------------------------------------------------------------------

sub run_nginx {
    my ( $self, $block ) = @_;
    my $text = $self->here( $block->{text} );
    my ($place) = $text =~ /\A\s*# (nginx\.conf|in the http block|in a server block)\n/
        or return 'its first line has to be "# nginx.conf", "# in the http block" or "# in a server block"';
    my $temps = join '', map {"    ${_}_temp_path temp;\n"} qw( client_body proxy fastcgi uwsgi scgi );
    if ( $place ne 'nginx.conf' ) {
        my $load = join '', map {"load_module modules/$_;\n"}
            qw( ndk_http_module.so ngx_http_lua_module.so ngx_http_lua_memcached_module.so );
        $text = "server {\n$text\n}" if $place eq 'in a server block';
        $text = "${load}events {}\nhttp {\n$text\n}\n";
    }
    my %module = map { m{([^/]*)\z} && ( $1 =~ s/\Alib//r ) => $_ } TestEnv::modules(1);
    $text =~ s{load_module modules/\K(\S*)(?=;)}{ $module{$1} // $1 }ge;
    $text =~ s{load_module modules/(?=/)}{load_module }g;
    my ($http) = $text =~ /^http \{\n(.*)/ms or return 'no http block';
    my $shared = $text =~ /lua_memcached_module/ ? TestEnv::multiplex_config($http) : '';
    $text =~ s/^http \{\n/http {\n    access_log off;\n$temps    $shared/m;
    $self->start_nginx("daemon off;\npid logs/nginx.pid;\nerror_log logs/error.log info;\n$text");
    # What is in it has to be asked for, or nobody knows whether it works.
    $self->{unasked} = { map { $_ => 1 } $block->{text} =~ /^\s*location (?:= )?(\/\S*) \{/mg };
    delete $self->{unasked} if $block->{text} !~ /by_lua/;
    return '';
}

sub start_nginx {
    my ( $self, $conf ) = @_;
    my $fault = $self->end_nginx;
    die $fault if $fault;
    my $dir = $self->{dir};
    spill( "$dir/nginx.conf", $conf );
    my ($binary) = grep {-x} $ENV{TEST_NGINX_BINARY} || (),
        map {"$_/nginx"} split( /:/, $ENV{PATH} ), '/usr/sbin';
    my $wait = $conf =~ /\blisten 127\.0\.0\.1:(\d+)/ ? $1 : undef;
    $self->{pid} = TestEnv::Child::spawn(
        [ $binary, '-p', "$dir/", '-c', 'nginx.conf', '-e', 'logs/error.log' ],
        stderr => "$dir/logs/stderr",
    );
    my $until = time + 60;
    until ( defined $wait ? accepts($wait) : slurp("$dir/logs/error.log") =~ /start worker process \d/ ) {
        my $status = TestEnv::Child::ended( $self->{pid} );
        next if !defined $status && time < $until && sleep 0.02;
        delete $self->{pid} if defined $status;
        die "nginx does not start:\n" . slurp("$dir/logs/stderr") . slurp("$dir/logs/error.log");
    }
    return;
}

sub accepts {
    my ($port) = @_;
    return defined IO::Socket::INET->new( PeerAddr => "127.0.0.1:$port", Timeout => 1 );
}

# Ends the page's nginx, if there is one: what was wrong with it.
sub end_nginx {
    my ($self) = @_;
    my $pid = delete $self->{pid} or return '';
    TestEnv::Child::stop( $pid, QUIT => 20 );
    my $log   = slurp("$self->{dir}/logs/error.log");
    my @bad   = grep {/\[(?:alert|emerg)\]|lua entry thread aborted|unexpected status/} split /\n/, $log;
    my @left  = sort keys %{ delete $self->{unasked} // {} };
    unlink "$self->{dir}/logs/error.log", "$self->{dir}/logs/stderr";
    return join "\n", @bad, map {"no console block asks for $_"} @left;
}

# ---- the other languages ----------------------------------------------------

sub run_lua {
    my ( $self, $block ) = @_;
    my $code = $self->here( $block->{text} );
    if ( $code =~ m{\A-- lua/([\w-]+\.lua)\n} ) {
        spill( "$self->{dir}/lua/$1", $code );
        return '';
    }
    my @want = map { s/^\s+|\s+$//gr } $code =~ /-->(.*)$/mg;
    my $own = $code =~ /^local memc\b/m;
    spill( "$self->{dir}/lua/block.lua", join '', $own ? '' : <<"END", $code );
local memc = require "resty.memcached":new()
memc:set_timeouts(10000, 10000, 10000)
assert(memc:connect("127.0.0.1", $self->{port}{11211}))
END
    my $shared = TestEnv::multiplex_config('');
    my $load   = join '', map {"load_module $_;\n"} TestEnv::modules(1);
    my $temps  = join '', map {"${_}_temp_path temp;\n"} qw( client_body proxy fastcgi uwsgi scgi );
    $self->start_nginx(<<"END");
${load}daemon off;
pid logs/nginx.pid;
error_log logs/error.log info;
events {}
http {
    access_log off;
    $temps
    $shared
    server {
        listen 127.0.0.1:$self->{port}{8080};
        location = /block { content_by_lua_file $self->{dir}/lua/block.lua; }
    }
}
END
    my $got = $self->shell("curl -s --max-time 60 http://127.0.0.1:$self->{port}{8080}/block");
    my $fault = differs( join( '', map {"$_\n"} @want ), $got );
    return join "\n", grep {length} $fault, $self->end_nginx;
}

sub run_console {
    my ( $self, $block ) = @_;
    my $text = $self->here( $block->{text} );
    my ( $before, @steps ) = split /^\$ /m, $text;
    return 'its first line has to begin with "$ "' if $before =~ /\S/ || !@steps;
    my @faults;
    for my $step (@steps) {
        my ( $command, $want ) = split /\n/, $step, 2;
        for my $location ( keys %{ $self->{unasked} // {} } ) {
            delete $self->{unasked}{$location} if $command =~ m{http://[\w.:]+\Q$location\E};
        }
        my $fault = differs( $want, $self->shell($command) );
        push @faults, "\$ $command\n$fault" if $fault;
    }
    return join "\n", @faults;
}

# Not run: scripts that need root or take long. They have to be there, and to have the options.
sub run_sh {
    my ( $self, $block ) = @_;
    spill( "$self->{dir}/block.sh", $block->{text} );
    my $said = $self->shell("bash -n block.sh");
    return $said if length $said;
    my @faults;
    for my $line ( split /\n/, $block->{text} ) {
        $line =~ s/(?:\A|\s)#.*//;
        $line =~ s/\A(?:[A-Z_]+=\S+\s+)+//;
        my ( $command, @words ) = split ' ', $line or next;
        for my $name ( $line =~ m{(?<![\w/.-])(scripts/[\w-]+)} ) {
            push @faults, "no script $name" if !-x TestEnv::root() . "/$name";
        }
        if ( $command =~ m{\Ascripts/} ) {
            my $help = slurp( TestEnv::root() . "/$command" );
            push @faults, "$command has no option $_" for grep { /\A--/ && $help !~ /^#.*\Q$_\E\b/m } @words;
            # what is no option and no stand-in such as DIR has to be there
            push @faults, "no file $_" for grep { m{\At/} && !-e TestEnv::root() . "/$_" } @words;
        }
        elsif ( !$COMMAND{$command} ) { push @faults, "unknown command $command" }
    }
    return join "\n", @faults;
}

# A suite. It gets ports of its own.
sub run_perl {
    my ( $self, $block ) = @_;
    spill( "$self->{dir}/suite.t", $block->{text} );
    my $root = TestEnv::root();
    my @keep = qw( TEST_NGINX_BINARY TEST_NGINX_MEMCACHED_MODULE TEST_NGINX_MULTIPLEX TEST_NGINX_MEMCACHED_BINARY );
    my %keep = map { $_ => 1 } @keep;
    my $without = join ' ', map {"-u $_"} grep { /\ATEST_NGINX_/ && !$keep{$_} } sort keys %ENV;
    my $said = $self->shell("cd $root && env $without $^X -It/lib $self->{dir}/suite.t; echo \"status \$?\"");
    return $said =~ /^ok 1\b/m && $said =~ /^status 0$/m && $said !~ /^not ok/m ? '' : $said;
}

# ---- help -------------------------------------------------------------------

# All that a command says, run in the page's directory.
sub shell {
    my ( $self, $command ) = @_;
    my $pid = open( my $out, '-|' ) // die "fork: $!\n";
    if ( !$pid ) {
        open STDERR, '>&', \*STDOUT;
        open STDIN, '<', '/dev/null';
        chdir "$self->{dir}";
        exec 'bash', '-c', $command or print "bash: $!\n";
        require POSIX;
        POSIX::_exit(127);
    }
    my $said = do { local $/; <$out> }
        // '';
    local $?;
    close $out;
    return $said =~ s/\r$//gmr;
}

# What is wrong with the output, or nothing. An ellipsis stands for any text.
sub differs {
    my ( $want, $got ) = @_;
    my $pattern = join '.*', map { quotemeta } split /\xe2\x80\xa6/, $want, -1;
    return $got =~ /\A$pattern\z/s ? '' : "wanted:\n${want}got:\n$got";
}

sub spill {
    my ( $path, $text ) = @_;
    open my $file, '>', $path or die "$path: $!\n";
    print {$file} $text;
    close $file or die "$path: $!\n";
    return;
}

sub DESTROY {
    my ($self) = @_;
    local ( $?, $@, $! );
    TestEnv::Child::stop( $self->{pid}, KILL => 5 ) if $self->{pid};
    return;
}

1;
__END__

=head1 NAME

DocPages - runs the fenced blocks of a page of the documentation

=head1 SYNOPSIS

    for my $result ( DocPages::run( 'docs/tls.md', 'docs/tls.md' ) ) {
        my ( $name, $fault ) = @$result;
        ok( !defined $fault, $name ) or diag($fault);
    }

=head1 DESCRIPTION

F<docs/testing.md> says what happens with the blocks of each language. All blocks of a page share a
memcached. A C<nginx> block starts an nginx, which the C<console> blocks after it ask; every location
of it that has Lua code must be asked for. At its end its log may have no alert and no Lua error.

Here a page's ports, certificates and directories have stand-ins, and its timeouts are longer.

=cut
