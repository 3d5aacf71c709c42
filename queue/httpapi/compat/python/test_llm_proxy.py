"""What the reference's adapters make of the spans of aglq's LLM proxy.

AGLQ_COMPAT_LLM is a proxy over the store under test, before a model that says
back what it hears.
"""

import asyncio
import json
import os
import time
import urllib.request

import pytest
from agentlightning.adapter import LlmProxyTraceToTriplet, TraceToMessages, TracerTraceToTriplet
from conftest import PEER, make_span

pytestmark = pytest.mark.skipif(PEER, reason="the proxy is aglq's")

TOOL = {"name": "f", "description": "does f", "parameters": {"type": "object", "properties": {}}}
IMAGE = [{"type": "text", "text": "look at"}, {"type": "image_url", "image_url": {"url": "http://x/y.png"}}]
CALLS = [
    ("/chat/completions", {"messages": [{"role": "user", "content": "hello there"}]}),
    ("/chat/completions", {"stream": True, "messages": [{"role": "user", "content": IMAGE}], "tools": [{"type": "function", "function": TOOL}]}),
    ("/messages", {"max_tokens": 9, "system": "be brief", "messages": [{"role": "user", "content": "hello again"}]}),
]


def post(base, path, body):
    body = json.dumps({"model": "m", **body}).encode()
    request = urllib.request.Request(base + path, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return answer.read()


async def recorded(store):
    """The spans of three calls, of which the second is followed by a reward."""
    rollout = await store.start_rollout(input="x")
    ids = rollout.rollout_id, rollout.attempt.attempt_id
    base = f"{os.environ['AGLQ_COMPAT_LLM']}/rollout/{ids[0]}/attempt/{ids[1]}/v1"
    for number, (path, body) in enumerate(CALLS):
        await asyncio.to_thread(post, base, path, body)
        deadline = time.monotonic() + 30
        while len([s for s in await store.query_spans(*ids) if s.name == "raw_gen_ai_request"]) <= number:
            assert time.monotonic() < deadline, "the spans of a call did not come"
            await asyncio.sleep(0.01)
        if number == 1:
            sequence = await store.get_next_span_sequence_id(*ids)
            reward = {"agentlightning.reward.0.name": "primary", "agentlightning.reward.0.value": 0.75}
            now = time.time()  # a span with calls within it would be taken for their parent
            await store.add_span(make_span(*ids, sequence, name="agentlightning.annotation", attributes=reward, start_time=now, end_time=now))
    return await store.query_spans(*ids)


async def test_triplets_of_the_proxy_adapter(store):
    triplets = LlmProxyTraceToTriplet().adapt(await recorded(store))
    assert [t.reward for t in triplets] == [None, 0.75, None]
    for t in triplets:
        assert t.prompt["token_ids"] and t.response["token_ids"] and t.metadata["response_id"].startswith("chatcmpl-")
    assert len({t.metadata["response_id"] for t in triplets}) == 3


async def test_triplets_of_the_tracer_adapter(store):
    spans = await recorded(store)
    triplets = TracerTraceToTriplet().adapt(spans)
    assert [t.reward for t in triplets] == [None, 0.75, None]
    assert [t.prompt["image_urls"] for t in triplets] == [[], ["http://x/y.png"], []]
    assert triplets[0].prompt["raw_content"] == [{"role": "user", "content": "hello there"}]
    assert triplets[0].response["raw_content"] == [{"role": "assistant", "content": "hello there", "finish_reason": "stop"}]
    for t, proxied in zip(triplets, LlmProxyTraceToTriplet().adapt(spans)):
        assert t.prompt["token_ids"] == proxied.prompt["token_ids"] and t.response["token_ids"] == proxied.response["token_ids"]
        assert len(t.response["logprobs"]) == len(t.response["token_ids"])


async def test_messages(store):
    first, second, third = TraceToMessages().adapt(await recorded(store))
    assert [m["content"] for m in first["messages"]] == ["hello there", "hello there"]
    assert json.loads(second["messages"][0]["content"]) == IMAGE and second["messages"][1]["content"] == "look at"
    assert second["tools"] == [{"type": "function", "function": TOOL}]
    assert [(m["role"], m["content"]) for m in third["messages"]] == [
        ("system", "be brief"), ("user", "hello again"), ("assistant", "hello again")
    ]
