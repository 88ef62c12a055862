# What schemathesis has to be told that openapi.yaml can't say (see tools/api-check.sh).
import json

import schemathesis
from hypothesis import strategies as st
from datetime import datetime

OPAQUE = ("cursor", "after", "position")  # signed, or given out by a write: nobody can make one up


def within_64_bits(v):
    if isinstance(v, dict):
        return {k: within_64_bits(x) for k, x in v.items()}
    if isinstance(v, list):
        return [within_64_bits(x) for x in v]
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
        case.body = within_64_bits(case.body)


@schemathesis.serializer("application/x-ndjson")
def ndjson(context, value):
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "surrogatepass")


# Items are not published in the future, nor before 1970.
schemathesis.openapi.format(
    "date-time",
    st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2024, 1, 1)).map(lambda t: t.isoformat(timespec="milliseconds") + "Z"),
)
