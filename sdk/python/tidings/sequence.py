"""The order of an aggregate's events, as a receiver sees it."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Optional, Tuple

#: Aggregates that a guard remembers, unless told otherwise.
AGGREGATES_MAX = 100_000


@dataclass(frozen=True)
class Order:
    """How an event stands to those of its aggregate that were processed before."""

    #: `next`: nothing is between. `first`: the first one seen of an aggregate that began earlier. `gap`: `missing` were
    #: not seen: they come later, or this receiver does not get their types. `late`: a newer one was processed.
    kind: str
    #: First and last sequence number that were not seen, of a gap.
    missing: Optional[Tuple[int, int]] = None
    #: The newest sequence number that was processed, of a late one.
    newest: Optional[int] = None


class SequenceGuard:
    """Tells late events and gaps. It drops nothing: what to do is for the handler to say.

    Two steps: `look` before the work, `passed` after it, so that an event whose work failed is not late when it comes
    again. Remembers `aggregates_max` aggregates in memory, those that were used last. To remember them over restarts,
    keep the number in the row that the event changes, and compare with `compare`.
    """

    def __init__(self, aggregates_max: int = AGGREGATES_MAX):
        self._newest: "OrderedDict[str, int]" = OrderedDict()
        self._most = aggregates_max
        self._lock = threading.Lock()

    def look(self, aggregate: str, sequence: int) -> Order:
        """How the event stands to those that `passed` before."""
        with self._lock:
            return compare(self._newest.get(aggregate), sequence)

    def passed(self, aggregate: str, sequence: int) -> None:
        """The event was processed. An older one than the newest changes nothing."""
        with self._lock:
            self._newest[aggregate] = max(sequence, self._newest.get(aggregate, 0))
            self._newest.move_to_end(aggregate)
            while len(self._newest) > self._most:
                self._newest.popitem(last=False)


def compare(newest: Optional[int], sequence: int) -> Order:
    """How `sequence` stands to the newest number that was processed; None: none was."""
    if newest is not None and sequence <= newest:
        return Order("late", newest=newest)
    if sequence == (newest or 0) + 1:
        return Order("next")
    if newest is None:
        return Order("first")
    return Order("gap", missing=(newest + 1, sequence - 1))
