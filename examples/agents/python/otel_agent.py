"""An agent in Python, one process a task, with the stock OpenTelemetry SDK.

    aglq run --tasks examples/agents/tasks.jsonl -- python examples/agents/python/otel_agent.py

Where its spans go, and which attempt they belong to, the SDK finds in the OTEL_*
variables of the environment. It needs opentelemetry-sdk and
opentelemetry-exporter-otlp-proto-http.
"""

import json
import sys

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def main():
    task = json.load(sys.stdin)
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    with provider.get_tracer("adder").start_as_current_span("add") as span:
        total = sum(task["numbers"])
        span.set_attributes({"numbers": task["numbers"], "sum": total})
    provider.shutdown()  # sends what is left
    print(json.dumps({"reward": 1.0 if total == task["answer"] else 0.0}))


main()
