"""Gives 1 to an answer that says what the task expects, else 0; and how many tool calls succeeded."""

import json
import sys

held = json.load(sys.stdin)
right = held["input"]["expected"] in held["answer"]
calls = held["tool_calls"]
tools = (calls - held["tool_failures"]) / calls if calls else 0.0
print(json.dumps({"rewards": {"answer": float(right), "tools": tools}, "primary": "answer"}))
