"""An agent in plain Python: it adds numbers and reports the step as a span.

    aglq run --tasks examples/agents/tasks.jsonl -- python3 examples/agents/python/agent.py

It needs nothing but the standard library: the span travels as OTLP in JSON to the
endpoint in the environment. An agent with an OpenTelemetry SDK does not have to
do that by hand, see examples/digits/agent.py.
"""

import json
import os
import secrets
import sys
import time
import urllib.parse
import urllib.request


def send_span(name, start, attributes):
    """Files a span under this attempt; without an endpoint it does nothing."""
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if not endpoint:
        return
    identity = {
        "agentlightning.rollout_id": os.environ["AGL_ROLLOUT_ID"],
        "agentlightning.attempt_id": os.environ["AGL_ATTEMPT_ID"],
    }
    span = {
        "traceId": secrets.token_hex(16),
        "spanId": secrets.token_hex(8),
        "name": name,
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(time.time_ns()),
        "attributes": texts(attributes),
        "status": {"code": 1},
    }
    body = {"resourceSpans": [{"resource": {"attributes": texts(identity)}, "scopeSpans": [{"spans": [span]}]}]}
    request = urllib.request.Request(endpoint, json.dumps(body).encode(), {"Content-Type": "application/json"})
    for header in filter(None, os.environ.get("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "").split(",")):
        key, _, value = header.partition("=")
        request.add_header(key, urllib.parse.unquote(value))
    urllib.request.urlopen(request, timeout=10).close()


def texts(attributes):
    return [{"key": key, "value": {"stringValue": str(value)}} for key, value in attributes.items()]


def main():
    task = json.load(sys.stdin)
    start = time.time_ns()
    total = sum(task["numbers"])
    send_span("add", start, {"numbers": task["numbers"], "sum": total})
    print(f"the sum is {total}")
    print(json.dumps({"reward": 1.0 if total == task["answer"] else 0.0}))


main()
