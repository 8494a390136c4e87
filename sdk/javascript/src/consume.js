// A worker of a queue: fetches, works, and says what became of it.
import { setTimeout } from "node:timers/promises";

/** How long a fetch waits for something. */
const FETCH_WAIT = "20s";
const FETCH_LIMIT_MS = 35_000;
const WORD_LIMIT_MS = 10_000;
/** How often a word is said before it is given up: then the message comes again after `ackWait`. */
const TRIES = 5;
const REASON_BYTES_MAX = 1_024;

/** Thrown by a handler: the event comes again, not before `delay` (such as `90s`) if one is given. Any other error, too. */
export class Nack extends Error {
  constructor(reason, { delay } = {}) {
    super(reason);
    this.delay = delay;
  }
}

/** The gateway does not let this worker work: `status` 404, there is no such consumer; 401 or 403, the key is not enough. */
export class Refused extends Error {
  constructor(status, detail) {
    super(`the gateway refused (${status}): ${detail}`);
    this.status = status;
  }
}

/**
 * A worker of the consumer (queue) of a name. Any number of them share one; events of one aggregate come one after the
 * other.
 *
 * `concurrency` events are worked on at a time. Every `extendEveryMs`, a third of the consumer's `ackWait`, it asks for
 * more time for what it works on.
 */
export class Consumer {
  #base;
  #headers;
  #concurrency;
  #extendEveryMs;

  constructor(url, name, { key, concurrency = 8, extendEveryMs = 10_000 } = {}) {
    this.#base = `${url.replace(/\/+$/, "")}/consumers/${encodeURIComponent(name)}`;
    this.#headers = { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
    [this.#concurrency, this.#extendEveryMs] = [concurrency, extendEveryMs];
  }

  /**
   * Works until `signal` aborts: then it fetches no more, ends what it has begun, and says so to the gateway.
   *
   * `handler(event, message)` is acknowledged when it returns; `message` has `deliveryCount`, `offset` and `replay`. While
   * the gateway is away it tries again. Throws Refused for what trying again does not mend.
   */
  async run(handler, { signal } = {}) {
    const held = new Set();
    const working = new Set();
    const extend = () => held.size > 0 && this.#say("extend", { tokens: [...held] });
    const timer = setInterval(extend, this.#extendEveryMs);
    try {
      while (!signal?.aborted) {
        const messages = await this.#fetch(this.#concurrency - working.size, signal);
        for (const message of messages) {
          held.add(message.ackToken);
          const work = this.#work(handler, message, held).finally(() => working.delete(work));
          working.add(work);
        }
        if (working.size >= this.#concurrency) await Promise.race(working);
      }
    } finally {
      await Promise.all(working);
      clearInterval(timer);
    }
  }

  async #work(handler, message, held) {
    const { ackToken, event, ...rest } = message;
    try {
      await handler(event, rest);
    } catch (error) {
      held.delete(ackToken);
      const word = { token: ackToken, reason: printable(String(error?.message ?? error)) };
      const delay = error instanceof Nack ? error.delay : undefined;
      // A delay that the gateway does not take is left out: what went wrong is told all the same.
      if ((await this.#say("nack", { ...word, delay })) === 422 && delay) await this.#say("nack", word);
      return;
    }
    held.delete(ackToken);
    await this.#say("ack", { tokens: [ackToken] });
  }

  /** Up to `max` messages, trying again as long as it takes; none after an abort. */
  async #fetch(max, signal) {
    for (let failures = 1; !signal?.aborted; failures += 1) {
      const answer = await this.#post("fetch", { max, wait: FETCH_WAIT }, FETCH_LIMIT_MS, signal);
      if (answer?.ok) return (await answer.json().catch(() => ({ messages: [] }))).messages;
      if (answer && !passing(answer.status)) {
        const problem = await answer.json().catch(() => ({}));
        throw new Refused(answer.status, problem.detail ?? "no reason is given");
      }
      await pause(failures, answer, signal);
    }
    return [];
  }

  /** Says it until the gateway has heard it, a few times; the status of its answer, if it has. */
  async #say(what, body) {
    for (let failures = 1; failures <= TRIES; failures += 1) {
      const answer = await this.#post(what, body, WORD_LIMIT_MS);
      if (answer && !passing(answer.status)) return answer.status;
      if (failures < TRIES) await pause(failures, answer);
    }
  }

  /** The answer; null if there is none. */
  async #post(what, body, limitMs, signal) {
    const limit = AbortSignal.timeout(limitMs);
    return fetch(`${this.#base}/${what}`, {
      method: "POST",
      headers: this.#headers,
      body: JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    }).catch(() => null);
  }
}

function passing(status) {
  return status === 408 || status === 429 || status >= 500;
}

/** Doubles from 100 ms to 30 s, half of it by chance; never earlier than the gateway asks. Ends with an abort. */
async function pause(failures, answer, signal) {
  const whole = Math.min(30_000, 100 * 2 ** Math.min(failures - 1, 16));
  const asked = Math.min(300, Number(answer?.headers.get("retry-after")) || 0) * 1000;
  const ms = Math.max(asked, whole / 2 + (whole / 2) * Math.random());
  await setTimeout(ms, undefined, { signal }).catch(() => {});
}

/** As the gateway takes a reason: text without control characters, not blank, not too long. */
function printable(reason) {
  const letters = Array.from(reason.replace(/\p{Cc}/gu, " ").replace(/\p{Cs}/gu, "\u{fffd}"));
  const text = letters.slice(0, REASON_BYTES_MAX / 4).join("");
  return text.trim() === "" ? "refused by a worker" : text;
}
