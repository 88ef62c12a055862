-- wrk: pages of random readers. Arguments: a file of readers, one a line; the key; the query.
local readers, key, query = {}, "", ""

function init(args)
    for name in io.lines(args[1]) do readers[#readers + 1] = name end
    key, query = args[2], args[3]
    math.randomseed(tonumber(tostring({}):sub(8)) or 1)
    wrk.headers["Authorization"] = "Bearer " .. key
end

function request()
    return wrk.format("GET", "/v1/users/" .. readers[math.random(#readers)] .. "/feed?" .. query)
end

local bad, sample = 0, nil
function response(status, _, body)
    if status ~= 200 then bad, sample = bad + 1, sample or body end
end
