-- wrk -t1: the page of each reader once, in order. wrk itself knows only a duration, so the end is made here: it
-- prints how many were answered, and how many of these not well, and exits.
-- Arguments: a file of readers, one a line; the key; the query.
local readers, key, query = {}, "", ""
local sent, answered, bad, sample = 0, 0, 0, ""

function init(args)
    for name in io.lines(args[1]) do readers[#readers + 1] = name end
    key, query = args[2], args[3]
    wrk.headers["Authorization"] = "Bearer " .. key
end

function request()
    sent = sent + 1
    return wrk.format("GET", "/v1/users/" .. readers[(sent - 1) % #readers + 1] .. "/feed?" .. query)
end

function response(status, _, body)
    answered = answered + 1
    if status ~= 200 then bad, sample = bad + 1, body end
    if answered >= #readers + 64 then
        print("answered " .. answered .. " bad " .. bad .. " " .. sample)
        io.stdout:flush()
        os.exit(bad == 0)
    end
end
