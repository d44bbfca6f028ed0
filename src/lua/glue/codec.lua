-- Objects with a codec: values are of any type, and stored as the codec says. Other objects know
-- nothing of all this. A codec is called before anything is sent, and after a whole reply was
-- received, because it may yield or raise.
local native, glue = ...

local pairs, pcall, rawget, require = pairs, pcall, rawget, require
local setmetatable, type = setmetatable, type

local php_encode, php_decode = native.php_encode, native.php_decode
local pipeline_length = native.pipeline_length

local _M = glue.module

-- the codec "php"

local cjson

local function json()
    if not cjson then
        local found, module = pcall(require, "cjson.safe")
        if not found then
            return nil, "JSON needs the Lua module cjson.safe, which is not installed"
        end
        cjson = module
    end
    return cjson
end

local function is_null(value)
    return type(value) == "userdata" and value == ngx.null
end

local php = {}

function php.encode(value, flags)
    local is_json = type(value) == "table" or is_null(value)
    if is_json then
        local module, err = json()
        if not module then
            return nil, err
        end
        value, err = module.encode(value)
        if not value then
            return nil, err
        end
    end
    return php_encode(value, flags, is_json)
end

function php.decode(text, flags)
    local value, user, is_json = php_decode(text, flags)
    if is_json then
        local module, err = json()
        if not module then
            return nil, err
        end
        value, err = module.decode(value)
        if value == nil then
            return nil, "bad PHP value: " .. err
        end
    end
    return value, user
end

local function codec_of(option)
    if option == "php" then
        return php
    end
    if type(option) == "table" then
        local encode, decode = option.encode, option.decode
        if type(encode) == "function" and type(decode) == "function" then
            return { encode = encode, decode = decode }
        end
        return nil, "bad codec option: expecting functions encode and decode"
    end
    if type(option) == "string" then
        option = '"' .. option .. '"'
    else
        option = "a " .. type(option)
    end
    return nil, 'bad codec option: expecting "php" or a table, got ' .. option
end

-- Text and flags. Flags are those of the codec or else, those given.
local function encoded(self, value, flags)
    local text, own = self.codec.encode(value, flags)
    if text == nil then
        return nil, own or "the value cannot be encoded"
    end
    return text, own or flags
end

-- Value and flags, or nil, nil and an error.
local function decoded(self, text, flags)
    local value, own = self.codec.decode(text, flags)
    if value ~= nil then
        return value, own or flags
    end
    return nil, nil, own
end

-- What of an open pipeline is to be decoded, by its place in the results.
local function note(self, form)
    local pipeline = rawget(self, "_reqs")
    if pipeline then
        local forms = rawget(self, "_forms") or {}
        forms[pipeline_length(pipeline)] = form
        self._forms = forms
    end
end

local Coded = setmetatable({}, { __index = _M })

function Coded.set(self, key, value, exptime, flags)
    local text, own = encoded(self, value, flags)
    if text == nil then
        return nil, own
    end
    return _M.set(self, key, text, exptime, own)
end

function Coded.add(self, key, value, exptime, flags)
    local text, own = encoded(self, value, flags)
    if text == nil then
        return nil, own
    end
    return _M.add(self, key, text, exptime, own)
end

function Coded.replace(self, key, value, exptime, flags)
    local text, own = encoded(self, value, flags)
    if text == nil then
        return nil, own
    end
    return _M.replace(self, key, text, exptime, own)
end

function Coded.cas(self, key, value, cas_unique, exptime, flags)
    local text, own = encoded(self, value, flags)
    if text == nil then
        return nil, own
    end
    return _M.cas(self, key, text, cas_unique, exptime, own)
end

-- The results of several keys. `errors`: those of a group's servers.
local function decode_list(self, found, err, errors)
    for key, item in pairs(found or {}) do
        local value, flags, failure = decoded(self, item[1], item[2])
        if failure then
            item[1], item.err = nil, failure
        elseif value == nil then
            found[key] = nil
        else
            item[1], item[2] = value, flags
        end
    end
    if errors then
        return found, err, errors
    end
    return found, err
