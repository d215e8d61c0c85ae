"""Which web pages may use the gateway: its own, under the names that it was given.

A browser sends requests of any page to an address on its machine or network. Two checks keep other pages out: a request
that changes something must come from the gateway's own origin, and Host must be a name of this gateway, since a page of
an attacker's name that resolves to this address (DNS rebinding) would otherwise be of the same origin.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from convlens.web.problems import Problem
from convlens.web.settings import PROBE_PATH

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(:\d+)?", re.IGNORECASE)
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""What every response tells browsers."""


class SameOrigin:
    """Middleware that refuses requests of other sites' pages, and sends the security headers."""

    def __init__(self, app: ASGIApp, allowed_hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = LOOPBACK | {f"[{name}]" if ":" in name else name for name in map(str.lower, allowed_hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        if problem := self._refusal(scope["method"], scope["path"], Headers(scope=scope)):
            await problem.response()(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    def _refusal(self, method: str, path: str, headers: Headers) -> Problem | None:
        host = headers.get("host", "").lower()
        matched = _HOST.fullmatch(host)
        if path != PROBE_PATH and (not matched or matched[1].rstrip(".") not in self._hosts):  # probes use addresses
            remedy = "CONVLENS_WEB_ALLOWED_HOSTS=NAME allows one"
            return Problem(403, "HOST_REFUSED", f"the gateway does not go by the name {host!r}; {remedy}")
        origin = headers.get("origin")
        if method not in _SAFE and origin is not None and origin.lower().partition("://")[2] != host:
            return Problem(403, "ORIGIN_REFUSED", f"a page of {origin} may not use this gateway; only its own page may")
        return None
