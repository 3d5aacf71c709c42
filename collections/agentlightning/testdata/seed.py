"""Fills a MongoDB through Agent-Lightning's own store server.

usage: seed.py MONGO_URI

Two stores run one after the other, as two starts of "agl store" would, so there
are two partitions. The first line of output is what the second store answers to
the requests in it, a JSON object of texts by path. After a line of input the
second line lists the rollouts in the order in which the store hands them out,
and the next number of the spans of each rollout.
"""

import asyncio
import json
import socket
import sys
import urllib.error
import urllib.request

from agentlightning.store.client_server import LightningStoreServer
from agentlightning.store.mongo import MongoLightningStore

ODD = {
    "z": 1,
    "a": 1.0,
    "big": 2**63 - 1,
    "less": -(2**53) - 1,
    "tiny": 5e-324,
    "huge": 1e300,
    "$set": {"$inc": {"a.b": [1, 2.5, None, True]}},
    "": {"": []},
    "text": 'é😀"\\\u0000\n',
    "_id": "mine",
    "partition_id": "mine too",
}


class Api:
    def __init__(self, port):
        self.base = f"http://127.0.0.1:{port}/v1/agl/"

    def get(self, path):
        with urllib.request.urlopen(self.base + path, timeout=60) as answer:
            return answer.read().decode()

    def post(self, path, body):
        request = urllib.request.Request(
            self.base + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read() or "null")
        except urllib.error.HTTPError as e:
            raise RuntimeError(f"POST {path}: {e.code} {e.read().decode()[:2000]}") from None

    def enqueue(self, *rollouts):
        return [r["rollout_id"] for r in self.post("queues/rollouts/enqueue", {"rollouts": list(rollouts)})]

    def claim(self, worker):
        return self.post("queues/rollouts/dequeue", {"limit": 1, "worker_id": worker})[0]

    def attempt(self, claimed, **update):
        return self.post(f"rollouts/{claimed['rollout_id']}/attempts/{claimed['attempt']['attempt_id']}", update)

    def span(self, claimed, number, **fields):
        context = {"trace_id": f"{number:032x}", "span_id": f"{number:016x}", "is_remote": False, "trace_state": {}}
        span = {
            "rollout_id": claimed["rollout_id"],
            "attempt_id": claimed["attempt"]["attempt_id"],
            "sequence_id": number,
            "trace_id": context["trace_id"],
            "span_id": context["span_id"],
            "parent_id": None,
            "name": f"span {number}",
            "status": {"status_code": "OK", "description": None},
            "attributes": {"n": number},
            "events": [],
            "links": [],
            "start_time": 1700000000.25 + number,
            "end_time": 1700000001.5,
            "context": context,
            "parent": None,
            "resource": {"attributes": {"service.name": "seed"}, "schema_url": ""},
        }
        span.update(fields)
        return self.post("spans", span)


def fill_earlier(api):
    api.enqueue({"input": "earlier"}, {"input": "earlier too"})
    api.claim("w-everywhere")
    api.post("resources", {"p": {"resource_type": "prompt_template", "template": "x", "engine": "f-string"}})


