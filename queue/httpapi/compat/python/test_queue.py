"""The queue, attempts, and how an attempt's status moves its rollout."""

import asyncio

import pytest
from agentlightning.types import RolloutConfig
from conftest import PEER, claimed, make_span, status, unique


async def test_first_in_first_out(store):
    ids = [(await store.enqueue_rollout(input=i)).rollout_id for i in range(5)]
    got = [await store.dequeue_rollout() for _ in range(5)]
    assert [r.rollout_id for r in got] == ids
    assert all(r.status == "preparing" and r.attempt.sequence_id == 1 for r in got)
    assert await store.dequeue_rollout() is None


async def test_what_has_ended_is_skipped(store):
    ids = [(await store.enqueue_rollout(input=i)).rollout_id for i in range(4)]
    for rollout_id, end in zip(ids, ("succeeded", "failed", "cancelled")):
        await store.update_rollout(rollout_id, status=end)
    assert (await store.dequeue_rollout()).rollout_id == ids[3]
    assert await store.dequeue_rollout() is None


async def test_requeuing_puts_back(store):
    first = await claimed(store)
    await store.update_rollout(first.rollout_id, status="requeuing")
    again = await store.dequeue_rollout()
    assert again.rollout_id == first.rollout_id and again.attempt.sequence_id == 2
    assert again.attempt.attempt_id != first.attempt.attempt_id


async def test_dequeue_many(store):
    ids = [(await store.enqueue_rollout(input=i)).rollout_id for i in range(5)]
    worker = unique()
    got = await store.dequeue_many_rollouts(limit=3, worker_id=worker)
    assert [r.rollout_id for r in got] == ids[:3]
    assert {r.attempt.worker_id for r in got} == {worker}
    assert (await store.get_worker_by_id(worker)).current_rollout_id == ids[2]
    assert [r.rollout_id for r in await store.dequeue_many_rollouts(limit=9)] == ids[3:]
    assert list(await store.dequeue_many_rollouts(limit=9)) == []
    assert list(await store.dequeue_many_rollouts(limit=0)) == []


async def test_parallel_enqueues_are_all_stored(store):
    made = await asyncio.gather(*(store.enqueue_rollout(input=i) for i in range(50)))
    assert len({r.rollout_id for r in made}) == 50
    stored = await store.query_rollouts(rollout_id_in=[r.rollout_id for r in made])
    assert sorted(r.input for r in stored) == list(range(50))


async def test_parallel_dequeues_never_share(store):
    made = [await store.enqueue_rollout(input=i) for i in range(20)]
    got = await asyncio.gather(*(store.dequeue_rollout(worker_id=unique()) for _ in range(30)))
    ids = [r.rollout_id for r in got if r is not None]
    assert sorted(ids) == sorted(r.rollout_id for r in made) and got.count(None) == 10


async def test_attempts_count_up_and_the_latest_follows(store):
    rollout = await store.enqueue_rollout(input=1)
    assert list(await store.query_attempts(rollout.rollout_id)) == []
    assert await store.get_latest_attempt(rollout.rollout_id) is None
    first = await store.dequeue_rollout()
    second = await store.start_attempt(rollout.rollout_id)
    third = await store.start_attempt(rollout.rollout_id)
    attempts = await store.query_attempts(rollout.rollout_id)
    assert [a.sequence_id for a in attempts] == [1, 2, 3]
    assert [a.attempt_id for a in attempts] == [r.attempt.attempt_id for r in (first, second, third)]
    assert (await store.get_latest_attempt(rollout.rollout_id)).attempt_id == third.attempt.attempt_id


async def test_attempts_sort_and_page(store):
    rollout = await store.start_rollout(input=1)
    for _ in range(4):
        await store.start_attempt(rollout.rollout_id)
    page = await store.query_attempts(rollout.rollout_id, sort_by="sequence_id", sort_order="desc", limit=2, offset=1)
    assert [a.sequence_id for a in page] == [4, 3] and page.total == 5
    assert list(await store.query_attempts(rollout.rollout_id, limit=3, offset=8)) == []


async def test_start_attempt_on_a_queued_rollout(store):
    rollout = await store.enqueue_rollout(input=1)
    started = await store.start_attempt(rollout.rollout_id)
    assert started.attempt.sequence_id == 1 and started.status == "preparing"
    assert await store.dequeue_rollout() is None