end

local function decode_value(self, value, flags, err)
    if type(value) ~= "string" then
        return value, flags, err
    end
    return decoded(self, value, flags)
end

local function decode_versioned(self, value, flags, cas, err)
    if type(value) ~= "string" then
        return value, flags, cas, err
    end
    local failure
    value, flags, failure = decoded(self, value, flags)
    if value == nil then
        return nil, nil, nil, failure
    end
    return value, flags, cas
end

function Coded.get(self, key)
    if type(key) == "table" then
        return decode_list(self, _M.get(self, key))
    end
    local value, flags, err = _M.get(self, key)
    note(self, "value")
    return decode_value(self, value, flags, err)
end

function Coded.gets(self, key)
    if type(key) == "table" then
        return decode_list(self, _M.gets(self, key))
    end
    return decode_versioned(self, _M.gets(self, key))
end

function Coded.gat(self, key, exptime)
    if type(key) == "table" then
        return decode_list(self, _M.gat(self, key, exptime))
    end
    local value, flags, err = _M.gat(self, key, exptime)
    note(self, "value")
    return decode_value(self, value, flags, err)
end

function Coded.gats(self, key, exptime)
    if type(key) == "table" then
        return decode_list(self, _M.gats(self, key, exptime))
    end
    local value, flags, cas, err = _M.gats(self, key, exptime)
    note(self, "versioned")
    return decode_versioned(self, value, flags, cas, err)
end

local function copy(options)
    local result = {}
    for name, value in pairs(options or {}) do
        result[name] = value
    end
    return result
end

local function decode_item(self, item, hide)
    if type(item) == "table" and item.value then
        local value, flags, err = decoded(self, item.value, item.flags)
        item.value, item.flags, item.err = value, flags, err
    end
    -- one that has not changed has flags without a value
    if hide and type(item) == "table" then
        item.flags = nil
    end
    return item
end

-- Without the flags, no value can be decoded.
function Coded.meta_get(self, key, options)
    local hide = options == nil
        or type(options) == "table" and options.value ~= false and not options.flags
    if hide then
        options = copy(options)
        options.flags = true
    end
    local item, err = _M.meta_get(self, key, options)
    note(self, hide and "bare item" or "item")
    return decode_item(self, item, hide), err
end

function Coded.meta_set(self, key, value, options)
    local given = type(options) == "table" and options or nil
    local mode = given and given.mode
    if options ~= given or mode == "append" or mode == "prepend" then
        return _M.meta_set(self, key, value, options)
    end
    local text, own = encoded(self, value, given and given.flags)
    if text == nil then
        return nil, own
    end
    options = copy(given)
    options.flags = own
    return _M.meta_set(self, key, text, options)
end

function Coded.init_pipeline(self, n)
    local err = _M.init_pipeline(self, n)
    if not err then
        self._forms = nil
    end
    return err
end

function Coded.commit_pipeline(self)
    local forms = rawget(self, "_forms")
    self._forms = nil
    local results, err = _M.commit_pipeline(self)
    if not results or not forms then
        return results, err
    end
    for i, form in pairs(forms) do
        local result = results[i]
        if form == "value" then
            results[i] = result[1] and { decode_value(self, result[1], result[2]) } or result
        elseif form == "versioned" then
            results[i] = result[1] and { decode_versioned(self, result[1], result[2], result[3]) } or result
        else
            decode_item(self, result[1], form == "bare item")
        end
    end
    return results, err
end

local metatable = { __index = Coded }

glue.coded, glue.codec_of = Coded, codec_of

-- The object, with a codec.
function glue.with_codec(object, option)
    local codec, err = codec_of(option)
    if not codec then
        return nil, err
    end
    object.codec = codec
    return setmetatable(object, metatable)
end
