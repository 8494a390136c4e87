// Verification, inboxes, order, and the three together.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { Busy, compare, MemoryInbox, Receiver, RedisInbox, SequenceGuard, sign, SqlInbox, VerificationError, Verifier } from "../src/index.js";

const vectors = JSON.parse(await readFile(new URL("../../vectors.json", import.meta.url), "utf8"));
const { secret } = vectors;
const DAY_S = 86_400;
const nowS = () => Math.floor(Date.now() / 1000);

test("the vectors that all receivers agree on", () => {
  for (const { name, verifies, headers, body, offsetSeconds } of vectors.signatures) {
    const verify = () => new Verifier(secret).verify(headers, body, vectors.signed + offsetSeconds);
    if (verifies) assert.equal(verify().id, headers["webhook-id"], name);
    else assert.throws(verify, VerificationError, name);
  }
});

test("the vectors of Ed25519, with the public half alone", () => {
  const { publicKey, signatures } = vectors.asymmetric;
  for (const { name, verifies, headers, body } of signatures) {
    const verify = (keys) => new Verifier(keys).verify(headers, body, vectors.signed);
    for (const keys of [publicKey, [`whsec_${"A".repeat(43)}`, publicKey]]) {
      if (verifies) assert.equal(verify(keys).id, headers["webhook-id"], name);
      else assert.throws(() => verify(keys), VerificationError, name);
    }
  }
  for (const text of ["whpk_", "whpk_AAAA", `${publicKey}AAAA`, `whpk_${"%".repeat(43)}`]) {
    assert.throws(() => new Verifier(text), TypeError, text);
  }
});

test("headers are taken as an object and as Headers, in any case, and missing ones are named", () => {
  const headers = { ...sign(secret, "e1", nowS(), "{}"), "Tidings-Attempt": "3" };
  for (const form of [headers, new Headers(headers)]) {
    const { id, attempt, event } = new Verifier(secret).verify(form, Buffer.from("{}"));
    assert.deepEqual([id, attempt, event()], ["e1", 3, {}]);
  }
  for (const name of Object.keys(sign(secret, "e1", 0, ""))) {
    assert.throws(() => new Verifier(secret).verify({ ...headers, [name]: undefined }, "{}"), new RegExp(name));
  }
});

test("while secrets rotate either fits", () => {
  const other = `whsec_${"A".repeat(43)}`;
  const headers = sign(other, "e1", nowS(), "{}");
  new Verifier([secret, other]).verify(headers, "{}");
  assert.throws(() => new Verifier(secret).verify(headers, "{}"), VerificationError);
});

test("secrets that are none are refused without being repeated", () => {
  for (const text of ["", "whsec_", "whsec_c2hvcnQ=", `whsec_${"A".repeat(200)}`, `whsec_${"A".repeat(45)}`, secret.slice(6), "whsec_%%%%"]) {
    assert.throws(() => new Verifier(text), (error) => error instanceof TypeError && !error.message.includes("c2hvcnQ"), text);
  }
  assert.throws(() => new Verifier([]), TypeError);
});

test("the orders that all receivers agree on", () => {
  for (const { newest, sequence, order } of vectors.orders) assert.deepEqual(compare(newest, sequence), order);
});

test("an event whose work failed is not late when it comes again", () => {
  const guard = new SequenceGuard();
  assert.equal(guard.look("order_1", 1).kind, "next");
  assert.equal(guard.look("order_1", 1).kind, "next");
  guard.passed("order_1", 1);
  assert.deepEqual(guard.look("order_1", 1), { kind: "late", newest: 1 });
});

test("what a guard remembers is bounded and what is used stays", () => {
  const guard = new SequenceGuard({ aggregatesMax: 10 });
  for (let number = 0; number < 100; number += 1) {
    guard.passed("used", number + 1);
    guard.passed(`order_${number}`, 1);
  }
  assert.equal(guard.look("used", 101).kind, "next");
  assert.equal(guard.look("order_1", 2).kind, "first");
});

/** As much of Redis as the inbox needs; the real one is met in the tests of crates/emit, with the same script. */
function fakeRedis() {
  const kept = new Map();
  const commands = {
    SET: (key, token) => (kept.has(key) ? null : kept.set(key, token) && "OK"),
    GET: (key) => kept.get(key) ?? null,
    EVAL(script, keys, key, token, keptS) {
      if (kept.get(key) !== token) return 0;
      return keptS === "0" ? kept.delete(key) : kept.set(key, "done");
    },
  };
  return async (name, ...args) => commands[name](...args);
}

