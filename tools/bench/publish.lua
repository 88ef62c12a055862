-- wrk: one publish a request, body of about 1 KB, no two alike. Arguments: the key.
local key, n, who = "", 0, tostring({}):sub(8)
local text = string.rep("feedmill measures what it says. ", 32)

function init(args)
    key = args[1]
    wrk.headers["Authorization"] = "Bearer " .. key
    wrk.headers["Content-Type"] = "application/json"
end

function request()
    n = n + 1
    return wrk.format("POST", "/v1/items", nil, string.format(
        '{"publisher":"bench-%d","external_id":"%s-%d","title":"Item %d","body":"%s","topics":["bench"]}',
        n % 100, who, n, n, text))
end
