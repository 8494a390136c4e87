// Signatures of deliveries: Standard Webhooks 1.0, symmetric (`v1`, HMAC-SHA256) and asymmetric (`v1a`, Ed25519).
import { createHmac, createPublicKey, timingSafeEqual, verify as verifySignature } from "node:crypto";

const SECRET_BYTES_MIN = 24;
const SECRET_BYTES_MAX = 64;
/** How far a signature's time may be off (Standard Webhooks: 5 minutes). */
const TOLERANCE_S = 300;
/** Most signatures looked at in one header: a hostile header must not cost more. */
const SIGNATURES_MAX = 16;

/** In front of the 32 bytes of a public key, as DER has it (RFC 8410). */
const PUBLIC_KEY_DER = Buffer.from("302a300506032b6570032100", "hex");
const PUBLIC_KEY_BYTES = 32;

/** The request is not a delivery of ours. Answer 400 and do not look at its body. */
export class VerificationError extends Error {}

/**
 * Verifies deliveries with any of its secrets (`whsec_…`) and public keys (`whpk_…`): while they rotate, give both. Give public
 * keys alone to a receiver that must not be able to sign.
 */
export class Verifier {
  #fits;
  #toleranceS;

  constructor(secrets, { toleranceS = TOLERANCE_S } = {}) {
    this.#fits = [secrets].flat().map(judgeOf);
    if (this.#fits.length === 0) throw new TypeError("a verifier needs a secret");
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
    const signatures = given.split(" ", SIGNATURES_MAX);
    const signed = Buffer.concat([Buffer.from(`${id}.${timestampS}.`), raw]);
    // No early exit: the time tells nothing.
    let fits = false;
    for (const judge of this.#fits) fits = judge(signed, signatures) || fits;
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

/** What says whether one of the signatures of a message is of this secret or key. */
function judgeOf(secret) {
  if (String(secret).startsWith("whpk_")) {
    const key = publicKeyOf(secret);
    return (signed, signatures) =>
      signatures.some((signature) => {
        const [, encoded] = /^v1a,([A-Za-z0-9+/]{86}==)$/.exec(signature) ?? [];
        return encoded !== undefined && verifySignature(null, signed, key, Buffer.from(encoded, "base64"));
      });
  }
  const key = keyOf(secret);
  return (signed, signatures) => {
    const good = Buffer.from(`v1,${createHmac("sha256", key).update(signed).digest("base64")}`);
    return signatures.reduce((fits, signature) => same(Buffer.from(signature), good) || fits, false);
  };
}

function publicKeyOf(text) {
  const [, encoded] = /^whpk_([A-Za-z0-9+/]{43})=?$/.exec(text) ?? [];
  const key = Buffer.from(encoded ?? "", "base64");
  if (key.length !== PUBLIC_KEY_BYTES) throw new TypeError("a public key is `whpk_` followed by the base64 of 32 bytes");
  return createPublicKey({ key: Buffer.concat([PUBLIC_KEY_DER, key]), format: "der", type: "spki" });
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
