// The same agent as a program that stays: a task a line, an answer a line.
//
//   aglq run --bridge pool --tasks examples/agents/tasks.jsonl -- node examples/agents/typescript/dist/pool.js

import { createInterface } from "node:readline";

import { add, newProvider } from "./adder.js";

for await (const line of createInterface({ input: process.stdin })) {
  const { id, input, env } = JSON.parse(line);
  Object.assign(process.env, env); // what a program of one task finds in its environment
  const provider = newProvider(); // of this task: its spans carry this task's ids
  let answer: object;
  try {
    answer = { id, reward: add(input, provider.getTracer("adder")) };
  } catch (error) {
    const { name, message, stack } = error as Error;
    answer = { id, error: { type: name, message, stack } };
  }
  await provider.shutdown(); // the spans are stored before the task is over
  console.log(JSON.stringify(answer));
}
