"""BentoML: two server processes with an ASGI application mounted, so that bodies are sent unchanged.

Its own APIs, which would batch, take JSON or multipart files only; zeros gain nothing from a batch.
"""

from __future__ import annotations

import os
import sys

import bentoml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.plane.work import answer


async def predict(request: Request) -> Response:
    """Reply to one image."""
    return Response(answer(await request.body()), media_type="application/octet-stream")


@bentoml.service(
    workers=2,
    traffic={"timeout": 60, "max_concurrency": 1024},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
@bentoml.asgi_app(Starlette(routes=[Route("/maps", predict, methods=["POST"])]))
class Zeros:
    """The null model."""


if __name__ == "__main__":
    os.environ |= {"BENTOML_DO_NOT_TRACK": "True"}
    command = [sys.executable, "-m", "bentoml", "serve", "bench.plane.peers.bentoml.server:Zeros"]
    os.execv(sys.executable, [*command, "--host", "127.0.0.1", "--port", sys.argv[1]])
