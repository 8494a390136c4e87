// Published clients against a development server: node check.mjs TIDINGS PYTHON
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { CloudEvent, HTTP } from "cloudevents";
import { EventSource } from "eventsource";
import { Webhook as StandardWebhook } from "standardwebhooks";
import { Webhook as SvixWebhook } from "svix";
import WebSocket from "ws";

import { Server, receiver, until } from "./server.mjs";

const [binary, python] = process.argv.slice(2);
const sdk = join(process.env.TIDINGS_ROOT, "sdk");
const { Verifier, sign } = await import(join(sdk, "javascript/src/index.js"));
const strangers = fileURLToPath(new URL("strangers.py", import.meta.url));
const data = { total: 42.5, name: "Zoë ✓ \u2028", nested: [1, { a: null }] };

/** Asks the Python clients; an error if they are not content. */
function ask(task, input) {
  const ran = spawnSync(python, [strangers, task], { input: JSON.stringify(input), encoding: "utf8" });
  if (ran.status !== 0) throw new Error(ran.stderr.trim().split("\n").slice(-3).join(" | "));
  return JSON.parse(ran.stdout);
}

const wire = (post) => ({ headers: post.headers, body: post.body.toString("base64") });

/** One delivery in a form, with its webhook's secret. */
async function delivered(server, format, decide) {
  const subscriber = await receiver(decide);
  const retry = { schedule: ["100ms", "100ms"] };
  const webhook = await server.post("/webhooks", { url: subscriber.url, format, eventTypes: ["order.*"], retry });
  const event = { eventType: "order.created", aggregateId: "order 1é", metadata: { correlationId: "c1" }, data };
  const { eventId } = await server.post("/events", event);
  const posts = await subscriber.wait(decide ? 2 : 1);
  const gone = await fetch(`${server.url}/webhooks/${webhook.id}`, { method: "DELETE" });
  assert.ok(gone.ok);
  subscriber.close();
  return { post: posts.at(-1), secret: webhook.secret, eventId };
}

function refusesChanges(verify, { post, secret }) {
  const changed = Buffer.from(post.body);
  changed[changed.length - 3] ^= 1;
  assert.throws(() => verify(secret, changed, post.headers));
  const late = { ...post.headers, "webhook-timestamp": String(Number(post.headers["webhook-timestamp"]) + 1) };
  assert.throws(() => verify(secret, post.body, late));
  assert.throws(() => verify("whsec_" + Buffer.alloc(32, 7).toString("base64"), post.body, post.headers));
}

const verifiers = {
  standardwebhooks: (secret, body, headers) => new StandardWebhook(secret).verify(body.toString(), headers),
  svix: (secret, body, headers) => new SvixWebhook(secret).verify(body.toString(), headers),
};

/** A delivery, and what could be made of it on the way; `good` says whether a verifier may believe it. */
function variants({ headers, body }, secret) {
  const [id, signature] = [headers["webhook-id"], headers["webhook-signature"]];
  const changed = (what, more, good = false) => ({ what, good, headers: { ...headers, ...more }, body });
  const signed = (what, secondsAgo, good) => {
    const at = Math.floor(Date.now() / 1000) - secondsAgo;
    return changed(what, sign(secret, id, at, body), good);
  };
  const other = sign(`whsec_${Buffer.alloc(32, 7).toString("base64")}`, id, Number(headers["webhook-timestamp"]), body);
  const without = (name) => Object.fromEntries(Object.entries(headers).filter(([found]) => found !== name));
  return [
    { what: "as it came", good: true, headers, body },
    changed("a rotation, new first", { "webhook-signature": `${other["webhook-signature"]} ${signature}` }, true),
    changed("a rotation, old first", { "webhook-signature": `${signature} ${other["webhook-signature"]}` }, true),
    changed("with another version before", { "webhook-signature": `v1a,AAAA ${signature}` }, true),
    signed("four minutes ago", 240, true),
    signed("four minutes ahead", -240, true),
    signed("six minutes ago", 360, false),
    signed("six minutes ahead", -360, false),
    { what: "a longer body", good: false, headers, body: Buffer.concat([body, Buffer.from(" ")]) },
    { what: "an empty body", good: false, headers, body: Buffer.alloc(0) },
    changed("another id", { "webhook-id": "other" }),
    changed("another time", { "webhook-timestamp": String(Number(headers["webhook-timestamp"]) + 1) }),
    changed("a time that is no number", { "webhook-timestamp": "soon" }),
    changed("the signature of another secret", other),
    changed("a signature of another version", { "webhook-signature": signature.replace("v1,", "v2,") }),
    changed("an empty signature", { "webhook-signature": "v1," }),
    changed("a shortened signature", { "webhook-signature": signature.slice(0, -4) }),
    ...["webhook-id", "webhook-timestamp", "webhook-signature"].map((name) => ({
      what: `without ${name}`,
      good: false,
      headers: without(name),
      body,
    })),
  ];
}

