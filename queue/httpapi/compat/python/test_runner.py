"""The reference's runner, tracer and trainer at work on the store."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import agentlightning as agl
import pytest
from agentlightning.execution.events import ThreadingEvent
from agentlightning.reward import find_final_reward
from agentlightning.runner import LitAgentRunner
from agentlightning.tracer import OtelTracer
from agentlightning.types import PromptTemplate
from conftest import unique

HERE = Path(__file__).parent


class Agent(agl.LitAgent):
    """Answers with a span and a reward; fails when its task says so."""

    def rollout(self, task, resources, rollout):
        from opentelemetry import trace

        with trace.get_tracer("agent").start_as_current_span("answer") as span:
            span.set_attribute("prompt", resources["prompt"].template)
            span.set_attribute("task", task["n"])
        if task.get("fail"):
            raise ValueError("the task says so")
        return task["n"] / 10


async def worked_off(store, ids):
    """All have ended, and the worker has shown life meanwhile."""
    ended = await store.query_rollouts(rollout_id_in=ids, status_in=["succeeded", "failed"])
    worker = await store.get_worker_by_id("Worker-0")
    return len(ended) == len(ids) and worker is not None and worker.last_heartbeat_time is not None


async def test_a_runner_works_off_the_queue(store):
    await store.update_resources(unique("rs"), {"prompt": PromptTemplate(template="Hi", engine="f-string")})
    good = [await store.enqueue_rollout(input={"n": n}, mode="train") for n in range(1, 4)]
    bad = await store.enqueue_rollout(input={"n": 0, "fail": True})
    runner = LitAgentRunner(tracer=OtelTracer(), poll_interval=0.1, heartbeat_interval=0.2, interval_jitter=0.01)
    with runner.run_context(agent=Agent(), store=store):
        stop = ThreadingEvent()
        working = asyncio.create_task(runner.iter(event=stop))
        while not await worked_off(store, [r.rollout_id for r in [*good, bad]]):
            assert not working.done(), working
            await asyncio.sleep(0.05)
        stop.set()
        await working

    for rollout in good:
        n = rollout.input["n"]
        done = await store.get_rollout_by_id(rollout.rollout_id)
        assert done.status == "succeeded" and done.attempt.worker_id == "Worker-0"
        spans = await store.query_spans(rollout.rollout_id, "latest")
        answer = [s for s in spans if s.name == "answer"]
        assert len(answer) == 1 and answer[0].attributes["task"] == n and answer[0].attributes["prompt"] == "Hi"
        assert find_final_reward(list(spans)) == pytest.approx(n / 10)
        assert [s.sequence_id for s in spans] == sorted(s.sequence_id for s in spans)
    failed = await store.get_rollout_by_id(bad.rollout_id)
    assert (failed.status, failed.attempt.status) == ("failed", "failed")
    worker = await store.get_worker_by_id("Worker-0")
    assert worker.status == "idle" and worker.heartbeat_stats["cpu_cores"] >= 1


async def test_a_single_step(store):
    resources = {"prompt": PromptTemplate(template="Ho", engine="f-string")}
    runner = LitAgentRunner(tracer=OtelTracer())
    with runner.run_context(agent=Agent(), store=store):
        done = await runner.step({"n": 5}, resources=resources, mode="val")
    assert done.status == "succeeded" and done.mode == "val"
    spans = await store.query_spans(done.rollout_id)
    assert find_final_reward(list(spans)) == 0.5


@pytest.mark.parametrize("runners", [3])
async def test_a_trainer_with_runner_processes(store, url, runners, tmp_path):
    """A program with a trainer, an algorithm and several runner processes."""
    name = unique("trainer")
    env = {
        **os.environ,
        "AGL_MANAGED_STORE": "0",
        "TRAINER_STORE": url,
        "TRAINER_NAME": name,
        "TRAINER_RUNNERS": str(runners),
        "TRAINER_HALL": str(tmp_path),
    }
    child = await asyncio.create_subprocess_exec(
        sys.executable, str(HERE / "trainer.py"), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        out, _ = await asyncio.wait_for(child.communicate(), timeout=150)
    finally:
        if child.returncode is None:
            child.kill()
    text = out.decode(errors="replace")
    assert child.returncode == 0, text[-4000:]
    assert f"{name} learned the answer 7" in text, text[-4000:]

    mine = [r for r in await store.query_rollouts() if (r.metadata or {}).get("trainer") == name]
    assert len(mine) == 20 and {r.status for r in mine} == {"succeeded"}
    assert all(r.attempt.sequence_id == 1 for r in mine)
    assert len({r.attempt.worker_id for r in mine}) == runners
