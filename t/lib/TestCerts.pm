package TestCerts;

use strict;
use warnings;

use File::Path ();
use File::Spec ();
use File::Temp ();

use TestEnv ();
use TestEnv::Ports ();

my $OWNER = $$;
my $DIR;
my %PORT;    # of the web servers, by the name of their certificate

# Times are absolute, because `openssl x509` cannot make a certificate of the past.
my ( $PAST, $RECENT, $FUTURE, $LATER ) = qw( 20010101000000Z 20020101000000Z 20480101000000Z 20490101000000Z );

# name => [ subject, extensions, issuer, not before, not after ]; an issuer comes before what it signs.
my @CERTS = (
    [ 'ca',       'Test CA',        'root' ],
    [ 'otherca',  'Other CA',       'root' ],
    [ 'inter1',   'Intermediate 1', 'inter',  'ca' ],
    [ 'inter2',   'Intermediate 2', 'inter',  'inter1' ],
    [ 'good',     'memcached.test', 'server', 'ca' ],
    [ 'second',   'second.test',    'second', 'ca' ],
    [ 'cn',       'cn.test',        'plain',  'ca' ],
    [ 'expired',  'memcached.test', 'server', 'ca', $PAST, $RECENT ],
    [ 'notyet',   'memcached.test', 'server', 'ca', $FUTURE, $LATER ],
    [ 'revoked',  'memcached.test', 'server', 'ca' ],
    [ 'other',    'memcached.test', 'server', 'otherca' ],
    [ 'self',     'memcached.test', 'selfsigned' ],
    [ 'deep',     'memcached.test', 'server', 'inter2' ],
    [ 'client',   'a client',       'plain',  'ca' ],
    [ 'stranger', 'a stranger',     'plain',  'otherca' ],
);

my $CONFIG = <<'END';
[ca]
default_ca = one
[one]
dir = .
database = index
serial = serial
new_certs_dir = .
default_md = sha256
default_days = 3650
default_crl_days = 3650
unique_subject = no
policy = any
[any]
commonName = supplied
[req]
distinguished_name = dn
[dn]
[root]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[inter]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[server]
basicConstraints = CA:false
subjectAltName = DNS:memcached.test, DNS:*.wild.test, IP:127.0.0.1
[selfsigned]
basicConstraints = CA:false
subjectAltName = DNS:memcached.test
[second]
basicConstraints = CA:false
subjectAltName = DNS:second.test
[plain]
basicConstraints = CA:false
END

# The directory that holds everything below; made once per process.
sub dir {
    return $DIR if defined $DIR;
    $DIR = File::Temp::tempdir( 'tcXXXXXX', DIR => -w '/tmp' ? '/tmp' : File::Spec->tmpdir );
    chmod 0755, $DIR;    # servers that drop root's rights read here
    spill( 'openssl.cnf', $CONFIG );
    spill( 'index',       '' );
    spill( 'serial',      "1000\n" );
    make(@$_) for @CERTS;
    # A server sends the intermediate certificates too.
    spill( 'deep.pem', join '', map { slurp("$_.pem") } qw( deep inter2 inter1 ) );
    spill( 'bothca.pem', slurp('ca.pem') . slurp('otherca.pem') );
    openssl( 'ca', signer('ca'), '-revoke', 'revoked.pem' );
    openssl( 'ca', signer('ca'), '-gencrl', '-out', 'crl.pem' );
    openssl( 'ca', signer('otherca'), '-gencrl', '-out', 'othercrl.pem' );
    openssl( 'ocsp', '-index', 'index', '-rsigner', 'ca.pem', '-rkey', 'ca.key', '-CA', 'ca.pem',
        '-issuer', 'ca.pem', '-cert', 'good.pem', '-ndays', 30, '-respout', 'good.ocsp' );
    chmod 0644, glob "$DIR/*.key $DIR/*.pem";
    return $DIR;
}