/** What the verifier of tidings-emit says. */
function rustVerdicts(cases, secret) {
  const input = cases.map((request) => JSON.stringify({ ...wire(request), secret })).join("\n");
  const ran = spawnSync(join(process.env.TIDINGS_EXAMPLES, "verify"), [], { input, encoding: "utf8" });
  assert.equal(ran.status, 0, ran.stderr);
  return ran.stdout.trim().split("\n").map(JSON.parse);
}

/** The event that a CloudEvents client read is the one that was published. */
function assertRead(read, eventId) {
  assert.equal(read.id, eventId);
  assert.equal(read.specversion, "1.0");
  assert.equal(read.type, "order.created");
  assert.equal(read.subject, "order 1é");
  assert.equal(read.partitionkey, "order 1é");
  assert.equal(read.correlationid, "c1");
  assert.equal(read.eventversion, "1");
  assert.ok(!Number.isNaN(Date.parse(read.time)));
  assert.deepEqual(read.data, data);
}

/** The event that the log keeps is the one that a CloudEvents client made. */
async function assertKept(server, id) {
  const kept = await server.get(`/events/${id}`);
  assert.equal(kept.eventType, "com.example.order_shipped");
  assert.equal(kept.source, "/strangers/shop");
  assert.equal(kept.aggregateId, "order-1");
  assert.equal(kept.metadata.myext, "näh 100%");
  assert.deepEqual(kept.data, data);
}

const made = (id) =>
  new CloudEvent({
    id,
    type: "com.example.OrderShipped",
    source: "/strangers/shop",
    subject: "order-1",
    datacontenttype: "application/json",
    myext: "näh 100%",
    data,
  });

/** An open stream. */
async function follow(server, path, init, listen) {
  const source = new EventSource(server.url + path, init);
  const opened = until("open", () => source.readyState === EventSource.OPEN);
  listen(source);
  await opened;
  return source;
}

/** Follows a type over WebSockets, from the last offset on whenever the connection ends; what it saw, and how it began. */
function keepFollowing(server, types) {
  const found = { seen: [], words: [], opened: 0, after: 0, stopped: false };
  const open = () => {
    const socket = new WebSocket(`${server.url.replace("http", "ws")}/events/ws`);
    socket.on("open", () => {
      found.opened += 1;
      socket.send(JSON.stringify({ type: "subscribe", id: "follow", types, from: found.after }));
    });
    socket.on("message", (text) => {
      const told = JSON.parse(text);
      if (told.type === "event") {
        found.after = told.offset;
        found.seen.push(told.event.data);
      } else if (told.replay) {
        found.words.push(told.replay);
      }
    });
    // A server that is away: it comes back.
    socket.on("error", () => {});
    socket.on("close", () => found.stopped || setTimeout(open, 20));
    found.stop = () => ((found.stopped = true), socket.terminate());
  };
  open();
  return found;
}

