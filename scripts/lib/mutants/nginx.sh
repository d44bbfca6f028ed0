# shellcheck shell=bash disable=SC2154 # some variables are the caller's
# scripts/mutants --nginx: changes of the code that faces nginx and Lua, which only suites see.
# Sourced, never run.
#
# The caller sets $count and $seed, $tree (a copy of what cargo needs), and is in the project.

builds=$target/mutants-nginx
reports=$target/mutants-nginx.out

# build_module: a debug build of the tree, into $module.
module=$builds/debug/lib$module_file
build_module() {
    rm -f "$module"
    (cd "$tree" && CARGO_TARGET_DIR=$builds CARGO_PROFILE_DEV_DEBUG=0 \
        cargo rustc --quiet --locked --lib --crate-type cdylib)
}

# run_suite SUITE SECONDS: 124 if it does not end in time.
run_suite() {
    timeout --kill-after 10 "$2" perl -Iscripts/lib "$prove" --harness NoSkips -Q "$1"
}

declare -A seconds_of # what a suite took without a change

# run_unchanged SUITE...: what fails by itself would notice every change.
run_unchanged() {
    local suite from
    for suite; do
        [ -z "${seconds_of[$suite]:-}" ] || continue
        from=$SECONDS
        run_suite "$suite" 900 >"$reports/unchanged.log" 2>&1 || {
            cat "$reports/unchanged.log" >&2
            fail "$suite fails without a change"
        }
        seconds_of[$suite]=$((SECONDS - from + 1))
    done
}

# try_change N FILE SUITES: sets $verdict.
try_change() {
    local number=$1 file=$2 log=$reports/$1.log suite status
    cp "$tree/$file" "$scratch/original"
    patch --quiet "$tree/$file" "$reports/$number.diff" || fail "patch: change $number does not fit $file"
    status=0
    build_module >"$log" 2>&1 || status=$?
    cp "$scratch/original" "$tree/$file"
    if [ $status != 0 ]; then
        verdict='does not compile'
        return
    fi
    for suite in $3; do
        status=0
        run_suite "$suite" $((60 + 5 * ${seconds_of[$suite]})) >>"$log" 2>&1 || status=$?
        if [ $status != 0 ]; then
            verdict="noticed by $suite"
            case $status in 124 | 137) verdict+=', which does not end' ;; esac
            return
        fi
    done
    verdict=SURVIVED
}

need_packages "${suite_packages[@]}" patch
prepare_nginx_tree
find_nginx
prove=$(command -v prove) || fail "prove is not installed"
NGINX_MODULES_PATH=$(nginx_modules_path)
export NGINX_MODULES_PATH TEST_NGINX_BINARY=$nginx_binary TEST_NGINX_MEMCACHED_MODULE=$module
# A suite that is late on a busy machine has noticed nothing: only what fails twice has.
unset ONCE

rm -rf "$reports"
mkdir -p "$reports"
scratch=$(mktemp -d)
at_exit "rm -rf '$scratch'"
# `--list` compiles nothing, and takes the configuration from the tree.
cargo mutants --list --json --dir "$tree" --config "$tree/.cargo/mutants-nginx.toml" >"$scratch/list.json"
perl scripts/lib/mutants/sample.pl ${seed:+--seed "$seed"} "$count" scripts/lib/mutants/suites.tsv "$reports" \
    <"$scratch/list.json"

say 'building and running the suites without a change'
build_module
while IFS=$'\t' read -r _ _ _ suites; do
    # shellcheck disable=SC2086 # one word per suite
    run_unchanged $suites
done <"$reports/list"

noticed=0 broken=0 survived=0
# By a descriptor of its own, because suites may read stdin.
while IFS=$'\t' read -r -u 3 number file text suites; do
    from=$SECONDS
    try_change "$number" "$file" "$suites"
    case $verdict in
    noticed*) noticed=$((noticed + 1)) ;;
    SURVIVED) survived=$((survived + 1)) ;;
    *) broken=$((broken + 1)) ;;
    esac
    printf '%s: %s (%d s)\n' "$text" "$verdict" $((SECONDS - from))
done 3<"$reports/list"
printf '%d noticed, %d do not compile, %d survived\n' $noticed $broken $survived
[ $survived = 0 ] || fail "a change survived: a test is missing, or its text and the reason belong into .cargo/mutants-nginx.toml (diffs and logs: $reports)"
