"""Published Python clients, asked by check.mjs: a task as argument, JSON on standard input, JSON on standard output."""

import base64
import json
import sys
from urllib.parse import quote, unquote

from cloudevents.core.bindings.http import HTTPMessage, from_http_event, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1 import http as old
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from standardwebhooks.webhooks import Webhook
import yaml


def verify(given):
    """The event of a delivery, if its signature is good."""
    return Webhook(given["secret"]).verify(base64.b64decode(given["body"]), given["headers"])


def verdicts(given, verify=None):
    """Of each request, whether its signature is good."""
    verify = verify or Webhook(given["secret"]).verify
    for request in given["requests"]:
        try:
            verify(base64.b64decode(request["body"]).decode(), request["headers"])
            yield True
        except Exception:
            yield False


def our_verdicts(given):
    """The same by sdk/python."""
    sys.path.insert(0, given["sdk"])
    import tidings

    verifier = tidings.Verifier(given["secret"])
    return verdicts(given, lambda body, headers: verifier.verify(headers, body))


def read(given):
    """A delivery as both interfaces read it."""
    body = base64.b64decode(given["body"])
    new = from_http_event(HTTPMessage(headers=given["headers"], body=body))
    attributes = dict(new.get_attributes())
    yield {**attributes, "time": attributes["time"].isoformat(), "data": new.get_data()}
    event = old.from_http(given["headers"], body)
    attributes = dict(event.get_attributes())
    if not given["headers"]["content-type"].startswith("application/cloudevents"):
        # The old interface leaves the percent-encoding of headers to its user.
        attributes = {name: unquote(value) for name, value in attributes.items()}
    yield {**attributes, "data": event.get_data()}


def make(given):
    """Requests that both interfaces make of an event."""
    def attributes(name, extension):
        return {
            "id": name,
            "type": "com.example.OrderShipped",
            "source": "/strangers/shop",
            "subject": "order-1",
            "specversion": "1.0",
            "datacontenttype": "application/json",
            "myext": extension,
        }

    def request(headers, body):
        return {"headers": dict(headers), "body": base64.b64encode(body).decode()}

    text = "näh 100%"
    for name, to_http in [("py-structured", to_structured_event), ("py-binary", to_binary_event)]:
        message = to_http(CloudEvent(attributes(name, text), given["data"]))
        yield request(message.headers, message.body)
    headers, body = old.to_structured(old.CloudEvent(attributes("py-old-structured", text), given["data"]))
    yield request(headers, body)
    headers, body = old.to_binary(old.CloudEvent(attributes("py-old-binary", quote(text)), given["data"]))
    yield request(headers, body)


def metrics(given):
    """The samples of an exposition, by name and labels; the parser refuses what is not OpenMetrics."""
    for family in text_string_to_metric_families(given["text"]):
        assert family.documentation, family.name
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            yield [f"{sample.name}{{{labels}}}" if labels else sample.name, sample.value]


def rules(given):
    """The alerts of a rule file, which has to be of the form that Prometheus takes."""
    for group in yaml.safe_load(given["text"])["groups"]:
        assert set(group) == {"name", "rules"}, group
        for rule in group["rules"]:
            assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}, rule
            assert isinstance(rule["expr"], str) and rule["expr"].count("(") == rule["expr"].count(")"), rule
            assert rule["labels"]["severity"] in ("warning", "critical") and rule["annotations"]["summary"], rule
            yield rule["alert"]


LISTS = (metrics, rules, verdicts, our_verdicts, read, make)
TASKS = {"verify": verify, **{task.__name__: lambda given, task=task: list(task(given)) for task in LISTS}}
print(json.dumps(TASKS[sys.argv[1]](json.load(sys.stdin))))
