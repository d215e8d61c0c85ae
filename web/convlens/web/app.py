"""The application: routes, errors, bounds. Wiring only."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Final

from fastapi import FastAPI

from convlens.client import AsyncClient
from convlens.web import openapi
from convlens.web.limits import ByteBudget, Limits
from convlens.web.origins import HEADERS, SameOrigin
from convlens.web.problems import add_handlers
from convlens.web.routes import jobs, models, visualize
from convlens.web.routes.page import add_page
from convlens.web.settings import MAX_HELD_BYTES, WebSettings
from convlens.web.state import Gateway

VERSION: Final = metadata.version("convlens-client")


def create_app(settings: WebSettings) -> FastAPI:
    """Return the application of a gateway. InvalidArgument for a server's address that is none, or certificates."""
    if settings.tls:
        settings.tls.credentials()  # or each request would fail
    client = AsyncClient(settings.server, tls=settings.tls, connect_timeout=settings.connect_timeout)
    gateway = Gateway(client, settings.server)
    budget = ByteBudget(max(MAX_HELD_BYTES, 2 * settings.max_body_bytes))

    @asynccontextmanager
    async def close_client_at_end(_: FastAPI) -> AsyncIterator[None]:
        async with client:
            yield

    app = FastAPI(
        title="Convlens", version=VERSION, summary="What did this VGG16 look at?", lifespan=close_client_at_end,
        docs_url=None, redoc_url=None,  # whose pages load scripts from other hosts
        generate_unique_id_function=lambda route: route.name,
    )  # fmt: skip
    app.openapi = functools.partial(openapi.describe, app)  # type: ignore[method-assign] # FastAPI's way to replace it
    app.state.gateway = gateway
    add_handlers(app, HEADERS)
    for router in (models.router, visualize.router, jobs.router):
        app.include_router(router)
    add_page(app)
    app.add_middleware(Limits, max_body_bytes=settings.max_body_bytes, budget=budget)
    app.add_middleware(SameOrigin, allowed_hosts=(settings.host, *settings.allowed_hosts))
    return app
