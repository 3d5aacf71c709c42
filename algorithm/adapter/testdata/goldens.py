"""Writes the files that the adapters are tested against.

    python goldens.py generate   # generated.jsonl.gz and edge.jsonl.gz: made-up spans
    python goldens.py record     # recorded.jsonl.gz: spans of the reference's tracers and proxy

It needs Agent-Lightning 0.3.0 (for record with its agentops and litellm extras; no
network: the model is a server in this process). Each line is one attempt: its
spans, and what the reference's adapters make of them.
"""

import asyncio
import functools
import gzip
import json
import logging
import os
import pathlib
import random
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ.setdefault("LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY", "true")

from agentlightning.adapter import LlmProxyTraceToTriplet, TraceToMessages, TracerTraceToTriplet
from agentlightning.adapter import messages as messages_module
from agentlightning.adapter import triplet as triplet_module
from agentlightning.types import Span

HERE = pathlib.Path(__file__).parent


class FirstSeen(dict):
    """A set in the order of insertion: the order of made-up roots depends on it."""

    def __init__(self, items=()):
        super().__init__((item, None) for item in items)

    def add(self, item):
        self[item] = None

    def __sub__(self, other):
        return FirstSeen(item for item in self if item not in other)


triplet_module.set = FirstSeen
# Contents that are lists are validated when they are read, by which time the
# validator must still be there.
messages_module.TypeAdapter = functools.cache(messages_module.TypeAdapter)

# What the reference's options are called, by variant.
VARIANTS = {
    "default": {},
    "keep_hierarchy": {"repair_hierarchy": False},
    "agent": {"agent_match": "alpha|beta"},
    "reward_calls": {"exclude_llm_call_in_reward": False},
    "first_sibling": {"reward_match": "first_sibling"},
    "any_span": {"llm_call_match": "."},
    "skip_empty": {"_skip_empty_token_spans": True},
}


