// One event stream for all tabs of a page's origin.
//
// Browsers open six HTTP/1.1 connections to a server and no more, over all tabs. Here one tab, the leader, holds the stream
// and passes on what comes; when it closes, the next one takes over and goes on where the last one was. Leaders are found
// with Web Locks and heard over a BroadcastChannel; where a browser lacks either, each tab has a stream of its own.

/** Without a word for so long the stream is taken for dead: Tidings pings every 15 s. */
const SILENCE_MS = 40_000;
/** Between two attempts to open a stream that the server has refused. */
const RETRY_MS = 2_000;
const RETRY_MS_MAX = 60_000;
/** In front of the names of locks and channels. */
const PLACE = "tidings-stream:";

/** Joins parameters to a URL. */
function withParameters(url, parameters) {
  const full = new URL(url, globalThis.location?.href);
  for (const [name, value] of Object.entries(parameters)) if (value != null) full.searchParams.set(name, value);
  return full.href;
}

/**
 * Follows a stream of Tidings, one connection for all tabs that follow the same.
 *
 *     const stream = follow("/events/stream?types=order.*");
 *     stream.on("order.shipped", (event) => show(event.data));
 *     stream.on("*", (event, { id }) => …);
 *     stream.on("status", (status) => status.replay === "gap" && reload());
 *
 * `url`: the stream, or a function (also asynchronous) that gives one: it is asked again when the server refuses, as after
 * the expiry of a ticket. Options:
 * - `name`: what tabs share a stream by; the default is the URL, so give one with a function.
 * - `from`: where it begins when nobody has an id yet: `latest` (default), `earliest`, an offset or a time.
 * - `withCredentials`: send cookies to another origin.
 * - `EventSource`, `locks`, `BroadcastChannel`: others than the browser's own, for tests.
 */
export function follow(url, options = {}) {
  return new Follower(url, options);
}

class Follower {
  #url;
  #options;
  #name;
  #handlers = new Map();
  #channel = null;
  #source = null;
  #lastId = null;
  #closed = false;
  #leading = false;
  #release = () => {};
  #watchdog = null;
  #again = null;
  #attempts = 0;

  constructor(url, options) {
    this.#url = url;
    this.#options = options;
    const name = options.name ?? (typeof url === "string" ? url : null);
    if (name === null) throw new TypeError("give a `name` with a function: tabs share a stream by it");
    this.#name = PLACE + name;
    const Channel = options.BroadcastChannel ?? globalThis.BroadcastChannel;
    const locks = options.locks ?? globalThis.navigator?.locks;
    if (!Channel || !locks) {
      this.#leading = true;
      this.#open();
      return;
    }
    this.#channel = new Channel(this.#name);
    this.#channel.onmessage = ({ data }) => this.#hear(data);
    // Whoever gets the lock leads until it closes: the browser gives it on, also when a tab crashes.
    locks.request(this.#name, () => {
      if (this.#closed) return undefined;
      this.#leading = true;
      this.#open();
      return new Promise((release) => (this.#release = release));
    });
    // A newcomer learns where the stream is.
    this.#channel.postMessage({ kind: "where" });
  }

  /** Whether this tab holds the connection. */
  get leading() {
    return this.#leading;
  }

  /** The id of the last event: a cursor that can be stored and given as `from`. */
  get lastId() {
    return this.#lastId;
  }

  /** Calls `handler` for events of a type, `*` for all, `status` for what the server tells of the stream. Returns the way to stop. */
  on(type, handler) {
    if (!this.#handlers.has(type)) this.#handlers.set(type, new Set());
    this.#handlers.get(type).add(handler);
    return () => this.#handlers.get(type).delete(handler);
  }

  /** Ends it for this tab; another one goes on. */
  close() {
    this.#closed = true;
    this.#shut();
    clearTimeout(this.#again);
    this.#channel?.close();
    this.#release();
    this.#leading = false;
  }

  #shut() {
    clearTimeout(this.#watchdog);
    this.#source?.close();
    this.#source = null;
  }

  async #open() {
    if (this.#closed || !this.#leading) return;
    this.#shut();
    let source;
    try {
      const url = typeof this.#url === "function" ? await this.#url() : this.#url;
      if (this.#closed) return;
      // The id in the URL is for a new connection; when it comes back by itself the browser sends a newer one.
      const place = this.#lastId === null ? { from: this.#options.from } : { lastEventId: this.#lastId };
      const Source = this.#options.EventSource ?? globalThis.EventSource;
      source = new Source(withParameters(url, { ...place, ping: "event" }), {
        withCredentials: this.#options.withCredentials ?? false,
      });
    } catch {
      this.#later();
      return;
    }
    this.#source = source;
    const alive = () => {
      clearTimeout(this.#watchdog);
      this.#watchdog = setTimeout(() => this.#open(), SILENCE_MS);
    };
    source.onopen = () => {
      this.#attempts = 0;
      alive();
    };
    // A ping has the cursor, also before the first event: then whoever takes over begins there.
    source.addEventListener("ping", ({ lastEventId }) => {
      alive();
      if (lastEventId) this.#tell({ kind: "here", id: lastEventId });
    });
    source.onmessage = ({ data, lastEventId }) => {
      alive();
      this.#tell({ kind: "event", id: lastEventId, data });
    };
    source.addEventListener("tidings.status", ({ data }) => {
      alive();
      // Somebody else opened a stream with the same ticket: the browser stays away as long as it was told to.
      if (JSON.parse(data).closing === "replaced") clearTimeout(this.#watchdog);
      this.#tell({ kind: "status", data });
    });
    source.onerror = () => {
      // CLOSED: the server refused, and the browser does not come back.
      if (source.readyState === 2 && source === this.#source) this.#later();
    };
    alive();
  }

  #later() {
    this.#shut();
    const wait = Math.min(RETRY_MS * 2 ** this.#attempts, RETRY_MS_MAX);
    this.#attempts += 1;
    clearTimeout(this.#again);
    this.#again = setTimeout(() => this.#open(), wait * (0.5 + Math.random() / 2));
  }

  /** To this tab and all others. */
  #tell(message) {
    this.#channel?.postMessage(message);
    this.#hear(message);
  }

  #hear(message) {
    if (this.#closed) return;
    if (message.kind === "where") {
      if (this.#leading && this.#lastId !== null) this.#channel?.postMessage({ kind: "here", id: this.#lastId });
    } else if (message.kind === "here") {
      if (this.#isNew(message.id)) this.#lastId = message.id;
    } else if (message.kind === "status") {
      const status = JSON.parse(message.data);
      // Another log than the one that the id was of: its offsets may be smaller.
      if (status.replay === "reset") this.#lastId = String(status.from - 1);
      this.#call("status", status);
    } else if (message.kind === "event" && this.#isNew(message.id)) {
      this.#lastId = message.id;
      const event = JSON.parse(message.data);
      this.#call(event.eventType, event, { id: message.id });
      this.#call("*", event, { id: message.id });
    }
  }

  /** Ids are offsets, and offsets grow; a restored log jumps forward. */
  #isNew(id) {
    return this.#lastId === null || id.length > this.#lastId.length || (id.length === this.#lastId.length && id > this.#lastId);
  }

  #call(type, ...values) {
    for (const handler of this.#handlers.get(type) ?? []) {
      try {
        handler(...values);
      } catch (error) {
        // One handler's fault is not the others'.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
