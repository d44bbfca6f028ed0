use strict;
use warnings;
use lib 't/lib';

use Test::More;

use ExampleConf;
use TestEnv;

my $site = ExampleConf->start('session.conf');
is $site->get('/'), "200 log in\n", 'nobody';

my ( undef, $body, $headers ) = $site->ask('/login?name=ann');
is $body, "welcome\n", 'logs in';
my ($sid) = $headers->{'set-cookie'} =~ /\Asid=([0-9a-f]{32}); Path=\/; HttpOnly; Secure; SameSite=Lax\z/;
ok $sid, 'gets a cookie';
my ( undef, undef, $other ) = $site->ask('/login?name=bob', headers => { Cookie => "sid=$sid" } );
isnt $other->{'set-cookie'}, $headers->{'set-cookie'}, 'each login has another id';

my $as = sub { my ( $cookie, $path ) = @_; $site->get( $path // '/', headers => { Cookie => "sid=$cookie" } ) };
is $as->($sid), "200 hello ann\n", 'is known';
is $as->($sid), "200 hello ann\n", '... each time';
is $as->( $other->{'set-cookie'} =~ /sid=(\w+)/ ), "200 hello bob\n", 'and another is another';
is $as->( '0' x 32 ), "200 log in\n", 'an id that is nobody\'s';
is $as->($_), "200 log in\n", 'no id' for 'x', 'ab' x 200, "$sid%0d%0a", '';
is $as->( $sid, '/logout' ), "200 bye\n", 'logs out';
is $as->($sid), "200 log in\n", '... on the server, too';
is $as->( $sid, '/logout' ), "200 NOT_FOUND\n", 'once';
$site->ends_well;

$site = ExampleConf->start( 'session.conf', memcached => $ENV{TEST_NGINX_UNUSED_PORT} );
is $site->get('/'), "200 log in\n", 'who has no cookie logs in without memcached';
like $as->($sid), qr/\A503 /, 'nobody is known';
like $site->get('/login?name=ann'), qr/\A503 /, 'nor logs in';
ok $site->nginx->quit, 'ends';
done_testing();