def plain(value):
    """Resolves what pydantic validates late, and drops nothing."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value]


def outcome(make):
    try:
        items = make()
        return [plain(item if isinstance(item, dict) else item.model_dump()) for item in items]
    except Exception as error:
        return {"error": type(error).__name__}


def loses_spans(spans):
    """The reference may hang a span below one of its own descendants; all of them
    are lost then. The adapters here do not, so such trees are no test."""
    try:
        tree = triplet_module.TraceTree.from_spans(spans)
    except Exception:
        return False
    before = len(tree.traverse())
    tree.repair_hierarchy()
    return len(tree.traverse()) != before


def line(name, spans, variants):
    return {
        "name": name,
        "spans": [json.loads(s.model_dump_json()) for s in spans],
        "tracer": {v: outcome(lambda: TracerTraceToTriplet(**VARIANTS[v]).adapt(spans)) for v in variants},
        "proxy": outcome(lambda: LlmProxyTraceToTriplet().adapt(spans)),
        "messages": outcome(lambda: TraceToMessages().adapt(spans)),
    }


def dump(item):
    return json.dumps(item, ensure_ascii=False, separators=(",", ":"))


def write(path, lines):
    text = "".join(dump(item) + "\n" for item in lines)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    else:
        path.write_text(text)
    print(f"{path.name}: {len(lines)} attempts, {path.stat().st_size} bytes")


# Generated spans.


def span(id, parent=None, name="step", start=0.0, end=None, sequence=1, **attributes):
    """Attributes are written with __ for dots."""
    flat = {k.replace("__", "."): v for k, v in attributes.items()}
    return raw_span(id, parent, name, start, start + 1 if end is None else end, sequence, flat)


def raw_span(id, parent, name, start, end, sequence, attributes):
    return Span.from_attributes(
        rollout_id="ro-1", attempt_id="at-1", sequence_id=sequence, trace_id="t1", span_id=id, parent_id=parent,
        name=name, start_time=start, end_time=end, attributes=attributes,
    )


class Generator:
    """Makes the spans of one attempt."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.spans = []
        self.responses = 0

    def chance(self, p):
        return self.random.random() < p

    def pick(self, *choices):
        return self.random.choice(choices)

    def moment(self, low, high):
        """A time on a coarse grid, so that ties happen."""
        return low + (high - low) * self.random.randint(0, 16) / 16

    def attempt(self):
        roots = 1 if self.chance(0.8) else self.random.randint(2, 3)
        for _ in range(roots):
            parent = f"lost{self.random.randint(0, 1)}" if self.chance(0.15) else None
            low = 1000.0 + self.random.randint(0, 4)
            self.subtree(parent, low, low + 64, 0)
        if self.chance(0.03):
            self.add("loop1", "loop2", "step", 1000.0, 1001.0, {})
            self.add("loop2", "loop1", "step", 1000.0, 1001.0, {})
        if self.chance(0.01):
            self.spans = [s for s in self.spans if s.parent_id is not None]
        if self.chance(0.3):
            self.random.shuffle(self.spans)
        if self.chance(0.5):
            for i, s in enumerate(self.spans):
                s.sequence_id = i + 1
        return self.spans

    def add(self, id, parent, name, start, end, attributes):
        self.spans.append(raw_span(id, parent, name, start, end, self.random.randint(1, 12), attributes))

    def subtree(self, parent, low, high, depth):
        name, attributes = self.content(depth)
        start = self.moment(low, high)
        end = start if name.endswith("annotation") and self.chance(0.8) else self.moment(start, high)
        if self.chance(0.03):
            end += 16
        id = f"s{len(self.spans):02d}"
        self.add(id, parent, name, start, end, attributes)
        if depth < 4 and len(self.spans) < 16:
            for _ in range(self.random.choice((0, 0, 1, 1, 2, 3) if depth else (1, 2, 3, 4, 6))):
                self.subtree(id, start, max(start, end), depth + 1)

    def content(self, depth):
        makers = [self.step, self.agent, self.agent, self.call, self.call, self.call, self.reward, self.reward, self.tool, self.weave]
        makers += [self.proxied, self.reward_operation]
        name, attributes = self.random.choice(makers)() if depth else self.pick(self.step, self.step, self.agent)()
        if self.chance(0.004):
            attributes[self.pick("gen_ai.prompt", "gen_ai.request", "agentlightning.reward")] = "a value of a prefix"
        return name, attributes

    def step(self):
        return self.pick("step", "session", "agent.run"), {"n": self.random.randint(0, 9)} if self.chance(0.3) else {}

    def agent(self):
        who = self.pick("alpha", "beta", "gamma")
        return self.pick(
            ("agent", {"agent.name": who}),
            ("agent", {"agentops.span.kind": "agent", "operation.name": who}),
            ("agent", {"agentops.span.kind": "task", "operation.name": who}),
            ("agent", {"recipient_agent_type": who}),
            ("agent", {"langchain.chain.type": who}),
            ("agent", {"executor.id": who}),
            ("agent", {"type": "agent", "agentlightning.operation.input.name": who}),
            ("agent", {"type": "tool", "agentlightning.operation.input.name": who}),
            ("langchain.Chain." + who, {"lc_name": who}),
            ("langchain.Tool." + who, {"lc_name": who}),
            ("agent", {"executor.id": who, "agent.name": "beta"}),
        )

    def tokens(self):
        n = self.random.randint(1, 4)
        return [self.random.randint(0, 50) for _ in range(n)]

    def response_id(self):
        if self.chance(0.15) and self.responses:
            return f"chatcmpl-{self.random.randint(1, self.responses)}"
        self.responses += 1
        return f"chatcmpl-{self.responses}"

    def text(self):
        return self.pick("hi", "two words", "Grüße 你好 🎉", 'a "quote" and \\', "line\nbreak", "", "0.5", "null")

    def prompt(self, a):
        prefix = "gen_ai.prompt"
        for i in range(self.random.randint(1, 3)):
            at = f"{prefix}.{i}"
            role = self.pick("user", "user", "system", "assistant", "tool", "developer")
            a[f"{at}.role"] = role
            if self.chance(0.01):
                a[f"{at}.role"] = "banana"
            if role == "tool":
                a[f"{at}.tool_call_id"] = "call_1"
            if role == "assistant" and self.chance(0.4):
                for j in range(self.random.randint(1, 2)):
                    a[f"{at}.tool_calls.{j}.id"] = f"call_{j}"
                    a[f"{at}.tool_calls.{j}.name"] = "add"
                    a[f"{at}.tool_calls.{j}.arguments"] = '{"a": 1}'
                continue
            kind = self.random.random()
            if kind < 0.15 and role == "user":
                part = {"type": "image_url", "image_url": {"url": f"http://x/{i}.png", "detail": "low"}}
                a[f"{at}.content"] = json.dumps([{"type": "text", "text": self.text()}, part])
            elif kind < 0.25 and role == "user":
                a[f"{at}.content.0.type"] = "text"
                a[f"{at}.content.0.text"] = self.text()
                a[f"{at}.content.1.type"] = "image_url"
                a[f"{at}.content.1.image_url.url"] = f"http://y/{i}.png"
            elif kind < 0.95:
                a[f"{at}.content"] = self.text()
        if self.chance(0.1):
            a[f"{prefix}.prompt_filter_results"] = "[]"
        if self.chance(0.01):
            a[f"{prefix}.9.role"] = "user"

    def call(self):
        a = {"gen_ai.request.type": "chat", "gen_ai.system": "OpenAI", "gen_ai.request.model": self.pick("m", "n")}
        if self.chance(0.3):
            a["gen_ai.request.temperature"] = self.pick(0.5, 1.0, 0.00001, 0)
        if self.chance(0.3):
            for i in range(self.random.randint(1, 2)):
                a[f"gen_ai.request.functions.{i}.name"] = f"tool{i}"
                if self.chance(0.7):
                    a[f"gen_ai.request.functions.{i}.description"] = self.text()
                a[f"gen_ai.request.functions.{i}.parameters"] = '{"type": "object", "properties": {"a": {"type": "integer"}}}'
        if self.chance(0.95):
            self.prompt(a)
        if self.chance(0.85):
            a["gen_ai.response.id"] = self.response_id()
            a["gen_ai.response.model"] = "m"
        for i in range(self.pick(1, 1, 1, 2, 0)):
            a[f"gen_ai.completion.{i}.finish_reason"] = "stop"
            a[f"gen_ai.completion.{i}.role"] = self.pick("assistant", "assistant", "assistant", "user")
            if self.chance(0.8):
                a[f"gen_ai.completion.{i}.content"] = self.text()
            if self.chance(0.1):
                a[f"gen_ai.completion.{i}.tool_calls.0.id"] = "call_1"
                a[f"gen_ai.completion.{i}.tool_calls.0.name"] = "add"
                a[f"gen_ai.completion.{i}.tool_calls.0.arguments"] = "{}"
        if self.chance(0.7):
            a["prompt_token_ids"] = self.tokens()
        if self.chance(0.7):
            a["response_token_ids"] = self.pick(self.tokens(), self.tokens(), ["a"], [0.5], "[1]")
        if self.chance(0.3):
            a["logprobs.content"] = '[{"token": "a", "logprob": -0.5, "bytes": null}]'
        name = self.pick("openai.chat.completion", "openai.chat.completion", "openai.chat.completion", "my.openai.chat.completion.v2", "openai chat")
        return name, a

    def weave(self):
        a = {"agentlightning.operation.name": "chat", "agentlightning.operation.input.model": "m"}
        at = "agentlightning.operation.input.messages.0"
        a[f"{at}.role"], a[f"{at}.content"] = "user", self.text()
        out = "agentlightning.operation.output"
        a[f"{out}.id"] = self.response_id()
        a[f"{out}.choices.0.message.content"] = self.text()
        a[f"{out}.prompt_token_ids"] = self.tokens()
        key = self.pick("response_token_ids.0", "choices.0.token_ids", "choices.0.provider_specific_fields.token_ids")
        a[f"{out}.{key}"] = self.tokens()
        return "openai.chat.completion", a

    def reward(self):
        value = self.pick(0.0, 0.25, 1.0, -1.5)
        kind = self.random.random()
        if kind < 0.55:
            a = {"agentlightning.reward.0.name": "primary", "agentlightning.reward.0.value": value}
            if self.chance(0.3):
                a |= {"agentlightning.reward.1.name": "speed", "agentlightning.reward.1.value": 0.5}
            if self.chance(0.2):
                a |= {"agentlightning.link.0.key_match": "gen_ai.response.id", "agentlightning.link.0.value_match": "chatcmpl-1"}
            return "agentlightning.annotation", a
        if kind < 0.7:
            return "agentlightning.annotation", {"reward": value}
        key = self.pick("agentops.task.output", "agentops.entity.output")
        if kind < 0.9:
            return "reward.task", {key: json.dumps({"type": "reward", "value": self.pick(value, value, None)})}
        return "agentlightning.annotation", {key: self.pick("", "text", '{"type": "other", "value": 1}'), "note": "no reward"}

    def reward_operation(self):
        name = self.pick("agentlightning.reward", "grade")
        return "agentlightning.operation", {"agentlightning.operation.name": name}

    def tool(self):
        a = {"tool.name": "add", "tool.parameters": '{"a": 1}', "tool.call.id": "call_1", "tool.call.type": "function"}
        if self.chance(0.03):
            del a["tool.name"]
        return "tool_call.add", a

    def proxied(self):
        if self.chance(0.4):
            a = {"gen_ai.response.id": self.response_id()}
            if self.chance(0.5):
                a |= {"prompt_token_ids": self.pick(self.tokens(), repr(self.tokens())), "response_token_ids": self.tokens()}
            return "litellm_request", a
        choice = {"index": 0, "message": {"role": "assistant", "content": self.text()}, "stop": None, "last": True}
        a = {"llm.hosted_vllm.prompt_token_ids": repr(self.pick(self.tokens(), self.tokens(), [], "none"))}
        if self.chance(0.9):
            a["llm.hosted_vllm.id"] = self.response_id()
        if self.chance(0.3):
            a["llm.hosted_vllm.response_token_ids"] = repr([self.tokens(), self.tokens()])
        if self.chance(0.8):
            choice["token_ids"] = self.tokens()
            a["llm.hosted_vllm.choices"] = repr([choice])
        return "raw_gen_ai_request", a


