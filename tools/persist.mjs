// @ts-check
/**
 * The persistence of backtest-kit on a server of eventstore-kit: `eventstore serve DIR`.
 *
 *     import * as backtestKit from "backtest-kit";
 *     import { install } from "./persist.mjs";
 *
 *     install(backtestKit, { url: "http://127.0.0.1:7410" });
 *
 * One file for Node 20 or newer that needs nothing else; `eventstore client > persist.mjs` prints it. From then on the
 * engine's own Persist*Adapter objects keep their records on the server. A write is acknowledged when it is durable there.
 */

import { randomBytes } from "node:crypto";
import { Agent, request as httpRequest } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

/**
 * @typedef {object} Options
 * @property {string} [url] Where the server listens, as in "http://127.0.0.1:7410". On another machine it takes a token.
 * @property {string} [socketPath] The unix socket that it listens on, instead of a url.
 * @property {string} [namespace] Which store of the server: one per bot, run or test. "", if none is named: the served folder itself.
 * @property {string} [token] What the server was told to ask for.
 * @property {number} [timeoutMs] How long a call may take, with everything that is tried, until it throws; 30000 if it is not said.
 */

/**
 * @typedef {object} Installed
 * @property {string[]} registered The contracts whose records are on the server from now on.
 * @property {string[]} missing Those that this version of the engine does not have.
 * @property {string[]} unknown Those that it has and this file does not know: they stay where the engine keeps them.
 */

/**
 * @typedef {object} Method
 * @property {string} name As the engine calls it.
 * @property {string[]} parameters
 * @property {"read" | "write" | "has" | "remove" | "list"} verb
 * @property {(string | number)[][]} repaired The records in its answer that are repaired: members, places in a list, "*" for each item.
 */

/**
 * @typedef {object} Default A member that is put back where it is null or missing, if the record has the member `beside`.
 * @property {string} member
 * @property {number | boolean | "Infinity"} value JSON has no Infinity, so it is spelled.
 * @property {string} beside "" is every record.
 * @property {string} setting The engine's setting that says another value.
 */

/**
 * @typedef {object} Contract
 * @property {string} name
 * @property {string[]} context What the engine constructs an instance with.
 * @property {Method[]} methods
 * @property {boolean} disposable
 * @property {Default[]} defaults
 */

/** The contracts, a row each, which `eventstore client` puts here. @type {Contract[]} */
const CONTRACTS = [];

/**
 * Have the engine keep its records on a server. Nothing is sent yet: the first call finds out whether somebody answers.
 *
 * @param {object} backtestKit The engine: `import * as backtestKit from "backtest-kit"`.
 * @param {Options} options
 * @returns {Installed}
 * @throws {TypeError} If an option is wrong, or what was given is no such engine. Then nothing has changed.
 */
export function install(backtestKit, options) {
  const adapters = adaptersOf(backtestKit);
  const client = new Client(checked(options));
  const known = CONTRACTS.filter((contract) => adapters.has(contract.name));
  const names = new Set(known.map((contract) => contract.name));
  for (const contract of known) adapters.get(contract.name)?.(instanceClass(contract, client, settingsOf(backtestKit)));
  const unknown = [...adapters.keys()].filter((name) => !names.has(name));
  if (unknown.length > 0) {
    process.emitWarning(
      `eventstore: this engine has ${unknown.map((name) => `Persist${name}Adapter`).join(", ")}, which this file does not know:` +
        " its records stay in the engine's own files; `eventstore client` of a newer version may know it",
    );
  }
  return {
    registered: [...names],
    missing: CONTRACTS.map((contract) => contract.name).filter((name) => !names.has(name)),
    unknown,
  };
}

/**
 * No answer was to be had. For what was to be written, `outcome` says whether it may have been: "not_written" is certain, and
 * "unknown" is not. Then the next call of the same context first asks for this one again, so that nothing comes late.
 */
