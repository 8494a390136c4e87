// The live page in a real browser: node live.mjs API CHROMIUM. Writes `restart` when Tidings is to be killed and started
// again, and reads a line when that is done.
import assert from "node:assert/strict";
import { createInterface } from "node:readline";

import puppeteer from "puppeteer-core";

const [api, chromium] = process.argv.slice(2);
const PATIENCE_MS = 30_000;

async function post(path, body) {
  const headers = { "content-type": "application/json" };
  const answer = await fetch(api + path, { method: "POST", headers, body: body && JSON.stringify(body) });
  assert.ok(answer.ok, `${path}: ${answer.status}`);
  return answer.status === 201 ? answer.json() : null;
}

const create = (customer) => post("/orders", { customer, totalCents: 4200 });

const browser = await puppeteer.launch({
  executablePath: chromium,
  headless: true,
  // The sandbox takes a user of its own; the page here is ours.
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
try {
  const page = await browser.newPage();
  const faults = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  await page.goto(`${api}/?customer=live`);
  await page.waitForFunction(() => document.getElementById("state").textContent === "live", { timeout: PATIENCE_MS });

  const shows = async (id, steps) => {
    await page.waitForFunction(
      (id, steps) => {
        const lines = [...document.querySelectorAll(`#timeline-order_${id} li`)];
        return lines.map((line) => line.firstChild.textContent).join() === steps && (lines.length || true);
      },
      { timeout: PATIENCE_MS },
      id,
      steps.join(),
    );
  };
  const unread = () => page.evaluate(() => Number(document.getElementById("unread").textContent));

  // It grows while the order lives, in the order's order.
  const first = await create("live");
  await shows(first.id, ["created"]);
  await post(`/orders/${first.id}/pay`);
  await shows(first.id, ["created", "paid"]);
  await post(`/orders/${first.id}/ship`, { trackingNumber: "1Z<b>999" });
  await shows(first.id, ["created", "paid", "shipped"]);
  assert.equal(await unread(), 3);
  const newest = await page.evaluate(() => document.querySelector("#notices li").firstChild.textContent);
  assert.equal(newest, `Order ${first.id} is on its way: 1Z<b>999`);

  // What is read stays read, also after a reload, which tells the whole story again.
  await page.click("#read");
  assert.equal(await unread(), 0);
  await page.reload();
  await shows(first.id, ["created", "paid", "shipped"]);
  assert.equal(await unread(), 0);

  // Nobody sees the orders of others, and what happens while Tidings is away is told when it is back.
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  console.log("restart");
  const [other, second] = [await create("somebody else"), await create("live")];
  await post(`/orders/${second.id}/cancel`);
  await lines.next();
  await shows(second.id, ["created", "cancelled"]);
  assert.equal(await page.evaluate((id) => document.getElementById(`timeline-order_${id}`), other.id), null);
  assert.equal(await unread(), 2);
  assert.deepEqual(faults, []);
} finally {
  await browser.close();
}
process.exit(0);
