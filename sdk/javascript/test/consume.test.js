// A worker of a queue, against a gateway that answers as it is told.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { test } from "node:test";

import { Consumer, Nack, Refused } from "../src/index.js";

const message = (number) => ({
  ackToken: `t${number}`,
  deliveryCount: 1,
  offset: number,
  replay: null,
  event: { eventId: `e${number}`, data: number },
});

/** Answers fetches with `fetches` in order, then with 404, and everything else with 200. */
async function gateway(t, fetches) {
  const words = [];
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = JSON.parse(Buffer.concat(chunks));
    const what = request.url.split("/").at(-1);
    // As the gateway: a delay of more than a day is refused.
    let answer = body.delay === "48h" ? [422, {}] : [200, {}];
    if (what === "fetch") answer = fetches.shift() ?? [404, { detail: "gone" }];
    else words.push([what, body]);
    server.emit("word");
    response.writeHead(answer[0]).end(JSON.stringify(answer[1]));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => (server.closeAllConnections(), server.close()));
  return { url: `http://127.0.0.1:${server.address().port}`, words, server };
}

test("what is done is acknowledged and what is not is given back with the reason", async (t) => {
  const { url, words } = await gateway(t, [[503, {}], [200, { messages: [message(1), message(2), message(3)] }]]);
  const handler = (event, { offset }) => {
    if (offset === 1) throw new Nack("not\nyet", { delay: "90s" });
    if (offset === 2) throw new Error("broken");
  };
  await assert.rejects(new Consumer(url, "billing").run(handler), (error) => error instanceof Refused && error.status === 404);
  assert.deepEqual(words.sort(([, a], [, b]) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)), [
    ["nack", { token: "t1", delay: "90s", reason: "not yet" }],
    ["nack", { token: "t2", reason: "broken" }],
    ["ack", { tokens: ["t3"] }],
  ]);
});

test("work that takes long asks for more time and a stop lets it end", async (t) => {
  const { url, words, server } = await gateway(t, [[200, { messages: [message(1)] }]]);
  const stop = new AbortController();
  const handler = async () => {
    stop.abort();
    while (!words.some(([what]) => what === "extend")) await once(server, "word");
  };
  await new Consumer(url, "billing", { concurrency: 1, extendEveryMs: 20 }).run(handler, { signal: stop.signal });
  assert.deepEqual(words[0], ["extend", { tokens: ["t1"] }]);
  assert.deepEqual(words.at(-1), ["ack", { tokens: ["t1"] }]);
});

test("a refusal is told whatever its words and its delay are", async (t) => {
  const { url, words } = await gateway(t, [[200, { messages: [message(1)] }], [200, { messages: [message(2)] }]]);
  const handler = (event, { offset }) => {
    if (offset === 1) throw new Nack("later", { delay: "48h" });
    throw new Error(`${"x".repeat(255)}\u{1f600}`);
  };
  await assert.rejects(new Consumer(url, "billing", { concurrency: 1 }).run(handler), Refused);
  assert.deepEqual(words.slice(0, 2), [
    ["nack", { token: "t1", delay: "48h", reason: "later" }],
    ["nack", { token: "t1", reason: "later" }],
  ]);
  assert.equal(words[2][1].reason, `${"x".repeat(255)}\u{1f600}`);
});
