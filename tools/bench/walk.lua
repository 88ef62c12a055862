-- wrk: the requests of a file, one after the other and over again; the threads begin at different places.
-- Arguments: a file of targets, one a line, each may be followed by a tab and a header of its own; the key; a header for all.
-- There is no response(): it would make a copy of each body. wrk itself counts what is neither 2xx nor 3xx.
local threads = 0

function setup(thread)
    thread:set("place", threads)
    threads = threads + 1
end

local requests, at = {}, 0

local function add(headers, text)
    local name, value = text:match("^([^:]+): (.*)$")
    if name then headers[name] = value end
end

function init(args)
    for line in io.lines(args[1]) do
        local headers = { ["Authorization"] = "Bearer " .. args[2] }
        local target, own = line:match("^([^\t]*)\t?(.*)$")
        add(headers, own)
        add(headers, args[3] or "")
        requests[#requests + 1] = wrk.format("GET", target, headers)
    end
    at = math.floor(#requests * place / 2)
end

function request()
    at = at % #requests + 1
    return requests[at]
end
