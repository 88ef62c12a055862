-- wrk: one publish a request, body of about 1 KB, no two alike. Arguments: the key; a publisher (without: 100 of them, with a topic).
local key, n, who = "", 0, tostring({}):sub(8)
local text = string.rep("feedmill measures what it says. ", 32)
local publisher = nil

function init(args)
    key, publisher = args[1], args[2]
    wrk.headers["Authorization"] = "Bearer " .. key
    wrk.headers["Content-Type"] = "application/json"
end

function request()
    n = n + 1
    return wrk.format("POST", "/v1/items", nil, string.format(
        '{"publisher":"%s","external_id":"%s-%d","title":"Item %d","body":"%s","topics":[%s]}',
        publisher or "bench-" .. n % 100, who, n, n, text, publisher and "" or '"bench"'))
end
