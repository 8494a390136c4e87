// A notification centre and the timeline of each order, made of what comes over the stream and of nothing else.
import { follow } from "./stream.js";

const TEXTS = {
  "order.created": (data) => `was placed: ${(data.totalCents / 100).toFixed(2)} in total`,
  "order.paid": () => "is paid",
  "order.shipped": (data) => `is on its way: ${data.trackingNumber}`,
  "order.cancelled": () => "was cancelled",
};

const customer = new URLSearchParams(location.search).get("customer") ?? "u_17";
const at = (id) => document.getElementById(id);
/** When this customer last marked all as read: the id of the newest notice then. */
const READ = `read:${customer}`;
let newest = 0;

at("customer").textContent = customer;

/** The page asks its own backend, which makes a ticket for this customer alone; again when it has expired. */
async function streamUrl() {
  const answer = await fetch(`/ticket?customer=${encodeURIComponent(customer)}`, { method: "POST" });
  if (!answer.ok) throw new Error(`no ticket: ${answer.status}`);
  return (await answer.json()).url;
}

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  return made;
}

function when(event) {
  return element("time", ` ${new Date(event.timestamp).toLocaleTimeString()}`, { datetime: event.timestamp });
}

function count() {
  const unread = document.querySelectorAll("#notices .unread").length;
  at("unread").textContent = unread;
  at("unread").dataset.count = unread;
  document.title = unread ? `(${unread}) Your orders` : "Your orders";
}

function notice(event, id) {
  const told = TEXTS[event.eventType]?.(event.data) ?? event.eventType;
  const line = element("li", `Order ${event.data.id} ${told}`);
  if (id > Number(localStorage.getItem(READ) ?? 0)) line.classList.add("unread");
  line.append(when(event));
  at("notices").prepend(line);
  count();
}

function step(event) {
  const place = `timeline-${event.aggregateId}`;
  let order = at(place);
  if (!order) {
    order = element("article", "", { id: place, class: "order" });
    order.append(element("h3", `Order ${event.data.id}`), element("ol", ""));
    at("orders").prepend(order);
  }
  const line = element("li", event.eventType.split(".")[1], { "data-sequence": event.sequenceNumber });
  line.append(when(event));
  order.querySelector("ol").append(line);
}

// The whole story needs a stream of this tab's own. Tabs that show only what is new would share one: the same `name` for all.
const stream = follow(streamUrl, { name: `orders:${customer}:${Math.random()}`, from: "earliest" });
stream.on("*", (event, { id }) => {
  newest = Number(id);
  at("state").textContent = "live";
  notice(event, newest);
  step(event);
});
stream.on("status", () => (at("state").textContent = "live"));

at("read").addEventListener("click", () => {
  localStorage.setItem(READ, newest);
  for (const line of document.querySelectorAll("#notices .unread")) line.classList.remove("unread");
  count();
});
