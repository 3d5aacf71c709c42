#!/usr/bin/env python3
"""Looks for the number that earns the highest reward.

    aglq algorithm exec --run climb -- python3 climb.py

A round has the agents try nine numbers around the best one, each round half as far
apart. Nothing here is saved: started again under the same --run, the rounds that are
stored are not run again, and the search goes on where it was.
"""

import json
import sys


class Queue:
    """What aglq says and is told: JSON lines on standard input and output."""

    def __init__(self):
        self.hello = self.read()["hello"]
        self.finished = {}  # by rollout id
        self.commands = 0

    def read(self):
        line = sys.stdin.readline()
        if not line:
            sys.exit("aglq is gone")
        return json.loads(line)

    def note(self, line):
        if "finished" in line:
            self.finished[line["finished"]["rollout"]["rollout_id"]] = line["finished"]

    def call(self, **command):
        """Sends a command and returns its answer; results may come before it."""
        self.commands += 1
        print(json.dumps({"id": self.commands, **command}), flush=True)
        while True:
            line = self.read()
            self.note(line)
            for kind in ("ok", "error"):
                if kind in line and line[kind]["id"] == self.commands:
                    if kind == "error":
                        sys.exit(line["error"]["message"])
                    return line["ok"]

    def run(self, batch, inputs):
        """Has all inputs run and returns their results in order."""
        answer = self.call(enqueue={"batch": batch, "tasks": [{"input": x} for x in inputs]})
        ids = answer["enqueue"]["rollout_ids"]
        while not all(i in self.finished for i in ids):
            self.note(self.read())
        return [self.finished.pop(i) for i in ids]


def main():
    queue = Queue()
    best, reward, step = 0.0, float("-inf"), 2.0
    for number in range(8):
        inputs = [best + i * step for i in range(-4, 5)]
        for result in queue.run(f"round-{number}", inputs):
            if result["reward"] is not None and result["reward"] > reward:
                best, reward = result["rollout"]["input"], result["reward"]
        print(f"round {number}: {best} earns {reward}", file=sys.stderr)
        step /= 2
    queue.call(resources={"resources": {"best": {"resource_type": "prompt_template", "template": str(best), "engine": "f-string"}}})
    queue.call(done=True)


if __name__ == "__main__":
    main()
