-- The meta commands with their replies, see faultcases.lua, and faults of their
-- words.

local _M = {}

-- Bytes that stand for the digits of the first opaque of a request, and of the
-- second: FaultServer puts the digits in.
local function digits(n)
    local bytes = {}
    for i = 1, 8 do bytes[i] = string.char(0x78 + 8 * n + i - 1) end
    return table.concat(bytes)
end
local O, O2 = "O" .. digits(1), "O" .. digits(2)
_M.O = O

-- Adds them by `add`. `K`: what is expected of a get of `k`.
function _M.add(add, K)
    -- `asked`: what the reply depends on, see faultoracle.lua.
    local function meta(verb, name, request, reply, want, asked, call)
        request, reply = request:gsub(" O", " " .. O), reply:gsub(" O", " " .. O)
        return add(verb, name, request, reply, want, call,
            { meta = true, asked = asked, opaque = O })
    end

    local NO_MEMORY, WRONG = "SERVER_ERROR out of memory", "CLIENT_ERROR bad data chunk"

    local function mg(name, flags, reply, want, asked, options)
        meta("mg", "meta_get" .. name, "mg k O" .. flags .. "\r\n", reply, want, asked,
            function(m) return m:meta_get("k", options) end)
    end
    local VALUE = { value = true, fields = "" }
    mg("", " v", "VA 5 O\r\nhello\r\n", '{value="hello"}, nil', VALUE)
    mg(" of all fields", " v f c t s h l", "VA 1 O f7 c4711 t-1 s1 h1 l30\r\nx\r\n",
        '{cas="4711", flags="7", hit=true, last_access=30, size=1, ttl=-1, value="x"}, nil',
        { value = true, fields = "fctshl" },
        { flags = true, cas = true, ttl = true, size = true, hit = true, last_access = true })
    mg(" of what looks like a reply", " v", "VA 6 O\r\nHD\r\n\r\n\r\n", '{value="HD\\r\\n\\r\\n"}, nil', VALUE)
    mg(" without the value", " t h", "HD O t60 h0\r\n", "{hit=false, ttl=60}, nil", { fields = "th" },
        { value = false, ttl = true, hit = true })
    mg(", won", " N60 v", "VA 0 O W\r\n\r\n", '{value="", won=true}, nil', VALUE, { vivify = 60 })
    mg(", stale", " v", "VA 1 O X Z\r\nx\r\n", '{lost=true, stale=true, value="x"}, nil', VALUE)
    mg(", not changed", " C5 v", "HD O\r\n", "{}, nil", { value = true, if_changed = true, fields = "" },
        { if_changed = 5 })
    mg(", miss", " v", "EN\r\n", "nil, nil", VALUE)
    mg(", error", " v", NO_MEMORY .. "\r\n", 'nil, "' .. NO_MEMORY .. '"', VALUE)

    local function ms(name, flags, reply, want, fields, options)
        return meta("ms", "meta_set" .. name, "ms k 3 O" .. flags .. "\r\nv\r\n\r\n", reply, want, { fields = fields },
            function(m) return m:meta_set("k", "v\r\n", options) end)
    end
    ms("", "", "HD O\r\n", "{}, nil", "")
    ms(" with fields", " T60 F5 c s", "HD O c12 s3\r\n", '{cas="12", size=3}, nil', "cs",
        { ttl = 60, flags = 5, return_cas = true, return_size = true })
    ms(", refused", " ME", "NS O\r\n", 'nil, "NOT_STORED"', "", { mode = "add" })
    ms(", changed", " C5", "EX O\r\n", 'nil, "EXISTS"', "", { cas = 5 })
    ms(", gone", " C5", "NF\r\n", 'nil, "NOT_FOUND"', "", { cas = 5 })
    ms(", error", "", NO_MEMORY .. "\r\n", 'nil, "' .. NO_MEMORY .. '"', "")
    -- the value behind it may have been executed
    ms(", bad line", "", WRONG .. "\r\n", 'nil, "' .. WRONG .. '"', "")

    local function md(name, reply, want)
        meta("md", "meta_delete" .. name, "md k O\r\n", reply, want, { fields = "" },
            function(m) return m:meta_delete("k") end)
    end
    md("", "HD O\r\n", "1, nil")
    md(", miss", "NF O\r\n", 'nil, "NOT_FOUND"')
    md(", changed", "EX O\r\n", 'nil, "EXISTS"')
    md(", error", WRONG .. "\r\n", 'nil, "' .. WRONG .. '"')

    local function ma(name, flags, reply, want, fields, options)
        meta("ma", "meta_arith" .. name, "ma k O" .. flags .. "\r\n", reply, want, { value = true, fields = fields },
            function(m) return m:meta_arith("k", options) end)
    end
    ma("", " v", "VA 4 O\r\n1234\r\n", '"1234", nil, nil', "")
    ma(" with the time", " D5 v t", "VA 2 O t60\r\n17\r\n", '"17", nil, 60', "t", { delta = 5, return_ttl = true })
    ma(", miss", " v", "NF O\r\n", 'nil, "NOT_FOUND", nil', "")
    ma(", error", " v", WRONG .. "\r\n", 'nil, "' .. WRONG .. '", nil', "")

    add("pipeline", "a pipeline of meta commands",
        "ms k 1 " .. O .. "\r\nv\r\ngat 60 k\r\nma k " .. O2 .. " v\r\n",
        "HD " .. O .. "\r\nVALUE k 0 1\r\nv\r\nEND\r\nVA 2 " .. O2 .. "\r\n17\r\n",
        '{{{}}, {"v", "0"}, {"17"}}, nil',
        function(m)
            assert(m:init_pipeline() == nil)
            m:meta_set("k", "v")
            m:gat("k", 60)
            m:meta_arith("k")
            return m:commit_pipeline()
        end,
        { meta = true, parts = {
            { kind = "ms", asked = { fields = "" }, opaque = O },
            { kind = "get", keys = K.keys, count = 1 },
            { kind = "ma", asked = { value = true, fields = "" }, opaque = O2 },
        } })