def generated():
    lines, seed = [], 0
    while len(lines) < 1000:
        seed += 1
        generator = Generator(seed)
        spans = generator.attempt()
        if loses_spans(spans):
            continue
        lines.append(line(f"seed {seed}", spans, ["default", generator.pick(*list(VARIANTS)[1:])]))
    return lines


def call(id, parent="root", start=1.0, response=None, **more):
    more = {"gen_ai__request__model": "m", "prompt_token_ids": [1], "response_token_ids": [2], **more}
    if response:
        more["gen_ai__response__id"] = response
    return span(id, parent, "openai.chat.completion", start, **more)


def reward(id, parent="root", start=5.0, value=1.0, **more):
    return span(id, parent, "agentlightning.annotation", start, start,
                agentlightning__reward__0__name="primary", agentlightning__reward__0__value=value, **more)


def edge_cases():
    root = span("root", start=0.0, end=100.0)
    agent = {"agent__name": "alpha"}
    prompt = {"gen_ai__prompt__0__role": "user", "gen_ai__prompt__0__content": "hi"}
    grade = {"agentlightning__operation__name": "agentlightning.reward"}
    raw = {"llm__hosted_vllm__prompt_token_ids": "[1, 2]"}

    def proxied(id, sequence, start=1.0, **more):
        return span(id, None, "raw_gen_ai_request", start, sequence=sequence, **{
            **raw, "llm__hosted_vllm__id": id, "llm__hosted_vllm__choices": "[{'token_ids': [3], 'finish_reason': None}]", **more})

    return {
        "no spans": [],
        "one span": [call("a", None)],
        "only a cycle": [span("a", "b"), span("b", "a")],
        "a cycle beside a root": [root, span("a", "b"), call("b", "a")],
        "a span that is its own parent": [root, call("a", "a")],
        "a missing parent is made up": [call("a", "gone", 1.0), call("b", "gone", 3.0), reward("r", "gone")],
        "two missing parents in order of sight": [call("a", "gone2"), call("b", "gone1", 3.0), reward("r", None)],
        "several roots get one above them": [call("a", None), call("b", None, 3.0), reward("r", None)],
        "a call that floats is put under its agent": [root, span("ag", "root", "agent", 0.5, 9.0, **agent), call("a", "root", 1.0)],
        "the tightest span wins": [root, span("o", "root", "agent", 0.5, 9.0, agent__name="outer"),
                                   span("i", "root", "agent", 0.75, 3.0, agent__name="inner"), call("a", "root", 1.0)],
        "a span of equal times is no parent": [root, span("ag", "root", "agent", 1.0, 2.0, **agent), call("a", "root", 1.0)],
        "an only child is looked into": [span("r", start=0.0, end=99.0), span("root", "r", "session", 0.0, 98.0),
                                         span("ag", "root", "agent", 0.5, 9.0, **agent), call("a", "root", 1.0)],
        "repair stops at one child": [root, span("x", "root", "agent", 1.0, 8.0, agent__name="x"),
                                      span("y", "root", "agent", 2.0, 7.0, agent__name="y"), call("a", "y", 3.0)],
        "agents of every kind": [root] + [
            s for i, (name, a) in enumerate([
                ("x", {"agent__name": "a1"}), ("x", {"agentops__span__kind": "agent", "operation__name": "a2"}),
                ("x", {"operation__name": "none"}), ("x", {"recipient_agent_type": "a3"}), ("x", {"langchain__chain__type": "a4"}),
                ("x", {"executor__id": "a5"}), ("x", {"type": "agent", "agentlightning__operation__input__name": "a6"}),
                ("langchain.Chain.x", {"lc_name": "a7"}), ("langchain.x", {"lc_name": "none"}),
            ]) for s in (span(f"g{i}", "root", name, i * 4.0, i * 4.0 + 3, **a), call(f"c{i}", f"g{i}", i * 4.0 + 1))],
        "an inner agent hides the outer": [root, span("o", "root", "agent", 0.5, 9.0, **agent),
                                           span("i", "o", "agent", 0.5, 9.0, agent__name="gamma"), call("a", "i", 1.0), call("b", "o", 3.0)],
        "a call within a call without an id": [root, call("a", response="x"), call("b", "a", 1.25)],
        "a call within a call with an id": [root, call("a", response="x"), call("b", "a", 1.25, "y")],
        "a response that comes twice": [root, call("a", response="x"), call("b", start=3.0, response="x")],
        "a call within a reward": [root, call("a"), reward("r", start=4.0), span("b", "r", "openai.chat.completion", 4.0, 4.0)],
        "a call within a reward operation": [root, call("a"), span("o", "root", "agentlightning.operation", 3.0, 6.0, **grade), call("b", "o", 4.0)],
        "an operation of another name": [root, span("o", "root", "agentlightning.operation", 3.0, 6.0, agentlightning__operation__name="x"), call("b", "o", 4.0)],
        "token ids that are no integers": [root, call("a", prompt_token_ids=["1"], response_token_ids=[1.5])],
        "token ids of the second kind": [root, call("a", prompt_token_ids="x", agentlightning__operation__output__prompt_token_ids=[7])],
        "no token ids": [root, span("a", "root", "openai.chat.completion", 1.0)],
        "weave's choices": [root, span("a", "root", "openai.chat.completion", 1.0, agentlightning__operation__output__id="w",
                                       agentlightning__operation__input__messages__0__content="hi",
                                       agentlightning__operation__input__model="m",
                                       agentlightning__operation__output__choices__0__token_ids=[4],
                                       agentlightning__operation__output__usage="u")],
        "logprobs": [root, call("a", logprobs__content='[{"token": "x", "logprob": -0.25}]')],
        "logprobs that are null": [root, call("a", logprobs__content="null")],
        "logprobs that are no JSON": [root, call("a", logprobs__content="[")],
        "images in JSON text": [root, call("a", gen_ai__prompt__0__content='[{"type":"image_url","image_url":{"url":"u1"}},{"type":"text"},5,{"type":"image_url","image_url":"u"}]')],
        "images in nested attributes": [root, call("a", gen_ai__prompt__0__content__0__type="image_url", gen_ai__prompt__0__content__0__image_url__url="u1")],
        "images beside a name that is no number": [root, call("a", **{
            "gen_ai.prompt.10.content": '[{"type":"image_url","image_url":{"url":"u10"}}]',
            "gen_ai.prompt.2.content": '[{"type":"image_url","image_url":{"url":"u2"}}]', "gen_ai.prompt.filter": "x"})],
        "an image in a single message": [root, call("a", gen_ai__prompt__content='[{"type":"image_url","image_url":{"url":"u"}}]')],
        "a prompt with a value of its own": [root, call("a", gen_ai__prompt="hi")],
        "a gap in the prompt": [root, call("a", **{"gen_ai.prompt.0.role": "user", "gen_ai.prompt.2.role": "user"})],
        "a list of scalars in the prompt": [root, call("a", **{"gen_ai.prompt.0": "x"})],
        "a reward goes to the last call that ended": [root, call("a", start=1.0), call("b", start=2.0), reward("r", start=3.0)],
        "a call that has not ended is passed over": [root, call("a", start=1.0), span("b", "root", "openai.chat.completion", 2.0, 9.0), reward("r", start=3.0)],
        "a second reward goes to the call before": [root, call("a", start=1.0), call("b", start=2.0), reward("r", start=3.0), reward("q", start=4.0, value=2.0)],
        "a reward before all calls is nobody's": [root, reward("r", start=0.5), call("a", start=1.0)],
        "more rewards than calls": [root, call("a"), reward("r"), reward("q", start=6.0, value=2.0)],
        "equal times keep the order of the tree": [root, call("a", start=1.0), call("b", start=1.0), reward("r", start=2.0)],
        "siblings of another span do not count": [root, span("x", "root", "s", 0.5, 3.0), call("a", "x", 1.0), reward("r", "root", 5.0)],
        "siblings": [root, span("x", "root", "s", 0.5, 9.0), call("a", "x", 1.0), call("b", "root", 3.0), reward("r", "x", 5.0)],
        "a reward with links is matched by place": [root, call("a", response="x"), call("b", start=3.0, response="y"),
                                                    reward("r", agentlightning__link__0__key_match="gen_ai.response.id", agentlightning__link__0__value_match="x")],
        "a malformed reward": [root, call("a"), span("r", "root", "agentlightning.annotation", 5.0, agentlightning__reward__0__value=1.0)],
        "a reward list with a gap": [root, call("a"), span("r", "root", "x", 5.0, agentlightning__reward__1__name="p", agentlightning__reward__1__value=1.0)],
        "a reward of the second form": [root, call("a"), span("r", "root", "x", 5.0, agentops__task__output='{"type": "reward", "value": 0.5}')],
        "a reward of null hides the next form": [root, call("a"), span("r", "root", "x", 5.0, agentops__task__output='{"type": "reward", "value": null}',
                                                                       agentops__entity__output='{"type": "reward", "value": 0.5}')],
        "a reward of the third form": [root, call("a"), span("r", "root", "agentlightning.annotation", 5.0, reward=0.5)],
        "proxy: a call": [proxied("a", 1), reward("r", None, sequence=2)],
        "proxy: a reward with the number of a call is not its": [proxied("a", 1), proxied("b", 2), reward("r", None, 9.0, sequence=2)],
        "proxy: times do not count": [proxied("a", 1, 50.0), reward("r", None, 1.0, sequence=2)],
        "proxy: the last call first": [proxied("a", 1), proxied("b", 2), reward("r", None, sequence=3), reward("q", None, value=2.0, sequence=4)],
        "proxy: a response that comes twice": [proxied("a", 1), proxied("b", 2, llm__hosted_vllm__id="a")],
        "proxy: the id of OpenAI's kind first": [proxied("a", 1, gen_ai__response__id="x")],
        "proxy: an id that is no text": [proxied("a", 1, gen_ai__response__id=5)],
        "proxy: no id": [proxied("a", 1, llm__hosted_vllm__id=""), proxied("b", 2, llm__hosted_vllm__id="")],
        "proxy: response ids by themselves": [proxied("a", 1, llm__hosted_vllm__response_token_ids="[[8, 9], [7]]")],
        "proxy: response ids that are empty": [proxied("a", 1, llm__hosted_vllm__response_token_ids="[[]]")],
        "proxy: no prompt ids": [proxied("a", 1, llm__hosted_vllm__prompt_token_ids="[]")],
        "proxy: a broken literal": [proxied("a", 1, llm__hosted_vllm__prompt_token_ids="[1, 2")],
        "proxy: ids in the request span": [span("a", None, "litellm_request", 1.0, prompt_token_ids=[1], response_token_ids="[2]", gen_ai__response__id="x")],
        "proxy: no ids in the request span": [span("a", None, "litellm_request", 1.0, gen_ai__response__id="x"), proxied("b", 1, llm__hosted_vllm__id="x")],
        "proxy: quotes of both kinds": [proxied("a", 1, llm__hosted_vllm__choices=repr([{"message": {"content": "it's \"so\"\n\\ \x07 é"}, "token_ids": [3]}]))],
        "messages: a prompt alone": [span("a", **prompt)],
        "messages: a request alone": [span("a", gen_ai__request__model="m")],
        "messages: a span of another kind": [span("a", other="x")],
        "messages: tools of children": [span("a", **prompt, gen_ai__completion__0__role="assistant"),
                                        span("t", "a", tool__name="add", tool__parameters="{}", tool__call__id="c", tool__call__type="function"),
                                        span("u", "t", tool__name="deep", tool__parameters="{}", tool__call__id="d", tool__call__type="function")],
        "messages: tools go to each completion": [
            span("a", **prompt, **{"gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.content": "x", "gen_ai.completion.1.role": "assistant"}),
            span("t", "a", tool__name="add", tool__parameters="{}", tool__call__id="c", tool__call__type="function")],
        "messages: a tool without a name": [span("a", gen_ai__completion__0__role="assistant"), span("t", "a", tool__parameters="{}", tool__call__id="c", tool__call__type="f")],
        "messages: a tool that is a list": [span("a", **prompt), span("t", "a", tool__0="x")],
        "messages: a completion of another role": [span("a", **{"gen_ai.completion.0.role": "user", "gen_ai.completion.1.content": "x"})],
        "messages: functions": [span("a", **prompt, gen_ai__request__functions__0__name="f", gen_ai__request__functions__0__parameters='{"b": 1.0, "a": {}}')],
        "messages: functions without parameters": [span("a", **prompt, gen_ai__request__functions__0__name="f")],
        "messages: parameters that are no JSON": [span("a", gen_ai__request__functions__0__name="f", gen_ai__request__functions__0__parameters="{")],
        "messages: no role": [span("a", gen_ai__prompt__0__content="x")],
        "messages: an unknown role": [span("a", gen_ai__prompt__0__role="banana")],
        "messages: the role function": [span("a", gen_ai__prompt__0__role="function", gen_ai__prompt__0__content="x")],
        "messages: a tool without a call": [span("a", gen_ai__prompt__0__role="tool", gen_ai__prompt__0__content="x")],
        "messages: a content that is a number": [span("a", gen_ai__prompt__0__role="user", gen_ai__prompt__0__content=5)],
        "messages: a content of parts": [span("a", gen_ai__prompt__0__role="user", gen_ai__prompt__0__content__0__text="x", gen_ai__prompt__0__content__0__type="text",
                                              gen_ai__prompt__0__content__1__image_url__url="u", gen_ai__prompt__0__content__1__type="image_url", gen_ai__prompt__0__content__1__extra="e")],
        "messages: a part that the role has not": [span("a", gen_ai__prompt__0__role="system", gen_ai__prompt__0__content__0__type="image_url", gen_ai__prompt__0__content__0__image_url__url="u")],
        "messages: a content of texts": [span("a", gen_ai__prompt__0__role="user", gen_ai__prompt__0__content=["x"])],
        "messages: tool calls in the prompt": [span("a", gen_ai__prompt__0__role="assistant", gen_ai__prompt__0__content="lost", gen_ai__prompt__0__tool_calls__0__id="c",
                                                    gen_ai__prompt__0__tool_calls__0__name="f", gen_ai__prompt__0__tool_calls__0__arguments="{}")],
        "messages: a tool call without arguments": [span("a", gen_ai__prompt__0__role="assistant", gen_ai__prompt__0__tool_calls__0__id="c")],
        "messages: a gap in the indexes is closed": [span("a", **{"gen_ai.prompt.10.role": "user", "gen_ai.prompt.10.content": "b", "gen_ai.prompt.2.role": "system", "gen_ai.prompt.2.content": "a"})],
        "messages: names beside indexes are dropped": [span("a", **prompt, gen_ai__prompt__filter="x")],
        "messages: a prompt that is no list": [span("a", gen_ai__prompt__role="user")],
        "messages: a request that is a list": [span("a", gen_ai__request__0="x")],
        "messages: an object takes the place of a value": [span("a", **{"gen_ai.request.a": 1, "gen_ai.request.a.b": 2, **{k.replace("__", "."): v for k, v in prompt.items()}})],
    }


