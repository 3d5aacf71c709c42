"""Says what the reference's emitters make of calls.

    python goldens.py          # writes goldens.json, of the calls below; the tests make the same
    python goldens.py answer   # reads calls as JSON lines, and writes a line for each

It needs Agent-Lightning 0.3.0.
"""

import json
import logging
import os
import pathlib
import sys
from contextlib import contextmanager

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no network

from agentlightning.emitter import emit_annotation, emit_exception, emit_message, emit_object, emit_reward
from agentlightning.emitter import exception as exception_module
from agentlightning.emitter import message as message_module
from agentlightning.emitter.annotation import operation
from agentlightning.tracer.dummy import DummyTracer
from agentlightning.types import Span
from agentlightning.utils.otel import flatten_attributes, make_link_attributes, make_tag_attributes, sanitize_attributes, unflatten_attributes

recorded = []


class Recorder(DummyTracer):
    """Keeps what emitters hand to the active tracer."""

    def create_span(self, name, attributes=None, timestamp=None, status=None):
        span = super().create_span(name, attributes, timestamp, status)
        recorded.append(span)
        return span

    @contextmanager
    def operation_context(self, *args, **kwargs):
        with super().operation_context(*args, **kwargs) as context:
            yield context
        recorded.append(context.get_recorded_span())


exception_module.DummyTracer = message_module.DummyTracer = Recorder
from agentlightning.emitter import annotation as annotation_module  # noqa: E402
from agentlightning.emitter import object as object_module  # noqa: E402

annotation_module.DummyTracer = object_module.DummyTracer = Recorder

NESTED = {"a": {"b": 1, "c": [2, 3]}, "d": [1, 2.5, "x"], "e": [], "f": {}, "g": [{"h": True}, {"h": False}], "i": ["x", "y"], "j": 0.00001, "k": 1.0}
LOOSE = {"none": None, "nested": {"none": None}, "text": "é\n\"\U0001f389\x7f", "big": 12345678901234567890, "list": [1, None]}


def with_operation():
    with operation(name="grade", propagate=False, note=1, nested={"x": [1, 2]}) as op:
        op.set_input(1, ["x", "y"], {"z": 2.0}, question={"text": "hi"}, limit=3)
        op.set_output([{"score": 0.5}, None])


def decorated():
    named = operation(category="math", propagate=False)

    def grade(a, b):
        return {"sum": a + b}

    named(grade)(1, b=2)


def failing():
    try:
        raise ValueError("no good")
    except ValueError as error:
        error.__traceback__ = None
        emit_exception(error, attributes={"step": 3, "where": {"line": None}}, propagate=False)


CALLS = {
    "reward": lambda: emit_reward(0.5, propagate=False),
    "reward of an integer": lambda: emit_reward(1, propagate=False),
    "reward of a small number": lambda: emit_reward(0.00001, propagate=False),
    "rewards": lambda: emit_reward({"quality": 1.0, "speed": 0.25, "z": -3.0}, primary_key="speed", propagate=False),
    "reward with a link": lambda: emit_reward(0.5, attributes=make_link_attributes({"gen_ai.response.id": "x", "span_id": "0102"}), propagate=False),
    "reward with tags": lambda: emit_reward(0.5, attributes=make_tag_attributes(["fast", "good"]), propagate=False),
    "reward with attributes": lambda: emit_reward(0.5, attributes=NESTED, propagate=False),
    "annotation": lambda: emit_annotation(NESTED, propagate=False),
    "annotation of null": lambda: emit_annotation(LOOSE, propagate=False),
    "message": lambda: emit_message("hi é", propagate=False),
    "message with attributes": lambda: emit_message("hi", attributes=LOOSE, propagate=False),
    "object: text": lambda: emit_object("hi", propagate=False),
    "object: integer": lambda: emit_object(42, propagate=False),
    "object: float": lambda: emit_object(0.00001, propagate=False),
    "object: whole float": lambda: emit_object(3.0, propagate=False),
    "object: great float": lambda: emit_object(1e22, propagate=False),
    "object: infinity": lambda: emit_object(float("-inf"), propagate=False),
    "object: boolean": lambda: emit_object(True, propagate=False),
    "object: bytes": lambda: emit_object(b"\x00\xff", propagate=False),
    "object: list": lambda: emit_object([1, 2.0, "é", None], propagate=False),
    "object: nested": lambda: emit_object({"a": {"b": [True, 1e-7, 1e16]}, "é": "\u2028\x01"}, propagate=False),
    "object: nothing": lambda: emit_object(None, propagate=False),
    "object with attributes": lambda: emit_object("hi", attributes=NESTED, propagate=False),
    "exception": failing,
    "operation": with_operation,
    "operation of a function": decorated,
}