def fill(api):
    api.post(
        "resources",
        {
            "prompt": {"resource_type": "prompt_template", "template": "{x} é", "engine": "jinja"},
            "llm": {
                "resource_type": "llm",
                "endpoint": "http://h/v1",
                "model": "m",
                "api_key": None,
                "sampling_parameters": {"temperature": 1.0, "n": 2, "stop": ["a"]},
            },
        },
    )
    api.post("resources/rs-own", {})
    api.post("resources/rs-own", {"t": {"resource_type": "prompt_template", "template": "", "engine": "poml"}})

    retry = {"max_attempts": 3, "retry_condition": ["failed", "timeout"], "timeout_seconds": 9e8, "unresponsive_seconds": 8e8}
    api.enqueue({"input": ODD, "mode": "train", "metadata": {"m": ODD}})
    api.enqueue(*({"input": n, "mode": "val", "config": retry} for n in range(12)))
    api.enqueue({"input": None, "resources_id": "rs-none", "metadata": None}, {"input": [1, 1.0, "x"]})
    for worker in ("w-1", "w-2", "w-everywhere", "w odd é"):
        api.post("workers/" + urllib.request.quote(worker, safe=""), {"heartbeat_stats": {"cpu": 0.5, "n": 1, "of": ODD}})

    running = api.claim("w-1")
    for number in range(1, 8):
        api.span(running, number)
    api.span(
        running,
        20,
        parent_id="00000000000000aa",
        status={"status_code": "ERROR", "description": "böse"},
        attributes={"s": "ä", "i": 7, "f": 1.0, "b": True, "list": ["a", "b"], "ints": [1, 2], "dotted.$key": -0.5, "": "empty"},
        events=[{"name": "e", "attributes": {"a.b": 1, "f": 2.0}, "timestamp": 1700000000.125}, {"name": "f", "attributes": {}, "timestamp": None}],
        links=[
            {
                "context": {"trace_id": "1", "span_id": "2", "is_remote": True, "trace_state": {"k": "v"}},
                "attributes": {"x": [1.5, 2.0]},
            }
        ],
        parent={"trace_id": "1", "span_id": "aa", "is_remote": True, "trace_state": {}},
        context=None,
        start_time=None,
        end_time=None,
        kind="SERVER",
        extra={"nested": [1, 1.0, None]},
    )
    api.attempt(running, metadata={"progress": 1.0, "odd": ODD}, last_heartbeat_time=1700000000.75)

    succeeded = api.claim("w-2")
    api.span(succeeded, 1)
    api.attempt(succeeded, status="succeeded")

    requeued = api.claim("w-1")
    api.span(requeued, 3)
    api.attempt(requeued, status="failed")

    failed = api.claim("w-everywhere")
    for _ in range(2):
        api.attempt(failed, status="failed")
        failed = api.post(f"rollouts/{failed['rollout_id']}/attempts", {"worker_id": "w-everywhere"})
    api.attempt(failed, status="failed")

    cancelled = api.claim("w odd é")
    api.post("rollouts/" + cancelled["rollout_id"], {"status": "cancelled"})

    api.post("rollouts", {"input": "started", "mode": "test", "worker_id": "w-2"})
    api.claim("w-new")  # preparing
    taken_out = api.enqueue({"input": "cancelled in the queue"})[0]
    api.post("rollouts/" + taken_out, {"status": "cancelled"})

    rollout = running["rollout_id"]
    api.post("spans/next", {"rollout_id": rollout, "attempt_id": running["attempt"]["attempt_id"]})
    api.post("spans/next", {"rollout_id": "ro-unknown", "attempt_id": "at-unknown"})


def look(api):
    paths = [
        "rollouts?limit=-1&sort_by=rollout_id",
        "workers?limit=-1&sort_by=worker_id",
        "resources?limit=-1&sort_by=resources_id",
        "resources/latest",
    ]
    for rollout in json.loads(api.get(paths[0]))["items"]:
        paths.append(f"rollouts/{rollout['rollout_id']}/attempts?limit=-1")
        paths.append(f"spans?rollout_id={rollout['rollout_id']}&limit=-1&sort_by=sequence_id")
    return {path: api.get(path) for path in paths}


def hand_out(api):
    rollouts = json.loads(api.get("rollouts?limit=-1&sort_by=rollout_id"))["items"]
    numbers = {
        r["rollout_id"]: api.post("spans/next", {"rollout_id": r["rollout_id"], "attempt_id": "at"}) for r in rollouts
    }
    claimed = api.post("queues/rollouts/dequeue", {"limit": 1000})
    return {"order": [r["rollout_id"] for r in claimed], "numbers": numbers}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


async def serve(uri, work):
    store = MongoLightningStore(mongo_uri=uri)
    port = free_port()
    server = LightningStoreServer(store, host="127.0.0.1", port=port, launch_mode="asyncio")
    await server.start()
    try:
        await asyncio.to_thread(work, Api(port))
    finally:
        await server.stop()


def main_work(api):
    fill(api)
    print(json.dumps(look(api)), flush=True)
    sys.stdin.readline()
    print(json.dumps(hand_out(api)), flush=True)


async def main():
    await serve(sys.argv[1], fill_earlier)
    await serve(sys.argv[1], main_work)


asyncio.run(main())
