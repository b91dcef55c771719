// node drive.mjs ENGINE PERSIST SETUP: an engine with the client installed, that is called by lines of JSON on standard input.
//
// SETUP is {"options": what install() gets, "without": exports that the engine lacks, "more": exports that it has besides}. The first line
// that is answered is what install() gave. Then each line is a call, {"id", "adapter", "method", "args"}, made when it comes and answered
// with its id when it ends. {"$": ...} marks what JSON cannot say.

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [enginePath, persistPath, setup] = process.argv.slice(2);
const { options, without = [], more = {} } = JSON.parse(setup);
const { install } = await import(pathToFileURL(persistPath).href);
const engine = { ...(await import(pathToFileURL(enginePath).href)) };
for (const name of without) delete engine[name];
for (const [name, method] of Object.entries(more)) engine[name] = typeof method === "string" ? { [method]() {} } : () => method;

process.on("warning", ({ message }) => say({ warning: message }));

const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const failed = (error) => ({ error: { name: error.name, message: error.message, outcome: error.outcome } });

function marked(value) {
  if (value === undefined) return { $: "undefined" };
  if (value === Infinity) return { $: "Infinity" };
  if (Number.isNaN(value)) return { $: "NaN" };
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map(marked);
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, marked(member)]));
}

function unmarked(value) {
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map(unmarked);
  if (value.$ === "undefined") return undefined;
  if (value.$ === "Infinity" || value.$ === "NaN") return Number(value.$);
  if (value.$ === "Date") return new Date(value.at);
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, unmarked(member)]));
}

async function answer({ id, adapter, method, args }) {
  try {
    const called = engine[`Persist${adapter}Adapter`][method](...unmarked(args));
    if (typeof called?.[Symbol.asyncIterator] !== "function") return { id, result: marked(await called) };
    const items = [];
    for await (const item of called) items.push(item);
    return { id, result: marked(items) };
  } catch (error) {
    return { id, ...failed(error) };
  }
}

try {
  say(install(engine, options));
  for await (const line of createInterface({ input: process.stdin })) void answer(JSON.parse(line)).then(say);
} catch (error) {
  say(failed(error));
}
