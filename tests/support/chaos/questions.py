"""Jobs whose right answers are known beforehand, bit for bit."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from convlens.client import Activations, Client, GradCAM, Result, Saliency
from convlens.client.options import Visualization
from convlens.worker.shapes import draw

SCENES = 6
LAYER = ("block1_conv1", (224, 224, 64))


def _png(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), (10, 200, 30)).save(file, "PNG")
    return file.getvalue()


TINY = _png(16)
VAST = _png(4000)


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A job to be asked for, and its answer."""

    model: str
    images: object
    visualizations: Sequence[Visualization]
    target: int | None
    arrays: Mapping[str, np.ndarray]
    explained: int | None
    """The unit that its maps explain; None where they explain none."""

    def answered_by(self, result: Result) -> bool:
        """True when every bit is right."""
        units = {it.index for image in result.explained for it in image.values()}
        return (
            result.model == self.model
            and units == ({self.explained} - {None})
            and list(result) == list(self.arrays)
            and all(np.array_equal(result[name], array) for name, array in self.arrays.items())
        )


def null(unit: int, model: str = "null", images: int = 1) -> Question:
    """A map of zeros that explains `unit`."""
    zeros = np.zeros((images, 14, 14), np.float32)
    return Question(model, [TINY] * images, [GradCAM()], unit, {"grad_cam": zeros}, unit)


def slow(unit: int) -> Question:
    """One that takes its time on the victim's device."""
    return null(unit, "slow")


def vast(unit: int) -> Question:
    """One that takes the victim long to decode: files of little weight and many pixels."""
    zeros = np.zeros((4, 14, 14), np.float32)
    return Question("mine", [VAST] * 4, [GradCAM()], unit, {"grad_cam": zeros}, unit)


def big(model: str = "mine", images: int = 8) -> Question:
    """One whose result is 12.25 MiB an image."""
    layer, shape = LAYER
    arrays = {f"activations/{layer}": np.zeros((images, *shape), np.float32)}
    return Question(model, [TINY] * images, [Activations(layer)], None, arrays, None)


def scenes(client: Client) -> list[Question]:
    """Scenes that the model `shapes` knows; the answers are those of a service that nothing has happened to yet."""
    found = []
    for index in range(SCENES):
        image, maps = draw(4242, index).image, [Saliency(), GradCAM()]
        result = client.visualize(image, maps, model="shapes")
        arrays = {name: array.copy() for name, array in result.items()}
        found.append(Question("shapes", image, maps, None, arrays, result.explained[0]["saliency"].index))
    return found