export class UnreachableError extends Error {
  /**
   * @param {string} message
   * @param {"not_written" | "unknown"} outcome
   */
  constructor(message, outcome) {
    super(message);
    this.name = "UnreachableError";
    this.outcome = outcome;
  }
}

// ---- what install() is given

const OPTIONS = ["url", "socketPath", "namespace", "token", "timeoutMs"];
const LOOPBACK = /^(localhost|127(\.\d+){3}|\[::1\])$/;
const MAX_TIMEOUT_MS = 2 ** 31 - 1; // what a timer of Node can wait

/**
 * @typedef {object} Target
 * @property {string} shown
 * @property {import("node:http").RequestOptions} request
 * @property {string} namespace
 * @property {number} timeoutMs
 */

/**
 * @param {Options} options
 * @returns {Target}
 */
function checked(options) {
  if (options === null || typeof options !== "object") {
    throw new TypeError("eventstore: install() takes the engine and {url} or {socketPath}");
  }
  const stray = Object.keys(options).filter((name) => !OPTIONS.includes(name));
  if (stray.length > 0) throw new TypeError(`eventstore: install() knows no option ${stray.join(", ")}; there are ${OPTIONS.join(", ")}`);
  const { url, socketPath, namespace = "", token, timeoutMs = 30_000 } = options;
  if ((url === undefined) === (socketPath === undefined)) {
    throw new TypeError("eventstore: install() takes either url or socketPath, whichever `eventstore serve` listens on");
  }
  if (typeof namespace !== "string") throw new TypeError(`eventstore: namespace is a string, not ${shown(namespace)}`);
  if (token !== undefined && !(typeof token === "string" && /^[\x21-\x7e]+$/.test(token))) {
    throw new TypeError("eventstore: token is a string of visible ASCII characters, without spaces"); // and is not repeated here
  }
  if (!(typeof timeoutMs === "number" && timeoutMs > 0 && timeoutMs <= MAX_TIMEOUT_MS)) {
    throw new TypeError(`eventstore: timeoutMs is a number of milliseconds above 0 and below 2^31, not ${shown(timeoutMs)}`);
  }
  const headers = { "content-type": "application/json", ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) };
  const place = url === undefined ? atSocket(socketPath) : atUrl(url, token);
  return { shown: place.shown, namespace, timeoutMs, request: { ...place.request, headers, method: "POST", path: "/rpc" } };
}

/** @param {unknown} path */
function atSocket(path) {
  if (typeof path !== "string" || path === "") {
    throw new TypeError(`eventstore: socketPath is the path of a unix socket, not ${shown(path)}`);
  }
  return { shown: path, request: { socketPath: path } };
}

/**
 * @param {unknown} text
 * @param {string | undefined} token
 */
function atUrl(text, token) {
  const url = typeof text === "string" && URL.canParse(text) ? new URL(text) : null;
  if (url === null || url.protocol !== "http:" || url.pathname !== "/" || url.search + url.hash + url.username + url.password !== "") {
    throw new TypeError(`eventstore: url is http://HOST:PORT and nothing behind it, not ${shown(text)}`);
  }
  if (token === undefined && !LOOPBACK.test(url.hostname)) {
    throw new TypeError(
      `eventstore: ${url.origin} is on another machine, where anybody could write: it takes a token, and a tunnel that encrypts`,
    );
  }
  const host = url.hostname.replace(/^\[|\]$/g, "");
  return { shown: url.origin, request: { host, port: url.port || 80 } };
}

/** @param {unknown} value */
const shown = (value) => (typeof value === "string" ? JSON.stringify(value) : String(value));

/**
 * How each of the engine's adapters is given a class of instances, by the names of their contracts.
 *
 * @param {any} engine
 * @returns {Map<string, (made: Function) => void>}
 */
