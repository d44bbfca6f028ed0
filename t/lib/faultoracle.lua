-- What a method has to return for the bytes that a server sends: the rules of
-- docs/errors.md, said once more and as plainly as can be. All
-- bytes are there at once, so nothing here is incremental. In one place it
-- matters when they came, see `came_with`.

local _M = {}

local MAX_LINE = 2048
local MAX_VALUE = 128 * 1024 * 1024

-- Values with their number, nils included.
local function pack(...)
    return { n = select("#", ...), ... }
end

-- Where the pieces end in which the bytes come.
local pieces

-- What came together with the byte before `at`, from there on.
local function came_with(s, at)
    for _, last in ipairs(pieces) do
        if last >= at - 1 then return s:sub(at, last) end
    end
    return s:sub(at)
end

-- Whether bytes are END or the beginning of it, and whether more of them could
-- make them something else.
local function begins_end(s)
    if s:find("^END\r?\n") then return true, false end
    return s ~= "" and #s < 5 and ("END\r\n"):sub(1, #s) == s, true
end

-- How many nils stand before an error, and behind it.
local NILS, MORE = { get = 2, gets = 3 }, { ma = 1 }

function _M.failure(kind, err)
    local values = pack(nil, nil, nil)
    local at = (NILS[kind] or 1) + 1
    values.n = at + (MORE[kind] or 0)
    values[at] = err
    return values
end

-- The line at `at` and where the next one begins; nothing if it is not
-- complete; false if it is too long.
local function line_at(s, at)
    local lf = s:find("\n", at, true)
    if not lf then
        if #s - at + 1 > MAX_LINE + 1 then return false end
        return nil
    end
    local line = s:sub(at, lf - 1):gsub("\r$", "")
    if #line > MAX_LINE then return false end
    return line, lf + 1
end

local function is_error(line)
    local word = line:match("^[^ ]*")
    return word == "ERROR" or word == "CLIENT_ERROR" or word == "SERVER_ERROR"
end

-- Each of the following returns nothing if the reply is not complete, else the
-- results, where the next reply begins, and whether nobody knows that.

local function lost(kind, at, err)
    return _M.failure(kind, err), at, true
end

-- Digits without leading zeros against a number of the same form.
local function exceeds(digits, limit)
    digits = digits:gsub("^0+", "")
    if #digits ~= #limit then return #digits > #limit end
    return digits > limit
end

local function result_of(kind, list, found)
    if list then return pack(found) end
    local hit = found[1]
    if not hit then
        return kind == "gets" and pack(nil, nil, nil, nil) or pack(nil, nil, nil)
    end
    return pack(unpack(hit))
end

