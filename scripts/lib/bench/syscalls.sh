# shellcheck shell=bash disable=SC2034,SC2154 # some variables are the caller's
# scripts/bench --syscalls: system calls of nginx's worker per request, apart from the timing because
# counting takes time. perf counts where it may, for next to nothing. strace stops the worker at each
# call, so that more requests wait whenever it looks, and batches are larger than they would be.
# Sourced, never run.

# What the worker's calls are for.
declare -A purposes=(
    [epoll_wait]=waiting [epoll_pwait]=waiting
    [read]=receiving [readv]=receiving [recvfrom]=receiving [recvmsg]=receiving
    [write]=sending [writev]=sending [sendto]=sending [sendmsg]=sending
)

choose_counter() {
    if perf stat -e raw_syscalls:sys_enter true >/dev/null 2>&1; then
        counter=perf
    elif command -v strace >/dev/null; then
        counter=strace
    else
        fail "--syscalls needs perf (as root) or strace"
    fi
}

# count_by_perf COMMAND...: lines NAME COUNT for the worker while the command runs, `all` is all of them.
count_by_perf() {
    local name events=raw_syscalls:sys_enter
    for name in "${!purposes[@]}"; do events+=",syscalls:sys_enter_$name"; done
    perf stat -x ';' -o "$run/counts" -e "$events" -p "$worker_pid" -- "$@" >"$run/small" ||
        fail "perf does not count"
    sed -n -e 's/^\([0-9]*\);.*raw_syscalls:sys_enter;.*/all \1/p' \
        -e 's/^\([0-9]*\);.*syscalls:sys_enter_\([a-z_]*\);.*/\2 \1/p' "$run/counts"
}

# count_by_strace COMMAND...: the same.
count_by_strace() {
    local tracer _
    strace -c -f -o "$run/counts" -p "$worker_pid" 2>"$run/strace.log" &
    tracer=$!
    for _ in {1..100}; do
        grep -q attached "$run/strace.log" && break
        sleep 0.05
    done
    "$@" >"$run/small"
    kill -INT "$tracer"
    wait "$tracer" || true
    awk '$4 ~ /^[0-9]+$/ && $NF != "total" { print $NF, $4; all += $4 } END { print "all", all }' "$run/counts"
}

# syscalls_of CONTESTANT/WORKLOAD C: a row of the table.
syscalls_of() {
    local name count served after _
    local -A sum=([all]=0 [waiting]=0 [receiving]=0 [sending]=0)
    warm_up "$1" "$2"
    read -r served _ < <(requests_served)
    while read -r name count; do
        name=${purposes[$name]:-$name}
        sum[$name]=$((${sum[$name]:-0} + count))
    done < <("count_by_$counter" "${on_other_cpus[@]}" wrk -t 1 -c "$2" -d "${seconds}s" "http://127.0.0.1:$listen_port/$1")
    read -r _ after < <(requests_served)
    served=$((after - served))
    [ "${sum[all]}" -gt 0 ] || fail "nothing was counted for $1"
    awk -v n="$served" -v c="$2" -v path="$1" -v all="${sum[all]}" -v w="${sum[waiting]}" -v r="${sum[receiving]}" -v s="${sum[sending]}" '
        BEGIN {
            split(path, part, "/")
            printf "| %s | %d | %s | %.2f | %.2f | %.2f | %.2f | %.2f |\n", part[2], c, part[1], all / n, w / n, r / n, s / n, (all - w - r - s) / n
        }'
}

count_syscalls() {
    local counter workload contestant c
    choose_counter
    printf '%s\n\n' "$title. System calls of the worker per request, HTTP's own included, counted by $counter."
    printf '| workload | c | | all | waiting | receiving | sending | other |\n|---|--:|---|--:|--:|--:|--:|--:|\n'
    for workload in "${workloads[@]}"; do
        for c in $(concurrency_of "$workload"); do
            for contestant in $(contestants_of "$workload"); do
                syscalls_of "$contestant/$workload" "$c"
            done
        done
    done
    no_errors_logged
}
