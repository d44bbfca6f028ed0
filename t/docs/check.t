# scripts/lib/audit/docs.pl notices what is missing in the pages, and what only they say.
use strict;
use warnings;

use lib 't/lib';

use File::Temp ();
use Test::More;
use TestEnv memcached => 0, module => 0;

my $root = TestEnv::root();
my $dir  = File::Temp->newdir( 'checkXXXXXX', TMPDIR => 1 );
my $what = '*.md LICENSE docs src scripts nginx-conf t';
system("cd $root && tar -cf - --exclude='t/servroot*' $what | tar -xf - -C $dir") == 0 or die "no copy: $?\n";

sub check {
    my $said = `$^X $root/scripts/lib/audit/docs.pl $dir 2>&1`;
    return $? ? $said : '';
}

sub slurp {
    my ($path) = @_;
    open my $file, '<', "$dir/$path" or die "$path: $!\n";
    local $/;
    return scalar <$file>;
}

sub spill {
    my ( $path, $text ) = @_;
    open my $file, '>', "$dir/$path" or die "$path: $!\n";
    print {$file} $text;
    close $file or die "$path: $!\n";
    return;
}

# notices NAME, FILE, CHANGE (of $_), FAULT
sub notices {
    my ( $name, $path, $change, $fault ) = @_;
    my $before = slurp($path);
    local $_ = $before;
    $change->();
    isnt $_, $before, "$name: there is something to change";
    spill( $path, $_ );
    like check(), $fault, $name;
    spill( $path, $before );
    return;
}

is check(), '', 'as it is';

notices 'a directive without a heading', 'docs/directives.md', sub {s/^### lua_memcached_alias$/### alias/m},
    qr/has no heading lua_memcached_alias/;
notices 'a directive that the front page does not have', 'README.md', sub {s/^\| \[`lua_memcached_alias.*\n//m},
    qr/README\.md does not name lua_memcached_alias/;
notices 'a directive of the pages only', 'src/module/directives.rs',
    sub {s/c"lua_memcached_alias"/c"lua_memcached_name"/},
    qr/docs\/directives\.md: there is no directive lua_memcached_alias/;

notices 'a method without a heading', 'docs/api.md', sub {s/^### touch$/### Touching/m}, qr/heading for the method touch/;
notices 'a method that the front page does not have', 'README.md', sub {s/\(docs\/api\.md#touch\)/(docs\/api.md#set)/},
    qr/no link to docs\/api\.md#touch/;
notices 'a method of the pages only', 'src/lua/glue/commands.lua', sub {s/_M\.touch/_M.prod/},
    qr/there is no method touch/;
notices 'a call of no method', 'docs/tuning.md', sub {s/memc:stats\(/memc:statistics(/}, qr/there is no memc:statistics/;
notices 'a method of the socket that is not named', 'docs/api.md', sub {s/sock:setclientcert\(/sock.setclientcert(/g},
    qr/does not name sock:setclientcert/;

notices 'an error text without a row', 'docs/errors.md', sub {s/^\| `bad pipeline`.*\n//m},
    qr/no table in docs\/ has "bad pipeline"/;
notices 'an error text of one word without a row', 'docs/errors.md', sub {s/^\| `error` .*\n//m},
    qr/no table in docs\/ has "error"/;
notices 'an error text that the code does not have', 'docs/errors.md',
    sub {s/`too many waiting operations`/`too many operations are waiting`/}, qr/nobody says "too many operations/;
notices 'an error text that has changed', 'src/transport/error.rs', sub {s/"invalid connection"/"connection not valid"/},
    qr/has "connection not valid".*nobody says "invalid connection"/s;
notices 'an error text with what varies that has changed', 'src/protocol/reply.rs',
    sub {s/bytes exceeds the limit of/bytes is more than/}, qr/nobody says "bad reply: value of/;
notices 'a text of Lua code without a row', 'src/lua/glue/pipeline.lua', sub {s/"no more cmds"/"nothing to do here"/},
    qr/has "nothing to do here".*nobody says "no more cmds"/s;
notices 'an error in the prose of the API', 'docs/api.md', sub {s/`no more cmds`/`no more commands`/},
    qr/docs\/api\.md: "no more commands": nobody/;

notices 'a log line without a row', 'docs/monitoring.md', sub {s/^\| `lua memcached unsolicited data.*\n//mg},
    qr/no table in docs\/ has "lua memcached unsolicited data/;
notices 'a log line that the code does not have', 'docs/monitoring.md', sub {s/`lua memcached unsolicited data/`lua memcached unasked data/g},
    qr/nobody says "lua memcached unasked data/;
notices 'a symptom that does not exist', 'docs/troubleshooting.md', sub {s/^### `socket busy reading`/### `socket is busy`/m},
    qr/troubleshooting\.md: "socket is busy": nobody/;
notices 'a pattern for alerts that matches nothing', 'docs/monitoring.md',
    sub {s/`lua tcp socket read timed out`, /`memcached read timed out`, /}, qr/nobody says "memcached read/;
notices 'a new log line', 'src/contain.rs', sub {s/"lua memcached internal error in/"lua memcached has a bug in/},
    qr/has "lua memcached has a bug in/;

notices 'a dead link',   'docs/tls.md', sub {s/\(api\.md#/(apis.md#/}, qr/docs\/tls\.md: dead link apis\.md/;
notices 'a dead anchor', 'docs/tls.md', sub {s/\(api\.md#sslhandshake/(api.md#handshake/}, qr/no such heading: api\.md#handshake/;
notices 'a page without a link', 'README.md', sub {s/\(docs\/tuning\.md\)/(docs\/api.md)/}, qr/no link to docs\/tuning\.md/;
notices 'a long front page', 'README.md', sub { $_ .= "\n" x 350 }, qr/README\.md has \d+ lines, more than 350/;
notices 'a script that is not there', 'docs/testing.md', sub {s/`scripts\/coverage`/`scripts\/cover`/}, qr/there is no scripts\/cover/;
notices 'an option that is not there', 'docs/migrate.md', sub {s/scripts\/demo --reference/scripts\/demo --ref/},
    qr/scripts\/demo has no option --ref/;
notices 'another name for the library', 'docs/api.md', sub { $_ .= "\nAs in the reference.\n" }, qr/says "the reference"/;

done_testing();
