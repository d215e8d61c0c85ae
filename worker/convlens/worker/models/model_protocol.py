"""The interface of a served model: its card, and a pass. Imports no TensorFlow."""

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
"""The name on the card of a preprocessing scheme that is given by mean and std."""

MAX_REASON: Final = 300
"""Characters of another library's error message."""
COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")
CALLING: Final = re.compile(r"Exception encountered when calling (?P<what>[^\n]*?)\.?\n+(?P<rest>.*)", re.DOTALL)
"""Keras' wrapper of errors in layers."""
SENTENCE: Final = re.compile(r"(?<=[^.][.!?]) (?=[A-Z`'\"])|\.$")


class ModelUnavailable(RuntimeError):
    """A model that cannot be served: the message says why, and what to do."""


def summarize_error(error: BaseException) -> str:
    """Return the first sentence of an exception of Keras or another library, in one line, without its dumps."""
    text = COLOURS.sub("", str(error)).rpartition("Exception encountered: ")[2]
    if wrapped := CALLING.match(text):
        text = f"{wrapped['what']}: {wrapped['rest']}"
    text = "".join(character if character.isprintable() or character.isspace() else " " for character in text)
    paragraph = text.strip().split("\n\n", maxsplit=1)[0]
    first = SENTENCE.split(" ".join(paragraph.split()), maxsplit=1)[0].rstrip(".: ")
    if not first:
        return type(error).__name__
    return first if len(first) <= MAX_REASON else f"{first[: MAX_REASON - 1]}…"


class ServedModel(Protocol):
    """A model on its device."""

    @property
    def card(self) -> model_pb2.Model:
        """The card to publish, without name and max_batch_size."""

    def run(self, images: npt.NDArray[np.generic], plan: Plan, targets: Ints) -> Outputs:
        """Compute a pass over images (N,H,W,C) in 0…255 and targets (N,T), as engine.network.Network.run does."""

    def warm_up(self) -> None:
        """Compile the plans of the most common jobs, so that the first job does not wait for it."""


def preprocess_of(card: model_pb2.Model) -> Preprocess:
    """Return the preprocessing scheme of a model's card."""
    if card.preprocess == CUSTOM:
        return from_mean_and_std(card.preprocess_mean, card.preprocess_std)
    return PREPROCESS[card.preprocess]
