"""`python -m convlens.server.check`: a container's health check of the server of the given settings."""

from __future__ import annotations

import sys
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from convlens.jobs.runtime.command_line import read_settings
from convlens.server.settings import ServerSettings


def main() -> int:
    """Return 0 when the server is SERVING, else 1; print the status or error on stderr."""
    settings = read_settings(ServerSettings, "convlens.server.check", sys.argv[1:])
    target = settings.health_address or f"127.0.0.1:{settings.port}"
    if settings.tls_cert and not settings.health_address:
        print("with TLS this check needs a health_address", file=sys.stderr)
        return 1
    with grpc.insecure_channel(target, [("grpc.enable_http_proxy", 0)]) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            status = stub.Check(health_pb2.HealthCheckRequest(), timeout=3).status
        except grpc.RpcError as error:
            print(f"no answer at {target}: {error}", file=sys.stderr)
            return 1
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
    print(f"{target}: {name}", file=sys.stderr)
    return int(status != health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    sys.exit(main())
