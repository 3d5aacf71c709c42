"""Rollouts: creating, reading, querying, updating."""

import time

import pytest
from agentlightning.types import AttemptedRollout, EnqueueRolloutRequest, RolloutConfig
from conftest import claimed, make_span, status


async def test_enqueue_echoes_what_it_was_given(store):
    before = time.time()
    rollout = await store.enqueue_rollout(
        input={"q": "täglich", "n": [1, 2.0, None]}, mode="val", resources_id="rs-not-there", metadata={"k": "v"}
    )
    assert rollout.rollout_id.startswith("ro-") and len(rollout.rollout_id) == 15
    assert rollout.input == {"q": "täglich", "n": [1, 2.0, None]}
    assert (rollout.mode, rollout.resources_id, rollout.metadata) == ("val", "rs-not-there", {"k": "v"})
    assert rollout.status == "queuing" and rollout.end_time is None
    assert before - 5 < rollout.start_time < time.time() + 5
    assert not isinstance(await store.get_rollout_by_id(rollout.rollout_id), AttemptedRollout)


async def test_input_keeps_order_and_number_types(store):
    value = {"z": 1, "a": 1.0, "big": 9007199254740993, "$set": {"a.b": 1}, "": [True, None, "é\u0000"]}
    rollout = await store.enqueue_rollout(input=value)
    back = (await store.get_rollout_by_id(rollout.rollout_id)).input
    assert back == value and list(back) == list(value)
    assert isinstance(back["z"], int) and isinstance(back["a"], float)


async def test_config_is_kept_and_belongs_to_one_rollout(store):
    config = RolloutConfig(timeout_seconds=7, unresponsive_seconds=3.5, max_attempts=3, retry_condition=["failed", "timeout"])
    one = await store.enqueue_rollout(input=1, config=config)
    other = await store.enqueue_rollout(input=2)
    assert one.config == config
    assert (await store.get_rollout_by_id(one.rollout_id)).config == config
    assert (await store.get_rollout_by_id(other.rollout_id)).config == RolloutConfig()


async def test_start_bypasses_the_queue(store):
    config = RolloutConfig(max_attempts=2)
    started = await store.start_rollout(input={"a": 1}, mode="train", config=config, metadata={"m": 1})
    assert started.status == "preparing" and started.config == config and started.metadata == {"m": 1}
    assert started.attempt.attempt_id.startswith("at-") and started.attempt.sequence_id == 1
    assert started.attempt.status == "preparing" and started.attempt.start_time == started.start_time
    assert await store.dequeue_rollout() is None
    assert [a.attempt_id for a in await store.query_attempts(started.rollout_id)] == [started.attempt.attempt_id]
    assert (await store.get_latest_attempt(started.rollout_id)).attempt_id == started.attempt.attempt_id
    found = await store.query_rollouts(status_in=["preparing"], rollout_id_in=[started.rollout_id])
    assert len(found) == 1 and found[0].attempt.attempt_id == started.attempt.attempt_id


async def test_reading_unknown_rollouts(store):
    assert await store.get_rollout_by_id("ro-missing") is None
    assert await store.get_latest_attempt("ro-missing") is None
    assert list(await store.query_attempts("ro-missing")) == []
    assert list(await store.query_spans("ro-missing")) == []


async def test_query_by_status_and_ids(store):
    queued = await store.enqueue_rollout(input=1)
    done = await store.start_rollout(input=2)
    await store.update_attempt(done.rollout_id, "latest", status="succeeded")
    ids = [queued.rollout_id, done.rollout_id]

    async def found(**conditions):
        return [r.rollout_id for r in await store.query_rollouts(rollout_id_in=ids, **conditions)]

    assert await found() == ids
    assert await found(status_in=["queuing"]) == [queued.rollout_id]
    assert await found(status_in=["succeeded"]) == [done.rollout_id]
    assert await found(status_in=["queuing", "succeeded"]) == ids
    assert await found(status_in=[]) == []
    assert list(await store.query_rollouts(rollout_id_in=[])) == []
    assert list(await store.query_rollouts(rollout_id_in=["ro-missing"])) == []
    assert [r.rollout_id for r in await store.query_rollouts(rollout_ids=[done.rollout_id])] == [done.rollout_id]
    both = await store.query_rollouts(rollout_id_in=[queued.rollout_id], rollout_ids=[done.rollout_id])
    assert [r.rollout_id for r in both] == [queued.rollout_id]
    newer = await store.query_rollouts(rollout_id_in=ids, status_in=["queuing"], status=["succeeded"])
    assert [r.rollout_id for r in newer] == [queued.rollout_id]


async def test_query_joins_conditions(store):
    rollouts = [await store.enqueue_rollout(input=i) for i in range(4)]
    done = await store.start_rollout(input="done")
    await store.update_rollout(done.rollout_id, status="succeeded")
    piece = rollouts[2].rollout_id[4:]
    contains = await store.query_rollouts(rollout_id_contains=piece)
    assert [r.rollout_id for r in contains] == [rollouts[2].rollout_id]
    neither = await store.query_rollouts(rollout_id_contains=piece, rollout_id_in=[done.rollout_id])
    assert list(neither) == []
    either = await store.query_rollouts(
        rollout_id_contains=piece, rollout_id_in=[done.rollout_id], filter_logic="or", sort_by="start_time"
    )
    assert [r.rollout_id for r in either] == [rollouts[2].rollout_id, done.rollout_id]
    second = await store.query_rollouts(
        rollout_id_contains=piece,
        rollout_id_in=[done.rollout_id],
        filter_logic="or",
        sort_by="start_time",
        sort_order="desc",
        limit=1,
        offset=1,
    )
    assert [r.rollout_id for r in second] == [rollouts[2].rollout_id] and second.total == 2