end

-- Every word of every line of a meta command's reply replaced, left out, doubled, or with another
-- one behind it.
local NUMBERS = { "", "-1", "-2", "1.5", "0x1", "00", "007", "4294967295", "4294967296",
    "18446744073709551615", "18446744073709551616", ("1"):rep(20), ("1"):rep(21), ("9"):rep(100) }
local WORDS = { "HD", "VA", "EN", "NS", "EX", "NF", "NM", "MN", "OK", "HDO", "hd", "VALUE", "",
    "O", "Offffffff", "O0", O .. "0", O, "W", "X", "Z", "Wx", "q", "f1", "c1", "t1", "s1", "h1", "h2", "l1", " " }

function _M.words(commands)
    local cases = {}
    for _, cmd in ipairs(commands) do
        local line, rest = cmd.reply:match("^([^\r]*)(\r.*)")
        local words = {}
        if cmd.asked and not cmd.reply:find("ERROR") then
            for word in line:gmatch("[^ ]+") do words[#words + 1] = word end
        end
        local function try(changed, label)
            cases[#cases + 1] = { cmd = cmd, label = cmd.name .. ", " .. label,
                                  steps = { { "send", table.concat(changed, " ") .. rest } } }
        end
        for i, word in ipairs(words) do
            local function with(other, behind)
                local changed = { unpack(words) }
                changed[i] = other
                if behind then table.insert(changed, i + 1, behind) end
                return changed
            end
            for _, other in ipairs(WORDS) do
                try(with(other), ("%s for word %d"):format(other, i))
                try(with(word, other), ("%s behind word %d"):format(other, i))
            end
            local letter = word:match("^%d+$") and "" or word:match("^([fctshl])[%d-]+$")
            for _, number in ipairs(letter and NUMBERS or {}) do
                try(with(letter .. number), ("%s%s for word %d"):format(letter, number:sub(1, 30), i))
            end
        end
    end
    return cases
end

return _M
