"""Celery messages that differ from those that the queue's scripts write."""

from __future__ import annotations

import base64
import json
import uuid

ABSENT = object()
"""The value of a field that message() leaves out."""


def message(pool="null", **changes):
    """A message as Celery itself sends it, with some fields, headers or properties replaced."""
    names = {"content_type": "content-type", "content_encoding": "content-encoding"}
    whole = {
        "body": encoded([["job"], {}, {}]),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py", "task": "convlens.visualize", "id": str(uuid.uuid4()), "root_id": "r", "parent_id": None,
            "shadow": None, "eta": None, "expires": None, "group": None, "retries": 0, "timelimit": [None, None],
        },
        "properties": {
            "correlation_id": "c", "reply_to": "r", "delivery_mode": 2, "priority": 0, "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": f"convlens.{pool}"}, "delivery_tag": str(uuid.uuid4()),
        },
    }  # fmt: skip
    for name, value in changes.items():
        field = names.get(name, name)
        whole[field] = whole[field] | value if isinstance(value, dict) and isinstance(whole[field], dict) else value
    return json.dumps(_without_absent(whole)).encode()


def encoded(body):
    """Encode the body of a message."""
    return base64.b64encode(json.dumps(body).encode()).decode()


def _without_absent(value):
    if isinstance(value, dict):
        return {name: _without_absent(field) for name, field in value.items() if field is not ABSENT}
    return value


MALFORMED = {
    "empty": b"",
    "not JSON": b"nonsense",
    "not UTF-8": b"\xff\xfe\x00",
    "a number": b"5",
    "a string": b'"x"',
    "a list": b"[]",
    "null": b"null",
    "an empty object": b"{}",
    "nested too deep": b"[" * 100_000,
    "a kombu type that cannot be decoded": b'{"__type__": "decimal", "__value__": "x"}',
    "no headers": message(headers=ABSENT),
    "headers are null": message(headers=None),
    "headers are a list": message(headers=[1]),
    "no properties": message(properties=ABSENT),
    "no body": message(body=ABSENT),
    "another task": message(headers={"task": "other"}),
    "another task without an id": message(headers={"task": "other", "id": ABSENT}),
    "a list for a task name": message(headers={"task": [1]}),
    "no id": message(headers={"id": ABSENT}),
    "a number for an id": message(headers={"id": 5}),
    "no delivery tag": message(properties={"delivery_tag": ABSENT}),
    "a pickle": message(content_type="application/x-python-serialize"),
    "an unknown type": message(content_type="text/nonsense"),
    "an unknown encoding": message(content_encoding="nonsense"),
    "not base64": message(body="!!!"),
    "a number for a body": message(body=5),
    "a number in the body": message(body=encoded(7)),
    "a dict for arguments": message(body=encoded([{"a": 1}, {}, {}])),
    "too many arguments": message(body=encoded([[1, 2, 3], {}, {}])),
    "a number for an argument": message(body=encoded([[5], {}, {}])),
    "no routing key": message(properties={"delivery_info": {}}),
    "a number for a routing key": message(properties={"delivery_info": {"routing_key": 5}}),
    "another body encoding": message(properties={"body_encoding": "hex"}),
    "nested arguments": message(body=encoded([[{"x": [1]}], {}, {}])),
    "named arguments": message(body=encoded([["job"], {"x": 1}, {}])),
    "callbacks": message(body=encoded([["job"], {}, {"callbacks": [{"task": "x"}]}])),
    "a queue without consumers": message(properties={"delivery_info": {"routing_key": "convlens.unserved"}}),
    "a malformed ETA": message(headers={"eta": "nonsense"}),
    "a far ETA": message(headers={"eta": "2999-01-01T00:00:00"}),
    "a malformed expiry": message(headers={"expires": "nonsense"}),
    "a number for time limits": message(headers={"timelimit": 5}),
    "a string for retries": message(headers={"retries": "x"}),
    "huge": message(body="A" * (8 << 20)),
}