FLATTEN = [
    {}, [], NESTED, LOOSE, {"a": []}, {"a": {"b": {}}}, {"a": [[1, 2], [3]]}, {"a": [{"b": 1}, 2]}, {"a.b": 1, "a": {"b": 2}},
    {"": {"a": 1}}, {"a": {"": 1}}, [1, 2], [{"a": 1}], {"a": [True, 1]}, {"a": [1, 2.0]}, {"a": ["x", None]}, {"0": "x", "1": "y"},
]
UNFLATTEN = [
    {}, {"a.b": 1, "a.c.0": 2, "a.c.1": 3}, {"a.0": 1, "a.2": 2}, {"0": "x", "1": "y"}, {"1": "y", "0": "x"}, {"a": 1, "a.b": 2},
    {"a.b": 2, "a": 1}, {"a..b": 1}, {".a": 1}, {"a.": 1}, {"": 1}, {"a.0": [1], "a.1.x": 2}, {"a.b": 1, "c": 2, "a.d": 3}, {"a.b.c": 1, "a.b": 2, "a.b.d": 3},
]
SANITIZE = [
    {"a": None, "b": {}, "c": {"x": [1, None]}, "d": []}, {"a": ["x", "y"], "b": [True, False], "c": [1, True], "d": [1, 2.5, True]},
    {"a": ["x", 1], "b": [None], "c": [[1]], "d": "text", "e": 1, "f": 1.5, "g": False},
]


def outcome(call):
    recorded.clear()
    try:
        call()
    except Exception as error:
        return {"error": type(error).__name__}
    span = Span.from_core_fields(recorded[-1])
    wire = json.loads(span.model_dump_json())
    return {"name": wire["name"], "attributes": span.attributes, "status": wire["status"]}


def operate(c):
    with operation(name=c["name"], propagate=False, **c["attributes"]) as op:
        op.set_input(*c["args"], **c["value"])
        op.set_output(c["output"])


def raised(c):
    try:
        raise ValueError(c["value"])
    except ValueError as error:
        error.__traceback__ = None
        emit_exception(error, attributes=c["attributes"], propagate=False)


ANSWERS = {
    "reward": lambda c: emit_reward(c["value"], attributes=c["attributes"], propagate=False),
    "rewards": lambda c: emit_reward(c["value"], primary_key=c["name"], attributes=c["attributes"], propagate=False),
    "annotation": lambda c: emit_annotation(c["value"], propagate=False),
    "message": lambda c: emit_message(c["value"], attributes=c["attributes"], propagate=False),
    "object": lambda c: emit_object(c["value"], attributes=c["attributes"], propagate=False),
    "exception": raised,
    "operation": operate,
    "tags": lambda c: emit_reward(1.0, attributes=make_tag_attributes(c["value"]), propagate=False),
    "links": lambda c: emit_reward(1.0, attributes=make_link_attributes(c["value"]), propagate=False),
}


def answer():
    logging.disable(logging.CRITICAL)
    for line in sys.stdin:
        call = json.loads(line)
        print(json.dumps(outcome(lambda: ANSWERS[call["call"]](call))))


def write():
    goldens = {
        "spans": {name: outcome(call) for name, call in CALLS.items()},
        "flatten": [{"from": v, "to": flatten_attributes(v), "expanded": flatten_attributes(v, expand_leaf_lists=True)} for v in FLATTEN],
        "unflatten": [{"from": v, "to": unflatten_attributes(dict(v))} for v in UNFLATTEN],
        "sanitize": [{"from": v, "to": sanitize_attributes(v)} for v in SANITIZE],
    }
    pathlib.Path(__file__).with_name("goldens.json").write_text(json.dumps(goldens, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    answer() if sys.argv[1:] == ["answer"] else write()
