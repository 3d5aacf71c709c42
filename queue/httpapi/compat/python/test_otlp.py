"""Spans that arrive over OTLP/HTTP, from a stock exporter and from the
reference's own."""

import json

import pytest
from agentlightning.utils.otlp import LightningStoreOTLPExporter
from conftest import PEER, claimed, make_span, status
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.trace import Link, Status, StatusCode


def provider(exporter, attributes, batch=True):
    made = TracerProvider(resource=Resource.create(attributes))
    made.add_span_processor(BatchSpanProcessor(exporter) if batch else SimpleSpanProcessor(exporter))
    return made


def ids(rollout):
    return {
        "agentlightning.rollout_id": rollout.rollout_id,
        "agentlightning.attempt_id": rollout.attempt.attempt_id,
    }


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip, Compression.Deflate])
async def test_a_stock_exporter(store, url, compression):
    if compression is Compression.Deflate and PEER:
        pytest.skip("the reference does not read deflate")
    got = await claimed(store)
    exporter = OTLPSpanExporter(endpoint=f"{url}/v1/traces", compression=compression)
    traces = provider(exporter, {"service.name": "agent", **ids(got)})
    tracer = traces.get_tracer("compat")
    with tracer.start_as_current_span("outer", attributes={"s": "ä", "i": 3, "f": 1.0, "b": True}) as outer:
        outer.add_event("thought", {"tokens": 5})
        with tracer.start_as_current_span("inner", links=[Link(outer.get_span_context(), {"why": "because"})]) as inner:
            inner.set_attribute("list", ["a", "b"])
            inner.set_status(Status(StatusCode.ERROR, "boom"))
    traces.shutdown()

    spans = {s.name: s for s in await store.query_spans(got.rollout_id, "latest")}
    assert set(spans) == {"outer", "inner"}
    outer_id = format(outer.get_span_context().span_id, "016x")
    assert spans["outer"].span_id == outer_id and spans["inner"].parent_id == outer_id
    assert spans["outer"].parent_id is None and spans["outer"].trace_id == spans["inner"].trace_id
    assert spans["outer"].attributes == {"s": "ä", "i": 3, "f": 1.0, "b": True}
    assert isinstance(spans["outer"].attributes["f"], float)
    assert [(e.name, e.attributes) for e in spans["outer"].events] == [("thought", {"tokens": 5})]
    assert spans["inner"].attributes == {"list": ["a", "b"]}
    assert (spans["inner"].status.status_code, spans["inner"].status.description) == ("ERROR", "boom")
    assert spans["inner"].links[0].context.span_id == outer_id
    assert spans["outer"].resource.attributes["service.name"] == "agent"
    assert spans["outer"].start_time <= spans["inner"].start_time <= spans["inner"].end_time <= spans["outer"].end_time
    assert sorted(s.sequence_id for s in spans.values()) == [1, 2]
    assert await status(store, got.rollout_id) == "running"


async def test_span_attributes_win_over_the_resource(store, url):
    one, two = await store.start_rollout(input=1), await store.start_rollout(input=2)
    traces = provider(OTLPSpanExporter(endpoint=f"{url}/v1/traces"), ids(one))
    tracer = traces.get_tracer("compat")
    tracer.start_span("first").end()
    tracer.start_span("second", attributes=ids(two)).end()
    tracer.start_span("third", attributes={"agentlightning.span_sequence_id": 41}).end()
    traces.shutdown()
    assert {s.name: s.sequence_id for s in await store.query_spans(one.rollout_id)} == {"first": 1, "third": 41}
    assert [s.name for s in await store.query_spans(two.rollout_id)] == ["second"]
    assert await store.get_next_span_sequence_id(one.rollout_id, one.attempt.attempt_id) == 42


async def test_spans_of_nobody_are_dropped(store, url):
    before = (await store.statistics())["total_spans"]
    traces = provider(OTLPSpanExporter(endpoint=f"{url}/v1/traces"), {}, batch=False)
    traces.get_tracer("compat").start_span("lost").end()
    traces.shutdown()
    assert (await store.statistics())["total_spans"] == before


@pytest.mark.skipif(PEER, reason="the reference answers 500")
async def test_one_odd_span_does_not_cost_the_others(store, url):
    got = await claimed(store)
    traces = provider(OTLPSpanExporter(endpoint=f"{url}/v1/traces"), ids(got))
    tracer = traces.get_tracer("compat")
    tracer.start_span("stranger", attributes={"agentlightning.rollout_id": "ro-missing"}).end()
    tracer.start_span("good").end()
    traces.shutdown()
    assert [s.name for s in await store.query_spans(got.rollout_id)] == ["good"]


async def test_the_references_exporter(store, url):
    got = await claimed(store)
    exporter = LightningStoreOTLPExporter()
    exporter.enable_store_otlp(store.otlp_traces_endpoint(), got.rollout_id, got.attempt.attempt_id)
    traces = provider(exporter, {}, batch=False)
    tracer = traces.get_tracer("compat")
    for name in ("one", "two", "three"):
        tracer.start_span(name, attributes={"json": json.dumps({"a": 1})}).end()
    traces.shutdown()
    spans = await store.query_spans(got.rollout_id, got.attempt.attempt_id)
    assert [(s.sequence_id, s.name) for s in spans] == [(1, "one"), (2, "two"), (3, "three")]


async def test_add_otel_span(store):
    got = await claimed(store)
    traces = TracerProvider()
    span = traces.get_tracer("compat").start_span("by hand")
    span.end()
    rollout, attempt = got.rollout_id, got.attempt.attempt_id
    first = await store.add_otel_span(rollout, attempt, span)
    assert (first.sequence_id, first.name) == (1, "by hand")
    assert await store.add_otel_span(rollout, attempt, span) is None
    assert await store.add_span(make_span(rollout, attempt, 9)) is not None
    assert [s.sequence_id for s in await store.query_spans(rollout)] == [1, 9]
