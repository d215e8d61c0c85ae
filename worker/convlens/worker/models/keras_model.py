"""A Keras model served through the engine."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from convlens.v1 import model_pb2
from convlens.worker.engine.graph import UnsupportedLayer, read_input_shape
from convlens.worker.engine.network import Network
from convlens.worker.engine.outputs import Ints, Outputs
from convlens.worker.engine.plan import PREDICTED, Activation, GradCAM, Map, Plan, Saliency
from convlens.worker.method_registry import METHODS
from convlens.worker.models.input_scheme import choose_scheme
from convlens.worker.models.model_protocol import CUSTOM, ModelUnavailable
from convlens.worker.models.source import PRECISIONS, Source, read_labels
from convlens.worker.models.tf32 import TF32, warn_if_unsupported

log = logging.getLogger(__name__)

ARTICLE_LAYER: Final = "block4_conv2"
"""The deepest layer whose activations the article shows that the maps come from."""

# before any model is built: GPU memory is allocated as needed
for _gpu in tf.config.list_physical_devices("GPU"):
    tf.config.experimental.set_memory_growth(_gpu, True)


class KerasModel:
    """A network and its card.

    `known` is the preprocessing that the weights are known to need. Raises ModelUnavailable where the model cannot be
    explained, the labels do not fit, or the precision conflicts with another model's.
    """

    def __init__(
        self,
        source: Source,
        model: Any,
        origin: str,
        known: str | None = None,
        labels: list[str] | None = None,
        synthetic: bool = False,
    ) -> None:
        TF32.claim(self, source)
        warn_if_unsupported(source)
        try:
            *_, channels = read_input_shape(model, source.size)
            scheme = choose_scheme(source, model, channels, known)
            self._network = network = Network(
                model, scheme.preprocess, source.precision, size=source.size, output=source.output
            )
        except UnsupportedLayer as error:
            raise ModelUnavailable(f"model {source.name!r}: {error}") from error
        log.log(
            logging.WARNING if scheme.is_assumed or scheme.is_on_top else logging.INFO,
            "model=%s preprocess=%s (%s)%s", source.name, scheme.name, scheme.reason,
            "; state another one by preprocess= or mean= and std=" * scheme.is_assumed,
        )  # fmt: skip
        self.card = model_pb2.Model(
            source=origin,
            digest=network.digest,
            input_shape=network.input_shape,
            layers=[
                model_pb2.Layer(name=layer.name, kind=layer.kind, shape=layer.shape, taped=layer.is_taped)
                for layer in network.layers
            ],
            labels=read_labels(source, network.units) or labels or [],
            preprocess=scheme.name,
            preprocess_assumed=scheme.is_assumed,
            preprocess_reason=scheme.reason,
            preprocess_mean=scheme.preprocess.zero if scheme.name == CUSTOM else (),
            preprocess_std=[1 / scale for scale in scheme.preprocess.scale] if scheme.name == CUSTOM else (),
            precision=PRECISIONS[source.precision],
            score_layer=network.score_layer,
            cam_layer=network.cam_layer or "",
            synthetic=synthetic,
            has_probability=network.has_probability,
            methods=sorted(METHODS.keys() - network.unavailable_methods.keys()),
            unavailable_methods=network.unavailable_methods,
            classes=network.units,
        )

    def run(self, images: npt.NDArray[np.generic], plan: Plan, targets: Ints) -> Outputs:
        """See ServedModel."""
        return self._network.run(images, plan, targets)

    def warm_up(self) -> None:
        """Run each of the common plans once on uint8 pixels, and the last one on float32, too."""
        started = time.monotonic()
        plans = self._common_plans()
        for maps, dtype in (*((maps, np.uint8) for maps in plans), (plans[-1], np.float32)):
            image = np.zeros((1, *self._network.input_shape), dtype)
            plan = Plan(maps, predictions=5 if Plan(maps).targeted else 0)
            self._network.run(image, plan, np.full((1, 1), PREDICTED, np.int32))
        log.info("source=%s warmed up in %.1f s", self.card.source, time.monotonic() - started)

    def _common_plans(self) -> list[tuple[Map, ...]]:
        """Return the maps of the most common jobs: each kind of map by itself, and the article's four together."""
        cam: tuple[Map, ...] = (GradCAM(self.card.cam_layer),) if self.card.cam_layer else ()
        layer = next(
            (layer.name for layer in self.card.layers if layer.name == ARTICLE_LAYER), self.card.layers[0].name
        )
        both = tuple(Saliency(method) for method in ("vanilla", "guided") if method in self.card.methods)
        single: list[tuple[Map, ...]] = [(item,) for item in (*both, *cam, Activation(layer))]
        return [*single, (*both, *cam), (*both, *cam, Activation(layer))]
