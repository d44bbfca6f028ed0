-- Open pipelines. The methods of commands look for one in `_reqs`.
local native, glue = ...

local rawequal, rawget, type = rawequal, rawget, type

local new_pipeline, pipeline_length = native.new_pipeline, native.pipeline_length
local commit, finish_commit = native.commit, native.finish_commit
local not_initialized = native.not_initialized

local AGAIN, ATTEMPTS = native.again, 100

local _M, group = glue.module, glue.group

-- The server may have to be asked first what it can do. It is asked once for a connection; others
-- may be opened and lost meanwhile.
local function commit_checked(sock, id, pipeline)
    for _ = 1, ATTEMPTS do
        local results, err = finish_commit(pipeline, sock, id, commit(id, pipeline))
        if results ~= AGAIN then
            return results, err
        end
    end
    return nil, "the version of the server is unknown"
end

glue.commit, glue.attempts = commit_checked, ATTEMPTS

function _M.init_pipeline(self, n)
    if self._reqs then
        return "already init pipeline"
    end
    if n and type(n) ~= "number" then
        return "bad n arg: number expected, but got " .. type(n)
    end
    self._reqs = new_pipeline()
    return nil
end

function _M.cancel_pipeline(self)
    self._reqs = nil
end

function _M.commit_pipeline(self)
    local pipeline = rawget(self, "_reqs")
    self._reqs = nil
    if not pipeline then
        return nil, "no pipeline"
    end
    local sock = self.sock
    if not sock then
        return nil, not_initialized(self, rawequal(self, _M))
    end
    if pipeline_length(pipeline) == 0 then
        return nil, "no more cmds"
    end
    local id = sock[ID]
    if not id then
        if sock[GROUP] then
            return group.commit_pipeline(self, sock, pipeline)
        end
        id = sock
    end
    return commit_checked(sock, id, pipeline)
end