function adaptersOf(engine) {
  if (CONTRACTS.length === 0) throw new TypeError("eventstore: this is the pattern of a module; `eventstore client` prints the module");
  const found = new Map();
  for (const key of Object.keys(engine ?? {})) {
    const name = /^Persist(\w+)Adapter$/.exec(key)?.[1];
    if (name === undefined) continue;
    const use = `usePersist${name}Adapter`;
    if (typeof engine[key]?.[use] !== "function") {
      throw new TypeError(`eventstore: ${key} of this engine has no ${use}(): is it backtest-kit 9 or newer?`);
    }
    found.set(name, (/** @type {Function} */ made) => engine[key][use](made));
  }
  if (!CONTRACTS.some((contract) => found.has(contract.name))) {
    throw new TypeError(
      'eventstore: no Persist*Adapter to register with: give install() the engine, import * as backtestKit from "backtest-kit"',
    );
  }
  return found;
}

/**
 * What the engine's settings are when it is asked.
 *
 * @param {any} engine
 * @returns {() => Record<string, any>}
 */
function settingsOf(engine) {
  return () => (typeof engine.getConfig === "function" ? engine.getConfig() : {});
}

// ---- the instances that the engine constructs

/** @typedef {(method: string, verb: string, args: unknown[]) => Promise<any>} Call */

/**
 * The class that the engine constructs an instance of for each context.
 *
 * @param {Contract} contract
 * @param {Client} client
 * @param {() => Record<string, any>} settings
 */
