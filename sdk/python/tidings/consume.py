"""A worker of a queue: fetches, works, and says what became of it."""

import http.client
import json
import random
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Tuple

#: How long a fetch waits for something.
FETCH_WAIT = "20s"
FETCH_LIMIT_S = 35
WORD_LIMIT_S = 10
#: How often a word is said before it is given up: then the message comes again after `ackWait`.
TRIES = 5
REASON_BYTES_MAX = 1_024


class Nack(Exception):
    """Raised by a handler: the event comes again, not before `delay` (such as `90s`) if one is given."""

    def __init__(self, reason: str, delay: Optional[str] = None):
        super().__init__(reason)
        self.delay = delay


class Refused(Exception):
    """The gateway does not let this worker work: `status` 404, there is no such consumer; 401 or 403, the key is not
    enough."""

    def __init__(self, status: int, detail: str):
        super().__init__(f"the gateway refused ({status}): {detail}")
        self.status = status


@dataclass(frozen=True)
class Message:
    """An event that a queue gave to this worker."""

    #: The envelope.
    event: Any
    #: How often it was given to a worker, with this time.
    delivery_count: int
    #: The event's place in the tenant's order.
    offset: int
    #: The replay that it is part of.
    replay: Optional[str]


class Consumer:
    """A worker of the consumer (queue) of a name: one event after the other. Any number of workers share a queue; run
    several, in threads or processes, for more at a time.

    Every `extend_every_s`, a third of the consumer's `ackWait`, it asks for more time for what it has.
    """

    def __init__(self, url: str, name: str, key: Optional[str] = None, fetch: int = 10, extend_every_s: float = 10):
        self._base = f"{url.rstrip('/')}/consumers/{urllib.parse.quote(name, safe='')}"
        self._headers = {"content-type": "application/json"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"
        self._fetch_max, self._extend_every_s = fetch, extend_every_s
        # No proxy of the environment stands between, and the key goes to no other host.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Straight())

    def run(self, handler: Callable[[Message], None], stop: Optional[threading.Event] = None) -> None:
        """Works until `stop` is set: then it ends with what it has fetched. That may take as long as a fetch waits, 20 s.

        An event is acknowledged when `handler` returns. If it raises, the event comes again. While the gateway is away it
        tries again. Raises Refused for what trying again does not mend.
        """
        stop = stop or threading.Event()
        while not stop.is_set():
            held: Dict[str, Message] = {}
            for message in self._fetch(stop):
                told = Message(message["event"], message["deliveryCount"], message["offset"], message["replay"])
                held[message["ackToken"]] = told
            done = threading.Event()
            keeper = threading.Thread(target=self._extend, args=(held, done), daemon=True)
            if held:
                keeper.start()
            try:
                for token, message in list(held.items()):
                    self._work(handler, token, message)
                    held.pop(token)
            finally:
                done.set()

    def _work(self, handler: Callable[[Message], None], token: str, message: Message) -> None:
        try:
            handler(message)
        except Exception as error:
            word = {"token": token, "reason": _printable(str(error) or type(error).__name__)}
            delay = error.delay if isinstance(error, Nack) else None
            # A delay that the gateway does not take is left out: what went wrong is told all the same.
            if delay is None or self._say("nack", {**word, "delay": delay}) == 422:
                self._say("nack", word)
        else:
            self._say("ack", {"tokens": [token]})

    def _extend(self, held: Dict[str, Message], done: threading.Event) -> None:
        while not done.wait(self._extend_every_s):
            tokens = list(held)
            if tokens:
                self._say("extend", {"tokens": tokens})

    def _fetch(self, stop: threading.Event) -> list:
        failures = 0
        while not stop.is_set():
            status, answer, asked_s = self._post("fetch", {"max": self._fetch_max, "wait": FETCH_WAIT}, FETCH_LIMIT_S)
            if 200 <= status < 300 and isinstance(answer, dict) and "messages" in answer:
                return answer["messages"]
            if 300 <= status < 500 and not _passing(status):
                detail = answer.get("detail") if isinstance(answer, dict) else None
                raise Refused(status, detail or "no reason is given")
            failures += 1
            stop.wait(_delay_s(failures, asked_s))
        return []

    def _say(self, what: str, body: Any) -> int:
        """Says it until the gateway has heard it, a few times; the status of its answer, 0 if it has not."""
        for failures in range(1, TRIES + 1):
            status, _, asked_s = self._post(what, body, WORD_LIMIT_S)
            if not _passing(status):
                return status
            if failures < TRIES:
                time.sleep(_delay_s(failures, asked_s))
        return 0

    def _post(self, what: str, body: Any, limit_s: float) -> Tuple[int, Any, float]:
        """Status (0: no answer), body, and the seconds that the gateway asks to wait."""
        request = urllib.request.Request(f"{self._base}/{what}", json.dumps(body).encode(), self._headers, method="POST")
        try:
            try:
                response = self._opener.open(request, timeout=limit_s)
            except urllib.error.HTTPError as error:
                response = error
            with response:
                text, status, asked = response.read(), response.status, response.headers.get("retry-after", "")
        except (OSError, http.client.HTTPException):
            return 0, None, 0
        try:
            return status, json.loads(text), float(asked) if asked.isdigit() else 0
        except ValueError:
            return status, None, 0


class _Straight(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def _passing(status: int) -> bool:
    return status in (0, 408, 429) or status >= 500


def _delay_s(failures: int, asked_s: float) -> float:
    """Doubles from 100 ms to 30 s, half of it by chance; never earlier than the gateway asks, 5 minutes at the most."""
    whole = min(30.0, 0.1 * 2 ** min(failures - 1, 16))
    return max(min(asked_s, 300.0), whole / 2 + whole / 2 * random.random())


def _printable(reason: str) -> str:
    """As the gateway takes a reason: without control characters, not empty, not too long."""
    text = "".join(letter if letter.isprintable() else " " for letter in reason)[: REASON_BYTES_MAX // 4]
    return text if text.strip() else "refused by a worker"
