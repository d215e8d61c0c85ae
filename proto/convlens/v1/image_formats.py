"""Opening image files by Pillow, within bounds on time and memory that hostile files would exceed.

Pillow is imported where it is used: the wire does not depend on it.
"""

from __future__ import annotations

import functools
import io
import struct
import warnings
from typing import TYPE_CHECKING, Final

import numpy as np

from convlens.v1.file_signatures import FORMATS, HEAD_BYTES, JPEG_MAGIC, explain_unsupported, format_of

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

Data = bytes | memoryview

MAX_SCANS: Final = 500
"""Of a progressive JPEG. Cameras and programs write about ten; each takes as long as a baseline JPEG."""
NORMAL_SCANS: Final = 16
"""Scans of a JPEG that its pixels are counted once for."""
SLOW_FACTOR: Final = 4
"""How much longer a pixel takes of JPEG 2000, and of a BMP that is decoded in Python."""
_OWN_PROCESS: Final = {"AVIF", "JPEG2000"}
"""Formats whose frames may be larger than the header says, or whose library holds the GIL."""
LARGE_PIXELS: Final = 16_000_000
"""Of a job's images: from here on they are decoded in processes of their own."""
SLOW_PIXELS: Final = 2_000_000
"""Of one image: above, it is decoded in a process of its own."""
MAX_EXIF_SEGMENTS: Final = 64
"""Of a JPEG; at each one Pillow copies all that precede."""
MAX_READS: Final = 1 << 16
"""Calls of read() by Pillow's parsers: three for each chunk of a PNG, one for each byte between a JPEG's segments."""
EXTRA_BYTES: Final = 1 << 20
"""That may be read of a file beyond twice its size: several parsers read its beginning."""
_MARKER, _SCAN, _APP1 = 0xFF, 0xDA, 0xE1
"""What begins a JPEG's segments, and what follows it in those of a scan and of metadata."""
_BLOCK: Final = 1 << 20
"""Bytes of a JPEG that are compared at once."""
_BMP_COMPRESSION: Final = slice(30, 34)
_RUN_LENGTH: Final = (b"\1\0\0\0", b"\2\0\0\0")
_DIRECTORY_ENTRIES: Final = 4096
_ENTRY_VALUES: Final = 1 << 16
"""Pillow creates an object for each strip of a TIFF when it opens it: millions of them would take gigabytes."""
_TILE_PIXELS: Final = 1 << 24
"""libtiff decodes whole tiles, however small the image is."""


class PictureError(ValueError):
    """A picture that cannot be read, or is ambiguous; the message says why and what to do, for people."""


class ManyReadsError(PictureError):
    """A file of so many parts that Pillow's parsers, in Python, would take long."""


@functools.cache
def decodable_formats() -> tuple[str, ...]:
    """Return those of FORMATS that the installed Pillow decodes."""
    from PIL import features

    is_missing = {
        "JPEG2000": "jpg_2000" not in features.get_supported_codecs(),
        "WEBP": "webp" not in features.get_supported_modules(),
        "AVIF": "avif" not in features.get_supported_modules(),
    }
    return tuple(name for name in FORMATS if not is_missing.get(name))


