"""Spans: numbers, duplicates, heartbeats, queries."""

import asyncio
import time

import pytest
from agentlightning.types import RolloutConfig, TraceStatus
from conftest import PEER, attempt_status, claimed, make_span, status


async def test_numbers_count_up_for_the_rollout(store):
    got = await claimed(store)
    rollout, attempt = got.rollout_id, got.attempt.attempt_id
    assert await store.get_next_span_sequence_id(rollout, attempt) == 1
    assert await store.get_next_span_sequence_id(rollout, attempt) == 2
    assert await store.get_next_span_sequence_id(rollout, "at-other") == 3
    await store.add_span(make_span(rollout, attempt, 100))
    assert await store.get_next_span_sequence_id(rollout, attempt) == 101


async def test_many_numbers_at_once(store):
    one, two = await store.start_rollout(input=1), await store.start_rollout(input=2)
    pair_one, pair_two = (one.rollout_id, one.attempt.attempt_id), (two.rollout_id, two.attempt.attempt_id)
    assert list(await store.get_many_span_sequence_ids([pair_one, pair_two, pair_one, pair_one])) == [1, 1, 2, 3]
    assert await store.get_next_span_sequence_id(*pair_one) == 4
    assert await store.get_next_span_sequence_id(*pair_two) == 2


async def test_parallel_numbers_are_never_given_twice(store):
    got = await claimed(store)
    numbers = await asyncio.gather(
        *(store.get_next_span_sequence_id(got.rollout_id, got.attempt.attempt_id) for _ in range(30))
    )
    assert sorted(numbers) == list(range(1, 31))


async def test_a_span_comes_back_as_it_was(store):
    got = await claimed(store)
    span = make_span(
        got.rollout_id,
        got.attempt.attempt_id,
        attributes={"s": "ä", "i": 7, "f": 1.0, "b": True, "list": ["a", "b"], "dotted.$key": -0.5},
        status=TraceStatus(status_code="ERROR", description="boom"),
        parent_id="00000000000000aa",
    )
    assert await store.add_span(span) == span
    (back,) = await store.query_spans(got.rollout_id)
    for field in type(span).model_fields:
        assert getattr(back, field) == getattr(span, field), field
    assert isinstance(back.attributes["f"], float) and isinstance(back.attributes["i"], int)


@pytest.mark.skipif(PEER, reason="the reference raises when it reads such a span")
async def test_a_nan_attribute_can_be_read_back(store):
    got = await claimed(store)
    await store.add_span(make_span(got.rollout_id, got.attempt.attempt_id, attributes={"reward": float("nan")}))
    (span,) = await store.query_spans(got.rollout_id)
    assert span.attributes == {"reward": "NaN"}


async def test_a_duplicate_is_refused_quietly(store):
    got = await claimed(store)
    span = make_span(got.rollout_id, got.attempt.attempt_id)
    assert await store.add_span(span) is not None
    heartbeat = (await store.get_latest_attempt(got.rollout_id)).last_heartbeat_time
    assert await store.add_span(span) is None
    assert len(await store.query_spans(got.rollout_id)) == 1
    assert (await store.get_latest_attempt(got.rollout_id)).last_heartbeat_time == heartbeat
    other = await store.start_attempt(got.rollout_id)
    same_id = make_span(got.rollout_id, other.attempt.attempt_id, span_id=span.span_id)
    assert await store.add_span(same_id) is not None


async def test_many_spans_with_a_duplicate(store):
    one, two = await store.start_rollout(input=1), await store.start_rollout(input=2)
    a, b = (make_span(one.rollout_id, one.attempt.attempt_id, n) for n in (1, 2))
    c = make_span(two.rollout_id, two.attempt.attempt_id, 1)
    stored = await store.add_many_spans([a, c, b, a])
    assert {s.span_id for s in stored} == {a.span_id, b.span_id, c.span_id}
    assert [s.span_id for s in await store.query_spans(one.rollout_id)] == [a.span_id, b.span_id]
    assert [s.span_id for s in await store.query_spans(two.rollout_id)] == [c.span_id]


async def test_spans_are_heartbeats(store):
    got = await claimed(store)
    rollout, attempt = got.rollout_id, got.attempt.attempt_id
    assert (await store.get_latest_attempt(rollout)).last_heartbeat_time is None
    await store.add_span(make_span(rollout, attempt, 1))
    first = await store.get_latest_attempt(rollout)
    assert first.status == "running" and abs(first.last_heartbeat_time - time.time()) < 5
    assert await status(store, rollout) == "running"
    await store.update_attempt(rollout, attempt, metadata={"kept": True})
    await asyncio.sleep(0.02)
    await store.add_span(make_span(rollout, attempt, 2))
    second = await store.get_latest_attempt(rollout)
    assert second.last_heartbeat_time > first.last_heartbeat_time and second.metadata == {"kept": True}


async def test_a_span_revives_an_unresponsive_attempt(store):
    config = RolloutConfig(max_attempts=2, retry_condition=["unresponsive"])
    got = await claimed(store, config=config)
    await store.update_attempt(got.rollout_id, "latest", status="unresponsive")
    assert await status(store, got.rollout_id) == "requeuing"
    await store.add_span(make_span(got.rollout_id, got.attempt.attempt_id))
    assert await attempt_status(store, got.rollout_id) == "running"
    assert await status(store, got.rollout_id) == "running"
    assert await store.dequeue_rollout() is None
    await store.update_attempt(got.rollout_id, "latest", status="succeeded")
    assert await status(store, got.rollout_id) == "succeeded"
    assert len(await store.query_attempts(got.rollout_id)) == 1