# False when the suites run against a pure-Lua library that is too old for TLS.
sub wanted {
    my $lib = TestEnv::reference_lib() or return 1;
    my $name = 'resty/memcached';
    for ( 1 .. 2 ) {
        my ($path) = grep { -e } map {"$_/$name.lua"} $lib, '/usr/share/lua/5.1' or last;
        open my $file, '<', $path or last;
        my $text = do { local $/; <$file> };
        return 1 if $text =~ /sslhandshake/;
        $text =~ /require\s*\(?\s*["']([\w.]+memcached)["']/ or last;    # a file that stands for another
        ( $name = $1 ) =~ tr{.}{/};
    }
    return 0;
}

sub make {
    my ( $name, $subject, $extensions, $issuer, $from, $until ) = @_;
    my @request = ( '-config', 'openssl.cnf', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256',
        '-nodes', '-keyout', "$name.key", '-subj', "/CN=$subject" );
    if ( !$issuer ) {
        openssl( 'req', '-x509', @request, '-days', 3650, '-extensions', $extensions, '-out', "$name.pem" );
        return;
    }
    openssl( 'req', @request, '-out', "$name.csr" );
    openssl(
        'ca', signer($issuer), '-in', "$name.csr", '-out', "$name.pem", '-extensions', $extensions,
        $from ? ( '-startdate', $from, '-enddate', $until ) : ()
    );
    return;
}

sub signer {
    my ($name) = @_;
    return ( '-config', 'openssl.cnf', '-batch', '-notext', '-cert', "$name.pem", '-keyfile', "$name.key" );
}

# In a child, so that the suite's own directory stays. What openssl said is shown when it failed.
sub openssl {
    my (@args) = @_;
    my $pid = open my $out, '-|';
    defined $pid or die "TestCerts: fork: $!\n";
    if ( !$pid ) {
        open STDERR, '>&', \*STDOUT;
        open STDIN, '<', File::Spec->devnull;
        chdir $DIR or print "chdir $DIR: $!\n";
        exec 'openssl', @args or print "exec openssl: $!\n";
        require POSIX;
        POSIX::_exit(127);
    }
    my $said = do { local $/; <$out> };
    close $out or die "TestCerts: openssl @args failed:\n$said";
    return;
}

sub spill {
    my ( $name, $text ) = @_;
    open my $file, '>', "$DIR/$name" or die "TestCerts: $DIR/$name: $!\n";
    print {$file} $text;
    close $file or die "TestCerts: $DIR/$name: $!\n";
    return;
}

sub slurp {
    my ($name) = @_;
    open my $file, '<', "$DIR/$name" or die "TestCerts: $DIR/$name: $!\n";
    local $/;
    return scalar <$file>;
}

# Arguments of a memcached that speaks TLS with the certificate NAME.
sub memcached_args {
    my ( $name, @more ) = @_;
    my $dir = dir();
    return [ '-Z', '-o', join ',', "ssl_chain_cert=$dir/$name.pem", "ssl_key=$dir/$name.key", @more ];
}

# Server blocks for `http`: one per certificate, on ports of their own, that answer with what they
# saw of the handshake.
sub web {
    my (@names) = @_;
    my $dir  = dir();
    my $text = '';
    for my $name (@names) {
        $PORT{$name} ||= TestEnv::Ports::next_port();
        my $stapling = $name eq 'good' ? "ssl_stapling on; ssl_stapling_file $dir/good.ocsp;" : '';
        $text .= <<"END";
    server {
        listen 127.0.0.1:$PORT{$name} ssl;
        ssl_certificate $dir/$name.pem;
        ssl_certificate_key $dir/$name.key;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_verify_client optional;
        ssl_verify_depth 3;
        ssl_client_certificate $dir/ca.pem;
        $stapling
        keepalive_requests 100000;
        location / {
            default_type text/plain;
            return 200 "\$ssl_server_name \$ssl_protocol";
        }
        location /id { default_type text/plain; return 200 "\$connection"; }
        location /reused { default_type text/plain; return 200 "\$ssl_session_reused"; }
        location /cipher { default_type text/plain; return 200 "\$ssl_cipher"; }
        location /client { default_type text/plain; return 200 "\$ssl_client_verify \$ssl_client_s_dn"; }
    }
END
    }
    return $text;
}

# The ports of these servers as the inside of a Lua table.
sub lua_ports {
    return join ', ', map {"$_ = $PORT{$_}"} sort keys %PORT;
}

END {
    if ( $$ == $OWNER && defined $DIR ) {
        local ( $?, $@, $! );
        File::Path::remove_tree( $DIR, { error => \my $ignored } );
    }
}

1;
__END__

=head1 NAME

TestCerts - certificates for the suites about TLS

=head1 SYNOPSIS

    use TestEnv;
    use TestCerts;

    my $dir  = TestCerts::dir();
    my $port = TestEnv::start_memcached( args => TestCerts::memcached_args('good') );

=head1 DESCRIPTION

C<dir()> makes, with the openssl command, a directory of its own that ends with this process. For each
NAME below it holds F<NAME.pem> and F<NAME.key> (P-256, without a password).

=over

=item ca, otherca

two roots; F<bothca.pem> holds both, F<crl.pem> and F<othercrl.pem> are their revocation lists

=item good

signed by ca, for C<memcached.test>, C<*.wild.test> and the address 127.0.0.1

=item second, cn

signed by ca; for C<second.test>, and for C<cn.test> by common name alone

=item expired, notyet, revoked

as good, but of the past, of the future, or in F<crl.pem>

=item other, self

as good, but signed by otherca, or by itself

=item deep

as good, below two intermediates (F<deep.pem> is the whole chain without the root)

=item client, stranger

for clients; signed by ca, and by otherca

=back

F<good.ocsp> is an OCSP response for good.

C<web(NAME...)> is text for C<--- http_config>: a web server on TLS for each certificate. Its answers say
what it saw: F</> the server name and the version, F</id> the connection's number, F</reused>, F</cipher>,
F</client>. As it runs in the worker under test it never answers within the client's own system call.
C<lua_ports()> lists C<NAME = PORT> for Lua.

C<wanted()> is false when the suites run against a pure-Lua library without sslhandshake.

C<memcached_args(NAME, OPTION...)> is what C<TestEnv::start_memcached> takes as C<args>; further options
go to memcached's C<-o>.

=cut
