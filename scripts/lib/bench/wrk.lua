-- wrk's script in scripts/bench: only the result, on one line that is easy to read:
-- requests, duration (microseconds), failures, latency p50 and p99 (microseconds).
--
-- Behind wrk's `--`: the milliseconds that a connection pauses on average before each request, and
-- the paths that are asked for in turn. Without them wrk asks for its URL as fast as it can, and
-- nothing is defined that it would call for each request.

function init(args)
    if not args[1] then
        return
    end
    local pause, requests, last = 2 * tonumber(args[1]), {}, 0
    for i = 2, #args do
        requests[i - 1] = wrk.format(nil, args[i])
    end
    -- Not constant, or the connections would go on in step as they began. The numbers are
    -- the same ones in each run.
    function delay()
        return math.random(0, pause)
    end
    function request()
        last = last % #requests + 1
        return requests[last]
    end
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format("bench %d %d %d %d %d\n", summary.requests, summary.duration,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout,
        latency:percentile(50), latency:percentile(99)))
end
