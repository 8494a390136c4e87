// Signatures of deliveries: Standard Webhooks 1.0, symmetric (`v1`, HMAC-SHA256).
import { createHmac, timingSafeEqual } from "node:crypto";

const SECRET_BYTES_MIN = 24;
const SECRET_BYTES_MAX = 64;
/** How far a signature's time may be off (Standard Webhooks: 5 minutes). */
const TOLERANCE_S = 300;
/** Most signatures looked at in one header: a hostile header must not cost more. */
const SIGNATURES_MAX = 16;

/** The request is not a delivery of ours. Answer 400 and do not look at its body. */
export class VerificationError extends Error {}

/** Verifies deliveries with any of its secrets: while they rotate, give both. */
export class Verifier {
  #keys;
  #toleranceS;

  constructor(secrets, { toleranceS = TOLERANCE_S } = {}) {
    this.#keys = [secrets].flat().map(keyOf);
    if (this.#keys.length === 0) throw new TypeError("a verifier needs a secret");
    this.#toleranceS = toleranceS;
  }

  /**
   * The delivery `{ id, timestampS, attempt, replay, body, event() }`, if one signature fits and its time is recent.
   * `headers` is an object or a `Headers`; `body` is the body as it came (string or bytes), not parsed and written again.
   * Throws VerificationError.
   */
  verify(headers, body, nowS = Date.now() / 1000) {
    const found = namesLower(headers);
    const [id, sent, given] = ["id", "timestamp", "signature"].map((part) => required(found, `webhook-${part}`));
    if (!/^[0-9]{1,12}$/.test(sent)) throw new VerificationError("webhook-timestamp is not a number of seconds");
    const timestampS = Number(sent);
    if (Math.abs(nowS - timestampS) > this.#toleranceS) {
      throw new VerificationError(`webhook-timestamp is more than ${this.#toleranceS} seconds off`);
    }
    const raw = Buffer.from(body);
    const signatures = given.split(" ", SIGNATURES_MAX).filter((signature) => signature.startsWith("v1,"));
    // No early exit: the time tells nothing.
    let fits = false;
    for (const key of this.#keys) {
      const good = Buffer.from(`v1,${mac(key, id, timestampS, raw)}`);
      for (const signature of signatures) fits = same(Buffer.from(signature), good) || fits;
    }
    if (!fits) throw new VerificationError("no signature fits: the body was changed, or the secret is another one");
    const attempt = found.get("tidings-attempt") ?? "";
    return {
      id,
      timestampS,
      attempt: /^[0-9]{1,9}$/.test(attempt) ? Number(attempt) : null,
      replay: found.get("tidings-replay") ?? null,
      body: raw,
      /** The body as JSON: with format `envelope` the event. */
      event: () => JSON.parse(raw.toString("utf8")),
    };
  }
}

/** The headers of a delivery, to test a receiver with. */
export function sign(secret, id, timestampS, body) {
  return {
    "webhook-id": id,
    "webhook-timestamp": String(timestampS),
    "webhook-signature": `v1,${mac(keyOf(secret), id, timestampS, Buffer.from(body))}`,
  };
}

function namesLower(headers) {
  const pairs = typeof headers.entries === "function" ? headers.entries() : Object.entries(headers);
  return new Map(Array.from(pairs, ([name, value]) => [name.toLowerCase(), value]));
}

function required(headers, name) {
  const value = headers.get(name);
  if (typeof value !== "string" || value === "") throw new VerificationError(`the header ${name} is missing`);
  return value;
}

function keyOf(secret) {
  const [, encoded] = /^whsec_([A-Za-z0-9+/]+)={0,2}$/.exec(secret) ?? [];
  const key = Buffer.from(encoded ?? "", "base64");
  // A single letter behind the last whole group stands for no byte.
  if (key.length < SECRET_BYTES_MIN || key.length > SECRET_BYTES_MAX || encoded.length % 4 === 1) {
    throw new TypeError("a signing secret is `whsec_` followed by the base64 of 24 to 64 random bytes");
  }
  return key;
}

function mac(key, id, timestampS, body) {
  return createHmac("sha256", key).update(`${id}.${timestampS}.`).update(body).digest("base64");
}

function same(one, other) {
  return one.length === other.length && timingSafeEqual(one, other);
}
