"""Faults of links: reset, delayed, half-open. Each applies to one of a stack's proxies."""

from __future__ import annotations

from collections.abc import Callable

from processes import until
from proxy import FaultProxy

from chaos.load import Load
from chaos.stack import Stack

Injector = Callable[[Stack, Load], None]
ProxyOf = Callable[[Stack], FaultProxy]
DELAY = 0.03


def to_server(stack: Stack) -> FaultProxy:
    """The proxy between callers and the server."""
    return stack.to_server


def server_redis(stack: Stack) -> FaultProxy:
    """The proxy between the server and Valkey."""
    return stack.server_redis


def victim_redis(stack: Stack) -> FaultProxy:
    """The proxy between the victim and Valkey."""
    return stack.victim_redis


def cut(proxy_of: ProxyOf) -> Injector:
    """Reset every connection, present and new, until three new ones have been rejected."""

    def inject(stack: Stack, load: Load) -> None:
        proxy = proxy_of(stack)
        before = proxy.rejected_connections
        load.mark_fault()
        proxy.cut()
        until(lambda: proxy.rejected_connections >= before + 3)
        proxy.clear()

    return inject


def delay(proxy_of: ProxyOf) -> Injector:
    """Delay every read by DELAY seconds, in both directions."""

    def inject(stack: Stack, load: Load) -> None:
        load.mark_fault()
        proxy_of(stack).delay(DELAY)
        load.await_completions(8)
        proxy_of(stack).clear()

    return inject


def half_open(proxy_of: ProxyOf) -> Injector:
    """Make all connections half-open for good; new ones work again once bytes have been dropped."""

    def inject(stack: Stack, load: Load) -> None:
        proxy = proxy_of(stack)
        before = proxy.dropped_bytes
        load.mark_fault()
        proxy.half_open()
        until(lambda: proxy.dropped_bytes > before)
        proxy.clear()

    return inject
