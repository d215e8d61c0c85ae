"""What a notebook shows of a result: each image with its maps and its predictions, as HTML."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Final

from convlens.client.drawing import Style
from convlens.client.figures import layer_names, map_figure, map_names

if TYPE_CHECKING:
    from convlens.client.result_data import ResultData

MAX_IMAGES: Final = 8
"""Images shown; notebooks keep what they show, some 50 kB an image."""
CLASSES: Final = 3
"""Predictions shown of each image."""


def to_html(result: ResultData) -> str:
    """Return the first MAX_IMAGES images of a result as HTML that needs nothing else; says how many more there are."""
    return "".join(_parts(result))


def _parts(result: ResultData) -> Iterator[str]:
    count = len(result.predictions)
    has_picture = bool(map_names(result) or layer_names(result))
    for image, predictions in enumerate(result.predictions[:MAX_IMAGES]):
        classes = escape(", ".join(map(str, predictions[:CLASSES])))
        number = f"{image}: " if count > 1 else ""
        yield "<figure style='margin: 0 0 1em'>"
        if has_picture:
            picture = base64.b64encode(map_figure(result, image, Style()).encode("jpg")).decode()
            alt = escape(f"image {number}{', '.join(result)}", quote=True)
            yield f"<img alt='{alt}' style='max-width: 100%' src='data:image/jpeg;base64,{picture}'>"
        yield f"<figcaption>{number}{classes}</figcaption></figure>"
    if count > MAX_IMAGES:
        yield f"<p>and {count - MAX_IMAGES} more: <code>result.figure({MAX_IMAGES})</code> …</p>"