test("work is done once and failed work again", async () => {
  for (const inbox of [new MemoryInbox(), new RedisInbox(fakeRedis(), "billing")]) {
    await assert.rejects(inbox.once("e1", () => Promise.reject(new Error("no"))), /no/);
    const first = await inbox.once("e1", () => assert.rejects(inbox.once("e1", () => assert.fail()), Busy));
    assert.equal(first, true);
    assert.equal(await inbox.once("e1", () => assert.fail()), false);
  }
});

test("an id is remembered longer than the longest step of the default schedule", async () => {
  let now = 0;
  const inbox = new MemoryInbox({ nowS: () => now });
  for (const [at, expected] of [[0, true], [1.1 * DAY_S + 20, false], [2 * DAY_S + 1, true]]) {
    now = at;
    assert.equal(await inbox.once("e1", () => {}), expected);
  }
});

test("beyond the bound the oldest ids are forgotten", async () => {
  const inbox = new MemoryInbox({ idsMax: 2 });
  for (const id of ["a", "b", "c", "d"]) await inbox.once(id, () => {});
  assert.equal(await inbox.once("d", () => {}), false);
  assert.equal(await inbox.once("a", () => {}), true);
});

test("an inbox in a transaction asks the database whether the row was new", async () => {
  const asked = [];
  const client = { query: async (sql, values) => (asked.push([sql, values]), { rowCount: asked.length === 1 ? 1 : 0 }) };
  const inbox = new SqlInbox("billing");
  assert.equal(await inbox.first(client, "e1"), true);
  assert.equal(await inbox.first(client, "e1"), false);
  assert.match(asked[0][0], /ON CONFLICT DO NOTHING/);
  assert.deepEqual(asked[0][1].slice(0, 2), ["billing", "e1"]);
});

test("an inbox on MySQL ignores what is there and counts what was changed", async () => {
  const asked = [];
  const client = { query: async (sql, values) => (asked.push([sql, values]), [{ affectedRows: asked.length === 1 ? 1 : 0 }, undefined]) };
  const inbox = new SqlInbox("billing", { dialect: "mysql" });
  assert.equal(await inbox.first(client, "e1"), true);
  assert.equal(await inbox.first(client, "e1"), false);
  assert.equal(await inbox.forget(client), 0);
  assert.equal(asked[0][0], "INSERT IGNORE INTO tidings_inbox (subscriber, event_id, processed_ms) VALUES (?, ?, ?)");
  assert.match(asked[2][0], /subscriber = \? AND processed_ms < \?$/);
  assert.throws(() => new SqlInbox("billing", { dialect: "oracle" }), TypeError);
});

function deliver(receiver, sequenceNumber) {
  const body = JSON.stringify({ eventId: `e${sequenceNumber}`, aggregateId: "order_1", sequenceNumber, data: null });
  return receiver.receive(sign(secret, `e${sequenceNumber}`, nowS(), body), body);
}

test("repeats, late events and gaps are told and nothing is dropped", async () => {
  const seen = [];
  const handler = (event, order) => seen.push([event.sequenceNumber, order.kind]);
  const receiver = new Receiver({ verifier: new Verifier(secret), handler, inbox: new MemoryInbox(), guard: new SequenceGuard() });
  for (const sequence of [1, 2, 2, 5, 3]) assert.equal(await deliver(receiver, sequence), 204);
  assert.deepEqual(seen, [[1, "next"], [2, "next"], [5, "gap"], [3, "late"]]);
});

test("an event whose handler failed is new when it comes again", async () => {
  const seen = [];
  const handler = (event, order) => {
    if (seen.push(order.kind) === 1) throw new Error("no");
  };
  const receiver = new Receiver({ verifier: new Verifier(secret), handler, inbox: new MemoryInbox(), guard: new SequenceGuard() });
  await assert.rejects(deliver(receiver, 1), /no/);
  assert.equal(await deliver(receiver, 1), 204);
  assert.deepEqual(seen, ["next", "next"]);
});

test("what is not signed is refused and what is under way comes again", async () => {
  let go;
  const handler = () => new Promise((done) => (go = done));
  const receiver = new Receiver({ verifier: new Verifier(secret), handler, inbox: new MemoryInbox() });
  assert.equal(await receiver.receive({}, "{}"), 400);
  const other = deliver(receiver, 1);
  assert.equal(await deliver(receiver, 1), 503);
  go();
  assert.equal(await other, 204);
});
