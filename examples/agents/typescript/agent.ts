// An agent in TypeScript: one process a task, with the stock OpenTelemetry packages.
//
//   npm ci && npm run build        in this folder
//   aglq run --tasks examples/agents/tasks.jsonl -- node examples/agents/typescript/dist/agent.js

import { text } from "node:stream/consumers";

import { add, newProvider } from "./adder.js";

const task = JSON.parse(await text(process.stdin));
const provider = newProvider();
const reward = add(task, provider.getTracer("adder"));
await provider.shutdown(); // sends what is left
console.log(JSON.stringify({ reward }));
