"""An agent on LangChain: it answers a question with a tool, and grades itself.

The task comes on standard input; the last line of output is the reward. Where the
model is, and the key for it, the library takes from the environment.
"""

import json
import os
import sys

from langchain.agents import create_agent
from langchain_openai import ChatOpenAI


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


def main():
    task = json.load(sys.stdin)
    # STREAM and RESPONSES_API are two ways to make the same calls.
    model = ChatOpenAI(
        model=os.environ.get("MODEL", "policy"),
        streaming=bool(os.environ.get("STREAM")),
        use_responses_api=bool(os.environ.get("RESPONSES_API")),
    )
    agent = create_agent(model, [add], system_prompt="Use the tool to add. Say nothing but the sum.")
    answer = agent.invoke({"messages": [("user", task["question"])]})["messages"][-1].text
    print(json.dumps({"reward": 1.0 if answer.strip() == task["answer"] else 0.0}))


if __name__ == "__main__":
    main()
