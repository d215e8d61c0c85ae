"""Results as HTTP responses: JSON with the arrays in base64, an .npz file, or a picture of one map."""

from __future__ import annotations

import base64
import io
from typing import Annotated, Any, Final

import numpy as np
from fastapi import Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict

from convlens.client import Result
from convlens.client.drawing import Background, Kind, Scale, Sign
from convlens.client.json_values import to_json_value
from convlens.client.options import is_signed
from convlens.client.saving import arrays_by_file_name
from convlens.v1 import tensors
from convlens.web.drawing import photo_to_draw
from convlens.web.problems import Problem

JSON: Final = "application/json"
NPZ: Final = "application/x-npz"
PNG: Final = "image/png"
MEDIA_TYPES: Final = (JSON, NPZ, PNG)


class Picture(BaseModel):
    """Which map a picture shows, and how it is drawn: the options of the SDK's Result.overlay()."""

    model_config = ConfigDict(extra="forbid")

    array: str = Query("", description="name of the array; by default the first")
    target: int = Query(0, description="position on the target axis, if there is one")
    kind: Kind = Query("blended_heat_map", description="the map over the photo, or alone, or the photo by the map")
    opacity: float = Query(0.75, ge=0, le=1, description="of the strongest parts of a blended heat map")
    percentile: float = Query(99.5, gt=0, le=100, description="magnitudes above are clipped")
    sign: Sign = Query("both", description="of signed maps: which values are drawn")
    cmap: str | None = Query(None, description="colour map of matplotlib")
    scale: Scale = Query("panel", description="the range of the colours: the map's own, or that of all its targets")
    background: Background = Query("color", description="the photo under the map")


PictureOptions = Annotated[Picture, Query()]


def accepted_media_type(request: Request) -> str:
    """Return the media type of the response that a client prefers. Raises Problem 406 if it accepts none."""
    weights: dict[str, float] = {}
    for item in request.headers.get("accept", "*/*").lower().split(","):
        media_range, *parameters = (part.strip() for part in item.split(";"))
        weights[media_range] = next((_number(text[2:]) for text in parameters if text.startswith("q=")), 1.0)

    def quality(media_type: str) -> float:
        ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")  # the most specific one counts
        return next((weights[media_range] for media_range in ranges if media_range in weights), 0.0)

    best = max(MEDIA_TYPES, key=quality)
    if not quality(best) > 0:
        raise Problem(406, "NOT_ACCEPTABLE", f"results come as {', '.join(MEDIA_TYPES)}")
    return best


def respond(result: Result, media_type: str, picture: Picture) -> Response:
    """Return a result as a response. Takes long for large arrays: not for an event loop."""
    if media_type == NPZ:
        file = io.BytesIO()
        np.savez(file, **arrays_by_file_name(result))
        return Response(file.getvalue(), media_type=NPZ)
    if media_type == PNG:
        return Response(_draw(result, picture), media_type=PNG)
    return JSONResponse(_to_json(result))


def check_one_image(count: int) -> None:
    """Raise Problem 422 unless a picture is of `count` images."""
    if count != 1:
        raise Problem(422, "INVALID_FIELD", f"image: a picture is of one image, not of {count}", field="image")


def _draw(result: Result, picture: Picture) -> bytes:
    """Return one map over its photo as PNG."""
    check_one_image(len(result.predictions))
    options = picture.model_dump(exclude={"array", "target"})
    if result.images:
        options["photo"] = photo_to_draw(result.images[0])
    else:  # of a job that another request submitted: the map alone
        options["kind"] = "heat_map"
    name = picture.array or next(iter(result))
    try:
        drawn = result.overlay(name, target=picture.target, **options)
    except KeyError as error:
        raise Problem(422, "INVALID_FIELD", f"array: no array {error.args[0]}", field="array") from None
    file = io.BytesIO()
    drawn.save(file, "PNG")
    return file.getvalue()


def _to_json(result: Result) -> dict[str, Any]:
    """Return a result as JSON."""
    explained = [
        {name: to_json_value(list(explanation)) for name, explanation in image.items()} for image in result.explained
    ]
    return {
        "job_id": result.job_id, "model": result.model, "cached": result.cached, "images": len(explained),
        "predictions": to_json_value(result.predictions), "explained": explained,
        "timing": to_json_value(result.timing), "has_target_axis": result.has_target_axis,
        "arrays": [_array(result, name) for name in result],
    }  # fmt: skip


def _array(result: Result, name: str) -> dict[str, Any]:
    array = result[name]
    scale, offset = result.quantization.get(name, (None, None))
    return {
        "name": name, "shape": list(array.shape), "dtype": array.dtype.name,
        "scale": None if scale is None else scale.tolist(), "offset": None if offset is None else offset.tolist(),
        "signed": is_signed(name), "channels": list(result.channels[name]) if name in result.channels else None,
        "data": base64.b64encode(tensors.buffer_of(array)).decode("ascii"),
    }  # fmt: skip


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
