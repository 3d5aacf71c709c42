// Calls the LLM proxy with OpenAI's and Anthropic's own clients, as agents do.
//
// Prints what came back of each call, JSON, one a line. OPENAI_BASE_URL and
// ANTHROPIC_BASE_URL say where the proxy is, NODE_ENV_FOLDER where the clients.

import { createRequire } from "node:module";
import { join } from "node:path";

const load = createRequire(join(process.env.NODE_ENV_FOLDER, "package.json"));
const OpenAI = load("openai").OpenAI;
const Anthropic = load("@anthropic-ai/sdk").Anthropic;

const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const chatTools = [{ type: "function", function: { name: "get_weather", description: "the weather of a city", parameters: schema } }];
const messageTools = [{ name: "get_weather", description: "the weather of a city", input_schema: schema }];
const responsesTools = [{ type: "function", name: "get_weather", description: "the weather of a city", parameters: schema, strict: false }];
const say = [{ role: "user", content: "hello there" }];
const ask = [{ role: "user", content: "weather please" }];

const oai = new OpenAI({ maxRetries: 0 });
const ant = new Anthropic({ maxRetries: 0 });
const report = (call, result) => console.log(JSON.stringify({ call, ...result }));

async function chat(model) {
  const whole = await oai.chat.completions.create({ model, messages: say, max_tokens: 50 });
  report(`chat ${model}`, { text: whole.choices[0].message.content, stop: whole.choices[0].finish_reason });

  let text = "";
  let stop = null;
  let usage = null;
  const chunks = await oai.chat.completions.create({
    model, messages: say, max_tokens: 50, stream: true, stream_options: { include_usage: true },
  });
  for await (const chunk of chunks) {
    usage = chunk.usage ?? usage;
    text += chunk.choices[0]?.delta?.content ?? "";
    stop = chunk.choices[0]?.finish_reason ?? stop;
  }
  report(`chat stream ${model}`, { text, stop, tokens: usage.completion_tokens });

  const first = await oai.chat.completions.create({ model, messages: ask, tools: chatTools, max_tokens: 50 });
  let call = first.choices[0].message.tool_calls[0];
  report(`chat tool ${model}`, {
    name: call.function.name, arguments: JSON.parse(call.function.arguments), stop: first.choices[0].finish_reason,
  });
  const answer = { role: "tool", tool_call_id: call.id, content: "sunny" };
  const second = await oai.chat.completions.create({
    model, messages: [...ask, first.choices[0].message, answer], tools: chatTools, max_tokens: 50,
  });
  report(`chat tool result ${model}`, { text: second.choices[0].message.content });

  const runner = oai.chat.completions.stream({ model, messages: ask, tools: chatTools, max_tokens: 50 });
  call = (await runner.finalChatCompletion()).choices[0].message.tool_calls[0];
  report(`chat stream tool ${model}`, { name: call.function.name, arguments: JSON.parse(call.function.arguments) });
}

async function messages(model) {
  const whole = await ant.messages.create({ model, messages: say, max_tokens: 50, system: "be brief" });
  report(`messages ${model}`, { text: whole.content[0].text, stop: whole.stop_reason, tokens: whole.usage.output_tokens });

  let text = "";
  const stream = ant.messages.stream({ model, messages: say, max_tokens: 50 }).on("text", (part) => { text += part; });
  const final = await stream.finalMessage();
  report(`messages stream ${model}`, { text, stop: final.stop_reason, tokens: final.usage.output_tokens });

  const first = await ant.messages.create({ model, messages: ask, tools: messageTools, max_tokens: 50 });
  let use = first.content[0];
  report(`messages tool ${model}`, { name: use.name, arguments: use.input, stop: first.stop_reason });
  const answer = { role: "user", content: [{ type: "tool_result", tool_use_id: use.id, content: "sunny" }] };
  const asked = { role: "assistant", content: [{ type: use.type, id: use.id, name: use.name, input: use.input }] };
  const second = await ant.messages.create({ model, messages: [...ask, asked, answer], tools: messageTools, max_tokens: 50 });
  report(`messages tool result ${model}`, { text: second.content[0].text });

  use = (await ant.messages.stream({ model, messages: ask, tools: messageTools, max_tokens: 50 }).finalMessage()).content[0];
  report(`messages stream tool ${model}`, { name: use.name, arguments: use.input });
}

async function responses(model) {
  const whole = await oai.responses.create({ model, input: "hello there", instructions: "be brief" });
  report(`responses ${model}`, { text: whole.output_text, stop: whole.status, tokens: whole.usage.output_tokens });

  let text = "";
  const stream = oai.responses.stream({ model, input: "hello there" }).on("response.output_text.delta", (part) => { text += part.delta; });
  const final = await stream.finalResponse();
  report(`responses stream ${model}`, { text, whole: final.output_text, stop: final.status, tokens: final.usage.output_tokens });

  const first = await oai.responses.create({ model, input: ask, tools: responsesTools });
  let call = first.output[0];
  report(`responses tool ${model}`, { name: call.name, arguments: JSON.parse(call.arguments), stop: first.status });
  const answer = { type: "function_call_output", call_id: call.call_id, output: "sunny" };
  let second = await oai.responses.create({ model, input: [...ask, call, answer], tools: responsesTools });
  report(`responses tool result ${model}`, { text: second.output_text });
  if (model !== "native") { // which keeps nothing
    second = await oai.responses.create({ model, input: [answer], previous_response_id: first.id, tools: responsesTools });
    report(`responses from the previous ${model}`, { text: second.output_text });
  }

  call = (await oai.responses.stream({ model, input: ask, tools: responsesTools }).finalResponse()).output[0];
  report(`responses stream tool ${model}`, { name: call.name, arguments: JSON.parse(call.arguments) });
}

for (const model of ["m", "claude", "native"]) {
  await chat(model);
  await messages(model);
  await responses(model);
}

report("completions", { text: (await oai.completions.create({ model: "m", prompt: "hello there" })).choices[0].text });
let text = "";
for await (const chunk of await oai.completions.create({ model: "m", prompt: "hello there", stream: true })) {
  text += chunk.choices[0].text;
}
report("completions stream", { text });
report("embeddings", { length: (await oai.embeddings.create({ model: "m", input: "hello there" })).data[0].embedding.length });
const names = [];
for await (const m of oai.models.list()) names.push(m.id);
report("models", { names });
const anthropicNames = [];
for await (const m of ant.models.list()) anthropicNames.push(m.id);
report("anthropic models", { names: anthropicNames });

async function refused(name, call, kind) {
  try {
    await call();
  } catch (e) {
    if (!(e instanceof kind)) throw e;
    report(name, { status: e.status });
  }
}
const fail = [{ role: "user", content: "fail" }];
await refused("unknown model", () => oai.chat.completions.create({ model: "nope", messages: say }), OpenAI.BadRequestError);
await refused("unknown model of messages", () => ant.messages.create({ model: "nope", messages: say, max_tokens: 50 }), Anthropic.BadRequestError);
await refused("upstream refuses", () => oai.chat.completions.create({ model: "m", messages: fail }), OpenAI.RateLimitError);
await refused("upstream refuses messages", () => ant.messages.create({ model: "m", messages: fail, max_tokens: 50 }), Anthropic.RateLimitError);
