"""Maps of images, computed while the caller waits."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import Response

from convlens.web import drawing, forms, results
from convlens.web.openapi import PROBLEMS, RESULT
from convlens.web.state import Client, reservation_of, while_connected

router = APIRouter(prefix="/v1", tags=["maps"], responses=PROBLEMS)


@router.post("/visualize", openapi_extra=forms.OPENAPI, responses=RESULT)
async def visualize(request: Request, client: Client, picture: results.PictureOptions) -> Response:
    """Compute the visualizations on every image, and return the arrays, or a picture, by `Accept`.

    A caller who disconnects cancels the job. The query parameters are those of the picture.
    """
    media_type = results.accepted_media_type(request)
    form = await forms.read_form(request)
    if media_type == results.PNG:
        results.check_one_image(len(form.images))
        reservation_of(request).hold_drawing(drawing.bytes_to_draw(form.images[0]))
    result = await while_connected(request, client.visualize(form.images, **form.job.arguments()))
    return await asyncio.to_thread(results.respond, result, media_type, picture)