def ignore_warnings() -> None:
    """Keep Pillow's warnings, which any caller can cause by a file's tags, out of this process' log."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


def open_picture(data: Data, more_reads: int = 0) -> ImageFile:
    """Open a file as a Pillow image without decoding it; decoding may read it `more_reads` times beyond MAX_READS.

    Raises PictureError for a file of another format, one that is damaged at its beginning, and one that would take much
    time or memory. Pillow raises further errors, of any type, for what is damaged behind that.
    """
    from PIL import Image, UnidentifiedImageError

    head = bytes(data[:HEAD_BYTES])
    if why := explain_unsupported(head, decodable_formats()):
        raise PictureError(why)
    kind = format_of(head)
    if kind == "TIFF" and (why := _refuse_tiff(data)):
        raise PictureError(why)
    if kind == "JPEG":
        _count_scans(data)
        _check_exif(data)
    try:
        file = _BoundedFile(data)
        picture = Image.open(file, formats=decodable_formats())
    except UnidentifiedImageError as error:
        if kind:
            message = f"the {kind} file is damaged, or of a variant that is not read"
            raise PictureError(message) from error
        raise PictureError(f"the bytes are no image of the formats {', '.join(decodable_formats())}") from error
    file.reads_left += more_reads
    return picture


class _BoundedFile(io.BytesIO):
    """A file that raises ManyReadsError once it was read too often.

    Chunks and segments may be millions, and tags may all point to the same megabytes.
    """

    def __init__(self, data: Data) -> None:
        super().__init__(data)
        self.reads_left = MAX_READS
        self._bytes_left = 2 * len(data) + EXTRA_BYTES

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.reads_left -= 1
        self._bytes_left -= len(data)
        if self.reads_left < 0 or self._bytes_left < 0:
            raise ManyReadsError(
                "the image file has too many chunks, segments or tags; save it anew with an ordinary program"
            )
        return data


def _count_scans(data: Data) -> int:
    """Return the scans of a JPEG. Raises PictureError for so many that decoding it would take minutes."""
    if (scans := _count_markers(data, _SCAN)) > MAX_SCANS:
        raise PictureError(f"the JPEG file has {scans} scans; allowed: {MAX_SCANS}")
    return scans


def _check_exif(data: Data) -> None:
    """Raise PictureError for a JPEG of so many EXIF segments that opening it would take minutes."""
    if _count_markers(data, _APP1) > MAX_EXIF_SEGMENTS:
        segments = bytes(data).count(b"Exif\0\0")  # XMP has the same marker
        if segments > MAX_EXIF_SEGMENTS:
            raise PictureError(f"the JPEG file has {segments} EXIF segments; allowed: {MAX_EXIF_SEGMENTS}")


def _count_markers(data: Data, marker: int) -> int:
    """Return how often a marker is in a JPEG: by NumPy in a quarter of the time of bytes.count()."""
    octets = np.frombuffer(data, np.uint8)
    blocks = (octets[start : start + _BLOCK + 1] for start in range(0, len(octets), _BLOCK))
    return sum(int(np.count_nonzero((block[:-1] == _MARKER) & (block[1:] == marker))) for block in blocks)


def decoding_factor(data: Data) -> int:
    """Return how much longer than others a file takes to decode, per pixel. Raises PictureError for very many scans."""
    if data[:3] == JPEG_MAGIC:
        return max(1, _count_scans(data) // NORMAL_SCANS)
    is_slow = format_of(bytes(data[:HEAD_BYTES])) == "JPEG2000" or _is_run_length_bmp(data)
    return SLOW_FACTOR if is_slow else 1


def needs_own_process(data: Data) -> bool:
    """Return whether a file is decoded in a process of its own, however small it is by its header."""
    return format_of(bytes(data[:HEAD_BYTES])) in _OWN_PROCESS or _is_run_length_bmp(data)


def _is_run_length_bmp(data: Data) -> bool:
    """Return whether Pillow decodes a BMP in Python, byte by byte."""
    return data[:2] == b"BM" and data[_BMP_COMPRESSION] in _RUN_LENGTH


def _refuse_tiff(data: Data) -> str | None:
    """Return why a TIFF is not opened; None where it may be.

    A directory that ends early is left to Pillow, which reads it as far as this function does.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = 0x2B in data[2:4]
    offset_format, count_format, entry_format, value_at = ("Q", "Q", "HHQ", 12) if big else ("I", "H", "HHI", 8)
    tile = {_TILE_WIDTH: 1, _TILE_LENGTH: 1}
    try:
        (directory,) = struct.unpack_from(order + offset_format, data, 8 if big else 4)
        (entries,) = struct.unpack_from(order + count_format, data, directory)
        if entries > _DIRECTORY_ENTRIES:
            return f"the TIFF file has {entries} tags; allowed: {_DIRECTORY_ENTRIES}"
        at = directory + struct.calcsize(order + count_format)
        for _ in range(entries):
            tag, kind, values = struct.unpack_from(order + entry_format, data, at)
            if kind not in _TIFF_BYTES and values > _ENTRY_VALUES:
                return f"tag {tag} of the TIFF file has {values} values; allowed: {_ENTRY_VALUES}"
            (value,) = struct.unpack_from(order + ("H" if kind == _TIFF_SHORT else "I"), data, at + value_at)
            if tag == _SUBFILE_TYPE and value & 1:
                return (
                    "the TIFF file's first picture is a thumbnail, as in a camera's raw file; develop it to JPEG or PNG"
                )
            if tag in tile:
                tile[tag] = max(tile[tag], value if kind in {_TIFF_SHORT, _TIFF_LONG} else _TILE_PIXELS + 1)
            at += value_at + (8 if big else 4)
    except struct.error:
        pass
    width, length = tile.values()
    if width * length > _TILE_PIXELS:
        return f"the TIFF file has tiles of {width}×{length} pixels; allowed: {_TILE_PIXELS} in all"
    return None


_TIFF_BYTES: Final = {1, 2, 6, 7}
"""BYTE, ASCII, SBYTE, UNDEFINED: of these Pillow keeps the bytes, which are no more than the file's."""
_TIFF_SHORT, _TIFF_LONG = 3, 4
_SUBFILE_TYPE, _TILE_WIDTH, _TILE_LENGTH = 254, 322, 323
