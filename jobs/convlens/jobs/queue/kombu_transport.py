"""kombu's Redis transport, which hands Celery no message that its worker would end for.

A message of ours says nothing but whose jobs wait. One that is anything else is dropped and reported before Celery sees
it: most such end Celery's worker, and others would wait in it for ever.
"""

from __future__ import annotations

import base64
import json
from queue import Empty
from typing import Any, Final

from kombu.transport import redis

from convlens.jobs.queue import poison

TASK: Final = "convlens.compute"
"""The one task there is."""
_PLAIN: Final = {"task": TASK, "eta": None, "expires": None, "retries": 0, "timelimit": [None, None]}
"""Headers that would delay, repeat or end a task with other values."""


class Channel(redis.Channel):  # type: ignore[misc]  # kombu comes without types
    """A channel that goes on after a message that is no JSON."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except (Empty, *self.connection.connection_errors, *self.connection.channel_errors):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the message is out of its list already
            poison.report("message", getattr(error, "doc", b""), repr(error))
            return True


class Transport(redis.Transport):  # type: ignore[misc]
    """A transport that drops messages that are not ours."""

    Channel = Channel

    def _deliver(self, message: Any, queue: str) -> None:
        if fault := fault_of(message):
            poison.report("message", repr(message)[: poison.SHOWN], fault)
        else:
            super()._deliver(message, queue)


def fault_of(message: Any) -> str:
    """What a message has that none of Publisher's has; empty for one as it sends them."""
    try:
        headers, properties = message["headers"], message["properties"]
        for name, value in _PLAIN.items():
            if headers[name] != value:
                return f"header {name!r} is {headers[name]!r}, not {value!r}"
        if not all(isinstance(it, str) for it in (headers["id"], properties["delivery_tag"])):
            return "the id of the task or of the delivery is no text"
        if message["content-type"] != "application/json" or message["content-encoding"] != "utf-8":
            return f"content of type {message['content-type']!r}, not JSON in UTF-8"
        (pool,), named, embedded = json.loads(base64.b64decode(message["body"], validate=True))
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        return f"the message is not whole: {error!r}"
    if not isinstance(pool, str) or named != {} or not isinstance(embedded, dict) or any(embedded.values()):
        return "the arguments are not one pool's name"
    return ""
