"""Where a process tells Prometheus of itself. Knows no metric: each module that has some makes them."""

from __future__ import annotations

import logging

from prometheus_client import disable_created_metrics, start_http_server

log = logging.getLogger(__name__)


def serve(address: str) -> None:
    """Answers scrapes at HOST:PORT from a thread, for as long as the process lives; nothing for an empty address.

    Port 0 picks a free one, and the log says which. OSError when something else listens there.
    """
    if not address:
        return
    disable_created_metrics()  # type: ignore[no-untyped-call]
    host, _, port = address.rpartition(":")
    server, _ = start_http_server(int(port), host.strip("[]"))
    log.info("metrics=http://%s:%d/metrics", host, server.server_port)