def generate():
    logging.disable(logging.CRITICAL)
    write(HERE / "generated.jsonl.gz", generated())
    cases = edge_cases()
    assert not any(loses_spans(spans) for spans in cases.values())
    write(HERE / "edge.jsonl.gz", [line(name, spans, list(VARIANTS)) for name, spans in cases.items()])


# Recorded spans.


class Upstream(BaseHTTPRequestHandler):
    """A model of OpenAI's kind that answers with token ids, and calls the first tool
    it is offered once."""

    protocol_version = "HTTP/1.1"
    answers = 0

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        Upstream.answers += 1
        message = {"role": "assistant", "content": f"answer {Upstream.answers}"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        if body.get("tools") and not any(m["role"] == "tool" for m in body["messages"]):
            function = {"name": body["tools"][0]["function"]["name"], "arguments": '{"a": 1}'}
            message |= {"content": None, "tool_calls": [{"id": f"call_{Upstream.answers}", "type": "function", "function": function}]}
            choice["finish_reason"] = "tool_calls"
        answer = {"id": f"chatcmpl-{Upstream.answers}", "object": "chat.completion", "created": 1700000000, "model": body["model"],
                  "choices": [choice], "usage": {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}}
        if body.get("return_token_ids"):
            choice["token_ids"], answer["prompt_token_ids"] = [7, 8, 9], [1, 2, 3, 4]
        if body.get("logprobs"):
            entries = [{"token": t, "logprob": -0.5, "bytes": [97], "top_logprobs": []} for t in "abc"]
            choice["logprobs"] = {"content": entries, "refusal": None}
        if body.get("stream"):
            self.send("text/event-stream", self.events(answer, choice))
        else:
            self.send("application/json", json.dumps(answer))

    @staticmethod
    def events(answer, choice):
        base = {k: answer[k] for k in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
        message = choice["message"]
        deltas = [{"role": "assistant", "content": ""}]
        deltas += [{"content": word + " "} for word in (message["content"] or "").split()]
        deltas += [{"tool_calls": [{"index": i} | c]} for i, c in enumerate(message.get("tool_calls", []))]
        chunks = [base | {"choices": [{"index": 0, "delta": d, "finish_reason": None}]} for d in deltas]
        chunks.append(base | {"choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
        return "".join(f"data: {json.dumps(c)}\n\n" for c in chunks) + "data: [DONE]\n\n"

    def send(self, kind, text):
        data = text.encode()
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


TOOLS = [{"type": "function", "function": {"name": "add", "description": "adds",
                                           "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}}]
IMAGE = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "http://example.com/i.png"}}]


def user(content):
    return [{"role": "user", "content": content}]


def talk(client):
    """The calls that every recording makes, with their rewards."""
    from agentlightning.emitter import emit_message, emit_reward
    from agentlightning.emitter.annotation import operation
    from agentlightning.utils.otel import make_link_attributes

    create = client.chat.completions.create
    first = create(model="m", messages=user("hi"), extra_body={"return_token_ids": True}, logprobs=True, temperature=0.5)
    emit_reward(0.5)
    second = create(model="m", messages=[{"role": "system", "content": "s"}] + user(IMAGE), tools=TOOLS).choices[0].message
    answer = {"role": "tool", "tool_call_id": second.tool_calls[0].id, "content": "3"}
    create(model="m", messages=user("hi") + [second.model_dump(exclude_none=True), answer], tools=TOOLS)
    with operation(name="agentlightning.reward", note=1) as op:
        op.set_input(1, a={"b": [1, 2]})
        for _ in create(model="m", messages=user("grade"), stream=True):
            pass
        op.set_output({"ok": True})
    for _ in create(model="m", messages=user("use a tool"), tools=TOOLS, stream=True):
        pass
    emit_message("done")
    emit_reward({"a": 1, "b": 0.25}, primary_key="b", attributes=make_link_attributes({"gen_ai.response.id": first.id}))


async def traced(tracer, url):
    import openai
    from agentlightning.store import InMemoryLightningStore

    store = InMemoryLightningStore()
    tracer.init()
    tracer.init_worker(0, store)
    rollout = await store.start_rollout({"q": 1})
    ids = {"rollout_id": rollout.rollout_id, "attempt_id": rollout.attempt.attempt_id}
    async with tracer.trace_context(name="t", store=store, **ids):
        talk(openai.OpenAI(base_url=url, api_key="x"))
    await asyncio.sleep(0.2)
    return list(await store.query_spans(rollout.rollout_id))


async def proxied(url):
    import openai
    from agentlightning.llm_proxy import LLMProxy
    from agentlightning.store.memory import InMemoryLightningStore
    from agentlightning.types import SpanCoreFields, TraceStatus

    store = InMemoryLightningStore(thread_safe=True)
    model = {"model_name": "m", "litellm_params": {"model": "hosted_vllm/m", "api_base": url}}
    proxy = LLMProxy(port=45871, model_list=[model], store=store, launch_mode="thread", callbacks=["return_token_ids", "logprobs", "opentelemetry"])
    rollout = await store.start_rollout({"q": 1})
    ids = rollout.rollout_id, rollout.attempt.attempt_id
    await proxy.start()
    try:
        client = openai.AsyncOpenAI(base_url="http://127.0.0.1:45871/rollout/%s/attempt/%s/v1" % ids, api_key="x")
        for extra in {}, {"temperature": 0.5}, {"tools": TOOLS}:
            await client.chat.completions.create(model="m", messages=user("it's \"so\" é"), **extra)
            core = SpanCoreFields(name="agentlightning.annotation", status=TraceStatus(status_code="OK"), start_time=1.0, end_time=1.0,
                                  attributes={"agentlightning.reward.0.name": "primary", "agentlightning.reward.0.value": 0.25})
            number = await store.get_next_span_sequence_id(*ids)
            await store.add_span(Span.from_core_fields(core, rollout_id=ids[0], attempt_id=ids[1], sequence_id=number))
    finally:
        await proxy.stop()
    return list(await store.query_spans(rollout.rollout_id))


def record(which):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    if which == "proxy":
        spans = asyncio.run(proxied(url))
    else:
        from agentlightning.tracer import AgentOpsTracer, OtelTracer

        spans = asyncio.run(traced({"agentops": AgentOpsTracer, "otel": OtelTracer}[which](), url))
    return line(which, spans, list(VARIANTS))


if __name__ == "__main__":
    if sys.argv[1:] == ["generate"]:
        generate()
    elif sys.argv[1:] == ["record"]:
        # A process has one tracer: each recording has a process of its own.
        import subprocess

        texts = [subprocess.run([sys.executable, __file__, "record", w], stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()[-1]
                 for w in ("agentops", "otel", "proxy")]
        write(HERE / "recorded.jsonl.gz", [json.loads(t) for t in texts])
    elif len(sys.argv) == 3 and sys.argv[1] == "record":
        result = dump(record(sys.argv[2]))
        print("\n" + result, flush=True)
        os._exit(0)  # instrumentation leaves threads behind
    else:
        sys.exit(__doc__)
