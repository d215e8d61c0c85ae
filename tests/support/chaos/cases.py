"""Jobs whose results are known beforehand, bit for bit."""

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
HUGE = _png(4000)


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """The arguments of a job and its expected result."""

    model: str
    images: object
    visualizations: Sequence[Visualization]
    target: int | None
    arrays: Mapping[str, np.ndarray]
    explained: int | None
    """The unit that the maps explain; None for visualizations without a target."""

    def matches(self, result: Result) -> bool:
        """True when every bit of the result is as expected."""
        units = {explanation.index for image in result.explained for explanation in image.values()}
        return (
            result.model == self.model
            and units == ({self.explained} - {None})
            and list(result) == list(self.arrays)
            and all(np.array_equal(result[name], array) for name, array in self.arrays.items())
        )


def null(unit: int, model: str = "null", images: int = 1) -> Case:
    """A map of zeros that explains `unit`."""
    zeros = np.zeros((images, 14, 14), np.float32)
    return Case(model, [TINY] * images, [GradCAM()], unit, {"grad_cam": zeros}, unit)


def slow(unit: int) -> Case:
    """A job that spends 700 ms on the victim's device."""
    return null(unit, "slow")


def slow_decoding(unit: int) -> Case:
    """A job that the victim takes long to decode: small files of 16 million pixels each."""
    zeros = np.zeros((4, 14, 14), np.float32)
    return Case("mine", [HUGE] * 4, [GradCAM()], unit, {"grad_cam": zeros}, unit)


def large_result(model: str = "mine", images: int = 8) -> Case:
    """A job whose result has 12.25 MiB an image."""
    layer, shape = LAYER
    arrays = {f"activations/{layer}": np.zeros((images, *shape), np.float32)}
    return Case(model, [TINY] * images, [Activations(layer)], None, arrays, None)


def scenes(client: Client) -> list[Case]:
    """Scenes for the model `shapes`; their expected results are computed by the service before any fault."""
    cases = []
    for index in range(SCENES):
        image, maps = draw(4242, index).image, [Saliency(), GradCAM()]
        result = client.visualize(image, maps, model="shapes")
        arrays = {name: array.copy() for name, array in result.items()}
        cases.append(Case("shapes", image, maps, None, arrays, result.explained[0]["saliency"].index))
    return cases
