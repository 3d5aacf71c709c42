"""Workers, resources, statistics."""

import asyncio

import pytest
from agentlightning.types import LLM, PromptTemplate, ProxyLLM
from conftest import claimed, make_span, unique


async def test_heartbeats(store):
    worker = unique()
    assert await store.get_worker_by_id(worker) is None
    first = await store.update_worker(worker, heartbeat_stats={"cpu": 1.0, "gpus": [{"gpu": "x"}]})
    assert first.status == "unknown" and first.heartbeat_stats == {"cpu": 1.0, "gpus": [{"gpu": "x"}]}
    second = await store.update_worker(worker)
    assert second.last_heartbeat_time >= first.last_heartbeat_time
    assert second.heartbeat_stats == first.heartbeat_stats
    assert (await store.get_worker_by_id(worker)).worker_id == worker


async def test_a_heartbeat_with_nan(store):
    worker = unique()
    await store.update_worker(worker, heartbeat_stats={"cpu": float("nan"), "mem": float("inf"), "ok": 1})
    assert (await store.get_worker_by_id(worker)).heartbeat_stats == {"cpu": None, "mem": None, "ok": 1}


async def test_null_statistics_are_refused(store):
    with pytest.raises(Exception):
        await store.update_worker(unique(), heartbeat_stats=None)


async def test_busy_and_idle(store):
    worker = unique()
    await store.update_worker(worker, heartbeat_stats={"cpu": 2})
    rollout = await store.enqueue_rollout(input=1)
    got = await store.dequeue_rollout(worker_id=worker)
    busy = await store.get_worker_by_id(worker)
    assert busy.status == "busy" and got.attempt.worker_id == worker
    assert (busy.current_rollout_id, busy.current_attempt_id) == (rollout.rollout_id, got.attempt.attempt_id)
    assert busy.last_dequeue_time is not None and busy.last_busy_time is not None
    await store.update_attempt(rollout.rollout_id, got.attempt.attempt_id, status="succeeded")
    idle = await store.get_worker_by_id(worker)
    assert (idle.status, idle.current_rollout_id, idle.current_attempt_id) == ("idle", None, None)
    assert idle.heartbeat_stats == {"cpu": 2} and idle.last_idle_time is not None
    assert idle.last_heartbeat_time is not None


async def test_an_empty_dequeue_makes_idle(store):
    worker = unique()
    assert await store.dequeue_rollout(worker_id=worker) is None
    assert (await store.get_worker_by_id(worker)).status == "idle"


async def test_starting_makes_busy(store):
    one, two = unique(), unique()
    started = await store.start_rollout(input=1, worker_id=one)
    row = await store.get_worker_by_id(one)
    assert (row.status, row.current_attempt_id, row.last_dequeue_time) == ("busy", started.attempt.attempt_id, None)
    again = await store.start_attempt(started.rollout_id, worker_id=two)
    row = await store.get_worker_by_id(two)
    assert (row.status, row.current_rollout_id, row.current_attempt_id) == (
        "busy",
        started.rollout_id,
        again.attempt.attempt_id,
    )


async def test_query_workers(store):
    family = unique("family")
    busy, idle, quiet = f"{family}-a", f"{family}-b", f"{family}-c"
    await store.start_rollout(input=1, worker_id=busy)
    await store.dequeue_rollout(worker_id=idle)
    await store.update_worker(quiet)

    async def found(**conditions):
        return [w.worker_id for w in await store.query_workers(sort_by="worker_id", **conditions)]

    assert await found(worker_id_contains=family) == [busy, idle, quiet]
    assert await found(worker_id_contains=family, status_in=["busy", "idle"]) == [busy, idle]
    either = await found(worker_id_contains=quiet, status_in=["busy"], filter_logic="or")
    assert quiet in either and busy in either and idle not in either
    back = await store.query_workers(worker_id_contains=family, sort_by="worker_id", sort_order="desc")
    assert [w.worker_id for w in back] == [quiet, idle, busy] and back.total == 3


