// From a request to the work: verify, process once, tell the order.
import { Busy } from "./inbox.js";
import { VerificationError } from "./verify.js";

/**
 * Takes the requests of a webhook with format `envelope`, and calls `handler(event, order)` once for each event. `order`
 * is null for an event without an aggregate, or without a guard. Late events and those after a gap come to the handler
 * too, with an order that says so.
 */
export class Receiver {
  #verifier;
  #handler;
  #inbox;
  #guard;

  constructor({ verifier, handler, inbox = null, guard = null }) {
    [this.#verifier, this.#handler, this.#inbox, this.#guard] = [verifier, handler, inbox, guard];
  }

  /**
   * The status to answer with: 204 done, now or before; 400 not ours; 503 under way. An error of the handler comes out:
   * answer 500, and the event comes again.
   */
  async receive(headers, body) {
    try {
      const delivery = this.#verifier.verify(headers, body);
      const work = () => this.#work(delivery.event());
      await (this.#inbox ? this.#inbox.once(delivery.id, work) : work());
      return 204;
    } catch (error) {
      if (error instanceof VerificationError) return 400;
      if (error instanceof Busy) return 503;
      throw error;
    }
  }

  async #work(event) {
    const { aggregateId, sequenceNumber } = event;
    if (!this.#guard || aggregateId === undefined || sequenceNumber === undefined) return this.#handler(event, null);
    await this.#handler(event, this.#guard.look(aggregateId, sequenceNumber));
    this.#guard.passed(aggregateId, sequenceNumber);
  }
}