async def test_start_attempt_ignores_max_attempts_and_ends(store):
    got = await claimed(store, config=RolloutConfig(max_attempts=1))
    await store.update_attempt(got.rollout_id, "latest", status="failed")
    again = await store.start_attempt(got.rollout_id)
    assert again.attempt.sequence_id == 2 and await status(store, got.rollout_id) == "preparing"


async def test_update_attempt_fields(store):
    got = await claimed(store)
    worker = unique()
    new = await store.update_attempt(
        got.rollout_id, got.attempt.attempt_id, status="running", worker_id=worker, last_heartbeat_time=1234.5, metadata={"a": 1}
    )
    assert (new.status, new.worker_id, new.last_heartbeat_time, new.metadata) == ("running", worker, 1234.5, {"a": 1})
    assert new.end_time is None
    assert await store.get_latest_attempt(got.rollout_id) == new


@pytest.mark.parametrize("end", ["succeeded", "failed"])
async def test_an_end_of_the_attempt_ends_the_rollout(store, end):
    got = await claimed(store)
    attempt = await store.update_attempt(got.rollout_id, "latest", status=end)
    rollout = await store.get_rollout_by_id(got.rollout_id)
    assert attempt.end_time > attempt.start_time and rollout.status == end
    assert rollout.end_time >= attempt.end_time - 0.5


@pytest.mark.parametrize("end", ["failed", "timeout", "unresponsive"])
async def test_retry_while_attempts_remain(store, end):
    got = await claimed(store, config=RolloutConfig(max_attempts=2, retry_condition=[end]))
    await store.update_attempt(got.rollout_id, "latest", status=end)
    assert await status(store, got.rollout_id) == "requeuing"
    again = await store.dequeue_rollout()
    assert again.rollout_id == got.rollout_id and again.attempt.sequence_id == 2
    await store.update_attempt(got.rollout_id, "latest", status=end)
    assert await status(store, got.rollout_id) == "failed"
    assert await store.dequeue_rollout() is None


async def test_no_retry_for_other_ends(store):
    got = await claimed(store, config=RolloutConfig(max_attempts=3, retry_condition=["timeout"]))
    await store.update_attempt(got.rollout_id, "latest", status="failed")
    assert await status(store, got.rollout_id) == "failed"


async def test_only_the_latest_attempt_moves_the_rollout(store):
    first = await claimed(store, config=RolloutConfig(max_attempts=5, retry_condition=["failed"]))
    await store.start_attempt(first.rollout_id)
    await store.update_attempt(first.rollout_id, first.attempt.attempt_id, status="failed")
    assert await status(store, first.rollout_id) == "preparing"
    assert await store.dequeue_rollout() is None
    await store.update_attempt(first.rollout_id, "latest", status="running")
    assert await status(store, first.rollout_id) == "running"
    await store.update_attempt(first.rollout_id, "latest", status="succeeded")
    assert await status(store, first.rollout_id) == "succeeded"


async def test_a_whole_retry(store):
    got = await claimed(store)
    await store.update_attempt(got.rollout_id, "latest", status="failed")
    await store.update_rollout(got.rollout_id, status="requeuing")
    again = await store.dequeue_rollout()
    assert again.attempt.sequence_id == 2
    await store.update_attempt(got.rollout_id, "latest", status="running")
    await store.update_attempt(got.rollout_id, "latest", status="succeeded")
    assert [a.status for a in await store.query_attempts(got.rollout_id)] == ["failed", "succeeded"]
    assert await status(store, got.rollout_id) == "succeeded"


async def test_a_whole_life(store):
    got = await claimed(store)
    await store.add_span(make_span(got.rollout_id, got.attempt.attempt_id))
    assert await status(store, got.rollout_id) == "running"
    await store.update_attempt(got.rollout_id, "latest", status="succeeded")
    done = await store.get_rollout_by_id(got.rollout_id)
    assert done.status == "succeeded" and done.end_time >= done.start_time and done.attempt.end_time is not None


@pytest.mark.skipif(PEER, reason="the reference forgets the cancellation")
async def test_a_cancelled_rollout_stays_cancelled(store):
    got = await claimed(store)
    await store.update_rollout(got.rollout_id, status="cancelled")
    await store.add_span(make_span(got.rollout_id, got.attempt.attempt_id))
    assert await status(store, got.rollout_id) == "cancelled"
    await store.update_attempt(got.rollout_id, "latest", status="succeeded")
    assert await status(store, got.rollout_id) == "cancelled"