async def test_resources_life(store):
    llm = LLM(endpoint="http://x/v1", model="m", sampling_parameters={"temperature": 0.5, "stop": ["a"]})
    prompt = PromptTemplate(template="Hi {x}", engine="f-string")
    first = await store.add_resources({"main": llm, "prompt": prompt})
    assert first.resources_id.startswith("rs-") and len(first.resources_id) == 15 and first.version == 1
    assert first.resources["main"] == llm and first.resources["prompt"] == prompt
    assert await store.get_latest_resources() == first
    assert await store.get_resources_by_id(first.resources_id) == first
    assert await store.get_resources_by_id("rs-missing") is None

    for version in range(2, 6):
        new = await store.update_resources(first.resources_id, {"main": LLM(endpoint="e", model=str(version))})
        assert (new.version, new.create_time) == (version, first.create_time)
        assert new.update_time >= first.update_time and set(new.resources) == {"main"}
    assert (await store.get_latest_resources()).resources["main"].model == "5"


async def test_updating_unknown_resources_creates_them(store):
    name = unique("rs-own")
    made = await store.update_resources(name, {"p": ProxyLLM(endpoint="http://p", model="m")})
    assert made.version == 1 and made.resources_id == name
    assert isinstance((await store.get_resources_by_id(name)).resources["p"], ProxyLLM)
    assert (await store.get_latest_resources()).resources_id == name


async def test_rollouts_inherit_the_latest_resources(store):
    one = await store.add_resources({"p": PromptTemplate(template="1", engine="f-string")})
    two = await store.add_resources({"p": PromptTemplate(template="2", engine="f-string")})
    assert one.resources_id != two.resources_id
    assert (await store.enqueue_rollout(input=1)).resources_id == two.resources_id
    assert (await store.start_rollout(input=1)).resources_id == two.resources_id
    assert (await store.enqueue_rollout(input=1, resources_id=one.resources_id)).resources_id == one.resources_id
    await store.update_resources(one.resources_id, {"p": PromptTemplate(template="3", engine="f-string")})
    assert (await store.enqueue_rollout(input=1)).resources_id == one.resources_id


async def test_query_resources(store):
    family = unique("rs-family")
    ids = [f"{family}-{i}" for i in range(4)]
    for name in ids:
        await store.update_resources(name, {})
    page = await store.query_resources(resources_id_contains=family, sort_by="resources_id", sort_order="desc", limit=2, offset=1)
    assert [r.resources_id for r in page] == [ids[2], ids[1]] and (page.total, page.limit, page.offset) == (4, 2, 1)
    exact = await store.query_resources(resources_id=ids[0], resources_id_contains=family)
    assert [r.resources_id for r in exact] == ids[:1]
    assert list(await store.query_resources(resources_id=ids[0], resources_id_contains="nope")) == []
    assert list(await store.query_resources(resources_id_contains=family, limit=2, offset=9)) == []


async def test_parallel_resource_updates(store):
    names = [unique("rs-par") for _ in range(50)]
    await asyncio.gather(*(store.update_resources(n, {"p": PromptTemplate(template=n, engine="f-string")}) for n in names))
    stored = await store.query_resources(resources_id_contains="rs-par")
    assert sorted(names) == sorted(r.resources_id for r in stored if r.resources_id in names)
    assert (await store.get_latest_resources()).resources_id in names


async def test_statistics_count_one_of_each(store):
    before = await store.statistics()
    got = await claimed(store)
    await store.add_span(make_span(got.rollout_id, got.attempt.attempt_id))
    await store.add_resources({})
    await store.update_worker(unique())
    after = await store.statistics()
    for kind in ("rollouts", "attempts", "spans", "resources", "workers"):
        assert after[f"total_{kind}"] == before[f"total_{kind}"] + 1, kind
    assert after["uptime"] > before["uptime"]
    assert after["name"] in ("InMemoryLightningStore", "MongoLightningStore")
