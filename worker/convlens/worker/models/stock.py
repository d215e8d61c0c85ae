"""Load the stock VGG16 of keras.applications, with its ImageNet weights or with random ones."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np

from convlens.worker.models.keras_model import KerasModel
from convlens.worker.models.model_protocol import ModelUnavailable
from convlens.worker.models.source import Source

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_SECONDS: Final = 10.0
WEIGHTS_FILE: Final = "vgg16_weights_tf_dim_ordering_tf_kernels.h5"
LABELS_FILE: Final = "imagenet_class_index.json"
HOST: Final = "storage.googleapis.com"
"""The host from which Keras downloads its applications' files."""
LABELS_URL: Final = f"https://{HOST}/download.tensorflow.org/data/imagenet_class_index.json"
LABELS_MD5: Final = "c2c37ea517e94d9795004a39431a14cb"


def imagenet(source: Source) -> KerasModel:
    """Load from Keras' cache, or download into it; Keras verifies the checksum. Raises ModelUnavailable."""
    cached = cache_folder() / WEIGHTS_FILE
    if not cached.exists() and not is_reachable(HOST):
        raise ModelUnavailable(
            f"model {source.name!r}: the ImageNet weights are not at {cached}, and {HOST} cannot be reached within "
            f"{CONNECT_TIMEOUT_SECONDS:g} s; put the file there, or give another source"
        )
    try:
        model = keras.applications.VGG16(weights="imagenet")
    except Exception as error:  # Keras raises plain Exception for a failed download, ValueError for a wrong checksum
        raise ModelUnavailable(
            f"model {source.name!r}: the ImageNet weights cannot be had: {error}; remove {cached} if it is damaged"
        ) from error
    return KerasModel(source, model, "imagenet", "caffe", _imagenet_labels())


def random(source: Source) -> KerasModel:
    """Load with seeded He-normal weights, for load tests: the maps mean nothing."""
    model = keras.applications.VGG16(weights=None)
    randomise(model, int(source.argument))
    return KerasModel(source, model, "random", "caffe", synthetic=True)


def randomise(model: Any, seed: int) -> None:
    """Set every kernel to He-normal and every bias to small weights, determined by `seed`."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        weights = layer.get_weights()
        if weights:
            kernel, bias = weights
            spread = np.sqrt(2.0 / np.prod(kernel.shape[:-1]))
            kernel = rng.standard_normal(kernel.shape, np.float32) * np.float32(spread)
            layer.set_weights([kernel, rng.standard_normal(bias.shape, np.float32) * np.float32(0.05)])


def cache_folder() -> Path:
    """Return the folder where Keras caches its applications' files."""
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"


def is_reachable(host: str) -> bool:
    """Return True when `host` accepts a connection to port 443 within CONNECT_TIMEOUT_SECONDS, DNS lookup included."""
    connected = threading.Event()

    def probe() -> None:
        try:
            with socket.create_connection((host, 443), CONNECT_TIMEOUT_SECONDS):
                connected.set()
        except OSError as error:
            log.info("%s cannot be reached: %s", host, error)

    thread = threading.Thread(target=probe, daemon=True)  # a DNS lookup has no timeout, so it may outlive this call
    thread.start()
    thread.join(CONNECT_TIMEOUT_SECONDS)
    return connected.is_set()


def _imagenet_labels() -> list[str]:
    """Return the 1000 class names; none when they are neither cached nor can be downloaded."""
    if not (cache_folder() / LABELS_FILE).exists() and not is_reachable(HOST):
        log.warning("the ImageNet class names cannot be had; results go without labels")
        return []
    path = keras.utils.get_file(LABELS_FILE, LABELS_URL, cache_subdir="models", file_hash=LABELS_MD5)
    index = json.loads(Path(path).read_text(encoding="utf-8"))
    return [index[str(unit)][1] for unit in range(1000)]
