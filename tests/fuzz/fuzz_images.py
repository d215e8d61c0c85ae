"""Fuzz the decoding of images: any bytes give pixels of the right shape or UnreadableAtError."""

from __future__ import annotations

import sys
import warnings

import atheris

with atheris.instrument_imports():
    from convlens.worker.images import ImageDecoder, UnreadableAtError

import numpy as np

from convlens.v1 import spec_pb2

SIDE = 8
READER = ImageDecoder(1 << 20)


def fuzz_one(data: bytes) -> None:
    """Decode one file."""
    try:
        pixels = READER.read([spec_pb2.Image(encoded=b"")], [data], SIDE, SIDE)
    except UnreadableAtError:
        return
    assert pixels.shape == (1, SIDE, SIDE, 3)
    assert pixels.dtype == np.uint8


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    atheris.Setup(sys.argv, fuzz_one)
    atheris.Fuzz()
