"""What the compatibility tests share: the address of the store under test and
a client of it.

AGLQ_COMPAT_URL is the store, which nobody else uses and which scans for
overdue attempts before each call. A test that is a coroutine runs in an event
loop of its own with the reference's client as its argument `store`.
"""

import asyncio
import inspect
import itertools
import os
import time
import uuid

import pytest
from agentlightning.store.client_server import LightningStoreClient
from agentlightning.types import OtelResource, Span, SpanContext, TraceStatus

URL = os.environ.get("AGLQ_COMPAT_URL", "http://127.0.0.1:4747")

# Set when the store under test is the reference's own, to try the tests
# themselves: it lacks a few things that every other store must do.
PEER = os.environ.get("AGLQ_COMPAT_PEER") == "1"

_numbers = itertools.count(1)


@pytest.fixture
def url():
    return URL


@pytest.fixture
def store():
    return LightningStoreClient(URL)


@pytest.fixture(autouse=True)
def empty_queue():
    """Tests find an empty queue: what an earlier one left there is cancelled."""

    async def drain():
        client = LightningStoreClient(URL)
        while left := await client.dequeue_many_rollouts(limit=100):
            for rollout in left:
                await client.update_rollout(rollout.rollout_id, status="cancelled")
        await client.close()

    asyncio.run(drain())


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    function = pyfuncitem.obj
    if not inspect.iscoroutinefunction(function):
        return None
    wanted = inspect.signature(function).parameters
    arguments = {name: value for name, value in pyfuncitem.funcargs.items() if name in wanted}

    async def run():
        try:
            await asyncio.wait_for(function(**arguments), timeout=180)
        finally:
            if "store" in arguments:
                await arguments["store"].close()

    asyncio.run(run())
    return True


def unique(prefix: str = "w") -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def make_span(rollout_id: str, attempt_id: str, sequence_id: int = 1, **fields) -> Span:
    """A span with a new id; fields override its members."""
    number = next(_numbers)
    trace_id, span_id = fields.pop("trace_id", f"{number:032x}"), fields.pop("span_id", f"{number:016x}")
    members = dict(
        rollout_id=rollout_id,
        attempt_id=attempt_id,
        sequence_id=sequence_id,
        trace_id=trace_id,
        span_id=span_id,
        parent_id=None,
        name=f"span-{number}",
        status=TraceStatus(status_code="OK"),
        attributes={"n": number},
        events=[],
        links=[],
        start_time=time.time(),
        end_time=time.time() + 0.5,
        context=SpanContext(trace_id=trace_id, span_id=span_id, is_remote=False, trace_state={}),
        parent=None,
        resource=OtelResource(attributes={"service.name": "compat"}, schema_url=""),
    )
    members.update(fields)
    return Span(**members)


async def claimed(store, **request):
    """A rollout in its first attempt, claimed from the queue."""
    request.setdefault("input", {"x": 1})
    rollout = await store.enqueue_rollout(**request)
    got = await store.dequeue_rollout()
    assert got is not None and got.rollout_id == rollout.rollout_id
    return got


async def status(store, rollout_id: str) -> str:
    return (await store.get_rollout_by_id(rollout_id)).status


async def attempt_status(store, rollout_id: str) -> str:
    return (await store.get_latest_attempt(rollout_id)).status
