"""Pools: the workers that serve one model alike, so that any of them may compute any of its jobs.

They serve it with the same weights, labels and preprocessing. While a model's weights are being changed it has two
pools, and new jobs go to the newest.
"""

from __future__ import annotations

import hashlib
from typing import Final

from convlens.v1 import model_pb2

_WITHOUT_EFFECT: Final = (
    "name",
    "source",
    "workers",
    "max_batch_size",
    "preprocess_reason",
    "unavailable_methods",
    "worker_version",
)
"""Fields of a card that do not change what a model computes, or are in the pool's name anyway."""


def pool_of(card: model_pb2.Model) -> str:
    """Return the pool of the workers with such a card: NAME@DIGEST-REST, or NAME alone where nothing is computed.

    DIGEST is the first 16 digits of the weights' digest, REST 8 of the digest of all else that results depend on.
    """
    if not card.digest:
        return card.name
    rest = model_pb2.Model()
    rest.CopyFrom(card)
    for field in _WITHOUT_EFFECT:
        rest.ClearField(field)
    digest = hashlib.sha256(rest.SerializeToString(deterministic=True)).hexdigest()
    return f"{card.name}@{card.digest[:16]}-{digest[:8]}"


def model_of(pool: str) -> str:
    """Return the name of the model that a pool serves."""
    return pool.partition("@")[0]
