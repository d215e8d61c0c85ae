"""The server and the models that it serves."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter

from convlens.client.json_values import to_json_value
from convlens.web.state import Client

router = APIRouter(prefix="/v1", tags=["models"])


@router.get("/server")
async def show_server(client: Client) -> Any:
    """The server's version, limits and features."""
    return to_json_value(await client.server_info())


@router.get("/models")
async def list_models(client: Client) -> Any:
    """The models served, and those that workers refused to serve."""
    cards, refused = await asyncio.gather(client.models(), client.refused_models())
    return to_json_value({"models": cards, "refused": refused})


@router.get("/models/{name}")
async def show_model(client: Client, name: str) -> Any:
    """A model: its input, labels, layers and methods."""
    return to_json_value(await client.model(name))
