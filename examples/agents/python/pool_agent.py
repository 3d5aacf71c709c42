"""The same agent as a program that stays: a task a line, an answer a line.

    aglq run --bridge pool --tasks examples/agents/tasks.jsonl -- python examples/agents/python/pool_agent.py

What takes long to import or to load is done once, not for each task.
"""

import json
import os
import sys
import traceback

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def solve(task, tracer):
    with tracer.start_as_current_span("add") as span:
        total = sum(task["numbers"])
        span.set_attributes({"numbers": task["numbers"], "sum": total})
    return 1.0 if total == task["answer"] else 0.0


def main():
    for line in sys.stdin:
        message = json.loads(line)
        os.environ.update(message["env"])  # what a program of one task finds in its environment
        provider = TracerProvider()  # of this task: its spans carry this task's ids
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        answer = {"id": message["id"]}
        try:
            answer["reward"] = solve(message["input"], provider.get_tracer("adder"))
        except Exception as error:
            answer["error"] = {"type": type(error).__name__, "message": str(error), "stack": traceback.format_exc()}
        provider.shutdown()  # the spans are stored before the task is over
        print(json.dumps(answer), flush=True)


main()
