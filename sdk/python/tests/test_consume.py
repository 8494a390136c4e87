"""A worker of a queue, against a gateway that answers as it is told."""

import http.server
import json
import queue
import threading
import unittest

from tidings import Consumer, Nack, Refused


def message(number):
    return {"ackToken": f"t{number}", "deliveryCount": 1, "ackBy": "", "offset": number, "replay": None,
            "event": {"eventId": f"e{number}", "data": number}}


class Gateway(http.server.ThreadingHTTPServer):
    """Answers fetches with what `fetches` holds, in order, and everything else with 200."""

    def __init__(self, fetches):
        super().__init__(("127.0.0.1", 0), Handler)
        self.fetches, self.words = list(fetches), queue.Queue()
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *error):
        self.shutdown()
        super().__exit__(*error)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        what = self.path.rsplit("/", 1)[1]
        if what == "fetch":
            status, answer = self.server.fetches.pop(0) if self.server.fetches else (404, {"detail": "gone"})
        else:
            self.server.words.put((what, body))
            # As the gateway: a delay of more than a day is refused.
            status, answer = (422 if body.get("delay") == "48h" else 200), {}
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *arguments):
        pass


class Work(unittest.TestCase):
    def test_what_is_done_is_acknowledged_and_what_is_not_is_given_back_with_the_reason(self):
        def handler(told):
            if told.offset == 1:
                raise Nack("not\nyet", delay="90s")
            if told.offset == 2:
                raise RuntimeError("broken")

        fetches = [(503, {}), (200, {"messages": [message(1), message(2)]}), (200, {"messages": [message(3)]})]
        with Gateway(fetches) as gateway:
            with self.assertRaises(Refused) as refused:
                Consumer(gateway.url, "billing").run(handler)
            self.assertEqual(refused.exception.status, 404)
            self.assertEqual([gateway.words.get(timeout=10) for _ in range(3)], [
                ("nack", {"token": "t1", "reason": "not yet", "delay": "90s"}),
                ("nack", {"token": "t2", "reason": "broken"}),
                ("ack", {"tokens": ["t3"]}),
            ])

    def test_a_refusal_is_told_whatever_its_delay_is(self):
        def handler(_):
            raise Nack("later", delay="48h")

        with Gateway([(200, {"messages": [message(1)]})]) as gateway:
            with self.assertRaises(Refused):
                Consumer(gateway.url, "billing").run(handler)
            self.assertEqual([gateway.words.get(timeout=10) for _ in range(2)], [
                ("nack", {"token": "t1", "reason": "later", "delay": "48h"}),
                ("nack", {"token": "t1", "reason": "later"}),
            ])

    def test_work_that_takes_long_asks_for_more_time_and_a_stop_lets_it_end(self):
        stop = threading.Event()
        with Gateway([(200, {"messages": [message(1)]})]) as gateway:

            def handler(told):
                self.assertEqual(gateway.words.get(timeout=10), ("extend", {"tokens": ["t1"]}))
                stop.set()

            Consumer(gateway.url, "billing", extend_every_s=0.05).run(handler, stop)
            while gateway.words.get(timeout=10)[0] != "ack":
                pass


if __name__ == "__main__":
    unittest.main()