async def test_pages(store):
    ids = [(await store.enqueue_rollout(input=i)).rollout_id for i in range(5)]
    page = await store.query_rollouts(rollout_id_in=ids, sort_by="start_time", limit=2, offset=1)
    assert [r.rollout_id for r in page] == ids[1:3]
    assert (page.limit, page.offset, page.total) == (2, 1, 5)
    assert len(page) == 2 and page[0].rollout_id == ids[1] and [r.rollout_id for r in page[0:1]] == ids[1:2]
    whole = await store.query_rollouts(rollout_id_in=ids, sort_by="start_time", sort_order="desc")
    assert [r.rollout_id for r in whole] == ids[::-1] and whole.limit == -1
    past = await store.query_rollouts(rollout_id_in=ids, limit=2, offset=9)
    assert list(past) == [] and past.total == 5


@pytest.mark.parametrize("field", ["rollout_id", "start_time", "end_time", "mode", "resources_id", "status"])
async def test_sorting_by_each_field(store, field):
    ids = []
    for mode in ("val", None, "train"):
        rollout = await store.start_rollout(input=1, mode=mode, resources_id=f"rs-{mode}")
        await store.update_rollout(rollout.rollout_id, status="cancelled")
        ids.append(rollout.rollout_id)
    rows = list(await store.query_rollouts(rollout_id_in=ids, sort_by=field))
    values = [getattr(r, field) for r in rows]
    assert values == sorted(values, key=lambda v: (v is not None, v if v is not None else 0))
    back = await store.query_rollouts(rollout_id_in=ids, sort_by=field, sort_order="desc")
    assert [getattr(r, field) for r in back] == values[::-1]


async def test_update_many_fields_at_once(store):
    rollout = await store.enqueue_rollout(input={"old": 1}, mode="train", metadata={"old": 1})
    config = RolloutConfig(max_attempts=4)
    new = await store.update_rollout(
        rollout.rollout_id, input=[1, 2], mode="test", resources_id="rs-x", status="running", config=config, metadata={"n": 2}
    )
    for seen in (new, await store.get_rollout_by_id(rollout.rollout_id)):
        assert (seen.input, seen.mode, seen.resources_id) == ([1, 2], "test", "rs-x")
        assert (seen.status, seen.config, seen.metadata) == ("running", config, {"n": 2})
        assert seen.start_time == rollout.start_time


async def test_null_clears_and_absent_leaves_alone(store):
    rollout = await store.enqueue_rollout(input=1, mode="train", resources_id="rs-x", metadata={"a": 1})
    same = await store.update_rollout(rollout.rollout_id)
    assert (same.mode, same.resources_id, same.metadata, same.input) == ("train", "rs-x", {"a": 1}, 1)
    bare = await store.update_rollout(rollout.rollout_id, input=None, mode=None, resources_id=None, metadata=None)
    assert (bare.mode, bare.resources_id, bare.metadata, bare.input) == (None, None, None, None)


async def test_an_end_sets_the_end_time(store):
    for end in ("succeeded", "failed", "cancelled"):
        rollout = await store.start_rollout(input=1)
        assert (await store.update_rollout(rollout.rollout_id, status=end)).end_time >= rollout.start_time
        assert await status(store, rollout.rollout_id) == end


async def test_enqueue_many_keeps_order_and_fields(store):
    requests = [
        EnqueueRolloutRequest(input=i, mode="train", metadata={"i": i}, config=RolloutConfig(max_attempts=i + 1)) for i in range(4)
    ]
    made = await store.enqueue_many_rollouts(requests)
    assert [(r.input, r.metadata, r.config.max_attempts) for r in made] == [(i, {"i": i}, i + 1) for i in range(4)]
    got = await store.dequeue_many_rollouts(limit=10)
    assert [r.rollout_id for r in got] == [r.rollout_id for r in made]
    assert await store.enqueue_many_rollouts([]) == []


async def test_updating_what_is_not_there_fails(store):
    store._retry_delays = ()
    for call in (
        lambda: store.update_rollout("ro-missing", metadata={}),
        lambda: store.update_attempt("ro-missing", "latest", status="running"),
        lambda: store.start_attempt("ro-missing"),
        lambda: store.add_span(make_span("ro-missing", "at-missing")),
    ):
        with pytest.raises(Exception):
            await call()
    rollout = await store.enqueue_rollout(input=1)
    for call in (
        lambda: store.update_attempt(rollout.rollout_id, "latest", status="running"),
        lambda: store.add_span(make_span(rollout.rollout_id, "at-missing")),
    ):
        with pytest.raises(Exception):
            await call()
    assert await status(store, rollout.rollout_id) == "queuing"


async def test_a_finished_rollout_carries_its_attempt_everywhere(store):
    got = await claimed(store)
    await store.update_attempt(got.rollout_id, got.attempt.attempt_id, status="succeeded")
    read = await store.get_rollout_by_id(got.rollout_id)
    assert isinstance(read, AttemptedRollout) and read.attempt.status == "succeeded"
    listed = await store.query_rollouts(rollout_id_in=[got.rollout_id])
    assert isinstance(listed[0], AttemptedRollout) and listed[0].attempt.attempt_id == got.attempt.attempt_id
