-- Pipelines, for a group of servers: split among them when they are committed, and all parts are
-- sent before any is waited for.
local native, glue = ...

local next, unpack = next, unpack

local results_of, split = native.group_results, native.group_split_pipeline
local fail_part, end_pipeline = native.group_fail_part, native.end_pipeline
local begin_part, wait_part, finish_part = native.begin_part, native.wait_part, native.finish_part
local running = coroutine.running
local AGAIN, ATTEMPTS = native.again, glue.attempts

local group = glue.group
local connect_parts, count = group.connect_parts, group.count

-- The commands of servers that cannot be connected to go to the next ones. Those that have none
-- keep the error. Returns the parts, or nil and an error.
local function connected_parts(sock, of, run, pipeline)
    local tried = {}
    while true do
        local parts, homeless = split(of.name, pipeline, run.results, unpack(tried))
        if not parts then
            return nil, homeless
        end
        run.complete = #parts == 0 and homeless == 0
        local again = connect_parts(sock, of, parts, tried)
        for _, part in next, parts do
            if part.err then
                run.err = run.err or part.err
                fail_part(run.results, part[5], part.err)
            elseif again then
                end_pipeline(part[5])
            end
        end
        if not again then
            return parts
        end
    end
end

-- What came of a part: `1, err` if commands were sent, else `nil, err`.
local function over(of, run, part, sent, err)
    count(of, part[1], part.member, part[4], err)
    if sent then
        run.sent = true
    else
        run.err = run.err or err
        fail_part(run.results, part[5], err)
    end
end

-- Sends parts. Returns those to be waited for.
local function begin_all(of, run, parts)
    local waiting = {}
    for _, part in next, parts do
        local member = part.member
        for _ = 1, ATTEMPTS do
            local state, err = begin_part(run.results, part[5], member[ID])
            if state == true then
                member.reader = running()
                waiting[#waiting + 1] = part
                break
            elseif state ~= AGAIN then
                over(of, run, part, state, err)
                break
            end
        end
    end
    return waiting
end

-- Waits for parts. Returns those whose servers have only told what they can do, and that are to be
-- sent now.
local function wait_for_all(of, run, waiting)
    local unsent = {}
    for _, part in next, waiting do
        local member = part.member
        local id = member[ID]
        local state, err = finish_part(run.results, part[5], member, id,
            wait_part(run.results, part[5], id))
        member.reader = nil
        if state == AGAIN then
            unsent[#unsent + 1] = part
        else
            over(of, run, part, state, err)
        end
    end
    return unsent
end

function group.commit_pipeline(_, sock, pipeline)
    local of = sock[GROUP]
    local run = { results = results_of(pipeline) }
    local parts, why = connected_parts(sock, of, run, pipeline)
    end_pipeline(pipeline)
    if not parts then
        return nil, why
    end
    local unsent = {}
    for _, part in next, parts do
        if part.member then
            unsent[#unsent + 1] = part
        end
    end
    for _ = 1, ATTEMPTS do
        if #unsent == 0 then
            break
        end
        unsent = wait_for_all(of, run, begin_all(of, run, unsent))
    end
    for _, part in next, unsent do
        over(of, run, part, nil, "the version of the server is unknown")
    end
    if run.sent or run.complete then
        return run.results, nil
    end
    return nil, run.err or "no live upstreams"
end