-- `keys`: what was asked for by name on the wire, with the name of the result.
local function retrieval(cmd, s, at)
    local kind = cmd.list and "list" or cmd.kind
    local fields = "^VALUE ([^ ]+) (%d+) (%d+)" .. (cmd.kind == "gets" and " (%d+)" or "") .. "$"
    local found, n = {}, 0
    while true do
        local line, next_at = line_at(s, at)
        if line == nil then return nil end
        if line == false then return lost(kind, at, "bad reply: line too long") end
        at = next_at
        if line == "END" then return result_of(kind, cmd.list, found), at end
        if line:sub(1, 6) == "VALUE " and n == cmd.count then
            return lost(kind, at, "bad reply: more values than keys")
        end
        local key, flags, len, cas = line:match(fields)
        if not key or #flags > 20 or #(cas or "") > 20 then
            if n > 0 and not is_error(line) then
                return lost(kind, at, "bad reply: no END after value")
            end
            -- an error line is the whole reply for one key, unless what is there behind it may be
            -- its END; behind a list's the reply may go on
            if not is_error(line) or n > 0 or cmd.count > 1 then
                return _M.failure(kind, line), at, true
            end
            local goes_on, maybe = begins_end(came_with(s, at))
            return _M.failure(kind, line), at, goes_on, goes_on and maybe
        end
        local name = cmd.keys[key]
        if not name then return lost(kind, at, "bad reply: unexpected key") end
        if exceeds(len, "18446744073709551615") then
            return lost(kind, at, "bad reply: value length out of range")
        end
        if exceeds(len, tostring(MAX_VALUE)) then
            return lost(kind, at, "bad reply: value of " .. len:gsub("^0+", "")
                .. " bytes exceeds the limit of " .. MAX_VALUE)
        end
        len = tonumber(len)
        local data, behind = s:sub(at, at + len - 1), s:sub(at + len, at + len + 1)
        if #data < len then return nil end
        if behind ~= ("\r\n"):sub(1, #behind) then
            return lost(kind, at, "bad reply: no CRLF after value")
        end
        if #behind < 2 then return nil end
        at, n = at + len + 2, n + 1
        found[cmd.list and name or 1] = { data, flags, cas }
    end
end

-- What completes the commands that are answered by a line, and what other
-- lines answer them (besides the error lines, which all but storage commands
-- can get without being out of step).
local DONE = {
    store = { STORED = true }, cas = { STORED = true }, delete = { DELETED = true },
    touch = { TOUCHED = true, STORED = true }, ok = { OK = true },
}
local ANSWERS = {
    store = { NOT_STORED = true },
    cas = { NOT_STORED = true, EXISTS = true, NOT_FOUND = true },
    delete = { NOT_FOUND = true }, touch = { NOT_FOUND = true }, arith = { NOT_FOUND = true },
}

local function single(cmd, s, at)
    local kind = cmd.kind
    local line, next_at = line_at(s, at)
    if line == nil then return nil end
    if line == false then return lost(kind, at, "bad reply: line too long") end
    if DONE[kind] and DONE[kind][line] then return pack(1), next_at end
    if kind == "arith" and line:find("^%d+$") and #line <= 20 then return pack(line), next_at end
    if kind == "version" and line:find("^VERSION .") then return pack(line:sub(9)), next_at end
    local good
    if kind == "store" or kind == "cas" then
        good = line:find("^SERVER_ERROR$") or line:find("^SERVER_ERROR ")
    else
        good = is_error(line)
    end
    good = good or ANSWERS[kind] and ANSWERS[kind][line]
    return _M.failure(kind, line), next_at, not good
end

local STAT = { STAT = true, ITEM = true, PREFIX = true }

local function stats(cmd, s, at)
    local lines = {}
    while true do
        local line, next_at = line_at(s, at)
        if line == nil then return nil end
        if line == false then return lost("stats", at, "bad reply: line too long") end
        at = next_at
        if line == "END" then return pack(lines, nil), at end
        if cmd.special and #lines == 0 and (line == "RESET" or line == "OK") then
            return pack({ line }, nil), at
        end
        if not STAT[line:match("^[^ ]*")] then
            -- END may follow an error line, too
            return _M.failure("stats", line), at, true
        end
        lines[#lines + 1] = line
    end
end

-- What the statuses mean that are no success.
local FAILURES = {
    mg = { EN = true },
    ms = { NS = "NOT_STORED", EX = "EXISTS", NF = "NOT_FOUND" },
    md = { EX = "EXISTS", NF = "NOT_FOUND" },
    ma = { NS = "NOT_STORED", EX = "EXISTS", NF = "NOT_FOUND" },
}
local NAMES = { f = "flags", c = "cas", t = "ttl", s = "size", h = "hit", l = "last_access",
                W = "won", X = "stale", Z = "lost" }

local function is_number(text)
    return text:find("^%d+$") and #text <= 20 and not exceeds(text, "18446744073709551615")
end

-- A field's value; nil if that is none.
local function field(letter, text)
    if letter == "h" then
        if text == "0" or text == "1" then return text == "1" end
    elseif letter == "t" and text == "-1" then
        return -1
    elseif is_number(text) then
        if letter == "f" or letter == "c" then return text end
        local number = tonumber(text)
        if letter ~= "t" then return number end
        if number <= 4294967295 then return number <= 2147483647 and number or 0 end
    end
    return nil
end

-- The fields of a reply, from a word on; nil and what is wrong.
local function fields(cmd, words, from)
    local item, opaque = {}, false
    for i = from, #words do
        local letter, text = words[i]:match("^(.)(.*)")
        local name = NAMES[letter]
        if letter == "O" then
            if words[i] ~= cmd.opaque or opaque then return nil, "bad reply: unexpected opaque" end
            opaque = true
        elseif not name or item[name] ~= nil then
            return nil, "bad reply: unexpected flags"
        elseif letter:find("[WXZ]") then
            if text ~= "" or cmd.kind ~= "mg" then return nil, "bad reply: unexpected flags" end
            item[name] = true
        else
            local asked = cmd.asked.fields:find(letter, 1, true)
            if asked then item[name] = field(letter, text) end
            if item[name] == nil then return nil, "bad reply: unexpected flags" end
        end
    end
    if not opaque then return nil, "bad reply: unexpected opaque" end
    return item
end

-- The results of a success.
local function meta_results(kind, item)
    if kind == "md" then return pack(1, nil) end
    if kind == "ma" then return pack(item.value, nil, item.ttl) end
    return pack(item, nil)
end

local function meta(cmd, s, at)
    local kind, asked = cmd.kind, cmd.asked
    local line, next_at = line_at(s, at)
    if line == nil then return nil end
    if line == false then return lost(kind, at, "bad reply: line too long") end
    at = next_at
    if is_error(line) then
        local good = kind ~= "ms" or line:find("^SERVER_ERROR")
        return _M.failure(kind, line), at, not good
    end
    local words = {}
    for word in line:gmatch("[^ ]+") do words[#words + 1] = word end
    local status = words[1] or ""
    if line:sub(1, 1) == " " then return lost(kind, at, "bad reply: unexpected line") end
    local failure = FAILURES[kind][status]
    if failure then
        -- the reply to a miss may say no more
        local _, wrong = fields(cmd, words, 2)
        if wrong and #words > 1 then return lost(kind, at, wrong) end
        return failure == true and pack(nil, nil) or _M.failure(kind, failure), at
    end
    local has_value = status == "VA" and asked.value
    if not has_value and not (status == "HD" and (not asked.value or asked.if_changed)) then
        return lost(kind, at, "bad reply: unexpected line")
    end
    local item, wrong = fields(cmd, words, has_value and 3 or 2)
    for letter in asked.fields:gmatch(".") do
        if item and item[NAMES[letter]] == nil then item, wrong = nil, "bad reply: unexpected flags" end
    end
    if not item then return lost(kind, at, wrong) end
    if not has_value then return meta_results(kind, item), at end
    local len = words[2] or ""
    if not len:find("^%d+$") then return lost(kind, at, "bad reply: unexpected line") end
    if not is_number(len) then return lost(kind, at, "bad reply: value length out of range") end
    if exceeds(len, tostring(MAX_VALUE)) then
        return lost(kind, at, "bad reply: value of " .. len:gsub("^0+", "")
            .. " bytes exceeds the limit of " .. MAX_VALUE)
    end
    len = tonumber(len)
    local data, behind = s:sub(at, at + len - 1), s:sub(at + len, at + len + 1)
    if #data < len then return nil end
    if behind ~= ("\r\n"):sub(1, #behind) then return lost(kind, at, "bad reply: no CRLF after value") end
    if #behind < 2 then return nil end
    if kind == "ma" and not (data:find("^%d+$") and #data <= 20) then
        return lost(kind, at, "bad reply: value is not a number")
    end
    item.value = data
    return meta_results(kind, item), at + len + 2
end

local function one(cmd, s, at)
    if cmd.asked then return meta(cmd, s, at) end
    if cmd.kind == "get" or cmd.kind == "gets" then return retrieval(cmd, s, at) end
    if cmd.kind == "stats" then return stats(cmd, s, at) end
    return single(cmd, s, at)
end

-- A pipeline's commands each get what they would have got by themselves, the
-- first one that fails its error, and those behind it `closed`.
local function pipeline(cmd, s, at, err)
    local results, broken, cut, maybe = {}, false, false, nil
    for i, part in ipairs(cmd.parts) do
        local values, next_at, is_lost
        if not broken then values, next_at, is_lost, maybe = one(part, s, at) end
        if values then
            at, broken = next_at, is_lost
            -- a miss is an empty table
            if values.n > 1 and table.maxn(values) == 0 then values = pack() end
        else
            values = _M.failure(part.kind, not broken and err or "closed")
            cut = cut or not broken
            broken = true
        end
        results[i] = values
    end
    return { n = 2, results, pipeline = true }, at, broken, cut, maybe
end

-- Results for the bytes `s` of which nothing more comes but the error `err`;
-- where the next reply begins, whether that is unknown, whether the reply was
-- incomplete, and whether all is well if more came with the bytes. `ends`:
-- where the pieces end in which they come, if not in one.
function _M.expect(cmd, s, err, ends)
    pieces = ends or { #s }
    if cmd.parts then return pipeline(cmd, s, 1, err) end
    local values, at, is_lost, maybe = one(cmd, s, 1)
    if not values then
        return _M.failure(cmd.list and "list" or cmd.kind, err), #s + 1, true, true
    end
    return values, at, is_lost or false, false, maybe
end

return _M
