# What schemathesis has to be told that openapi.yaml can't say (see tools/api-check.sh).
import json
from datetime import datetime, timezone

import schemathesis
from hypothesis import strategies as st

OPAQUE = ("cursor", "after", "position")  # signed, or given out by a write: nobody can make one up


# Items are not published in the future.
def not_ahead(text):
    try:
        ahead = datetime.fromisoformat(text.replace("Z", "+00:00")) > datetime.now(timezone.utc)
    except (TypeError, ValueError):
        return text
    return "2020-01-02T03:04:05.678Z" if ahead else text


# Numbers that the server can hold; DEL, which gets through the pattern of names now and then.
def sendable(v):
    if isinstance(v, dict):
        return {k: not_ahead(x) if k == "published_at" and isinstance(x, str) else sendable(x) for k, x in v.items()}
    if isinstance(v, list):
        return [sendable(x) for x in v]
    if isinstance(v, str):
        return v.replace("\x7f", "_")
    return 0 if isinstance(v, (int, float)) and abs(v) >= 2**63 else v


@schemathesis.hook
def before_call(context, case, kwargs):
    meta = case.meta
    if meta is None or not meta.generation.mode.is_positive:
        return
    for name in OPAQUE:
        if case.query:
            case.query.pop(name, None)
    if isinstance(case.body, dict):
        case.body = sendable(case.body)
    if case.path_parameters:
        case.path_parameters = {
            k: v.replace("%7F", "_") if isinstance(v, str) else v for k, v in sendable(dict(case.path_parameters)).items()
        }  # some come encoded


@schemathesis.serializer("application/x-ndjson")
def ndjson(context, value):
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "surrogatepass")


# Nor before 1970.
schemathesis.openapi.format(
    "date-time",
    st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2024, 1, 1)).map(lambda t: t.isoformat(timespec="milliseconds") + "Z"),
)
