"""TensorFlow's process-wide TF32 setting, and the precisions that the device supports."""

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
"""CPU flags of which any one means support of a precision; no CPU supports TF32."""
AMPERE: Final = (8, 0)
"""The compute capability of the first GPUs with TF32 and bfloat16."""


class ProcessSetting:
    """TF32, on or off for the whole process: all models that are loaded must agree on it."""

    def __init__(self, apply: Callable[[bool], None]) -> None:
        self._apply = apply
        self._sources: weakref.WeakKeyDictionary[object, Source] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def claim(self, model: object, source: Source) -> None:
        """Apply the setting for as long as `model` lives. Raises ModelUnavailable on conflict with another model."""
        is_on = source.precision == "tf32"
        with self._lock:
            for other in self._sources.values():
                if is_on != (other.precision == "tf32"):
                    raise ModelUnavailable(
                        f"model {source.name!r}: precision={source.precision} cannot be served beside model "
                        f"{other.name!r} with precision={other.precision}: TF32 is on or off for a whole worker; "
                        "serve it by another worker"
                    )
            self._apply(is_on)
            self._sources[model] = source


TF32: Final = ProcessSetting(tf.config.experimental.enable_tensor_float_32_execution)
"""The setting of this process."""


def warn_if_unsupported(source: Source) -> None:
    """Log a warning when the device does not support the precision, which is slower than float32 then."""
    if source.precision != "float32" and not is_supported(source.precision):
        log.warning("model=%s: this device has no %s; float32 would be faster", source.name, source.precision)


def is_supported(precision: str) -> bool:
    """Return True when the GPU, or without one the CPU, multiplies in `precision`."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", AMPERE)
        return precision in {"float32", "float16"} or capability >= AMPERE
    return precision == "float32" or bool(PROCESSORS.get(precision, set()) & _cpu_flags())


def _cpu_flags() -> set[str]:
    """Return the CPU's flags by Linux' names; empty where they cannot be read."""
    try:
        return set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return set()
