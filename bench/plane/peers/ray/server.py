"""Ray Serve: its HTTP proxy and two replicas, bodies unchanged. Zeros gain nothing from a batch."""

from __future__ import annotations

import os
import sys

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from bench.plane.work import answer


@serve.deployment(
    num_replicas=2,
    max_ongoing_requests=256,
    ray_actor_options={"num_cpus": 0.5},
    logging_config={"enable_access_log": False},
)
class Zeros:
    """The null model."""

    async def __call__(self, request: Request) -> Response:
        """Reply to one image."""
        return Response(answer(await request.body()), media_type="application/octet-stream")


if __name__ == "__main__":
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0"}
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=256 << 20)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Zeros.bind(), route_prefix="/maps", blocking=True)
