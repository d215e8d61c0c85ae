"""kombu's Redis transport, which gives Celery no message that would end its worker.

One that is not as lua/lib/messages.lua makes them is dropped and reported before Celery sees it: most such end Celery's
worker, and others would wait in it for ever.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from queue import Empty
from typing import Any, Final

from kombu.transport import redis
from redis import ResponseError

from convlens.jobs.queue import poison

TASK: Final = "convlens.visualize"
"""The one task there is."""
LISTS: Final = "convlens."
"""What the names of lists of jobs begin with; others are of Celery's remote control."""
_FIXED: Final = {
    "task": (TASK,),
    "eta": (None,),
    "expires": (None,),
    "retries": (None, 0),
    "timelimit": (None, [None, None]),
}
"""Headers that would delay, repeat or end a task with other values than these; a missing one is None."""


class Channel(redis.Channel):  # type: ignore[misc]  # kombu comes without types
    """A channel that goes on after a message that is no JSON, and replaces corrupted keys of kombu."""

    def _queue_bind(self, exchange: str, *args: Any) -> None:
        self._repaired(exchange, super()._queue_bind, exchange, *args)

    def get_table(self, exchange: str) -> Any:
        """Return the queues that are bound to an exchange."""
        return self._repaired(exchange, super().get_table, exchange)

    def _repaired(self, exchange: str, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function; where a key of the exchange's bindings has another type, remove the key and call again.

        Else a worker that has lost its connection could never consume again.
        """
        try:
            return function(*args)
        except ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
        types = {
            self.keyprefix_queue % exchange: b"set",
            self.keyprefix_binding_permanent % exchange: b"set",
            self.keyprefix_binding_deadlines: b"zset",
        }
        with self.conn_or_acquire() as client:
            for key, expected in types.items():
                if (actual := client.type(key)) not in {expected, b"none"}:
                    client.unlink(key)
                    poison.report("key", key, f"is a {actual.decode()}, not a {expected.decode()}")
        return function(*args)

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
        if queue.startswith(LISTS) and (fault := fault_of(message, queue)):
            poison.report("message", repr(message)[: poison.SHOWN], fault)
        else:
            super()._deliver(message, queue)


def fault_of(message: Any, queue: str) -> str:
    """What makes a message another than those of this queue; empty for one of them."""
    try:
        headers, properties = message["headers"], message["properties"]
        for name, allowed in _FIXED.items():
            if headers.get(name) not in allowed:
                return f"header {name!r} is {headers.get(name)!r}, not {allowed[0]!r}"
        if not all(isinstance(name, str) for name in (headers["id"], properties["delivery_tag"])):
            return "the id of the task or of the delivery is no text"
        routing_key = properties["delivery_info"]["routing_key"]
        if routing_key != queue:
            return f"the routing key is {routing_key!r}, not {queue!r}, the list that it was in"
        if message["content-type"] != "application/json" or message["content-encoding"] != "utf-8":
            return f"content of type {message['content-type']!r}, not JSON in UTF-8"
        body = message["body"]
        if properties.get("body_encoding") == "base64":
            body = base64.b64decode(body, validate=True)
        elif properties.get("body_encoding") is not None:
            return f"a body in {properties['body_encoding']!r}, not base64 or text"
        (job_id,), named, embedded = json.loads(body)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        return f"the message is not whole: {error!r}"
    if not isinstance(job_id, str) or named != {} or not isinstance(embedded, dict) or any(embedded.values()):
        return "the arguments are not one job's id"
    return ""
