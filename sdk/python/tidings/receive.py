"""From a request to the work: verify, process once, tell the order."""

import contextlib
from typing import Any, Callable, Mapping, Optional, Union

from .inbox import Busy
from .sequence import Order, SequenceGuard
from .verify import VerificationError, Verifier


class Receiver:
    """Takes the requests of a webhook with format `envelope`, and calls `handler(event, order)` once for each event.

    `order` is None for an event without an aggregate, or without a guard. Late events and those after a gap come to the
    handler too, with an order that says so.
    """

    def __init__(
        self,
        verifier: Verifier,
        handler: Callable[[Any, Optional[Order]], None],
        inbox: Any = None,
        guard: Optional[SequenceGuard] = None,
    ):
        self._verifier, self._handler, self._inbox, self._guard = verifier, handler, inbox, guard

    def receive(self, headers: Mapping[str, str], body: Union[bytes, str]) -> int:
        """The status to answer with: 204 done, now or before; 400 not ours; 503 under way. An exception of the handler
        comes out: answer 500, and the event comes again."""
        try:
            delivery = self._verifier.verify(headers, body)
        except VerificationError:
            return 400
        event = delivery.event()
        try:
            with self._inbox.once(delivery.id) if self._inbox else contextlib.nullcontext(True) as first:
                if first:
                    self._work(event)
        except Busy:
            return 503
        return 204

    def _work(self, event: Any) -> None:
        aggregate, sequence = event.get("aggregateId"), event.get("sequenceNumber")
        if self._guard is None or aggregate is None or sequence is None:
            return self._handler(event, None)
        self._handler(event, self._guard.look(aggregate, sequence))
        self._guard.passed(aggregate, sequence)
