use strict;
use warnings;
use lib 't/lib';

use File::Temp ();
use Test::More;

use TestEnv memcached => 0;

# What scripts say when Rust is missing or too old, with programs that say what others would.

my $root = TestEnv::root();
my $dir  = File::Temp->newdir( 'rustXXXXXX', TMPDIR => 1 );
mkdir "$dir/$_" or die $! for qw( old home home/bin empty tools );

# Without the directories of the system, which may have a cargo.
for my $tool (qw( bash cat dirname head realpath sed sh sort )) {
    my ($path) = grep {-x} map {"$_/$tool"} qw( /usr/bin /bin );
    symlink $path, "$dir/tools/$tool" or die "$tool: $!";
}

sub program {
    my ( $path, $text ) = @_;
    open my $file, '>', "$dir/$path" or die "$path: $!";
    print {$file} "#!/bin/sh\n$text\n";
    close $file or die "$path: $!";
    chmod 0755, "$dir/$path";
    return;
}
sub rust {
    my ( $in, $cargo, $rustc ) = @_;
    program( "$in/cargo", "echo 'cargo $cargo (abc 2023-01-10)'" );
    program( "$in/rustc", "echo 'rustc $rustc (abc 2023-01-10)'" );
    return;
}
# (exit status, what need_cargo said) with these directories first in PATH
sub need_cargo {
    my ( $path, $home ) = @_;
    local $ENV{PATH}       = "$path:$dir/tools";
    local $ENV{CARGO_HOME} = $home;
    my $said = `bash -c '. "\$1/scripts/lib.sh"; need_cargo; command -v cargo' bash '$root' 2>&1`;
    return ( $? >> 8, $said );
}
my ($want) = do { open my $file, '<', "$root/Cargo.toml" or die $!; local $/; <$file> }
    =~ /^rust-version = "(.*)"/m;

my ( $status, $said ) = need_cargo( "$dir/empty", "$dir/empty" );
is $status, 1, 'none';
like $said, qr/error: cargo is missing: Rust \Q$want\E or newer is needed: install it with rustup.*sh\.rustup\.rs/s,
    'what to do';

rust( 'old', '1.65.0', '1.63.0' );
( $status, $said ) = need_cargo( "$dir/old", "$dir/empty" );
is $status, 1, "Debian's";
like $said, qr{error: found Rust 1\.63\.0 \(\Q$dir\E/old/cargo\), but Rust \Q$want\E or newer is needed: install it with rustup}, 'what to do';
unlike $said, qr/\n==>/, 'nothing was begun';

# rustup's is behind Debian's in PATH
rust( 'home/bin', '1.99.0', '1.99.0' );
( $status, $said ) = need_cargo( "$dir/old", "$dir/home" );
is "$status $said", "0 $dir/home/bin/cargo\n", 'a newer one is preferred';

rust( 'home/bin', '1.80.0', '1.80.0' );
program( 'home/bin/rustup', 'true' );
( $status, $said ) = need_cargo( "$dir/old", "$dir/home" );
like $said, qr/error: found Rust 1\.63\.0 .*: get it with: rustup toolchain install stable/, 'a rustup that has an old one';

# a rustup without a toolchain
program( 'old/cargo', 'echo "error: rustup could not choose a version of cargo to run" >&2; exit 1' );
( $status, $said ) = need_cargo( "$dir/old", "$dir/empty" );
like $said, qr{error: \Q$dir\E/old/cargo or its rustc does not run, and Rust}, 'one that does not run';

rust( 'old', '1.100.0', '1.100.1' );
( $status, $said ) = need_cargo( "$dir/old", "$dir/empty" );
is "$status $said", "0 $dir/old/cargo\n", 'numbers are no texts';

done_testing();