const checks = {
  async "npm standardwebhooks verifies a delivery"(server) {
    const delivery = await delivered(server, "envelope");
    const event = verifiers.standardwebhooks(delivery.secret, delivery.post.body, delivery.post.headers);
    assert.equal(event.eventId, delivery.eventId);
    assert.deepEqual(event.data, data);
    refusesChanges(verifiers.standardwebhooks, delivery);
  },

  async "npm svix verifies a delivery"(server) {
    const delivery = await delivered(server, "envelope");
    verifiers.svix(delivery.secret, delivery.post.body, delivery.post.headers);
    refusesChanges(verifiers.svix, delivery);
  },

  async "PyPI standardwebhooks verifies a delivery, and refuses a changed one"(server) {
    const { post, secret, eventId } = await delivered(server, "envelope");
    assert.equal(ask("verify", { ...wire(post), secret }).eventId, eventId);
    const changed = { ...post, body: Buffer.concat([post.body, Buffer.from(" ")]) };
    assert.throws(() => ask("verify", { ...wire(changed), secret }), /WebhookVerificationError/);
  },

  async "all three verify a second attempt, and every form"(server) {
    const deliveries = [await delivered(server, "envelope", (before) => (before === 0 ? 503 : 200))];
    assert.equal(deliveries[0].post.headers["tidings-attempt"], "2");
    for (const format of ["cloudevents", "cloudevents-binary"]) deliveries.push(await delivered(server, format));
    for (const { post, secret } of deliveries) {
      verifiers.standardwebhooks(secret, post.body, post.headers);
      verifiers.svix(secret, post.body, post.headers);
      ask("verify", { ...wire(post), secret });
    }
  },

  async "published verifiers and ours agree, on what is signed and on what is not"(server) {
    const { post, secret } = await delivered(server, "envelope", (before) => (before === 0 ? 503 : 200));
    const cases = variants(post, secret);
    const outcome = (verify) => {
      try {
        verify();
        return true;
      } catch {
        return false;
      }
    };
    const ours = new Verifier(secret);
    const said = {
      "npm standardwebhooks": cases.map(({ headers, body }) => outcome(() => verifiers.standardwebhooks(secret, body, headers))),
      "npm svix": cases.map(({ headers, body }) => outcome(() => verifiers.svix(secret, body, headers))),
      "PyPI standardwebhooks": ask("verdicts", { secret, requests: cases.map(wire) }),
      "sdk/javascript": cases.map(({ headers, body }) => outcome(() => ours.verify(headers, body))),
      "sdk/python": ask("our_verdicts", { sdk: join(sdk, "python"), secret, requests: cases.map(wire) }),
      "crates/emit": rustVerdicts(cases, secret),
    };
    const expected = cases.map(({ good }) => good);
    for (const [name, verdicts] of Object.entries(said)) {
      const wrong = cases.filter((_, index) => verdicts[index] !== expected[index]).map(({ what }) => what);
      assert.deepEqual(wrong, [], name);
    }
  },

  async "the publisher of crates/emit publishes in order, and its receipts are true"(server) {
    const lines = Array.from({ length: 2_500 }, (_, number) => `note ${number}`);
    const publish = join(process.env.TIDINGS_EXAMPLES, "publish");
    const ran = spawnSync(publish, [server.url, "note.written"], { input: lines.join("\n"), encoding: "utf8" });
    assert.equal(ran.status, 0, ran.stderr);
    const receipts = ran.stdout.trim().split("\n").map((line) => line.split(" "));
    const offsets = receipts.map(([offset]) => Number(offset));
    assert.deepEqual(offsets, lines.map((_, number) => offsets[0] + number));
    for (const number of [0, 1_234, 2_499]) {
      assert.equal((await server.get(`/events/${receipts[number][1]}`)).data, lines[number]);
    }
  },

  async "npm cloudevents reads a structured delivery"(server) {
    const { post, eventId } = await delivered(server, "cloudevents");
    assertRead(HTTP.toEvent({ headers: post.headers, body: post.body.toString() }), eventId);
  },

  async "npm cloudevents reads a binary delivery"(server) {
    const { post, eventId } = await delivered(server, "cloudevents-binary");
    const read = HTTP.toEvent({ headers: post.headers, body: post.body.toString() });
    // This client leaves the percent-encoding of headers (HTTP binding, section 3.1.3.2) to its user.
    const decoded = Object.fromEntries(
      Object.entries(read.toJSON()).map(([name, value]) => [name, typeof value === "string" ? decodeURIComponent(value) : value]),
    );
    assertRead(decoded, eventId);
  },

  async "PyPI cloudevents reads a structured and a binary delivery, with its old and its new interface"(server) {
    for (const format of ["cloudevents", "cloudevents-binary"]) {
      const { post, eventId } = await delivered(server, format);
      for (const read of ask("read", wire(post))) assertRead(read, eventId);
    }
  },

  async "what npm cloudevents emits is taken, structured, binary and as a batch"(server) {
    const structured = HTTP.structured(made("npm-structured"));
    assert.equal((await server.post("/events", structured.body, structured.headers)).eventId, "npm-structured");
    // This client leaves the percent-encoding of headers to its user.
    const { headers, body } = HTTP.binary(made("npm-binary"));
    headers["ce-myext"] = encodeURIComponent(headers["ce-myext"]);
    assert.equal((await server.post("/events", body, headers)).eventId, "npm-binary");
    const batch = `[${["npm-batch-1", "npm-batch-2"].map((id) => HTTP.structured(made(id)).body).join(",")}]`;
    const type = { "content-type": "application/cloudevents-batch+json; charset=utf-8" };
    assert.equal((await server.post("/events", batch, type)).accepted, 2);
    for (const id of ["npm-structured", "npm-binary", "npm-batch-1", "npm-batch-2"]) await assertKept(server, id);
  },

  async "what PyPI cloudevents emits is taken, structured and binary, of its old and its new interface"(server) {
    for (const { headers, body } of ask("make", { data })) {
      const { eventId } = await server.post("/events", Buffer.from(body, "base64"), headers);
      await assertKept(server, eventId);
    }
  },

  async "PyPI prometheus_client reads /metrics, and its counters move"(server) {
    const scrape = async () => {
      const answer = await fetch(`${server.url}/metrics`, { headers: { accept: "application/openmetrics-text" } });
      assert.match(answer.headers.get("content-type"), /^application\/openmetrics-text; version=1\.0\.0/);
      return Object.fromEntries(ask("metrics", { text: await answer.text() }));
    };
    const before = await scrape();
    await server.post("/events", { eventType: "metrics.one", data: 1 });
    const after = await scrape();
    const published = "tidings_http_requests_total{method=POST,route=/events,status=2xx}";
    assert.equal(after[published] - (before[published] ?? 0), 1);
    assert.equal(after.tidings_log_events_total - before.tidings_log_events_total, 1);
    const bucket = "tidings_http_request_seconds_bucket{le=+Inf,method=POST,route=/events}";
    assert.equal(after[bucket], after["tidings_http_request_seconds_count{method=POST,route=/events}"]);
    assert.throws(() => ask("metrics", { text: "tidings_no_eof 1\n" }));
  },

  async "PyPI PyYAML reads the alert rules, and the dashboard is JSON of panels"() {
    const deploy = join(process.env.TIDINGS_ROOT, "deploy");
    const alerts = ask("rules", { text: await readFile(join(deploy, "prometheus-rules.yml"), "utf8") });
    assert.equal(new Set(alerts).size, alerts.length);
    assert.ok(alerts.length >= 5);
    const dashboard = JSON.parse(await readFile(join(deploy, "grafana-dashboard.json"), "utf8"));
    assert.equal(new Set(dashboard.panels.map((panel) => panel.id)).size, dashboard.panels.length);
    for (const { title, targets } of dashboard.panels) assert.ok(title && targets.every(({ expr }) => expr));
  },

  async "npm eventsource receives live events, and named ones"(server) {
    const seen = [];
    const plain = await follow(server, "/events/stream?types=live.*", {}, (source) => {
      source.onmessage = (event) => seen.push([event.lastEventId, JSON.parse(event.data).data]);
    });
    const named = [];
    const other = await follow(server, "/events/stream?types=live.*&named=1", {}, (source) => {
      source.addEventListener("live.tick", (event) => named.push(JSON.parse(event.data).data));
    });
    const offsets = [];
    for (let number = 0; number < 20; number += 1) {
      const text = `line\r\n${number}\nid: 7\n\ndata: x`;
      const { offset } = await server.post("/events", { eventType: "live.tick", data: text });
      offsets.push([String(offset), text]);
    }
    await until("all", () => seen.length >= 20 && named.length >= 20);
    assert.deepEqual(seen, offsets);
    assert.deepEqual(named, offsets.map(([, text]) => text));
    plain.close();
    other.close();
  },

  async "npm eventsource resumes over crashes and misses and repeats nothing"(server) {
    const [seen, words] = [[], []];
    const source = await follow(server, "/events/stream?types=count.*", {}, (source) => {
      source.onmessage = (event) => seen.push(JSON.parse(event.data).data);
      source.addEventListener("tidings.status", (event) => words.push(JSON.parse(event.data).replay));
    });
    const publish = (number) =>
      server.post("/events", { eventId: `count-${number}`, eventType: "count.up", data: number });
    let number = 0;
    for (let crash = 0; crash < 3; crash += 1) {
      while (number < (crash + 1) * 20) await publish((number += 1));
      await server.kill();
      await server.again();
      // While nobody listens: it comes back half a second later at the earliest.
      for (let away = 0; away < 10; away += 1) await publish((number += 1));
      await until("the rest", () => seen.length >= number);
    }
    assert.deepEqual(seen, Array.from({ length: number }, (_, index) => index + 1));
    assert.deepEqual(words, ["complete", "complete", "complete"]);
    source.close();
  },

  async "npm ws misses and repeats nothing while its server is killed under load"(server) {
    const found = keepFollowing(server, ["load.*"]);
    const crashes = Number(process.env.TIDINGS_RESTARTS ?? 3);
    let [number, stopped] = [0, false];
    const load = (async () => {
      while (!stopped) {
        const event = { eventId: `load-${number + 1}`, eventType: "load.up", data: number + 1 };
        // Until it is acknowledged; the id makes it one event.
        await until("an answer", () => server.post("/events", event).catch(() => null));
        number += 1;
      }
    })();
    for (let crash = 1; crash <= crashes; crash += 1) {
      await until("a connection", () => found.opened >= crash);
      const before = found.seen.length;
      await until("load", () => found.seen.length > before + 20);
      await server.kill();
      await server.again();
    }
    await until("a connection", () => found.opened > crashes);
    stopped = true;
    await load;
    await until("the rest", () => found.seen.length >= number);
    assert.deepEqual(found.seen, Array.from({ length: number }, (_, index) => index + 1));
    assert.ok(found.words.every((word) => word === "complete"), found.words.join());
    found.stop();
  },

  async "npm ws publishes, and works on a queue with acks"(server) {
    const headers = { "content-type": "application/json" };
    const body = '{"eventTypes":["job.*"]}';
    const made = await fetch(`${server.url}/consumers/ws`, { method: "PUT", headers, body });
    assert.equal(made.status, 201);
    const socket = new WebSocket(`${server.url.replace("http", "ws")}/events/ws`);
    const [done, told] = [[], []];
    const say = (message) => socket.send(JSON.stringify(message));
    socket.on("message", (text) => {
      const message = JSON.parse(text);
      told.push(message.type);
      if (message.type !== "event") return;
      done.push(message.event.data);
      say({ type: "ack", subscription: "work", tokens: [message.ackToken] });
    });
    await new Promise((opened) => socket.on("open", opened));
    say({ type: "subscribe", id: "work", consumer: "ws", max: 4 });
    for (let number = 0; number < 50; number += 1) {
      say({ type: "publish", ref: number, event: { eventType: "job.made", aggregateId: "one", data: number } });
    }
    await until("all work", () => done.length >= 50);
    assert.deepEqual(done, Array.from({ length: 50 }, (_, index) => index));
    assert.ok(!told.includes("error"));
    const closed = new Promise((over) => socket.on("close", (code) => over(code)));
    socket.close(1000);
    assert.equal(await closed, 1000);
  },

  async "npm eventsource that crashed with its server before the first event misses none"(server) {
    const seen = [];
    const source = await follow(server, "/events/stream?types=first.*", {}, (source) => {
      source.onmessage = (event) => seen.push(JSON.parse(event.data).data);
    });
    // The first block has been read when the stream answers a publish of another type with nothing: give it a turn.
    await server.post("/events", { eventType: "other.one", data: 0 });
    await server.kill();
    await server.again();
    await server.post("/events", { eventType: "first.one", data: 1 });
    await until("the first", () => seen.length >= 1);
    assert.deepEqual(seen, [1]);
    source.close();
  },
};

let failed = 0;
const server = await Server.start(binary);
try {
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check(server);
      console.log(`ok    ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAIL  ${name}\n      ${String(error?.stack ?? error).replaceAll("\n", "\n      ")}`);
    }
  }
} finally {
  await server.end();
}
console.log(`${Object.keys(checks).length - failed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
