# An example that does not do what its page says is noticed, whatever its language.
use strict;
use warnings;

use lib 't/lib';

use File::Temp ();
use Test::More;
use TestEnv;
use DocPages;

plan skip_all => 'the pages are about the module' if TestEnv::reference_lib();

my $dir = File::Temp->newdir( 'brokenXXXXXX', TMPDIR => 1 );

# Whether a page of these blocks has a fault, and all faults as text.
sub faults {
    my (@blocks) = @_;
    open my $page, '>', "$dir/page.md" or die "$dir/page.md: $!\n";
    print {$page} map {"```$_->[0]\n$_->[1]```\n\n"} @blocks;
    close $page or die "$dir/page.md: $!\n";
    return join "\n", grep {defined} map { $_->[1] } DocPages::run( "$dir/page.md", 'page' );
}

my $server = <<'END';
# in the http block
server {
    listen 8080;
    location = /t {
        content_by_lua_block {
            local memc = require "resty.memcached":new()
            assert(memc:connect("127.0.0.1", 11211))
            memc:set("dog", 32)
            ngx.say((memc:get("dog")))
        }
    }
}
END
my $ask = "\$ curl -s http://127.0.0.1:8080/t\n";
is faults( [ nginx => $server ], [ console => "${ask}32\n" ] ), '', 'a right page';

like faults( [ nginx => $server ], [ console => "${ask}33\n" ] ), qr/wanted:\n33\ngot:\n32\n/, 'another answer';
like faults( [ nginx => $server ] ), qr{asks for /t}, 'a location that nobody asks for';
like faults( [ nginx => $server =~ s/:get\(/:got(/r ], [ console => "${ask}\xe2\x80\xa6\n" ] ), qr/runtime error.*'got'/,
    'a method that is not there';
like faults( [ nginx => $server =~ s/listen/lua_memcached_multiplexing 2; listen/r ] ),
    qr/unknown directive "lua_memcached_multiplexing"/, 'a directive that is not there';
like faults( [ nginx => $server =~ s/\A.*\n//r ] ), qr/first line has to be/, 'a block of no known place';
like faults( [ nginx => <<'END' ] ), qr/does not start/, 'the wrong order of modules';
# nginx.conf
load_module modules/ndk_http_module.so;
load_module modules/ngx_http_lua_memcached_module.so;
load_module modules/ngx_http_lua_module.so;
events {}
http {
    server { listen 8080; }
}
END

is faults( [ lua => "ngx.say(1 + 1)  --> 2\n" ] ), '', 'right Lua';
like faults( [ lua => "ngx.say(1 + 1)  --> 3\n" ] ), qr/wanted:\n3\ngot:\n2\n/, 'Lua that prints something else';
like faults( [ lua => "ngx.say(1 + 1)\n" ] ),        qr/got:\n2\n/,            'Lua that prints more';
like faults( [ lua => "memc.nothing()\n" ] ),         qr/runtime error/,        'Lua that raises';
like faults( [ lua => "if\n" ] ),                     qr/Internal Server Error/, 'Lua that is none';

is faults( [ sh => "scripts/build\nscripts/install --undo\n" ] ), '', 'right commands';
like faults( [ sh => "scripts/instal\n" ] ),         qr{no script scripts/instal},       'a script that is not there';
like faults( [ sh => "scripts/install --undue\n" ] ), qr/has no option --undue/,          'an option that is not there';
like faults( [ sh => "scripts/test t/none.t\n" ] ),  qr{no file t/none\.t},              'a suite that is not there';
like faults( [ sh => "make install\n" ] ),           qr/unknown command make/,           'a command that nobody knows';
like faults( [ sh => "scripts/build (\n" ] ),        qr/syntax error/,                   'no shell';
like faults( [ perl => "use Test::More tests => 1;\nok 0;\n" ] ), qr/not ok 1/,           'a suite that fails';
like faults( [ ini => "a=1\n" ] ),                   qr/unknown to DocPages/,            'another language';

done_testing();
