"""When a failed call is repeated, and which error its caller gets when it is not. Makes no calls itself."""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Callable
from typing import Final

import grpc

from convlens.client.connection import Connection
from convlens.client.errors import ConvlensError, Overloaded, Unavailable, from_rpc
from convlens.client.unreachable import NO_REPLY, never_connected

SAME_ATTEMPT: Final = 1.0
"""Seconds within which failures to connect belong to the several addresses of one name."""
FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 2.0


class RetryPolicy:
    """Exponential backoff with jitter for an unreachable server, the server's own delay for an overloaded one.

    Ends with the deadline of the call; for a server that was never reached, already with the connection's
    `connect_timeout`. `timeout_error` is raised if the time runs out while the server answers.
    """

    def __init__(
        self,
        connection: Connection,
        timeout: float,
        request_id: str = "",
        timeout_error: ConvlensError | None = None,
    ) -> None:
        self._connection = connection
        self._start = time.monotonic()
        self._deadline = self._start + timeout
        self._request_id = request_id
        self._timeout_error = timeout_error
        self._connect_details = ""
        """gRPC's text about the latest failure to connect."""
        self._connect_failed_at = 0.0
        self._last_error: Unavailable | Overloaded | None = None
        self._backoff = (
            min(LONGEST_DELAY, FIRST_DELAY * 2**n) * random.uniform(0.5, 1.0)  # noqa: S311
            for n in itertools.count()
        )

    def remaining(self) -> float | None:
        """Return the seconds left for the next attempt; None for no limit."""
        return None if math.isinf(self._deadline) else max(0.001, self._deadline - time.monotonic())

    def delay_after(self, error: grpc.RpcError, is_connected: Callable[[], bool] = lambda: True) -> float:
        """Return the seconds to wait before the next attempt, or raise the typed error if there is to be none.

        `is_connected` says whether the channel has a connection now.
        """
        connection = self._connection
        typed = from_rpc(error, connection.target, self._request_id)
        is_timeout = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and not typed.reason
        if self._timeout_error and is_timeout and (connection.is_reached or is_connected()):
            raise self._timeout_error from error
        if self._last_error and is_timeout and not is_connected():
            raise self._last_error from error  # the reason why the time ran out
        if isinstance(typed, Unavailable) and never_connected(error):
            typed = self._unreachable(error.details() or "")
        elif is_timeout and not connection.is_reached and not is_connected():
            typed = self._unreachable(NO_REPLY)
        else:
            connection.mark_reached()
        if not isinstance(typed, Unavailable | Overloaded):
            raise typed from error
        self._last_error = typed
        connection.trouble = connection.trouble or typed.message
        if isinstance(typed, Overloaded) and typed.retry_after is None:
            raise typed from error
        delay: float = max(next(self._backoff), (typed.retry_after or 0) * random.uniform(1.0, 1.2))  # noqa: S311
        remaining = self._deadline - time.monotonic()
        if not connection.is_reached:
            remaining = min(remaining, self._start + connection.connect_timeout - time.monotonic())
            delay = min(delay, remaining)  # one last attempt at the very end: the server may be about to start
        if remaining <= 0 or delay > remaining:
            raise typed from error
        return delay

    def _unreachable(self, details: str) -> Unavailable:
        """Return the error of an attempt that got no connection."""
        caller, now = self._connection.caller, time.monotonic()
        is_refused = "Connection refused" in details  # by one address of several: the least informative failure
        if not (is_refused and self._connect_details and now - self._connect_failed_at < SAME_ATTEMPT):
            self._connect_details, self._connect_failed_at = details, now
        details = self._connect_details
        self._connection.trouble = f"no answer from {caller.address.target} yet ({caller.cause(details).what})"
        return caller.unreachable(details, now - self._start, self._request_id)
