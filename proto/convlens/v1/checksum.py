"""CRC-32 of tensors' bytes: zlib-ng's where convlens-proto[fast] is installed, else the standard library's."""

from __future__ import annotations

try:
    from zlib_ng.zlib_ng import crc32  # takes a tenth of the time
except ModuleNotFoundError:
    from zlib import crc32

__all__ = ["crc32"]
