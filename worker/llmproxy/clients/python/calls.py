"""Calls the LLM proxy with OpenAI's and Anthropic's own clients, as agents do.

Prints what came back of each call, JSON, one a line. OPENAI_BASE_URL and
ANTHROPIC_BASE_URL say where the proxy is.
"""

import json

import anthropic
import openai

TOOL = {
    "name": "get_weather",
    "description": "the weather of a city",
    "schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CHAT_TOOLS = [{"type": "function", "function": {"name": TOOL["name"], "description": TOOL["description"], "parameters": TOOL["schema"]}}]
MESSAGE_TOOLS = [{"name": TOOL["name"], "description": TOOL["description"], "input_schema": TOOL["schema"]}]
SAY = [{"role": "user", "content": "hello there"}]
ASK = [{"role": "user", "content": "weather please"}]
RESPONSES_TOOLS = [{"type": "function", "name": TOOL["name"], "description": TOOL["description"], "parameters": TOOL["schema"], "strict": False}]

oai = openai.OpenAI(max_retries=0)
ant = anthropic.Anthropic(max_retries=0)


def report(call_name, **result):
    print(json.dumps({"call": call_name, **result}))


def chat(model):
    got = oai.chat.completions.create(model=model, messages=SAY, max_tokens=50)
    report(f"chat {model}", text=got.choices[0].message.content, stop=got.choices[0].finish_reason)

    text, stop, usage = "", None, None
    for chunk in oai.chat.completions.create(
        model=model, messages=SAY, max_tokens=50, stream=True, stream_options={"include_usage": True}
    ):
        usage = chunk.usage or usage
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
            stop = chunk.choices[0].finish_reason or stop
    report(f"chat stream {model}", text=text, stop=stop, tokens=usage.completion_tokens)

    first = oai.chat.completions.create(model=model, messages=ASK, tools=CHAT_TOOLS, max_tokens=50)
    call = first.choices[0].message.tool_calls[0]
    report(f"chat tool {model}", name=call.function.name, arguments=json.loads(call.function.arguments), stop=first.choices[0].finish_reason)
    answer = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    asked = first.choices[0].message.model_dump(exclude_none=True)
    second = oai.chat.completions.create(model=model, messages=[*ASK, asked, answer], tools=CHAT_TOOLS, max_tokens=50)
    report(f"chat tool result {model}", text=second.choices[0].message.content)

    with oai.chat.completions.stream(model=model, messages=ASK, tools=CHAT_TOOLS, max_tokens=50) as stream:
        call = stream.get_final_completion().choices[0].message.tool_calls[0]
    report(f"chat stream tool {model}", name=call.function.name, arguments=json.loads(call.function.arguments))


def messages(model):
    got = ant.messages.create(model=model, messages=SAY, max_tokens=50, system="be brief")
    report(f"messages {model}", text=got.content[0].text, stop=got.stop_reason, tokens=got.usage.output_tokens)

    with ant.messages.stream(model=model, messages=SAY, max_tokens=50) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    report(f"messages stream {model}", text=text, stop=final.stop_reason, tokens=final.usage.output_tokens)

    first = ant.messages.create(model=model, messages=ASK, tools=MESSAGE_TOOLS, max_tokens=50)
    use = first.content[0]
    report(f"messages tool {model}", name=use.name, arguments=use.input, stop=first.stop_reason)
    answer = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}]}
    asked = {"role": "assistant", "content": [use.model_dump(include={"type", "id", "name", "input"})]}
    second = ant.messages.create(model=model, messages=[*ASK, asked, answer], tools=MESSAGE_TOOLS, max_tokens=50)
    report(f"messages tool result {model}", text=second.content[0].text)

    with ant.messages.stream(model=model, messages=ASK, tools=MESSAGE_TOOLS, max_tokens=50) as stream:
        use = stream.get_final_message().content[0]
    report(f"messages stream tool {model}", name=use.name, arguments=use.input)


def responses(model):
    got = oai.responses.create(model=model, input="hello there", instructions="be brief")
    report(f"responses {model}", text=got.output_text, stop=got.status, tokens=got.usage.output_tokens)

    with oai.responses.stream(model=model, input="hello there") as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
        final = stream.get_final_response()
    report(f"responses stream {model}", text=text, whole=final.output_text, stop=final.status, tokens=final.usage.output_tokens)

    first = oai.responses.create(model=model, input=ASK, tools=RESPONSES_TOOLS)
    call = first.output[0]
    report(f"responses tool {model}", name=call.name, arguments=json.loads(call.arguments), stop=first.status)
    answer = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    second = oai.responses.create(model=model, input=[*ASK, call.model_dump(exclude_none=True), answer], tools=RESPONSES_TOOLS)
    report(f"responses tool result {model}", text=second.output_text)
    if model != "native":  # which keeps nothing
        second = oai.responses.create(model=model, input=[answer], previous_response_id=first.id, tools=RESPONSES_TOOLS)
        report(f"responses from the previous {model}", text=second.output_text)

    with oai.responses.stream(model=model, input=ASK, tools=RESPONSES_TOOLS) as stream:
        call = stream.get_final_response().output[0]
    report(f"responses stream tool {model}", name=call.name, arguments=json.loads(call.arguments))


for model in ("m", "claude", "native"):
    chat(model)
    messages(model)
    responses(model)

report("completions", text=oai.completions.create(model="m", prompt="hello there").choices[0].text)
report("completions stream", text="".join(c.choices[0].text for c in oai.completions.create(model="m", prompt="hello there", stream=True)))
report("embeddings", length=len(oai.embeddings.create(model="m", input="hello there").data[0].embedding))
report("models", names=[m.id for m in oai.models.list()])
report("anthropic models", names=[m.id for m in ant.models.list()])
try:
    oai.chat.completions.create(model="nope", messages=SAY)
except openai.BadRequestError as e:
    report("unknown model", status=e.status_code)
try:
    ant.messages.create(model="nope", messages=SAY, max_tokens=50)
except anthropic.BadRequestError as e:
    report("unknown model of messages", status=e.status_code)
try:
    oai.chat.completions.create(model="m", messages=[{"role": "user", "content": "fail"}])
except openai.RateLimitError as e:
    report("upstream refuses", status=e.status_code)
try:
    ant.messages.create(model="m", messages=[{"role": "user", "content": "fail"}], max_tokens=50)
except anthropic.RateLimitError as e:
    report("upstream refuses messages", status=e.status_code)
