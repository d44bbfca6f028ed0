# shellcheck shell=bash disable=SC2034,SC2154 # some variables are the caller's
# How scripts/bench measures time: rounds of all contestants, one after the other. Sourced, never run.

# cpu_of PID...: what all their threads have used: nanoseconds, and clock ticks in user and system mode.
# The kernel counts the former exactly, where it does; the latter say how to divide it.
cpu_of() {
    local process stat fields file nanoseconds=0 user=0 system=0 ran
    for process; do
        stat=$(<"/proc/$process/stat")
        for file in "/proc/$process/task"/*/schedstat; do
            if [ -f "$file" ] && read -r ran _ <"$file"; then nanoseconds=$((nanoseconds + ran)); fi
        done
        # The name (in parentheses) may hold spaces; these are fields 14 and 15.
        read -ra fields <<<"${stat##*) }"
        user=$((user + fields[11])) system=$((system + fields[12]))
    done
    if [ "$nanoseconds" = 0 ]; then nanoseconds=$(((user + system) * 1000000000 / ticks)); fi
    printf '%s %s %s\n' "$nanoseconds" "$user" "$system"
}

ticks=$(getconf CLK_TCK)

# The second wrk of mixed.
big_connections=4
big_pause=10
big_pid=
stop_big_load() { [ -z "$big_pid" ] || stop_pid "$big_pid"; }
at_exit stop_big_load
start_big_load() {
    load "$1/get-1m" $big_connections $big_pause "/$1/get-1m" "/$1/set-100k" >"$run/big" &
    big_pid=$!
}

# measure WORKLOAD C CONTESTANT ROUND: appends a line to the results, sets `figure`, the one
# whose ratio matters (nanoseconds of the worker's CPU per request, or the p99 of mixed).
measure() {
    local requests duration p50 p99 served after path=$1 big=(0 1)
    local worker_before worker_after memcached_before memcached_after proxy_before=(0) proxy_after=(0)
    if [ "$1" = mixed ]; then path='get'; fi
    http_get /collect
    read -r served _ < <(requests_served)
    read -ra worker_before < <(cpu_of "$worker_pid")
    read -ra memcached_before < <(cpu_of "${memcached_pids[@]}")
    if [ -n "$proxy_pid" ]; then read -ra proxy_before < <(cpu_of "$proxy_pid"); fi
    if [ "$1" = mixed ]; then start_big_load "$3"; fi
    load "$3/$path" "$2" >"$run/small"
    if [ "$1" = mixed ]; then
        wait "$big_pid" || fail "wrk fails"
        big_pid=
        read_result "the big values of $3" <"$run/big"
        big=("$requests" "$duration")
    fi
    read_result "$3/$path at c=$2" <"$run/small"
    read -r _ after < <(requests_served)
    served=$((after - served))
    read -ra worker_after < <(cpu_of "$worker_pid")
    read -ra memcached_after < <(cpu_of "${memcached_pids[@]}")
    if [ -n "$proxy_pid" ]; then read -ra proxy_after < <(cpu_of "$proxy_pid"); fi
    local cpu=$((worker_after[0] - worker_before[0])) proxy=$((proxy_after[0] - proxy_before[0]))
    printf '%s\t' "$@" "$requests" "$duration" "$p50" "$p99" "$served" "$cpu" \
        $((worker_after[1] - worker_before[1])) $((worker_after[2] - worker_before[2])) \
        $((memcached_after[0] - memcached_before[0])) "${big[@]}" >>"$run/results"
    printf '%s\n' "$proxy" >>"$run/results"
    if [ "$1" = mixed ]; then figure=$p99; else figure=$(((cpu + proxy) / served)); fi
}

# What a measurement takes besides its seconds, and the warming up of a contestant, in ms.
overhead=150
warm_up_time=350

# expected MEASUREMENTS WARM_UPS: how many seconds they take.
expected() { echo $((($1 * (seconds * 1000 + overhead) + $2 * warm_up_time) / 1000)); }

# bench_point WORKLOAD C: all rounds of it.
bench_point() {
    local contestants round contestant order text i base path=$1 what='CPU per request'
    local -A figures
    mapfile -t contestants < <(contestants_of "$1")
    base=$(base_of "$1")
    if [ "$1" = mixed ]; then
        path='get'
        what=p99
    fi
    for contestant in "${contestants[@]}"; do
        warm_up "$contestant/$path" "$2"
        warmed_up=$((warmed_up + 1))
    done
    for ((round = 1; round <= rounds; round++)); do
        order=("${contestants[@]}")
        if ((round % 2 == 0)); then
            order=()
            for ((i = ${#contestants[@]} - 1; i >= 0; i--)); do order+=("${contestants[i]}"); done
        fi
        for contestant in "${order[@]}"; do
            measure "$1" "$2" "$contestant" "$round"
            figures[$contestant]=$figure
            measured=$((measured + 1))
        done
        text=
        for contestant in "${contestants[@]}"; do
            [ "$contestant" = "$base" ] || text+=$(awk -v n="$contestant" -v a="${figures[$contestant]}" -v b="${figures[$base]}" \
                'BEGIN { printf ", %s %.2f", n, a / (b ? b : 1) }')
        done
        say "$(printf '%3d%%, %d s left  %s, c=%s, round %d of %d: %s, %s 1%s' \
            $((100 * measured / planned)) "$(expected $((planned - measured)) $((warm_ups - warmed_up)))" \
            "$1" "$2" "$round" "$rounds" "$what" "$base" "$text")"
    done
}

# measure_times: all points, then the report.
measure_times() {
    local point measured=0 warmed_up=0 report
    say "$planned measurements at ${#points[@]} points: about $(expected "$planned" "$warm_ups") s"
    : >"$run/results"
    for point in "${points[@]}"; do
        # shellcheck disable=SC2086
        bench_point $point
    done
    no_errors_logged
    check_answers "${paths[@]}"

    report=(--title "$title, $rounds rounds of $seconds s" --multiplex "$multiplex")
    if [ "$pinned" = yes ]; then report[1]+=", the worker on a CPU of its own"; fi
    report[1]=${report[1]/, 1 rounds/, 1 round}
    [ -z "$data" ] || cp "$run/results" "$data"
    perl "$root/scripts/lib/bench/report.pl" "${report[@]}" "$run/results"
    [ -z "$svg" ] || perl "$root/scripts/lib/bench/picture.pl" "${report[@]}" "$run/results" >"$svg"
}
