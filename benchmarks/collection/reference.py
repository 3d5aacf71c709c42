"""The collection benchmark on the collections of Agent-Lightning.

Runs in an environment with agentlightning[mongo]==0.3.0, and prints one line of
JSON like `aglq bench collection --json -` does:

    python benchmarks/collection/reference.py insert --backend memory
    python benchmarks/collection/reference.py dequeue --backend mongo --mongo-uri URI
"""

import argparse
import asyncio
import json
import time

from agentlightning.store.collection import memory
from agentlightning.types import Rollout, RolloutConfig


def collections(args):
    if args.backend == "memory":
        return memory.InMemoryLightningCollections(lock_type="asyncio")
    from agentlightning.store.collection import mongo

    pool = mongo.MongoClientPool(mongo_uri=args.mongo_uri)
    return mongo.MongoLightningCollections(pool, args.mongo_database, "bench")


async def insert(store, i):
    rollout = Rollout(
        rollout_id=f"collection-bench-{i}", input={"task": i}, start_time=time.time(), status="queuing",
        config=RolloutConfig(),
    )
    async with store.atomic(mode="rw", labels=["rollouts"]) as section:
        await section.rollouts.insert([rollout])


async def dequeue(store, i):
    async with store.atomic(mode="rw", labels=["rollout_queue"]) as section:
        if not await section.rollout_queue.dequeue(limit=1):
            raise RuntimeError("the queue is empty")


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=["insert", "dequeue"])
    parser.add_argument("--backend", choices=["memory", "mongo"], default="memory")
    parser.add_argument("--total-tasks", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--mongo-uri", default="mongodb://localhost:27017/?replicaSet=rs0")
    parser.add_argument("--mongo-database", default="agentlightning_collection_bench")
    args = parser.parse_args()
    store = collections(args)
    if args.backend == "mongo":
        client = await store._client_pool.get_client()
        await client.drop_database(args.mongo_database)
    operation = insert if args.mode == "insert" else dequeue
    if args.mode == "dequeue":
        async with store.atomic(mode="rw", labels=["rollout_queue"]) as section:
            for start in range(0, args.total_tasks, 512):
                ids = range(start, min(start + 512, args.total_tasks))
                await section.rollout_queue.enqueue([f"collection-bench-{i}" for i in ids])
    numbers = iter(range(args.total_tasks))
    times = []

    async def caller():
        for i in numbers:
            began = time.perf_counter()
            await operation(store, i)
            times.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(args.concurrency)))
    took = time.perf_counter() - began
    times.sort()
    print(json.dumps({
        "backend": args.backend, "name": args.mode, "total_tasks": args.total_tasks, "concurrency": args.concurrency,
        "successes": len(times), "duration": took, "throughput": len(times) / took,
        "p50_latency": times[len(times) // 2], "p99_latency": times[len(times) * 99 // 100],
    }))


asyncio.run(main())
