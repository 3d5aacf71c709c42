"""Waiting for rollouts, and the watchdog that ends the overdue ones."""

import asyncio
import time

import aiohttp
import pytest
from agentlightning.types import RolloutConfig
from conftest import claimed, make_span, status, unique


async def wait(url, ids, timeout):
    """A wait longer than the reference's client allows itself."""
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{url}/v1/agl/waits/rollouts", json={"rollout_ids": ids, "timeout": timeout}) as answer:
            assert answer.status == 200
            return [r["rollout_id"] for r in await answer.json()]


async def finish(store, rollout, after=0.0):
    await asyncio.sleep(after)
    await store.update_attempt(rollout.rollout_id, "latest", status="succeeded")


async def test_nothing_to_wait_for(store, url):
    assert list(await store.wait_for_rollouts(rollout_ids=[], timeout=0.0)) == []
    assert list(await store.wait_for_rollouts(rollout_ids=["ro-missing"], timeout=0.1)) == []
    assert await wait(url, [], None) == []


async def test_finished_ones_come_at_once_in_order(store, url):
    rollouts = [await store.start_rollout(input=i) for i in range(3)]
    for rollout in reversed(rollouts):
        await finish(store, rollout)
    ids = [r.rollout_id for r in rollouts]
    done = await store.wait_for_rollouts(rollout_ids=ids, timeout=0.0)
    assert [r.rollout_id for r in done] == ids and {r.status for r in done} == {"succeeded"}
    assert await wait(url, ids, 30) == ids
    assert await wait(url, ids[:1] * 2, None) == ids[:1] * 2


async def test_the_unfinished_are_left_out(store, url):
    done, pending = await store.start_rollout(input=1), await store.start_rollout(input=2)
    await finish(store, done)
    ids = [pending.rollout_id, done.rollout_id, "ro-missing"]
    assert await wait(url, ids, 0.1) == [done.rollout_id]
    assert await wait(url, [pending.rollout_id], 0) == []


async def test_a_wait_ends_with_the_last_rollout(store, url):
    rollouts = [await store.start_rollout(input=i) for i in range(3)]
    ids = [r.rollout_id for r in rollouts]
    start = time.monotonic()
    waiting = asyncio.gather(wait(url, ids, 30), wait(url, ids, None), *(wait(url, ids[:1], 30) for _ in range(5)))
    for rollout in rollouts:
        await finish(store, rollout, after=0.1)
    assert await waiting == [ids, ids] + [ids[:1]] * 5
    assert time.monotonic() - start < 25


async def test_cancelling_ends_a_wait(store, url):
    rollout = await store.enqueue_rollout(input=1)
    waiting = asyncio.create_task(wait(url, [rollout.rollout_id], 30))
    await asyncio.sleep(0.1)
    await store.update_rollout(rollout.rollout_id, status="cancelled")
    assert await asyncio.wait_for(waiting, 25) == [rollout.rollout_id]


async def test_many_pending_ids_at_once(store):
    ids = [(await store.start_rollout(input=i)).rollout_id for i in range(40)]
    assert list(await store.wait_for_rollouts(rollout_ids=ids * 25, timeout=0.0)) == []


async def test_a_client_that_leaves_a_wait_harms_nobody(store, url):
    rollout = await store.start_rollout(input=1)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(wait(url, [rollout.rollout_id], None), 0.2)
    await finish(store, rollout)
    assert await status(store, rollout.rollout_id) == "succeeded"


async def test_timeout_with_a_retry(store):
    worker = unique()
    config = RolloutConfig(timeout_seconds=0.05, max_attempts=2, retry_condition=["timeout"])
    await store.enqueue_rollout(input=1, config=config)
    got = await store.dequeue_rollout(worker_id=worker)
    await asyncio.sleep(0.1)
    assert await status(store, got.rollout_id) == "requeuing"
    assert (await store.query_attempts(got.rollout_id))[0].status == "timeout"
    assert (await store.get_worker_by_id(worker)).status == "unknown"
    again = await store.dequeue_rollout()
    assert again.rollout_id == got.rollout_id and again.attempt.sequence_id == 2


async def test_unresponsive_without_a_retry(store):
    worker = unique()
    await store.enqueue_rollout(input=1, config=RolloutConfig(unresponsive_seconds=0.05))
    got = await store.dequeue_rollout(worker_id=worker)
    await store.add_span(make_span(got.rollout_id, got.attempt.attempt_id))
    await asyncio.sleep(0.1)
    done = await store.get_rollout_by_id(got.rollout_id)
    assert (done.status, done.attempt.status, done.attempt.end_time) == ("failed", "unresponsive", None)
    row = await store.get_worker_by_id(worker)
    assert (row.status, row.current_rollout_id) == ("unknown", None)


async def test_the_timeout_comes_first(store):
    got = await claimed(store, config=RolloutConfig(timeout_seconds=0.05, unresponsive_seconds=0.05))
    await asyncio.sleep(0.1)
    assert (await store.get_rollout_by_id(got.rollout_id)).attempt.status == "timeout"


async def test_what_shows_life_stays(store):
    got = await claimed(store, config=RolloutConfig(unresponsive_seconds=60, timeout_seconds=60))
    await store.add_span(make_span(got.rollout_id, got.attempt.attempt_id))
    assert await status(store, got.rollout_id) == "running"


async def test_a_watchdogs_verdict_ends_a_wait(store, url):
    got = await claimed(store, config=RolloutConfig(timeout_seconds=0.2))
    waiting = asyncio.create_task(wait(url, [got.rollout_id], 20))
    await asyncio.sleep(0.4)
    assert await status(store, got.rollout_id) == "failed"
    assert await asyncio.wait_for(waiting, 15) == [got.rollout_id]
