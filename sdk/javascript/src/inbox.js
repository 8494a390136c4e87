// What was processed already: an event may come twice, its work is done once.
//
// An event comes again when the outcome of an attempt is not known. The last step of the default retry schedule is a day,
// up to a tenth longer: so ids are kept for two days.
import { randomUUID } from "node:crypto";

/** How long an id is remembered, in seconds. */
const KEPT_S = 172_800;
/** How long a claim that nobody ends keeps others out, in seconds: longer than a delivery's timeout. */
const CLAIM_S = 60;
/** Ids that a MemoryInbox remembers, unless told otherwise. */
const IDS_MAX = 100_000;

/** Another attempt of the event is being processed. Answer 503: it comes again. */
export class Busy extends Error {}

/** Remembers in this process: for one receiver, and until it ends. The oldest ids beyond `idsMax` are forgotten. */
export class MemoryInbox {
  #done = new Map();
  #claimed = new Set();
  #keptS;
  #idsMax;
  #nowS;

  constructor({ keptS = KEPT_S, idsMax = IDS_MAX, nowS = () => performance.now() / 1000 } = {}) {
    [this.#keptS, this.#idsMax, this.#nowS] = [keptS, idsMax, nowS];
  }

  /**
   * Does the work of an event if that is new; whether it was. If the work throws, the event may come again. Throws Busy
   * while another attempt of it is being worked on.
   */
  async once(id, work) {
    this.#forget();
    if (this.#done.has(id)) return false;
    if (this.#claimed.has(id)) throw new Busy(id);
    this.#claimed.add(id);
    try {
      await work();
      this.#done.set(id, this.#nowS());
    } finally {
      this.#claimed.delete(id);
    }
    return true;
  }

  #forget() {
    const oldest = this.#nowS() - this.#keptS;
    for (const [id, at] of this.#done) {
      if (this.#done.size <= this.#idsMax && at >= oldest) return;
      this.#done.delete(id);
    }
  }
}

/** Ends a claim if it is still ours: the key goes (0 seconds), or says `done` for as long as it is told. */
const END =
  "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end " +
  "if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end " +
  "redis.call('SET', KEYS[1], 'done', 'EX', ARGV[2]) return 1";

/**
 * Remembers in Redis: for all processes that share it. `send(...args)` sends a command: of `redis`,
 * `(...args) => client.sendCommand(args)`; of `ioredis`, `(...args) => client.call(...args)`.
 *
 * A process that dies in the middle keeps others out for a minute; what it had done by then may be done again.
 */
export class RedisInbox {
  #send;
  #subscriber;
  #keptS;

  constructor(send, subscriber, { keptS = KEPT_S } = {}) {
    [this.#send, this.#subscriber, this.#keptS] = [send, subscriber, keptS];
  }

  /** As MemoryInbox.once. */
  async once(id, work) {
    const key = `tidings:inbox:${this.#subscriber}:${id}`;
    const token = randomUUID();
    if ((await this.#send("SET", key, token, "NX", "EX", String(CLAIM_S))) === null) {
      if (String(await this.#send("GET", key)) === "done") return false;
      throw new Busy(id);
    }
    try {
      await work();
    } catch (error) {
      await this.#send("EVAL", END, "1", key, token, "0");
      throw error;
    }
    await this.#send("EVAL", END, "1", key, token, String(this.#keptS));
    return true;
  }
}

/**
 * Remembers in the transaction of the work: both commit or neither does, so the work is done exactly once. `client` is what
 * has the transaction: of PostgreSQL (`pg`), or with `{ dialect: "mysql" }` a connection of `mysql2/promise`. Create the table
 * with `CREATE` or `CREATE_MYSQL`, once.
 */
export class SqlInbox {
  static CREATE = `CREATE TABLE IF NOT EXISTS tidings_inbox (
  subscriber VARCHAR(64) NOT NULL,
  event_id VARCHAR(64) NOT NULL,
  processed_ms BIGINT NOT NULL,
  PRIMARY KEY (subscriber, event_id)
)`;

  /** Ids differ in case, whatever the collation of the database says. */
  static CREATE_MYSQL = `CREATE TABLE IF NOT EXISTS tidings_inbox (
  subscriber VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  event_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  processed_ms BIGINT NOT NULL,
  PRIMARY KEY (subscriber, event_id),
  KEY tidings_inbox_by_age (subscriber, processed_ms)
) ENGINE = InnoDB`;

  #subscriber;
  #mysql;

  constructor(subscriber, { dialect = "postgres" } = {}) {
    if (!["postgres", "mysql"].includes(dialect)) throw new TypeError("dialect is `postgres` or `mysql`");
    [this.#subscriber, this.#mysql] = [subscriber, dialect === "mysql"];
  }

  /** Whether the event is new; call it first in the transaction, and do the work only if it says so. */
  async first(client, id) {
    const [ignore, conflict] = this.#mysql ? [" IGNORE", ""] : ["", " ON CONFLICT DO NOTHING"];
    const sql = `INSERT${ignore} INTO tidings_inbox (subscriber, event_id, processed_ms) VALUES ($1, $2, $3)${conflict}`;
    return (await this.#rows(client, sql, [this.#subscriber, id, Date.now()])) === 1;
  }

  /** Forgets what is older; how many. Call it now and then, in a transaction of its own. */
  async forget(client, { keptS = KEPT_S } = {}) {
    const sql = "DELETE FROM tidings_inbox WHERE subscriber = $1 AND processed_ms < $2";
    return this.#rows(client, sql, [this.#subscriber, Date.now() - keptS * 1000]);
  }

  /** How many rows a statement has changed. */
  async #rows(client, sql, values) {
    if (!this.#mysql) return (await client.query(sql, values)).rowCount;
    const [{ affectedRows }] = await client.query(sql.replace(/\$\d/g, "?"), values);
    return affectedRows;
  }
}
