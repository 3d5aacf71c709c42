"""A small job for the reference's Trainer: its algorithm looks for the number
that the agent rewards most. The store is run by somebody else (the environment
says AGL_MANAGED_STORE=0); TRAINER_STORE is its address, TRAINER_RUNNERS the
number of runner processes, TRAINER_NAME marks this run's rollouts, TRAINER_HALL
is an empty folder.

The first tasks, one for each runner, end only when all of them are being worked
on: so every runner takes part.
"""

import asyncio
import os
import time
from pathlib import Path

import agentlightning as agl
from agentlightning.reward import find_final_reward
from agentlightning.store.client_server import LightningStoreClient
from agentlightning.tracer import OtelTracer
from agentlightning.types import EnqueueRolloutRequest, PromptTemplate

NAME = os.environ["TRAINER_NAME"]
RUNNERS = int(os.environ["TRAINER_RUNNERS"])
HALL = Path(os.environ["TRAINER_HALL"])


class Guesser(agl.LitAgent):
    def rollout(self, task, resources, rollout):
        if task["meet"]:
            (HALL / rollout.rollout_id).touch()
            while len(list(HALL.iterdir())) < RUNNERS:
                time.sleep(0.05)
        goal = int(resources["goal"].template)
        return 1.0 / (1.0 + abs(goal - task["guess"]))


class Search(agl.Algorithm):
    async def run(self, train_dataset=None, val_dataset=None):
        store = self.get_store()
        best = {}
        for first in (0, 10):
            update = await store.add_resources({"goal": PromptTemplate(template="7", engine="f-string")})
            requests = [
                EnqueueRolloutRequest(
                    input={"guess": first + i, "meet": first + i < RUNNERS},
                    mode="train",
                    resources_id=update.resources_id,
                    metadata={"trainer": NAME},
                )
                for i in range(10)
            ]
            pending = {r.rollout_id: r.input["guess"] for r in await store.enqueue_many_rollouts(requests)}
            while pending:
                for done in await store.wait_for_rollouts(rollout_ids=list(pending), timeout=0.0):
                    spans = await store.query_spans(done.rollout_id, "latest")
                    best[pending.pop(done.rollout_id)] = find_final_reward(list(spans))
                await asyncio.sleep(0.1)
        print(f"{NAME} learned the answer {max(best, key=best.get)}", flush=True)


def main():
    trainer = agl.Trainer(
        algorithm=Search(),
        n_runners=RUNNERS,
        store=LightningStoreClient(os.environ["TRAINER_STORE"]),
        tracer=OtelTracer(),
        runner={"type": "agentlightning.runner.LitAgentRunner", "poll_interval": 0.2, "heartbeat_interval": 1.0},
        strategy={"type": "agentlightning.execution.client_server.ClientServerExecutionStrategy"},
    )
    trainer.fit(Guesser())


if __name__ == "__main__":
    main()
