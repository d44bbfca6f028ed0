package Test::Nginx::Socket::Lua;

use strict;
use warnings;

use Test::Nginx::Socket -base;

1;
__END__

=head1 NAME

Test::Nginx::Socket::Lua - the name under which the suites load the harness

=head1 DESCRIPTION

Everything of L<Test::Nginx::Socket>, nothing more.

=cut
