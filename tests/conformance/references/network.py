"""The network and the images of the references, as NumPy arrays: VGG16's topology with few channels.

Imported by the scripts that make the references, each in its own environment, and by the test that compares them.
"""

from __future__ import annotations

import hashlib

import numpy as np

SIZE, UNITS = 64, 10
BLOCKS = ((2, 8), (2, 8), (3, 12), (3, 16), (3, 16))
LAYER, POOL, EARLIER = "block5_conv3", "block4_pool", "block3_conv2"
TARGETS = np.array([3, 8])
STEPS, PATCH, STRIDE = 25, 16, 8


def weights() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return kernel and bias by layer, in order from input to output; kernels in the layout of Keras."""
    rng = np.random.default_rng(20)
    by_layer = {}
    below = 3
    for block, (count, channels) in enumerate(BLOCKS, start=1):
        for i in range(1, count + 1):
            by_layer[f"block{block}_conv{i}"] = _layer(rng, (3, 3, below, channels))
            below = channels
    below *= (SIZE // 32) ** 2
    for name, units in (("fc1", 32), ("fc2", 32), ("predictions", UNITS)):
        by_layer[name] = _layer(rng, (below, units))
        below = units
    return by_layer


def _layer(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    kernel = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))
    return kernel.astype(np.float32), (rng.standard_normal(shape[-1]) * 0.2).astype(np.float32)


def images() -> np.ndarray:
    """Return images, (2,64,64,3) float32 in 0…1: smooth blobs and noise."""
    rng = np.random.default_rng(21)
    y, x = np.mgrid[0:1:64j, 0:1:64j]
    waves = [np.sin(2 * np.pi * (a * x + b * y + c)) for a, b, c in rng.uniform(0, 3, (6, 3))]
    smooth = np.stack(waves).reshape(2, 3, SIZE, SIZE).transpose(0, 2, 3, 1)
    return np.clip(0.5 + 0.35 * smooth + 0.1 * rng.standard_normal(smooth.shape), 0, 1).astype(np.float32)


def digest() -> str:
    """Return the SHA-256 of weights and images, by which the test recognises references of another network."""
    sha256 = hashlib.sha256(images().tobytes())
    for kernel, bias in weights().values():
        sha256.update(kernel.tobytes())
        sha256.update(bias.tobytes())
    return sha256.hexdigest()