function instanceClass(contract, client, settings) {
  class Instance {
    /** @type {Promise<void> | undefined} */
    #ready;
    /** @type {Call} */
    call;

    /** @param {unknown[]} context */
    constructor(...context) {
      const named = Object.fromEntries(contract.context.map((name, index) => [name, context[index]]));
      this.call = (method, verb, args) => client.call(contract.name, named, method, verb, args);
    }

    /** Asked for before every operation; only the first ones wait, all for the same answer. One that failed is asked for again. */
    async waitForInit() {
      const ready = (this.#ready ??= this.call("waitForInit", "init", [true]));
      try {
        await ready;
      } catch (error) {
        if (this.#ready === ready) this.#ready = undefined;
        throw error;
      }
    }
  }
  Object.defineProperty(Instance, "name", { value: `Persist${contract.name}Instance` });
  const members = Object.fromEntries(contract.methods.map((method) => [method.name, operation(contract, method, settings)]));
  // Nothing is held here that would have to be given back; what was written stays.
  Object.assign(Instance.prototype, members, contract.disposable ? { dispose() {} } : {});
  return Instance;
}

/**
 * One operation of an instance.
 *
 * @param {Contract} contract
 * @param {Method} method
 * @param {() => Record<string, any>} settings
 */
function operation(contract, method, settings) {
  /**
   * @param {{call: Call}} instance
   * @param {unknown[]} args
   */
  const run = async (instance, args) => {
    const result = await instance.call(method.name, method.verb, method.parameters.map((_, index) => args[index]));
    for (const path of method.repaired) {
      for (const record of reached(result, path)) repair(record, contract.defaults, settings);
    }
    return WRITES.includes(method.verb) ? undefined : result;
  };
  /** @this {{call: Call}} @param {unknown[]} args */
  async function once(...args) {
    return await run(this, args);
  }
  /** @this {{call: Call}} @param {unknown[]} args */
  async function* each(...args) {
    yield* await run(this, args);
  }
  return method.verb === "list" ? each : once;
}

/**
 * The records that a path leads to.
 *
 * @param {any} value
 * @param {(string | number)[]} path
 * @returns {Generator<Record<string, any>>}
 */
function* reached(value, [step, ...rest]) {
  if (step === undefined) {
    if (value !== null && typeof value === "object" && !Array.isArray(value)) yield value;
  } else if (step === "*") {
    for (const each of Array.isArray(value) ? value : []) yield* reached(each, rest);
  } else {
    yield* reached(value?.[step], rest);
  }
}

/**
 * Put back what JSON could not say, or an older engine did not.
 *
 * @param {Record<string, any>} record
 * @param {Default[]} defaults
 * @param {() => Record<string, any>} settings
 */
function repair(record, defaults, settings) {
  for (const { member, value, beside, setting } of defaults) {
    if ((record[member] ?? null) !== null || (beside !== "" && !(beside in record))) continue;
    record[member] = settings()[setting] ?? (value === "Infinity" ? Infinity : value);
  }
}

// ---- calls over the wire

const SOCKETS = 16; // at the same time: beyond that the server's disk is the bound, and it has other clients
const PATIENCE = 3; // how many answers that never come a call has time for
const FIRST_PAUSE_MS = 20;
const LONGEST_PAUSE_MS = 1_000;
const TOO_MUCH = 429; // of the moment: the one refusal that is not final
const WRITES = ["write", "remove"];

/** Part of every rid: no other process, nor another thread, has the same. */
const PROCESS = randomBytes(12).toString("hex");
let calls = 0;

/**
 * @typedef {object} Request
 * @property {string} label
 * @property {boolean} writes
 * @property {string} body
 * @property {number} deadline
 */

/** Everything that is said to one server. */
class Client {
  #target;
  #agent = new Agent({ keepAlive: true, maxSockets: SOCKETS });
  /** The last call of each context that has any under way. @type {Map<string, Promise<unknown>>} */
  #last = new Map();
  /** The write of each context of which it is not known whether it was done. @type {Map<string, Request>} */
  #uncertain = new Map();

  /** @param {Target} target */
  constructor(target) {
    this.#target = target;
  }

  /**
   * Call a method of an instance on the server, after all earlier calls for the same context, with the arguments as they are now.
   *
   * @param {string} contract
   * @param {Record<string, unknown>} context
   * @param {string} method
   * @param {string} verb
   * @param {unknown[]} args
   * @returns {Promise<any>}
   */
  async call(contract, context, method, verb, args) {
    const rid = `${PROCESS}-${++calls}`;
    const request = {
      label: `${contract}.${method}`,
      writes: WRITES.includes(verb),
      body: JSON.stringify({ ns: this.#target.namespace, rid, contract, context, method, args }),
      deadline: performance.now() + this.#target.timeoutMs,
    };
    const place = JSON.stringify([contract, context]);
    const mine = this.#inTurn(place, request, this.#last.get(place));
    this.#last.set(place, mine);
    try {
      return await mine;
    } finally {
      if (this.#last.get(place) === mine) this.#last.delete(place);
    }
  }

  /**
   * @param {string} place
   * @param {Request} request
   * @param {Promise<unknown> | undefined} before
   */
  async #inTurn(place, request, before) {
    await before?.catch(() => {}); // whoever called it is told
    await this.#settle(place, request);
    try {
      return await this.#exchange(request);
    } catch (error) {
      if (error instanceof UnreachableError && error.outcome === "unknown") this.#uncertain.set(place, request);
      throw error;
    }
  }

  /**
   * Send a write of which it is not known whether it was done once more, under its own rid: it must not arrive after what follows it.
   *
   * @param {string} place
   * @param {Request} next
   */
  async #settle(place, next) {
    const left = this.#uncertain.get(place);
    if (left === undefined) return;
    try {
      await this.#exchange({ ...left, deadline: next.deadline });
    } catch (error) {
      if (error instanceof UnreachableError) {
        throw new UnreachableError(`${error.message} It came before ${next.label}, which was not sent.`, "not_written");
      } // else the server has refused it, and is done with it
    }
    this.#uncertain.delete(place);
  }

  /**
   * Send a request until it is answered or its time is over. It has one rid, so the server does it once.
   *
   * @param {Request} request
   * @returns {Promise<any>}
   */
  async #exchange(request) {
    let heard = false;
    let failure = "earlier calls for the same context took all the time";
    let tries = 0;
    for (let left; (left = request.deadline - performance.now()) > 0; ) {
      const patience = Math.min(left, this.#target.timeoutMs / PATIENCE);
      const { status, text, waitMs } = await this.#attempt(request.body, patience, () => (heard = true));
      const reply = status === 200 ? parsed(text) : undefined;
      if (reply?.ok === true) return reply.result;
      if (reply?.ok === false) throw Object.assign(new Error(reply.error.message), { name: reply.error.name });
      if (status >= 300 && status < 500 && status !== TOO_MUCH) throw new Error(this.#refusal(request, status, text));
      failure = status === 0 ? text : `HTTP ${status}: ${excerpt(text)}`;
      const pause = Math.max(waitMs, Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** tries++));
      left = request.deadline - performance.now();
      await sleep(Math.max(0, Math.min(pause, left)));
      if (pause >= left) break; // a timer may end a moment early, and leave time for half a try
    }
    const outcome = heard && request.writes ? "unknown" : "not_written";
    throw new UnreachableError(this.#silence(request, tries, failure, outcome), outcome);
  }

  /**
   * One try: the answer, and how long it asks to be left alone; or status 0 and why there is none.
   *
   * @param {string} body
   * @param {number} ms
   * @param {() => void} heard Called once somebody may have heard it.
   * @returns {Promise<{status: number, text: string, waitMs: number}>}
   */
  #attempt(body, ms, heard) {
    return new Promise((resolve) => {
      const none = (/** @type {NodeJS.ErrnoException} */ error) => resolve({ status: 0, text: error.message || String(error.code), waitMs: 0 });
      const request = httpRequest({ ...this.#target.request, agent: this.#agent }, (response) => {
        /** @type {Buffer[]} */
        const chunks = [];
        response.on("data", (chunk) => chunks.push(chunk)).on("error", none);
        const waitMs = 1_000 * (Number(response.headers["retry-after"]) || 0);
        response.on("end", () => resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString(), waitMs }));
      });
      const timer = setTimeout(() => {
        resolve({ status: 0, text: `no answer for ${Math.ceil(ms)} ms`, waitMs: 0 });
        request.destroy();
      }, ms);
      request.on("close", () => clearTimeout(timer)).on("error", none);
      request.on("socket", (socket) => (socket.connecting ? socket.once("connect", heard) : heard()));
      request.end(body);
    });
  }

  /**
   * @param {Request} request
   * @param {number} status
   * @param {string} text
   */
  #refusal({ label }, status, text) {
    const advice = status === 401 || status === 403 ? "; install() takes the server's token" : "";
    return `eventstore: ${this.#target.shown} refused ${label} with HTTP ${status}: ${excerpt(text)}${advice}`;
  }

  /**
   * @param {Request} request
   * @param {number} tries
   * @param {string} failure
   * @param {string} outcome
   */
  #silence({ label, writes }, tries, failure, outcome) {
    const { shown, timeoutMs } = this.#target;
    const known = outcome === "unknown" ? " Whether it was written is not known." : writes ? " It was not written." : "";
    return (
      `eventstore: no answer to ${label} from ${shown} in ${timeoutMs} ms (tries: ${tries}; the last: ${failure}).${known}` +
      " Is `eventstore serve` running, does it listen there, and is timeoutMs enough? Nothing is kept anywhere else meanwhile."
    );
  }
}

/**
 * What the server said, if it is an answer of its kind; half of one is none.
 *
 * @param {string} text
 * @returns {{ok: true, result: any} | {ok: false, error: {name: string, message: string}} | undefined}
 */
function parsed(text) {
  try {
    return JSON.parse(text) ?? undefined;
  } catch {
    return undefined;
  }
}

/**
 * What an error of the transport says: the message of its JSON, or its beginning.
 *
 * @param {string} text
 */
function excerpt(text) {
  const reply = parsed(text);
  return reply?.ok === false && reply.error ? reply.error.message : text.slice(0, 200).trim();
}
