"""Verification, inboxes, order, and the three together."""

import importlib.util
import json
import pathlib
import sqlite3
import threading
import time
import unittest

from tidings import (
    Busy, MemoryInbox, Order, Receiver, RedisInbox, SequenceGuard, SqlInbox, VerificationError, Verifier, sign,
)
from tidings.sequence import compare

VECTORS = json.loads((pathlib.Path(__file__).resolve().parents[2] / "vectors.json").read_text(encoding="utf-8"))
SECRET = VECTORS["secret"]
DAY_S = 86_400


class Verification(unittest.TestCase):
    def test_the_vectors_that_all_receivers_agree_on(self):
        for case in VECTORS["signatures"]:
            with self.subTest(case["name"]):
                arguments = (case["headers"], case["body"].encode(), VECTORS["signed"] + case["offsetSeconds"])
                if case["verifies"]:
                    self.assertEqual(Verifier(SECRET).verify(*arguments).id, case["headers"]["webhook-id"])
                else:
                    self.assertRaises(VerificationError, Verifier(SECRET).verify, *arguments)

    @unittest.skipUnless(importlib.util.find_spec("cryptography"), "the package cryptography is not there")
    def test_the_vectors_of_ed25519_with_the_public_half_alone(self):
        key = VECTORS["asymmetric"]["publicKey"]
        for case in VECTORS["asymmetric"]["signatures"]:
            for keys in [key, ["whsec_" + "A" * 43, key]]:
                with self.subTest(case["name"]):
                    arguments = (case["headers"], case["body"].encode(), VECTORS["signed"])
                    if case["verifies"]:
                        self.assertEqual(Verifier(keys).verify(*arguments).id, case["headers"]["webhook-id"])
                    else:
                        self.assertRaises(VerificationError, Verifier(keys).verify, *arguments)
        for text in ["whpk_", "whpk_AAAA", key + "AAAA", "whpk_" + "%" * 43]:
            self.assertRaises(ValueError, Verifier, text)

    @unittest.skipIf(importlib.util.find_spec("cryptography"), "the package cryptography is there")
    def test_a_public_key_says_which_package_it_needs(self):
        self.assertRaisesRegex(ImportError, "tidings.ed25519", Verifier, VECTORS["asymmetric"]["publicKey"])

    def test_names_of_headers_are_taken_in_any_case_and_missing_ones_are_named(self):
        headers = {name.title(): value for name, value in sign(SECRET, "e1", int(time.time()), b"{}").items()}
        delivery = Verifier(SECRET).verify({**headers, "Tidings-Attempt": "3"}, b"{}")
        self.assertEqual((delivery.id, delivery.attempt, delivery.event()), ("e1", 3, {}))
        for name in headers:
            fewer = {other: value for other, value in headers.items() if other != name}
            with self.assertRaisesRegex(VerificationError, name.lower()):
                Verifier(SECRET).verify(fewer, b"{}")

    def test_headers_that_are_no_text_are_refused_like_any_other(self):
        headers = sign(SECRET, "e1", int(time.time()), b"{}")
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"]:
            changed = {**headers, name: headers[name] + "\udc80"}
            self.assertRaises(VerificationError, Verifier(SECRET).verify, changed, b"{}")

    def test_while_secrets_rotate_either_fits(self):
        other = "whsec_" + "A" * 43
        headers = sign(other, "e1", int(time.time()), b"{}")
        Verifier([SECRET, other]).verify(headers, b"{}")
        self.assertRaises(VerificationError, Verifier(SECRET).verify, headers, b"{}")

    def test_secrets_that_are_none_are_refused_without_being_repeated(self):
        for secret in ["", "whsec_", "whsec_c2hvcnQ=", "whsec_" + "A" * 200, SECRET[6:], "whsec_%%%%"]:
            with self.assertRaises(ValueError) as refused:
                Verifier(secret)
            self.assertNotIn("c2hvcnQ", str(refused.exception))
        self.assertRaises(ValueError, Verifier, [])


class Sequence(unittest.TestCase):
    def test_the_orders_that_all_receivers_agree_on(self):
        for case in VECTORS["orders"]:
            order = dict(case["order"])
            if "missing" in order:
                order["missing"] = tuple(order["missing"])
            self.assertEqual(compare(case["newest"], case["sequence"]), Order(**order))

    def test_an_event_whose_work_failed_is_not_late_when_it_comes_again(self):
        guard = SequenceGuard()
        self.assertEqual(guard.look("order_1", 1).kind, "next")
        self.assertEqual(guard.look("order_1", 1).kind, "next")
        guard.passed("order_1", 1)
        self.assertEqual(guard.look("order_1", 1), Order("late", newest=1))

    def test_what_a_guard_remembers_is_bounded_and_what_is_used_stays(self):
        guard = SequenceGuard(aggregates_max=10)
        for number in range(100):
            guard.passed("used", number + 1)
            guard.passed(f"order_{number}", 1)
        self.assertEqual(guard.look("used", 101).kind, "next")
        self.assertEqual(guard.look("order_1", 2).kind, "first")


