"""The server and the models that it serves."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request

from convlens.client import ModelCard
from convlens.client.json_values import to_json_value
from convlens.web.openapi import PROBLEMS, returns
from convlens.web.state import Client, gateway_of, while_connected

router = APIRouter(prefix="/v1", tags=["models"], responses=PROBLEMS)
ModelName = Annotated[str, Path(description="the model's name")]


@router.get("/server", responses=returns("ServerInfo"))
async def show_server(request: Request, client: Client) -> Any:
    """The server's address, version, limits and features."""
    return {
        "address": gateway_of(request).address,
        **to_json_value(await while_connected(request, client.server_info())),
    }


@router.get("/models", responses=returns("Models"))
async def list_models(request: Request, client: Client) -> Any:
    """The models served, and those that workers refused to serve."""
    both = asyncio.gather(client.models(), client.refused_models())
    cards, refused = await while_connected(request, both)
    return {"models": [_to_json(card) for card in cards], "refused": to_json_value(refused)}


@router.get("/models/{name}", responses=returns("ModelCard"))
async def show_model(request: Request, client: Client, name: ModelName) -> Any:
    """A model: its input, labels, layers and methods."""
    return _to_json(await while_connected(request, client.model(name)))


def _to_json(card: ModelCard) -> dict[str, Any]:
    """Return a model's card as JSON; labels are null if it has none."""
    return {**to_json_value(card), "labels": list(card.labels) or None}
