"""Faults of links: cut, late, half-open. Each is one of a stack's proxies."""

from __future__ import annotations

from collections.abc import Callable

from processes import until
from proxy import FaultProxy

from chaos.load import Load
from chaos.stack import Stack

Act = Callable[[Stack, Load], None]
Which = Callable[[Stack], FaultProxy]
LATE = 0.03


def to_server(stack: Stack) -> FaultProxy:
    """Between callers and the server."""
    return stack.to_server


def server_redis(stack: Stack) -> FaultProxy:
    """Between the server and Valkey."""
    return stack.server_redis


def victim_redis(stack: Stack) -> FaultProxy:
    """Between one of the workers and Valkey."""
    return stack.victim_redis


def cut(which: Which) -> Act:
    """Every connection is reset, and the next ones as well, until somebody has tried one."""

    def act(stack: Stack, load: Load) -> None:
        proxy = which(stack)
        before = proxy.refused
        load.strike()
        proxy.cut()
        until(lambda: proxy.refused >= before + 3)
        proxy.mend()

    return act


def late(which: Which) -> Act:
    """Every piece takes LATE seconds either way."""

    def act(stack: Stack, load: Load) -> None:
        load.strike()
        which(stack).delay(LATE)
        load.more(8)
        which(stack).mend()

    return act


def half_open(which: Which) -> Act:
    """The other end is gone and nobody says so; new connections are good again soon, these never."""

    def act(stack: Stack, load: Load) -> None:
        proxy = which(stack)
        before = proxy.swallowed
        load.strike()
        proxy.half_open()
        until(lambda: proxy.swallowed > before)
        proxy.mend()

    return act
