"""What the rest of the worker sees of a model: its card, and a pass. Knows no TensorFlow."""

from __future__ import annotations

import re
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from convlens.v1 import model_pb2
from convlens.worker.engine.outputs import Ints, Outputs
from convlens.worker.engine.plan import Plan
from convlens.worker.engine.preprocess import PREPROCESS, Preprocess, from_mean_and_std

CUSTOM: Final = "custom"
"""The name of a preprocessing scheme that the worker's settings give by mean and std."""

MAX_REASON: Final = 300
"""Characters of what another library says of an error."""


COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")
CALLING: Final = re.compile(r"Exception encountered when calling (?P<what>[^\n]*?)\.?\n+(?P<rest>.*)", re.DOTALL)
"""How Keras wraps the errors of layers."""
SENTENCE: Final = re.compile(r"(?<=[^.][.!?]) (?=[A-Z`'\"])|\.$")


class ModelUnavailable(RuntimeError):
    """A model that cannot be had: what was tried, why it failed, what to do."""


def in_one_sentence(error: BaseException) -> str:
    """What an exception of Keras or another library says, without its dumps: its first sentence, in one line."""
    text = COLOURS.sub("", str(error)).rpartition("Exception encountered: ")[2]
    if found := CALLING.match(text):
        text = f"{found['what']}: {found['rest']}"
    text = "".join(it if it.isprintable() or it.isspace() else " " for it in text)
    paragraph = text.strip().split("\n\n", maxsplit=1)[0]
    first = SENTENCE.split(" ".join(paragraph.split()), maxsplit=1)[0].rstrip(".: ")
    if not first:
        return type(error).__name__
    return first if len(first) <= MAX_REASON else f"{first[: MAX_REASON - 1]}…"


class ServedModel(Protocol):
    """A model on its device."""

    @property
    def card(self) -> model_pb2.Model:
        """What is published about it; without name and max_batch_size."""

    def run(self, images: npt.NDArray[np.generic], plan: Plan, targets: Ints) -> Outputs:
        """One pass over images (N,H,W,3), uint8 or float32 RGB in 0…255, and targets (N,T) in the engine's coding."""

    def warm_up(self) -> None:
        """Compiles what most jobs ask for, so that the first of them does not wait for it."""


def preprocess_of(card: model_pb2.Model) -> Preprocess:
    """The scheme on a model's card."""
    if card.preprocess == CUSTOM:
        return from_mean_and_std(card.preprocess_mean, card.preprocess_std)
    return PREPROCESS[card.preprocess]