async def test_a_revived_attempt_may_still_fail(store):
    config = RolloutConfig(max_attempts=2, retry_condition=["unresponsive"])
    got = await claimed(store, config=config)
    await store.update_attempt(got.rollout_id, "latest", status="unresponsive")
    await store.add_span(make_span(got.rollout_id, got.attempt.attempt_id))
    await store.update_attempt(got.rollout_id, "latest", status="failed")
    assert await status(store, got.rollout_id) == "failed"


async def test_a_late_span_does_not_undo_a_timeout(store):
    got = await claimed(store)
    await store.update_attempt(got.rollout_id, "latest", status="timeout")
    assert await status(store, got.rollout_id) == "failed"
    await store.add_span(make_span(got.rollout_id, got.attempt.attempt_id))
    assert await attempt_status(store, got.rollout_id) == "timeout"
    assert (await store.get_latest_attempt(got.rollout_id)).last_heartbeat_time is not None
    assert await status(store, got.rollout_id) == "failed"


async def test_an_old_attempts_span_leaves_the_new_one_alone(store):
    config = RolloutConfig(max_attempts=2, retry_condition=["unresponsive"])
    old = await claimed(store, config=config)
    await store.update_attempt(old.rollout_id, "latest", status="unresponsive")
    new = await store.dequeue_rollout()
    assert new.attempt.sequence_id == 2
    await store.add_span(make_span(old.rollout_id, old.attempt.attempt_id))
    assert await status(store, old.rollout_id) == "preparing"
    states = [a.status for a in await store.query_attempts(old.rollout_id)]
    assert states == ["running", "preparing"]


async def test_spans_of_attempts(store):
    first = await store.start_rollout(input=1)
    rollout = first.rollout_id
    await store.add_span(make_span(rollout, first.attempt.attempt_id, 1, name="one"))
    second = await store.start_attempt(rollout)
    assert list(await store.query_spans(rollout, "latest")) == []
    await store.add_span(make_span(rollout, second.attempt.attempt_id, 2, name="two"))

    async def names(attempt=None):
        return [s.name for s in await store.query_spans(rollout, attempt)]

    assert await names() == ["one", "two"]
    assert await names(first.attempt.attempt_id) == ["one"]
    assert await names("latest") == ["two"]
    assert await names("at-missing") == []
    assert list(await store.query_spans("ro-missing", "latest")) == []


@pytest.fixture
def tree():
    """Six spans of one attempt: (name, trace, span id, parent, number)."""
    return [
        ("agent", "aa" * 16, "a1" * 8, None, 1),
        ("llm.call", "aa" * 16, "a2" * 8, "a1" * 8, 2),
        ("llm.parse", "aa" * 16, "a3" * 8, "a2" * 8, 3),
        ("tool", "bb" * 16, "b1" * 8, "a1" * 8, 4),
        ("llm.call", "bb" * 16, "b2" * 8, "b1" * 8, 5),
        ("reward", "cc" * 16, "c1" * 8, None, 6),
    ]


async def planted(store, tree):
    got = await store.start_rollout(input=1)
    for name, trace, span, parent, number in tree:
        await store.add_span(
            make_span(
                got.rollout_id, got.attempt.attempt_id, number, name=name, trace_id=trace, span_id=span, parent_id=parent
            )
        )
    return got.rollout_id


@pytest.mark.parametrize(
    "conditions, want",
    [
        (dict(trace_id="aa" * 16), [1, 2, 3]),
        (dict(trace_id_contains="bb"), [4, 5]),
        (dict(span_id="a2" * 8), [2]),
        (dict(span_id_contains="b"), [4, 5]),
        (dict(parent_id="a1" * 8), [2, 4]),
        (dict(parent_id_contains="a"), [2, 3, 4]),
        (dict(name="llm.call"), [2, 5]),
        (dict(name_contains="llm"), [2, 3, 5]),
        (dict(name_contains="."), [2, 3, 5]),
        (dict(name="llm.call", trace_id="bb" * 16), [5]),
        (dict(name="reward", trace_id="aa" * 16, filter_logic="or"), [1, 2, 3, 6]),
        (dict(name_contains="llm", trace_id="bb" * 16, filter_logic="or", sort_order="desc", offset=1), [4, 3, 2]),
        (dict(name_contains="llm", limit=2, offset=1), [3, 5]),
        (dict(sort_by="name", limit=2), [1, 2]),
        (dict(sort_by="start_time", sort_order="desc", limit=1), [6]),
        (dict(name="nothing"), []),
    ],
)
async def test_query_conditions(store, tree, conditions, want):
    rollout = await planted(store, tree)
    await planted(store, tree)  # another rollout never shows
    spans = await store.query_spans(rollout, **conditions)
    assert [s.sequence_id for s in spans] == want
    assert {s.rollout_id for s in spans} <= {rollout}


async def test_query_pages(store, tree):
    rollout = await planted(store, tree)
    page = await store.query_spans(rollout, limit=2, offset=2)
    assert [s.sequence_id for s in page] == [3, 4] and (page.limit, page.offset, page.total) == (2, 2, 6)


async def test_spans_do_not_show_storage_fields(store):
    got = await claimed(store)
    await store.add_span(make_span(got.rollout_id, got.attempt.attempt_id))
    (span,) = await store.query_spans(got.rollout_id)
    assert not (span.model_extra or {}), span.model_extra
