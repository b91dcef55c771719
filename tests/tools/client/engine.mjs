// A stand-in for backtest-kit: its registry of adapters, as version 19 has it, with the Dictionary of version 20. Each keeps an
// instance for a context, waits for its initialisation before every call, and takes its arguments in the engine's own order.

const POSITION = ["symbol", "strategyName", "exchangeName"];
const LEVELS = ["symbol", "strategyName", "signalId", "exchangeName", "when"];
const BUCKET = ["signalId", "bucketName"];

class Utils {
  #name;
  #context;
  #Ctor = null;
  #instances = new Map();

  constructor(name, context, methods, waiting) {
    this.#name = name;
    this.#context = context;
    this[`usePersist${name}Adapter`] = (Ctor) => {
      this.#Ctor = Ctor;
      this.#instances.clear();
    };
    for (const [method, parameters] of Object.entries(methods)) {
      this[method] = method.startsWith("list") ? this.#listing(method, parameters) : this.#calling(method, parameters);
    }
    if (waiting) {
      this.waitForInit = async (...args) => void (await this.#reached(named(waiting, args)));
      this.dispose = (...args) => void this.#instances.delete(this.#key(named(context, args)));
    }
  }

  clear() {
    this.#instances.clear();
  }

  #key(given) {
    return JSON.stringify(this.#context.map((name) => given[name]));
  }

  async #reached(given) {
    const key = this.#key(given);
    const initial = !this.#instances.has(key);
    if (initial) {
      if (this.#Ctor === null) throw new Error(`${this.#name}: no class was registered`);
      this.#instances.set(key, Reflect.construct(this.#Ctor, this.#context.map((name) => given[name])));
    }
    const instance = this.#instances.get(key);
    await instance.waitForInit(initial);
    return instance;
  }

  #own(parameters, given) {
    return parameters.filter((name) => !this.#context.includes(name)).map((name) => given[name]);
  }

  #calling(method, parameters) {
    return async (...args) => {
      const given = named(parameters, args);
      return (await this.#reached(given))[method](...this.#own(parameters, given));
    };
  }

  #listing(method, parameters) {
    const self = this;
    return async function* (...args) {
      const given = named(parameters, args);
      yield* (await self.#reached(given))[method](...self.#own(parameters, given));
    };
  }
}

const named = (parameters, args) => Object.fromEntries(parameters.map((name, index) => [name, args[index]]));

const bucket = (noun) => ({
  [`read${noun}Data`]: ["bucket", "key"],
  [`write${noun}Data`]: ["data", "bucket", "key", "when"],
  [`remove${noun}Data`]: ["bucket", "key"],
  [`list${noun}Data`]: ["bucket"],
});

export const PersistSignalAdapter = new Utils("Signal", POSITION, { readSignalData: POSITION, writeSignalData: ["row", ...POSITION] });
export const PersistScheduleAdapter = new Utils("Schedule", POSITION, {
  readScheduleData: POSITION,
  writeScheduleData: ["row", ...POSITION],
});
export const PersistStrategyAdapter = new Utils("Strategy", POSITION, {
  readStrategyData: POSITION,
  writeStrategyData: ["row", ...POSITION],
});
export const PersistRiskAdapter = new Utils("Risk", ["riskName", "exchangeName"], {
  readPositionData: ["riskName", "exchangeName", "when"],
  writePositionData: ["rows", "riskName", "exchangeName", "when"],
});
export const PersistPartialAdapter = new Utils("Partial", POSITION, { readPartialData: LEVELS, writePartialData: ["data", ...LEVELS] });
export const PersistBreakevenAdapter = new Utils("Breakeven", POSITION, {
  readBreakevenData: LEVELS,
  writeBreakevenData: ["data", ...LEVELS],
});
export const PersistCandleAdapter = new Utils("Candle", ["symbol", "interval", "exchangeName"], {
  readCandlesData: ["symbol", "interval", "exchangeName", "limit", "sinceTimestamp", "untilTimestamp"],
  writeCandlesData: ["candles", "symbol", "interval", "exchangeName"],
});
export const PersistStorageAdapter = new Utils("Storage", ["backtest"], {
  readStorageData: ["backtest"],
  writeStorageData: ["rows", "backtest"],
});
export const PersistNotificationAdapter = new Utils("Notification", ["backtest"], {
  readNotificationData: ["backtest"],
  writeNotificationData: ["rows", "backtest"],
});
export const PersistLogAdapter = new Utils("Log", [], { readLogData: [], writeLogData: ["entries"] });
export const PersistMeasureAdapter = new Utils("Measure", ["bucket"], bucket("Measure"));
export const PersistIntervalAdapter = new Utils("Interval", ["bucket"], bucket("Interval"));
export const PersistMemoryAdapter = new Utils(
  "Memory",
  BUCKET,
  {
    readMemoryData: [...BUCKET, "memoryId"],
    hasMemoryData: [...BUCKET, "memoryId"],
    writeMemoryData: ["data", ...BUCKET, "memoryId", "when"],
    removeMemoryData: [...BUCKET, "memoryId"],
    listMemoryData: BUCKET,
  },
  [...BUCKET, "initial"],
);
const RECENT = [...POSITION, "frameName", "backtest"];
export const PersistRecentAdapter = new Utils("Recent", RECENT, { readRecentData: RECENT, writeRecentData: ["row", ...RECENT, "when"] });
export const PersistStateAdapter = new Utils(
  "State",
  BUCKET,
  { readStateData: BUCKET, writeStateData: ["data", ...BUCKET, "when"] },
  [...BUCKET, "initial"],
);
const SESSION = ["strategyName", "exchangeName", "frameName", "symbol", "backtest"];
export const PersistSessionAdapter = new Utils(
  "Session",
  SESSION,
  { readSessionData: SESSION, writeSessionData: ["data", "strategyName", "exchangeName", "frameName", "when", "symbol", "backtest"] },
  ["strategyName", "exchangeName", "frameName", "initial", "symbol", "backtest"],
);
const DICTIONARY = ["signalId", "dictionaryName"];
export const PersistDictionaryAdapter = new Utils(
  "Dictionary",
  DICTIONARY,
  { readDictionaryData: DICTIONARY, writeDictionaryData: ["data", ...DICTIONARY, "when"] },
  [...DICTIONARY, "initial"],
);

export const getConfig = () => ({ CC_SIGNAL_LEVERAGE_MULTIPLIER: 1, CC_SIGNAL_ISOLATED_MARGIN: true });
