use lib 't/lib';
use TestEnv;
use Test::Nginx::Socket::Lua;

# Random calls, valid and invalid: a client answers what an object answers. Each has a memcached of
# its own, which gets the same commands. CLIENT_CALLS: how many; CLIENT_SEED: another
# beginning of the random numbers.

our $Calls = $ENV{CLIENT_CALLS} || 3000;
our $Seed  = $ENV{CLIENT_SEED}  || 1;
our $Other = TestEnv::start_memcached();

our $HttpConfig = TestEnv::head(
    skip => 'the reference has no clients',
    init => <<"LUA" . <<'LUA',
        SEED, CALLS, OTHER = $Seed, $Calls, $Other
LUA
        client = require "resty.memcached.client"

        local random = math.random
        local function pick(list) return list[random(list.n or #list)] end

        local KEYS = { "a", "b", "c d", "\0\r\n", "", ("k"):rep(250), ("k"):rep(251), 17, "none", n = 9 }
        local ODD = { nil, true, {}, 1.5, -1, 0/0, "x", "", print, n = 9 }
        local VALUES = { "v", "", 1, 2.5, "7", ("x"):rep(70000), { "x", { 1, "y" } }, { {} }, nil, false, n = 10 }
        local TIMES = { nil, 0, 100, "100", -1, "soon", 1.5, n = 7 }
        local FLAGS = { nil, 0, 7, 4294967295, 4294967296, "9", "x", n = 7 }
        local DELTAS = { 1, 5, "3", 0, -1, 1.5, "x", n = 7 }

        local function key()
            if random(20) == 1 then return pick(ODD) end
            return pick(KEYS)
        end
        local function keys()
            if random(3) > 1 then return key() end
            local list = {}
            for i = 1, random(0, 4) do list[i] = pick(KEYS) end
            return list
        end
        local function options(of)
            local result = {}
            for name, values in pairs(of) do
                if random(4) == 1 then result[name] = pick(values) end
            end
            if random(30) == 1 then result.what = 1 end
            return random(5) > 1 and result or nil
        end
        local BOOLEAN, TTL = { true, false, 1 }, { 100, 0, -1, "60", "x" }

        -- Methods with what makes their arguments. The clocks of two memcacheds tick at different times,
        -- so nothing is flushed here, and no remaining time is asked for.
        local METHODS = {
            get = function() return 1, keys() end,
            gets = function() return 1, keys() end,
            gat = function() return 2, keys(), pick(TIMES) end,
            gats = function() return 2, keys(), pick(TIMES) end,
            set = function() return 4, key(), pick(VALUES), pick(TIMES), pick(FLAGS) end,
            add = function() return 4, key(), pick(VALUES), pick(TIMES), pick(FLAGS) end,
            replace = function() return 4, key(), pick(VALUES), pick(TIMES), pick(FLAGS) end,
            append = function() return 4, key(), pick(VALUES), pick(TIMES), pick(FLAGS) end,
            prepend = function() return 4, key(), pick(VALUES), pick(TIMES), pick(FLAGS) end,
            cas = function()
                return 5, key(), pick(VALUES), pick{ "1", 2, random(CALLS), "x" }, pick(TIMES), pick(FLAGS)
            end,
            touch = function() return 2, key(), pick(TIMES) end,
            delete = function() return 1, key() end,
            incr = function() return 2, key(), pick(DELTAS) end,
            decr = function() return 2, key(), pick(DELTAS) end,
            flush_all = function() return 1, "x" end,
            version = function() return 0 end,
            verbosity = function() return 1, pick{ 1, "1", "x", -1 } end,
            meta_get = function()
                return 2, key(), options{ value = BOOLEAN, flags = BOOLEAN, cas = BOOLEAN, size = BOOLEAN,
                    touch = TTL, hit = BOOLEAN, no_bump = BOOLEAN, vivify = TTL }
            end,
            meta_set = function()
                return 3, key(), pick(VALUES), options{ flags = FLAGS, ttl = TTL, invalidate = BOOLEAN,
                    mode = { "add", "append", "replace", "what" } }
            end,
            meta_delete = function() return 2, key(), options{ invalidate = BOOLEAN, ttl = TTL } end,
            meta_arith = function()
                return 2, key(), options{ delta = DELTAS, decr = BOOLEAN, vivify = TTL, initial = DELTAS }
            end,
        }
        local NAMES = {}
        for name in pairs(METHODS) do NAMES[#NAMES + 1] = name end
        table.sort(NAMES)
        local COMMON = { "get", "set", "set", "add", "incr", "gets" }

        local function made(name, n, ...) return { name, n = n, ... } end

        function a_call(not_in_pipelines)
            local name = random(3) == 1 and pick(COMMON) or pick(NAMES)
            if not_in_pipelines and not_in_pipelines[name] then return a_call(not_in_pipelines) end
            return made(name, METHODS[name]())
        end

        function run(target, call)
            return target[call[1]](target, unpack(call, 2, call.n + 1))
        end

        -- Results, or what is raised without its position. After decr, memcached sometimes fills up a
        -- number with spaces, depending on who else holds the item at that moment.
        function did(f, ...)
            return (kit.raise_text(f, ...):gsub('"(%d+) +"', '"%1"'))
        end
LUA
);

run_tests();

__DATA__

=== TEST 1: single commands
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            math.randomseed(SEED)
            local memc = client.new{ server = "127.0.0.1:" .. kit.port, timeouts = 5000 }
            local wrong, results = 0, 0
            for i = 1, CALLS do
                local call = a_call()
                -- an object that is not closed by what was before
                local object = kit.connect(OTHER)
                local expected = did(run, object, call)
                object:set_keepalive()
                local got = did(run, memc, call)
                if got:find("returned 1", 1, true) then results = results + 1 end
                if got ~= expected and wrong < 10 then
                    wrong = wrong + 1
                    ngx.say("seed ", SEED, ", call ", i, ": ", kit.fmt(call):sub(1, 300), "\n got ", got, "\n for ", expected)
                end
            end
            ngx.say(wrong, " wrong, stored much: ", results > CALLS / 20)
        }
    }
--- request
GET /t
--- response_body
0 wrong, stored much: true
--- no_error_log
[error]
--- timeout: 60



=== TEST 2: pipelines
--- http_config eval: $::HttpConfig
--- config
    location = /t {
        content_by_lua_block {
            math.randomseed(SEED)
            local memc = client.new{ server = "127.0.0.1:" .. kit.port, timeouts = 5000 }
            local wrong, long = 0, 0
            -- these do not wait for the end of an object's pipeline, nor do lists of keys
            local at_once = { gets = true, cas = true, flush_all = true, version = true }
            for i = 1, CALLS / 10 do
                local calls = {}
                while #calls < math.random(8) do
                    local call = a_call(at_once)
                    if type(call[2]) ~= "table" then calls[#calls + 1] = call end
                end
                local object = kit.connect(OTHER)
                object:init_pipeline()
                local expected = {}
                for n, call in ipairs(calls) do expected[n] = did(run, object, call) end
                expected[#expected + 1] = did(object.commit_pipeline, object)
                object:set_keepalive()
                local got = {}
                got[#calls + 1] = did(memc.pipeline, memc, function(p)
                    for n, call in ipairs(calls) do got[n] = did(run, p, call) end
                end)
                if #got > 4 then long = long + 1 end
                for n = 1, #expected do
                    if got[n] ~= expected[n] and wrong < 10 then
                        wrong = wrong + 1
                        ngx.say("seed ", SEED, ", pipeline ", i, ", at ", n, ": ", kit.fmt(calls[n]):sub(1, 300), "\n got ",
                            got[n], "\n for ", expected[n])
                    end
                end
            end
            ngx.say(wrong, " wrong, long ones: ", long > 0)
        }
    }
--- request
GET /t
--- response_body
0 wrong, long ones: true
--- no_error_log
[error]
--- timeout: 60
