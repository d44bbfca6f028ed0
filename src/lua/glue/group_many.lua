-- Lists of keys, for a group of servers: one command for each server, all of which are sent before
-- any is waited for.
local native, glue = ...

local unescape_uri = ngx.unescape_uri
local next, pairs, unpack = next, pairs, unpack

local split, split_sent = native.group_split, native.group_split_sent
local begin_many, wait_many = native.begin_many, native.wait_many
local gather_many, finish_many_raw = native.gather_many, native.finish_many_raw
local new_results = native.new_results
local new_pipeline, bounded = native.new_pipeline, native.group_exptime
local begin_part, wait_part, finish_part = native.begin_part, native.wait_part, native.finish_part
local running = coroutine.running
local add_gats = glue.add_gats

local group = glue.group
local connect_parts, count = group.connect_parts, group.count

-- What is known of a list's servers and results.
local function note_error(list, server, err)
    list.err = list.err or err
    if server then
        list.errors = list.errors or {}
        list.errors[server] = err
    end
end

-- The keys of servers that cannot be connected to go to the next ones. Returns the parts of the
-- list that `split` makes, or nil and an error.
local function connected_parts(split, sock, of, list, wired, escape, cas)
    local tried, errors = {}, {}
    local before
    while true do
        local parts, homeless = split(of.name, wired, escape, cas, unpack(tried))
        if not parts then
            return nil, homeless
        end
        if not before then
            before = homeless
            if homeless > 0 then
                note_error(list, nil, "no live upstreams")
            end
        elseif homeless > before then
            for i = 1, #tried do
                note_error(list, tried[i], errors[tried[i]])
            end
        end
        if not connect_parts(sock, of, parts, tried) then
            return parts
        end
        for i = 1, #parts do
            errors[parts[i][1]] = parts[i].err
        end
    end
end

local function add(list, unescape, found)
    list.answered = true
    if unescape == unescape_uri then
        for key, item in pairs(found) do
            list.results[key] = item
        end
    else
        for i = 1, #found, 2 do
            list.results[unescape(found[i])] = found[i + 1]
        end
    end
end

-- The results of one server.
local function gather(of, list, part, unescape, found, err)
    count(of, part[1], part.member, part[4], err)
    if not found then
        return note_error(list, part[1], err)
    elseif found == list.results then
        list.answered = true
    else
        add(list, unescape, found)
    end
end

local function results_of(list)
    if not list.err then
        return list.results
    elseif list.answered then
        -- keys without a server are an error of no server
        return list.results, list.err, list.errors or {}
    elseif list.errors then
        return nil, list.err, list.errors
    end
    return nil, list.err
end

-- `wired` are the keys as they are sent, or escaped natively.
function group.get_list(self, sock, wired, escape, cas)
    local of = sock[GROUP]
    local list = { results = new_results(#wired) }
    local parts, why = connected_parts(split_sent, sock, of, list, wired, escape, cas)
    if not parts then
        return nil, why
    end
    local unescape = self.unescape_key
    local native_keys = unescape == unescape_uri
    local sent = {}
    for _, part in next, parts do
        local member = part.member
        if member then
            local found, err = begin_many(member[ID] or 0, part[5], cas, native_keys)
            if found == true then
                member.reader = running()
                sent[#sent + 1] = part
            else
                gather(of, list, part, unescape, found, err)
            end
        else
            note_error(list, part[1], part.err)
        end
    end
    for _, part in next, sent do
        local member = part.member
        local id = member[ID] or 0
        local found, err
        if native_keys then
            found, err = gather_many(member, id, list.results, wait_many(id, true))
        else
            found, err = finish_many_raw(member, id, wait_many(id, false))
        end
        member.reader = nil
        gather(of, list, part, unescape, found, err)
    end
    return results_of(list)
end

-- The results of one server to `gat`, which may have been several commands. It is no server's error
-- if nothing was sent.
local function gather_gats(of, list, part, unescape, sent, err)
    local replies = part.replies
    local server = part.waited and part[1]
    count(of, part[1], part.member, part[4], err)
    if not sent then
        return note_error(list, part[1], err)
    end
    for i = 1, #replies do
        local found, failure = replies[i][1], replies[i][2]
        if found then
            add(list, unescape, found)
        else
            note_error(list, server, failure)
        end
    end
end

-- As `get_list`; all get a new exptime.
function group.gat_list(self, sock, wired, escape, cas, exptime)
    local of = sock[GROUP]
    local list = { results = {} }
    local parts, why = connected_parts(split, sock, of, list, wired, escape, cas)
    if not parts then
        return nil, why
    end
    local unescape = self.unescape_key
    local waiting = {}
    for _, part in next, parts do
        local member = part.member
        if member then
            local pipeline = new_pipeline()
            add_gats(pipeline, part[5], escape, cas, unescape == unescape_uri,
                part[6] and bounded(exptime or 0, part[6]) or exptime)
            part.replies, part.pipeline = {}, pipeline
            local state, err = begin_part(part.replies, pipeline, member[ID])
            if state == true then
                member.reader = running()
                part.waited = true
                waiting[#waiting + 1] = part
            else
                gather_gats(of, list, part, unescape, state, err)
            end
        else
            note_error(list, part[1], part.err)
        end
    end
    for _, part in next, waiting do
        local member = part.member
        local id = member[ID]
        local state, err = finish_part(part.replies, part.pipeline, member, id,
            wait_part(part.replies, part.pipeline, id))
        member.reader = nil
        gather_gats(of, list, part, unescape, state, err)
    end
    return results_of(list)
end
