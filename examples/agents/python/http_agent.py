"""The same agent as a server: a task a request, and many of them at a time.

    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://localhost:4747/v1/traces python examples/agents/python/http_agent.py 8000
    aglq worker --store-url http://localhost:4747 --concurrency 8 --http http://localhost:8000/

Requests share the process, and so its environment. Their spans find their attempts
by the headers: baggage has the ids, traceparent the span of the worker to be below.
"""

import http.server
import json
import sys

from opentelemetry import baggage, context, propagate
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


class BaggageOnSpans(SpanProcessor):
    """Copies the baggage onto each span, as opentelemetry-processor-baggage does too."""

    def on_start(self, span, parent_context=None):
        for key, value in baggage.get_all(parent_context).items():
            span.set_attribute(key, value)

    def force_flush(self, timeout_millis=30000):
        return True  # it keeps nothing; the processors that follow are flushed only then


provider = TracerProvider()
provider.add_span_processor(BaggageOnSpans())
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
tracer = provider.get_tracer("adder")


def solve(task):
    with tracer.start_as_current_span("solve"):
        with tracer.start_as_current_span("add") as span:
            total = sum(task["numbers"])
            span.set_attributes({"numbers": task["numbers"], "sum": total})
    return 1.0 if total == task["answer"] else 0.0


class Rollouts(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        token = context.attach(propagate.extract(headers))
        try:
            answer = {"reward": solve(message["input"])}
        except Exception as error:
            answer = {"error": {"type": type(error).__name__, "message": str(error)}}
        finally:
            context.detach(token)
        provider.force_flush()  # the spans are stored before the task is over
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Rollouts)
print(f"listening on port {server.server_address[1]}", flush=True)
server.serve_forever()
