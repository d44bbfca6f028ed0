-- wrk's script in scripts/bench: only the result, on one line that is easy to read:
-- requests, duration (microseconds), failures, latency p50 and p99 (microseconds).
-- Nothing is defined that wrk would call for each request.
function done(summary, latency)
    local errors = summary.errors
    io.write(string.format("bench %d %d %d %d %d\n", summary.requests, summary.duration,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout,
        latency:percentile(50), latency:percentile(99)))
end
