"""The HTTP endpoint that Prometheus scrapes. Metrics are defined in the modules that they are of."""

from __future__ import annotations

import logging

from prometheus_client import disable_created_metrics, start_http_server

log = logging.getLogger(__name__)


def serve(address: str) -> None:
    """Serve metrics at HOST:PORT from a background thread; do nothing for an empty address.

    Port 0 picks a free one, which is logged. Raises OSError where the port is in use.
    """
    if not address:
        return
    disable_created_metrics()  # type: ignore[no-untyped-call]
    host, _, port = address.rpartition(":")
    server, _ = start_http_server(int(port), host.strip("[]"))
    log.info("metrics=http://%s:%d/metrics", host, server.server_port)
