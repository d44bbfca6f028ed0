use strict;
use warnings;
use lib 't/lib';

use File::Temp ();
use IO::Socket::INET;
use Test::More;
use Time::HiRes qw( sleep );

use TestCerts;
use TestEnv;
use LiveNginx;

# For init_worker_by_lua*, ngx_lua has every module merge a configuration in each worker, with a
# parent that knows nothing. Timers that are started there go by the http block all the same, and
# the worker reads no file for it, which it might not be allowed to.

plan skip_all => 'the reference has no directives' if TestEnv::reference_lib();

my $certs = TestCerts::dir();
my $tls   = TestEnv::start_memcached( args => TestCerts::memcached_args('good') );
my $mutual = TestEnv::start_memcached(
    args => TestCerts::memcached_args( 'good', 'ssl_verify_mode=2', "ssl_ca_cert=$certs/ca.pem" ) );

# ngx_lua 0.10.23 has no certificates of clients, and reads other files again in each worker.
my $reads_once = LiveNginx::slurp( ( TestEnv::modules(0) )[1] ) =~ /lua_ssl_certificate_key/;

my $lua = qq{
    init_by_lua_block {
        @{[ TestEnv::lua_kit() ]}
        local looks = {}
        -- how connections are shared, and how long a value may be
        function looks.values()
            local srv = kit.fake(function(c)
                while c:line() do c:send("VERSION " .. c.index .. "\\r\\n") end
            end)
            local list, versions = {}, {}
            for i = 1, 3 do
                list[i] = kit.connect(srv.port)
                versions[i] = list[i]:version()
            end
            for i = 1, 3 do list[i]:close() end
            srv:close()
            local m = kit.connect()
            m:set("length", ("x"):rep(100))
            local value, _, err = m:get("length")
            return table.concat(versions, ",") .. " " .. (err or #value)
        end
        local function handshake(port)
            return function()
                local m = kit.connect(port)
                local ok, err = m:sslhandshake(nil, "memcached.test", true)
                if not ok then return err end
                local said = kit.in_step(m)
                m:set_keepalive()
                return said
            end
        end
        looks.tls = handshake($tls)
        looks.mutual = handshake($mutual)
        seen = {}
        function look(where, ...)
            local names = { ... }
            ngx.timer.at(0, function()
                for _, name in ipairs(names) do
                    local _, said = pcall(looks[name])
                    seen[where .. name] = said or "nothing"
                end
            end)
        end
    }
};
my $server = q{
    location = /early {
        content_by_lua_block {
            local name = "early" .. ngx.var.arg_what
            kit.eventually(function() return seen[name] end, 15)
            ngx.print(seen[name])
        }
    }
    location /late {
        content_by_lua_block {
            local what = ngx.var.arg_what
            look("late", what)
            kit.eventually(function() return seen["late" .. what] end, 15)
            ngx.print(seen["late" .. what])
        }
    }
};

sub early {
    my (@names) = @_;
    my $names = join ', ', map {qq{"$_"}} @names;
    return "init_worker_by_lua_block { look('early', $names) }\n";
}

# Nothing may be logged that an operator should look at.
sub clean {
    my ( $nginx, $allowed ) = @_;
    my @bad = grep { !defined $allowed || !/$allowed/ } $nginx->log_lines(qw( warn error crit alert emerg ));
    is_deeply( \@bad, [], 'nothing bad in the log' );
    return;
}

# HUP, until other workers have taken over.
sub reload {
    my ($nginx) = @_;
    my %old = map { $_ => 1 } $nginx->workers;
    $nginx->signal('HUP');
    ok(
        $nginx->wait_for(
            sub { my @now = $nginx->workers; @now && !grep { $old{$_} } @now },
            10
        ),
        'a reload'
    );
    return;
}

# Has the master start another worker.
sub replace_worker {
    my ($nginx) = @_;
    my ($old) = $nginx->workers;
    $nginx->signal( KILL => $old );
    ok( $nginx->wait_for( sub { grep { $_ != $old } $nginx->workers }, 10 ), 'another worker' );
    return;
}

my $sharing = '1,1,1';
my $limit   = 'bad reply: value of 100 bytes exceeds the limit of';

subtest 'values of the http block' => sub {
    my $nginx = LiveNginx->start(
        http => $lua . early('values') . "lua_memcached_max_value_size 10;\nlua_memcached_multiplex 1;\n",
        server => $server . q{
            location /late/own {
                lua_memcached_max_value_size 50;
                lua_memcached_multiplex off;
                content_by_lua_block {
                    look("late", "values")
                    kit.eventually(function() return seen["latevalues"] end, 15)
                    ngx.print(seen.latevalues)
                }
            }
        },
    );
    is( $nginx->get('/late/own'),           "1,2,3 $limit 50",   'a timer of a request, by its location' );
    is( $nginx->get('/early?what=values'), "$sharing $limit 10", 'a timer of init_worker, by the http block' );
    ok( $nginx->quit(20), 'ends' );
    clean($nginx);
};

subtest 'nothing is said in the http block' => sub {
    my $nginx = LiveNginx->start(
        private => 'about private connections',
        http    => $lua . early('values'),
        server  => $server,
    );
    is( $nginx->get('/early?what=values'), '1,2,3 100', 'the usual' );
    ok( $nginx->quit(20), 'ends' );
    clean($nginx);
};

subtest 'a server says something else' => sub {
    my $nginx = LiveNginx->start(
        http   => $lua . early('values') . "lua_memcached_max_value_size 10;\nlua_memcached_multiplex 1;\n",
        server => "lua_memcached_max_value_size 1k;\nlua_memcached_multiplex off;\n" . $server,
    );
    is( $nginx->get('/early?what=values'), "$sharing $limit 10", 'a timer of init_worker' );
    is( $nginx->get('/late?what=values'),  '1,2,3 100',          'a timer of a request' );
    ok( $nginx->quit(20), 'ends' );
    clean($nginx);
};

subtest 'one configuration after the other' => sub {
    my $nginx = LiveNginx->start(
        http   => $lua . early('values') . "lua_memcached_max_value_size 10;\nlua_memcached_multiplex 1;\n",
        server => $server,
    );
    is( $nginx->get('/early?what=values'), "$sharing $limit 10", 'the first' );
    $nginx->configure( sub {s/value_size 10/value_size 20/} );
    reload($nginx);
    is( $nginx->get('/early?what=values'), "$sharing $limit 20", 'the second' );
    $nginx->configure( sub {s/value_size 20;/value_size 30;\nno_such_directive;/} );
    $nginx->signal('HUP');
    ok( $nginx->wait_for( sub { $nginx->log =~ /no_such_directive/ } ), 'one that fails' );
    replace_worker($nginx);
    is( $nginx->get('/early?what=values'), "$sharing $limit 20", 'the second is still in force' );
    $nginx->configure( sub {s/no_such_directive;//} );
    reload($nginx);
    is( $nginx->get('/early?what=values'), "$sharing $limit 30", 'the third' );
    ok( $nginx->quit(20), 'ends' );
    clean( $nginx, qr/no_such_directive|exited on signal 9/ );
};

subtest 'one process, no master' => sub {
    my $nginx = LiveNginx->start(
        main => "master_process off;\n",
        http => $lua
            . early(qw( values tls ))
            . "lua_memcached_max_value_size 10;\nlua_memcached_multiplex 1;\n"
            . "lua_ssl_trusted_certificate $certs/ca.pem;\n",
        server => $server,
    );
    for my $when (qw( early late )) {
        is( $nginx->get("/$when?what=values"), "$sharing $limit 10", "values, $when" );
        is( $nginx->get("/$when?what=tls"),    'yes',                "TLS, $when" );
    }
    ok( $nginx->quit(20), 'ends' );
    clean($nginx);
};

# Where a server says anything else of TLS, no location has what the http block says.
for my $says ( '', 'lua_ssl_verify_depth 3;', "lua_ssl_trusted_certificate $certs/otherca.pem;" ) {
    subtest "TLS by the http block, servers say: $says" => sub {
        my $nginx = LiveNginx->start(
            http   => $lua . early('tls') . "lua_ssl_trusted_certificate $certs/ca.pem;\n",
            server => $says . $server,
        );
        is( $nginx->get('/early?what=tls'), 'yes', 'a timer of init_worker' );
        my $late = $says =~ /otherca/ ? qr/unable to (?:get local issuer|verify)/ : qr/\Ayes\z/;
        like( $nginx->get('/late?what=tls'), $late, 'a timer of a request' );
        $nginx->configure( sub {s{certificate \S+/ca\.pem}{certificate $certs/otherca.pem}} );
        reload($nginx);
        like( $nginx->get('/early?what=tls'), qr/unable to (?:get local issuer|verify)/, 'another configuration' );
        ok( $nginx->quit(20), 'ends' );
        clean( $nginx, qr/certificate verify error/ );
    };
}

subtest 'nothing is trusted in the http block' => sub {
    my $nginx = LiveNginx->start(
        http   => $lua . early('tls'),
        server => "lua_ssl_trusted_certificate $certs/ca.pem;\n" . $server,
    );
    like( $nginx->get('/early?what=tls'), qr/unable to (?:get local issuer|verify)/, 'a timer of init_worker' );
    is( $nginx->get('/late?what=tls'), 'yes', 'a timer of a request' );
    ok( $nginx->quit(20), 'ends' );
    clean( $nginx, qr/certificate verify error/ );
};

subtest 'a certificate that is revoked' => sub {
    my $revoked = TestEnv::start_memcached( args => TestCerts::memcached_args('revoked') );
    my $nginx   = LiveNginx->start(
        http => ( $lua =~ s/handshake\($tls\)/handshake($revoked)/r )
            . early('tls')
            . "lua_ssl_trusted_certificate $certs/ca.pem;\nlua_ssl_crl $certs/crl.pem;\n",
        server => "lua_ssl_verify_depth 3;\n" . $server,
    );
    for my $when (qw( early late )) {
        like( $nginx->get("/$when?what=tls"), qr/certificate revoked/, $when );
    }
    ok( $nginx->quit(20), 'ends' );
    clean( $nginx, qr/certificate verify error/ );
};

# Without a timer that needs it, nobody reads what the http block names.
subtest 'the http block names a file that is not there' => sub {
    my $nginx = LiveNginx->start(
        http   => $lua . "lua_ssl_trusted_certificate $certs/none.pem;\n",
        server => "lua_ssl_trusted_certificate $certs/ca.pem;\n" . $server,
    );
    is( $nginx->get('/late?what=tls'), 'yes', 'where a server names another' );
    ok( $nginx->quit(20), 'ends' );
    clean( $nginx, qr/cannot be applied/ );
    like( $nginx->log, qr/\[warn\].* lua_ssl_\* directives of the http block cannot be applied/, 'a warning' );
};

# As root, files that only the master can read; else nobody can tell.
subtest 'files that only root may read' => sub {
    my $dir = File::Temp->newdir( 'filesXXXXXX', TMPDIR => 1 );
    chmod 0755, "$dir";
    my @mine = qw( ca.pem crl.pem client.pem client.key );
    my $bring = sub {
        for my $name (@mine) {
            my $mode = $reads_once ? 0600 : 0644;
            open my $file, '>', "$dir/$name" or die "$dir/$name: $!\n";
            print {$file} LiveNginx::slurp("$certs/$name");
            close $file;
            chmod $mode, "$dir/$name";
        }
    };
    $bring->();
    my $client = $reads_once
        ? "lua_ssl_certificate $dir/client.pem;\nlua_ssl_certificate_key $dir/client.key;\n"
        : '';
    my @looks = ( 'tls', $reads_once ? 'mutual' : () );
    my $nginx = LiveNginx->start(
        main => "worker_processes 1;\n" . ( $> == 0 ? "user nobody nogroup;\n" : '' ),
        http => $lua
            . early(@looks)
            . "lua_ssl_trusted_certificate $dir/ca.pem;\nlua_ssl_crl $dir/crl.pem;\n$client",
        server => $server,
    );
    sleep 0.5;
    ok( scalar $nginx->workers, 'the worker lives' ) or return;
    my $ask = sub {
        my ($name) = @_;
        for my $when (qw( early late )) {
            is( $nginx->get("/$when?what=$_"), 'yes', "$name: $when, $_" ) for @looks;
        }
    };
    $ask->('at first');
    reload($nginx);
    $ask->('after a reload');
    replace_worker($nginx);
    $ask->('another worker');
    if ($reads_once) {
        unlink map {"$dir/$_"} @mine;
        replace_worker($nginx);
        $ask->('without the files');
        my ($worker) = $nginx->workers;
        $nginx->signal('HUP');
        ok( $nginx->wait_for( sub { $nginx->log =~ /\[emerg\].*$dir/ } ), 'a reload that fails' );
        is_deeply( [ $nginx->workers ], [$worker], 'the worker stays' );
        replace_worker($nginx);
        $ask->('after a reload that failed');
        $bring->();
        reload($nginx);
        $ask->('the files are there again');
    }
    ok( $nginx->quit(20), 'ends' );
    clean( $nginx, qr/exited on signal 9|\[emerg\].*\Q$dir\E/ );
};

done_testing();
