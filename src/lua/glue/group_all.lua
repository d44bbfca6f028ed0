-- Commands without a key, for a group of servers: sent to all before any is waited for.
local native, glue = ...

local gmatch, next, tonumber = string.gmatch, next, tonumber

local servers_of, failed = native.group_servers, native.group_failed
local begin_command, wait_command = native.begin_command, native.wait_command
local finish_line = native.finish_line
local quit, finish_quit = native.quit, native.finish_quit
local close, is_lost = native.close, native.is_lost
local running = coroutine.running

local group = glue.group
local connect_all, count, OURS = group.connect_all, group.count, group.ours

-- Asks all servers, or all but those that are disabled. Returns an array of their parts, each with
-- its `result` or `err`; or nil and an error.
local function ask(sock, disabled_too, name, argument)
    local of = sock[GROUP]
    local parts, why = servers_of(of.number)
    if not parts then
        return nil, why
    end
    local asked = {}
    for _, part in next, parts do
        if part[5] or disabled_too then
            asked[#asked + 1] = part
        else
            part.err = "no live upstreams"
        end
    end
    connect_all(sock, of, asked)
    for _, part in next, asked do
        local member = part.member
        if member then
            local result, err = begin_command(member[ID], name, argument)
            if result == true then
                member.reader, part.waited = running(), true
            else
                part.result, part.err = result, err
                count(of, part[1], member, part[4], err)
            end
        elseif part[5] and not OURS[part.err] and sock[GROUP] == of then
            failed(of.number, part[1])
        end
    end
    for _, part in next, asked do
        if part.waited then
            local member = part.member
            local id = member[ID]
            local result, err = finish_line(member, id, wait_command(id))
            member.reader = nil
            part.result, part.err = result, err
            count(of, part[1], member, part[4], err)
        end
    end
    return parts
end

-- The error of the first server that has failed, and a table of the errors of all such servers, by
-- their names.
local function errors_of(parts)
    local why, errors
    for _, part in next, parts do
        if not part.result then
            why, errors = why or part.err, errors or {}
            errors[part[1]] = part.err
        end
    end
    return why, errors
end

local function all_done(parts, why)
    if not parts then
        return nil, why
    elseif #parts == 0 then
        return nil, "no live upstreams"
    end
    local err, errors = errors_of(parts)
    if err then
        return nil, err, errors
    end
    return 1
end

-- Those that were disabled would come back with old values.
function group.flush_all(sock, time)
    return all_done(ask(sock, true, "flush_all", time))
end

function group.verbosity(sock, level)
    return all_done(ask(sock, false, "verbosity", level))
end

-- The lines of all servers; those of each are under its name, too.
function group.stats(sock, args)
    local parts, why = ask(sock, false, "stats", args)
    if not parts then
        return nil, why
    end
    local lines, answered = {}, false
    for _, part in next, parts do
        local result = part.result
        if result then
            answered = true
            lines[part[1]] = result
            for i = 1, #result do
                lines[#lines + 1] = result[i]
            end
        end
    end
    local err, errors = errors_of(parts)
    if not answered then
        return nil, err or "no live upstreams", errors
    end
    if err then
        return lines, err, errors
    end
    return lines, nil
end

-- Whether a version is lower than another one.
local function is_lower(version, other)
    local numbers = gmatch(other, "%d+")
    for digits in gmatch(version, "%d+") do
        local mine, its = tonumber(digits), tonumber((numbers()))
        if not its then
            return false
        elseif mine ~= its then
            return mine < its
        end
    end
    return numbers() ~= nil
end

-- The lowest version, since what all servers have is what can be used.
function group.version(sock)
    local parts, why = ask(sock, false, "version")
    if not parts then
        return nil, why
    end
    local lowest
    local versions = {}
    for _, part in next, parts do
        local version = part.result
        if version then
            versions[part[1]] = version
            if not lowest or is_lower(version, lowest) then
                lowest = version
            end
        end
    end
    local err, errors = errors_of(parts)
    if not lowest then
        return nil, err or "no live upstreams", errors
    elseif #parts == 1 and not err then
        -- as of an object that is connected to it
        return lowest
    end
    return lowest, err, versions
end

-- The connections that are open end, and others are opened when they are needed.
function group.quit(sock)
    local of = sock[GROUP]
    local why, errors
    for i = 1, of.count do
        local member = of[i]
        local id = member[ID]
        if id and not is_lost(id) then
            local ok, err = finish_quit(member, id, quit(id))
            if ok then
                close(member)
            else
                why, errors = why or err, errors or {}
                errors[member[SERVER]] = err
            end
        end
    end
    if why then
        return nil, why, errors
    end
    return 1
end
