"""What was processed already: an event may come twice, its work is done once.

An event comes again when the outcome of an attempt is not known. The last step of the default retry schedule is a day,
up to a tenth longer: so ids are kept for two days.
"""

import contextlib
import threading
import time
import uuid
from collections import OrderedDict
from typing import Any, Iterator, Optional

#: How long an id is remembered, in seconds.
KEPT_S = 172_800
#: How long a claim that nobody confirms or releases keeps others out, in seconds: longer than a delivery's timeout.
CLAIM_S = 60
#: Ids that a MemoryInbox remembers, unless told otherwise.
IDS_MAX = 100_000


class Busy(Exception):
    """Another attempt of the event is being processed. Answer 503: it comes again."""


class MemoryInbox:
    """Remembers in this process: for one receiver, and until it ends. The oldest ids beyond `ids_max` are forgotten."""

    def __init__(self, kept_s: float = KEPT_S, ids_max: int = IDS_MAX, clock=time.monotonic):
        self._done: "OrderedDict[str, float]" = OrderedDict()
        self._claimed: set = set()
        self._kept_s, self._most, self._clock = kept_s, ids_max, clock
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def once(self, id: str) -> Iterator[bool]:
        """Whether the event is new. If the block ends well it is remembered; after an exception it may come again."""
        with self._lock:
            self._forget()
            if id in self._claimed:
                raise Busy(id)
            first = id not in self._done
            if first:
                self._claimed.add(id)
        if not first:
            yield False
            return
        try:
            yield True
            with self._lock:
                self._done[id] = self._clock()
        finally:
            with self._lock:
                self._claimed.discard(id)

    def _forget(self) -> None:
        oldest = self._clock() - self._kept_s
        while self._done and (len(self._done) > self._most or next(iter(self._done.values())) < oldest):
            self._done.popitem(last=False)


class RedisInbox:
    """Remembers in Redis: for all processes that share it. `client` is one of redis-py, or has its `set`, `get`, `eval`.

    A process that dies in the middle keeps others out for CLAIM_S; what it had done by then may be done again.
    """

    #: Confirms or releases a claim only if it is still ours.
    _END = (
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end "
        "if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end "
        "redis.call('SET', KEYS[1], 'done', 'EX', ARGV[2]) return 1"
    )

    def __init__(self, client: Any, subscriber: str, kept_s: int = KEPT_S, claim_s: int = CLAIM_S):
        self._client, self._subscriber, self._kept_s, self._claim_s = client, subscriber, kept_s, claim_s

    @contextlib.contextmanager
    def once(self, id: str) -> Iterator[bool]:
        """As MemoryInbox.once."""
        key = f"tidings:inbox:{self._subscriber}:{id}"
        token = uuid.uuid4().hex
        if not self._client.set(key, token, nx=True, ex=self._claim_s):
            if self._client.get(key) in (b"done", "done"):
                yield False
                return
            raise Busy(id)
        try:
            yield True
        except BaseException:
            self._client.eval(self._END, 1, key, token, "0")
            raise
        self._client.eval(self._END, 1, key, token, str(self._kept_s))


class SqlInbox:
    """Remembers in the transaction of the work: both commit or neither does, so the work is done exactly once.

    For any DB-API 2.0 driver. `parameter` is its placeholder: `%s` (psycopg, PyMySQL), `?` (sqlite3). Create the table
    with `CREATE`, on MySQL and MariaDB with `CREATE_MYSQL`, once.
    """

    CREATE = """CREATE TABLE IF NOT EXISTS tidings_inbox (
  subscriber VARCHAR(64) NOT NULL,
  event_id VARCHAR(64) NOT NULL,
  processed_ms BIGINT NOT NULL,
  PRIMARY KEY (subscriber, event_id)
)"""
    #: Ids differ in case, whatever the collation of the database says.
    CREATE_MYSQL = """CREATE TABLE IF NOT EXISTS tidings_inbox (
  subscriber VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  event_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  processed_ms BIGINT NOT NULL,
  PRIMARY KEY (subscriber, event_id),
  KEY tidings_inbox_by_age (subscriber, processed_ms)
) ENGINE = InnoDB"""

    def __init__(self, subscriber: str, parameter: str = "%s", mysql: bool = False):
        values = ", ".join([parameter] * 3)
        ignore, conflict = (" IGNORE", "") if mysql else ("", " ON CONFLICT DO NOTHING")
        self._insert = (
            f"INSERT{ignore} INTO tidings_inbox (subscriber, event_id, processed_ms) VALUES ({values}){conflict}"
        )
        self._forget = f"DELETE FROM tidings_inbox WHERE subscriber = {parameter} AND processed_ms < {parameter}"
        self._subscriber = subscriber

    def first(self, cursor: Any, id: str) -> bool:
        """Whether the event is new; call it first in the transaction, and do the work only if it says so."""
        cursor.execute(self._insert, (self._subscriber, id, int(time.time() * 1000)))
        return cursor.rowcount == 1

    def forget(self, cursor: Any, kept_s: int = KEPT_S, now_s: Optional[float] = None) -> int:
        """Forgets what is older; how many. Call it now and then, in a transaction of its own."""
        now = time.time() if now_s is None else now_s
        cursor.execute(self._forget, (self._subscriber, int((now - kept_s) * 1000)))
        return cursor.rowcount
