// Event streams in a real browser: node browser.mjs TIDINGS CHROMIUM [restarts]
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";

import { EventSource } from "eventsource";
import puppeteer from "puppeteer-core";

import { Server, sleep, until } from "./server.mjs";

const [binary, chromium, restarts = "3"] = process.argv.slice(2);
const helper = await readFile(join(process.env.TIDINGS_ROOT, "sdk/javascript/src/stream.js"), "utf8");

/** An origin of its own, with a page and the helper. */
async function site() {
  const server = createServer((request, response) => {
    const script = request.url === "/stream.js";
    response.setHeader("content-type", script ? "text/javascript" : "text/html");
    response.end(script ? helper : "<!doctype html><title>page</title>");
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return { origin: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}

/** Publishes one after the other until it is told to stop; each until it is acknowledged, whatever happens meanwhile. */
function load(server, type) {
  let running = true;
  let number = 0;
  const done = (async () => {
    while (running) {
      number += 1;
      const event = { eventId: `${type.replace(".", "-")}-${number}`, eventType: type, data: number };
      await until("an answer", () => server.post("/events", event).catch(() => null), 30_000);
    }
    return number;
  })();
  return {
    count: () => number,
    stop: () => {
      running = false;
      return done;
    },
  };
}

/** Kills the server under load, again and again; what was seen in the end is all that was published, each once. */
async function survives(server, type, seen, source = () => {}) {
  const publisher = load(server, type);
  try {
    for (let round = 0; round < Number(restarts); round += 1) {
      const before = (await seen()).length;
      await until("events", async () => (await seen()).length > before + 20, 30_000);
      await server.kill();
      await server.again();
    }
  } finally {
    publisher.stop().catch(() => {});
  }
  const count = await publisher.stop();
  await until("the rest", async () => (await seen()).length >= count, 30_000);
  assert.deepEqual(await seen(), Array.from({ length: count }, (_, index) => index + 1));
  source();
}

const checks = {
  async "npm eventsource misses and repeats nothing while its server is killed under load"({ server }) {
    const seen = [];
    const source = new EventSource(`${server.url}/events/stream?types=npm.*`);
    source.onmessage = ({ data }) => seen.push(JSON.parse(data).data);
    await until("open", () => source.readyState === EventSource.OPEN);
    await survives(server, "npm.tick", () => seen, () => source.close());
  },

  async "Chromium's EventSource, from another origin, misses and repeats nothing while the server is killed under load"({ server, tab }) {
    const page = await tab();
    await page.evaluate((url) => {
      window.seen = [];
      window.source = new EventSource(url);
      window.source.onmessage = ({ data }) => window.seen.push(JSON.parse(data).data);
      return new Promise((done) => (window.source.onopen = done));
    }, `${server.url}/events/stream?types=browser.*`);
    await survives(server, "browser.tick", () => page.evaluate(() => window.seen));
    await page.close();
  },

  async "an origin that the settings do not name reads nothing"({ server, browser, stranger }) {
    const page = await (await browser.createBrowserContext()).newPage();
    await page.goto(stranger.origin);
    const state = await page.evaluate((url) => {
      const source = new EventSource(url);
      return new Promise((done) => {
        source.onopen = () => done("open");
        source.onerror = () => done(source.readyState);
      });
    }, `${server.url}/events/stream`);
    assert.equal(state, 2);
    await page.close();
  },

  async "a ticket opens its stream again, also after a crash, and closes for good when its time is over"({ server, tab }) {
    const page = await tab();
    const { url } = await server.post("/stream-tickets", { types: ["ticket.*"], ttl: "2s" });
    const late = await server.post("/stream-tickets", { ttl: "1s" });
    await page.evaluate((url) => {
      window.seen = [];
      window.source = new EventSource(url);
      window.source.onmessage = ({ data }) => window.seen.push(JSON.parse(data).data);
      return new Promise((done) => (window.source.onopen = done));
    }, server.url + url);
    await server.post("/events", { eventType: "other.one", data: 0 });
    await server.post("/events", { eventType: "ticket.one", data: 1 });
    await sleep(2_100);
    await server.kill();
    await server.again();
    await server.post("/events", { eventType: "ticket.one", data: 2 });
    await until("both", () => page.evaluate(() => window.seen.length >= 2));
    assert.deepEqual(await page.evaluate(() => window.seen), [1, 2]);
    const refused = await fetch(server.url + late.url);
    assert.equal(refused.status, 401);
    assert.equal((await refused.json()).type, "/errors/invalid-ticket");
    const state = await page.evaluate((url) => {
      const source = new EventSource(url);
      return new Promise((done) => (source.onerror = () => done(source.readyState)));
    }, server.url + late.url);
    assert.equal(state, 2);
    await page.close();
  },

  async "two tabs with the helper hold one connection, and the second goes on when the first is closed"({ server, tab }) {
    const open = async () => {
      const text = await (await fetch(`${server.url}/metrics`)).text();
      return Number(/^tidings_streams_open (\d+)/m.exec(text)[1]);
    };
    await until("no stream", async () => (await open()) === 0);
    const start = async (page) => {
      await page.evaluate(async (url) => {
        const { follow } = await import("/stream.js");
        window.seen = [];
        window.stream = follow(url);
        window.stream.on("tabs.tick", (event) => window.seen.push(event.data));
      }, `${server.url}/events/stream?types=tabs.*`);
    };
    const [first, second] = [await tab(), await tab()];
    await start(first);
    await until("the leader's cursor", () => first.evaluate(() => window.stream.lastId));
    await start(second);
    const seen = (page) => page.evaluate(() => window.seen);
    for (let number = 1; number <= 5; number += 1) await server.post("/events", { eventType: "tabs.tick", data: number });
    for (const page of [first, second]) await until("five", async () => (await seen(page)).length >= 5);
    assert.deepEqual([await seen(first), await seen(second)], [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]);
    assert.equal(await open(), 1);
    assert.deepEqual(
      [await first.evaluate(() => window.stream.leading), await second.evaluate(() => window.stream.leading)],
      [true, false],
    );
    await first.close();
    for (let number = 6; number <= 9; number += 1) await server.post("/events", { eventType: "tabs.tick", data: number });
    await until("the rest", async () => (await seen(second)).length >= 9);
    assert.deepEqual(await seen(second), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert.ok(await second.evaluate(() => window.stream.leading));
    await until("one stream", async () => (await open()) === 1);
    await second.close();
  },
};

let failed = 0;
const [ours, stranger] = [await site(), await site()];
const server = await Server.start(binary, { TIDINGS_CORS_ORIGINS: ours.origin });
const browser = await puppeteer.launch({
  executablePath: chromium,
  headless: true,
  // The sandbox takes a user of its own; the pages here are ours.
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
const tab = async () => {
  const page = await browser.newPage();
  await page.goto(ours.origin);
  return page;
};
try {
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check({ server, browser, tab, stranger });
      console.log(`ok    ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAIL  ${name}\n      ${String(error?.stack ?? error).replaceAll("\n", "\n      ")}`);
    }
  }
} finally {
  await browser.close();
  await server.end();
  ours.close();
  stranger.close();
}
console.log(`${Object.keys(checks).length - failed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
