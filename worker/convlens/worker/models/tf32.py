"""What the device can do, and TensorFlow's switch for TF32, which is one for the whole process."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Final

import tensorflow as tf

from convlens.worker.models.model_protocol import ModelUnavailable
from convlens.worker.models.source import Source

log = logging.getLogger(__name__)

PROCESSORS: Final = {"bfloat16": {"avx512_bf16", "amx_bf16"}, "float16": {"avx512_fp16", "amx_fp16"}}
"""The flags of processors that multiply in a precision, any of them; none can TF32."""
AMPERE: Final = (8, 0)
"""The compute capability of the first GPUs that have TF32 and bfloat16."""


class Switch:
    """TF32, on or off for a whole process: models that live at once must agree on it."""

    def __init__(self, turn: Callable[[bool], None]) -> None:
        self._turn = turn
        self._served: weakref.WeakKeyDictionary[object, Source] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def claim(self, model: object, source: Source) -> None:
        """Sets it for as long as `model` lives. ModelUnavailable when another model needs it the other way."""
        wanted = source.precision == "tf32"
        with self._lock:
            for other in self._served.values():
                if wanted != (other.precision == "tf32"):
                    raise ModelUnavailable(
                        f"model {source.name!r}: precision={source.precision} cannot be served beside model "
                        f"{other.name!r} with precision={other.precision}: TF32 is on or off for a whole worker; "
                        "serve it by another worker"
                    )
            self._turn(wanted)
            self._served[model] = source


TF32: Final = Switch(tf.config.experimental.enable_tensor_float_32_execution)
"""This process's."""


def warn_of_slowness(source: Source) -> None:
    """Logs when the device gains nothing from a precision."""
    if source.precision != "float32" and not has(source.precision):
        log.warning("model=%s: this device has no %s; float32 would be faster", source.name, source.precision)


def has(precision: str) -> bool:
    """True when the GPU, or without one the processor, multiplies in `precision`."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", AMPERE)
        return precision in {"float32", "float16"} or capability >= AMPERE
    return precision == "float32" or bool(PROCESSORS.get(precision, set()) & _flags())


def _flags() -> set[str]:
    """What the processor can do, by Linux's names; nothing where that is not to be had."""
    try:
        return set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return set()