class FakeRedis:
    """As much of Redis as the inbox needs; the real one is met in the tests of crates/emit, with the same script."""

    def __init__(self):
        self.kept = {}

    def set(self, key, value, nx, ex):
        return None if nx and key in self.kept else self.kept.__setitem__(key, value) or True

    def get(self, key):
        return self.kept.get(key)

    def eval(self, script, keys, key, token, kept_s):
        if self.kept.get(key) != token:
            return 0
        if kept_s == "0":
            return self.kept.pop(key) and 1
        self.kept[key] = "done"
        return 1


class Inboxes(unittest.TestCase):
    def test_work_is_done_once_and_failed_work_again(self):
        for inbox in [MemoryInbox(), RedisInbox(FakeRedis(), "billing")]:
            with self.subTest(type(inbox).__name__):
                with self.assertRaises(ZeroDivisionError), inbox.once("e1") as first:
                    1 / 0
                with inbox.once("e1") as first:
                    self.assertTrue(first)
                    with self.assertRaises(Busy), inbox.once("e1"):
                        pass
                with inbox.once("e1") as first:
                    self.assertFalse(first)

    def test_an_id_is_remembered_longer_than_the_longest_step_of_the_default_schedule(self):
        now = [0.0]
        inbox = MemoryInbox(clock=lambda: now[0])
        for at, expected in [(0, True), (1.1 * DAY_S + 20, False), (2 * DAY_S + 1, True)]:
            now[0] = at
            with inbox.once("e1") as first:
                self.assertEqual(first, expected)

    def test_beyond_the_bound_the_oldest_ids_are_forgotten(self):
        inbox = MemoryInbox(ids_max=10)
        for number in range(100):
            with inbox.once(f"e{number}"):
                pass
        with inbox.once("e99") as first:
            self.assertFalse(first)
        self.assertLessEqual(len(inbox._done), 10)

    def test_an_inbox_in_the_transaction_of_the_work_rolls_back_with_it(self):
        database = sqlite3.connect(":memory:", isolation_level=None)
        database.execute(SqlInbox.CREATE)
        inbox = SqlInbox("billing", parameter="?")
        cursor = database.cursor()
        for end, expected in [("ROLLBACK", True), ("COMMIT", True), ("COMMIT", False)]:
            cursor.execute("BEGIN")
            self.assertEqual(inbox.first(cursor, "e1"), expected)
            cursor.execute(end)
        self.assertEqual(inbox.forget(cursor), 0)
        self.assertEqual(inbox.forget(cursor, now_s=time.time() + 2 * DAY_S + 1), 1)
        self.assertTrue(inbox.first(cursor, "e1"))


class Receiving(unittest.TestCase):
    def deliver(self, receiver, sequence, id=None):
        event = {"eventId": id or f"e{sequence}", "aggregateId": "order_1", "sequenceNumber": sequence, "data": None}
        body = json.dumps(event).encode()
        return receiver.receive(sign(SECRET, event["eventId"], int(time.time()), body), body)

    def test_repeats_late_events_and_gaps_are_told_and_nothing_is_dropped(self):
        seen = []
        handler = lambda event, order: seen.append((event["sequenceNumber"], order.kind))
        receiver = Receiver(Verifier(SECRET), handler, MemoryInbox(), SequenceGuard())
        self.assertEqual([self.deliver(receiver, sequence) for sequence in (1, 2, 2, 5, 3)], [204] * 5)
        self.assertEqual(seen, [(1, "next"), (2, "next"), (5, "gap"), (3, "late")])

    def test_an_event_whose_handler_failed_is_new_when_it_comes_again(self):
        seen = []

        def handler(event, order):
            seen.append(order.kind)
            if len(seen) == 1:
                raise RuntimeError("no")

        receiver = Receiver(Verifier(SECRET), handler, MemoryInbox(), SequenceGuard())
        self.assertRaises(RuntimeError, self.deliver, receiver, 1)
        self.assertEqual((self.deliver(receiver, 1), seen), (204, ["next", "next"]))

    def test_what_is_not_signed_is_refused_and_what_is_under_way_comes_again(self):
        begun, go = threading.Event(), threading.Event()

        def handler(event, order):
            begun.set()
            go.wait(10)

        receiver = Receiver(Verifier(SECRET), handler, MemoryInbox())
        self.assertEqual(receiver.receive({}, b"{}"), 400)
        other = threading.Thread(target=self.deliver, args=(receiver, 1))
        other.start()
        begun.wait(10)
        self.assertEqual(self.deliver(receiver, 1), 503)
        go.set()
        other.join()


if __name__ == "__main__":
    unittest.main()
