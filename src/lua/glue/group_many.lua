-- Lists of keys, for a group of servers: one command for each server, all of which
-- are sent before any is waited for.
local native, glue = ...

local unescape_uri = ngx.unescape_uri
local next, pairs, unpack = next, pairs, unpack

local choose, failed = native.group_choose, native.group_failed
local split, begin_many, wait_many = native.group_split, native.begin_many, native.wait_many
local finish_many, finish_many_raw = native.finish_many, native.finish_many_raw
local running = coroutine.running

local group = glue.group
local member_of, count, OURS = group.member, group.count, group.ours

-- What is known of a list's servers and results.
local function note_error(list, server, err)
    list.err = list.err or err
    if server then
        list.errors = list.errors or {}
        list.errors[server] = err
    end
end

-- The keys of a server that could not be connected to go to the next one, nothing
-- having been sent yet.
local function move(name, list, part, escape)
    local tried = part.tried or {}
    tried[#tried + 1] = part[1]
    for _, key in next, part[5] do
        local server, host, port, suspect = choose(name, key, escape, unpack(tried))
        if not server then
            note_error(list, part[1], part.err)
        elseif list.connected[server] then
            local keys = list.connected[server][5]
            keys[#keys + 1] = key
        else
            local waiting = list.waiting[server]
            if not waiting then
                waiting = { server, host, port or false, suspect, {}, tried = { unpack(tried) } }
                list.waiting[server] = waiting
                list.parts[#list.parts + 1] = waiting
            end
            waiting[5][#waiting[5] + 1] = key
        end
    end
end

local function connect_all(sock, of, list, escape)
    local name = of.name
    local at = 1
    while list.parts[at] do
        local part = list.parts[at]
        local server = part[1]
        list.waiting[server] = nil
        part.member, part.err = member_of(sock, of, server, part[2], part[3] or nil)
        if part.member then
            list.connected[server] = part
        elseif OURS[part.err] or sock[GROUP] ~= of then
            note_error(list, server, part.err)
        else
            failed(name, server)
            move(name, list, part, escape)
        end
        at = at + 1
    end
end

-- The results of one server.
local function gather(of, list, part, unescape, found, err)
    count(of, part[1], part.member, part[4], err)
    if not found then
        return note_error(list, part[1], err)
    end
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

-- `wired` are the keys as they are sent, or escaped natively.
function group.get_list(self, sock, wired, escape, cas)
    local of = sock[GROUP]
    local parts, homeless = split(of.name, wired, escape, cas)
    if not parts then
        return nil, homeless
    end
    local list = { parts = parts, waiting = {}, connected = {}, results = {} }
    for _, part in next, parts do
        list.waiting[part[1]] = part
    end
    if homeless > 0 then
        note_error(list, nil, "no live upstreams")
    end
    connect_all(sock, of, list, escape)
    local unescape = self.unescape_key
    local native_keys = unescape == unescape_uri
    local sent = {}
    for _, part in next, parts do
        local member = part.member
        if member then
            local found, err = begin_many(member[ID] or 0, part[5], escape, cas, native_keys)
            if found == true then
                member.reader = running()
                sent[#sent + 1] = part
            else
                gather(of, list, part, unescape, found, err)
            end
        end
    end
    local finish = native_keys and finish_many or finish_many_raw
    for _, part in next, sent do
        local member = part.member
        local id = member[ID] or 0
        local found, err = finish(member, id, wait_many(id, native_keys))
        member.reader = nil
        gather(of, list, part, unescape, found, err)
    end
    if not list.err then
        return list.results
    end
    return list.answered and list.results or nil, list.err, list.errors
end
