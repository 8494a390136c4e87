// The order of an aggregate's events, as a receiver sees it.

/** Aggregates that a guard remembers, unless told otherwise. */
const AGGREGATES_MAX = 100_000;

/**
 * Tells late events and gaps. It drops nothing: what to do is for the handler to say.
 *
 * Two steps: `look` before the work, `passed` after it, so that an event whose work failed is not late when it comes
 * again. Remembers `aggregatesMax` aggregates in memory, those that were used last. To remember them over restarts, keep
 * the number in the row that the event changes, and compare with `compare`.
 */
export class SequenceGuard {
  #newest = new Map();
  #aggregatesMax;

  constructor({ aggregatesMax = AGGREGATES_MAX } = {}) {
    this.#aggregatesMax = aggregatesMax;
  }

  /** How the event stands to those that passed before: see `compare`. */
  look(aggregate, sequence) {
    return compare(this.#newest.get(aggregate) ?? null, sequence);
  }

  /** The event was processed. An older one than the newest changes nothing. */
  passed(aggregate, sequence) {
    const newest = Math.max(sequence, this.#newest.get(aggregate) ?? 0);
    // A map keeps the order of insertion: who is used goes to the end.
    this.#newest.delete(aggregate);
    this.#newest.set(aggregate, newest);
    while (this.#newest.size > this.#aggregatesMax) this.#newest.delete(this.#newest.keys().next().value);
  }
}

/**
 * How `sequence` stands to the newest number that was processed (null: none was), as `{ kind }`:
 * `next`: nothing is between. `first`: the first one seen of an aggregate that began earlier. `gap`: `missing`, first and
 * last number, were not seen: they come later, or this receiver does not get their types. `late`: `newest` was processed.
 */
export function compare(newest, sequence) {
  if (newest !== null && sequence <= newest) return { kind: "late", newest };
  if (sequence === (newest ?? 0) + 1) return { kind: "next" };
  if (newest === null) return { kind: "first" };
  return { kind: "gap", missing: [newest + 1, sequence - 1] };
}
