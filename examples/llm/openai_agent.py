"""An agent on OpenAI's library: it answers a question with a tool, and grades itself.

The task comes on standard input; the last line of output is the reward. Where the
model is, and the key for it, the library takes from the environment.
"""

import json
import os
import sys

from openai import OpenAI

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}


def ask(client, question):
    messages = [
        {"role": "system", "content": "Use the tool to add. Say nothing but the sum."},
        {"role": "user", "content": question},
    ]
    model = os.environ.get("MODEL", "policy")
    for _ in range(5):
        message = client.chat.completions.create(model=model, messages=messages, tools=[ADD]).choices[0].message
        if not message.tool_calls:
            return message.content
        messages.append(message.model_dump(exclude_none=True))
        for call in message.tool_calls:
            arguments = json.loads(call.function.arguments)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": str(arguments["a"] + arguments["b"])})
    return ""


def main():
    task = json.load(sys.stdin)
    answer = ask(OpenAI(), task["question"])
    print(json.dumps({"reward": 1.0 if answer.strip() == task["answer"] else 0.0}))


if __name__ == "__main__":
    main()
