"""The formats of image files that are read, and what other files are, told by their first bytes.

One table for client, server and worker. Pillow is imported where it is used: the wire does not depend on it.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import functools
import io
import re
import struct
import warnings
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

Data = bytes | memoryview

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF")
"""By Pillow's names. Parsers of any others never see a byte."""
JPEG_MAGIC: Final = b"\xff\xd8\xff"
MAX_SCANS: Final = 500
"""Of a progressive JPEG; cameras and programs write ten or so, and each takes as long as the whole picture."""
SCANS_A_PASS: Final = 16
"""So many scans of a JPEG take about as long as the whole of another picture."""
SLOW_EFFORT: Final = 4
"""Times as long as of other formats a pixel of JPEG 2000 takes, and of a BMP that is decoded in Python."""
APART: Final = {"AVIF", "JPEG2000"}
"""Whose frames may be larger than the header says, or whose library lets no other thread of its process run."""
LARGE_PIXELS: Final = 16_000_000
"""Of a job's images: they are decoded apart."""
SLOW_PIXELS: Final = 2_000_000
"""Of one image: above, it is decoded apart."""
MAX_EXIF_SEGMENTS: Final = 64
"""Of a JPEG; Pillow copies all before it whenever it finds another."""
MAX_READS: Final = 1 << 16
"""Of a file among others, or of its header, by Pillow: three for each chunk of a PNG, one for each byte between a
JPEG's segments."""
SPARE_BYTES: Final = 1 << 20
"""That may be read of a file beyond twice its size: several parsers look at its beginning."""
HEAD: Final = 512
"""Bytes that are enough to tell what a file is."""
_BMP_COMPRESSION: Final = slice(30, 34)
_RUN_LENGTH: Final = (b"\1\0\0\0", b"\2\0\0\0")
_DIRECTORY_ENTRIES: Final = 4096
_ENTRY_VALUES: Final = 1 << 16
"""Pillow makes objects of a TIFF's strips before anybody sees its size: millions of them would take gigabytes."""
_TILE_PIXELS: Final = 1 << 24
"""libtiff decodes whole tiles, however small the image is."""


class PictureError(ValueError):
    """A picture that cannot be understood, or in more than one way; the message says why and what to do, for people."""


class ManyReadsError(PictureError):
    """A file of so many parts that reading them takes a parser written in Python long."""


@functools.cache
def decodable() -> tuple[str, ...]:
    """Those of FORMATS that the Pillow installed here decodes."""
    from PIL import features

    lacking = {
        "JPEG2000": "jpg_2000" not in features.get_supported_codecs(),
        "WEBP": "webp" not in features.get_supported_modules(),
        "AVIF": "avif" not in features.get_supported_modules(),
    }
    return tuple(name for name in FORMATS if not lacking.get(name))


def ignore_warnings() -> None:
    """Keeps what Pillow warns of, which callers choose by the tags of their files, out of this process' log."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


def open_picture(data: Data, more_reads: int = 0) -> ImageFile:
    """The file as a Pillow image of which nothing is decoded yet; decoding may read it `more_reads` times more.

    PictureError for a file of another format, one that is damaged at its head, and a TIFF that would take much memory
    before its size can be seen. Pillow's parsers raise further errors, of any type, for what is damaged behind that.
    """
    from PIL import Image, UnidentifiedImageError

    head = bytes(data[:HEAD])
    if why := foreign(head, decodable()):
        raise PictureError(why)
    kind = format_of(head)
    if kind == "TIFF" and (why := _tiff_refusal(data)):
        raise PictureError(why)
    try:
        file = _BoundedFile(data)
        picture = Image.open(file, formats=decodable())
    except UnidentifiedImageError as error:
        if kind:
            message = f"the {kind} file is damaged, or of a variant that is not read"
            raise PictureError(message) from error
        raise PictureError(f"the bytes are no image of the formats {', '.join(decodable())}") from error
    file.reads_left += more_reads
    return picture


def check_scans(data: Data) -> None:
    """PictureError for a JPEG of so many scans, each over the whole picture, that decoding them takes minutes.

    Also for one of so many EXIF segments that putting them together takes seconds.
    """
    if data[:3] != JPEG_MAGIC:
        return
    if (scans := _scans(data)) > MAX_SCANS:
        raise PictureError(f"the JPEG file has {scans} scans; allowed: {MAX_SCANS}")
    if (segments := bytes(data).count(b"Exif\0\0")) > MAX_EXIF_SEGMENTS:
        raise PictureError(f"the JPEG file has {segments} EXIF segments; allowed: {MAX_EXIF_SEGMENTS}")


class _BoundedFile(io.BytesIO):
    """A file that ManyReadsError is raised of once it was read too often: a parser written in Python walks through it.

    Chunks and segments may be millions; tags may all point to the same megabytes.
    """

    def __init__(self, data: Data) -> None:
        super().__init__(data)
        self.reads_left = MAX_READS
        self._bytes = 2 * len(data) + SPARE_BYTES

    def read(self, size: int | None = -1) -> bytes:
        found = super().read(size)
        self.reads_left -= 1
        self._bytes -= len(found)
        if self.reads_left < 0 or self._bytes < 0:
            raise ManyReadsError(
                "the image file has too many chunks, segments or tags; save it anew with an ordinary program"
            )
        return found


def _scans(data: Data) -> int:
    """How many a JPEG has; 0 for other files."""
    return bytes(data).count(b"\xff\xda") if data[:3] == JPEG_MAGIC else 0


def decoding_pixels(data: Data, width: int, height: int) -> int:
    """The pixels of a file, several times over where it takes so much longer to decode than others."""
    is_slow = format_of(bytes(data[:HEAD])) == "JPEG2000" or _is_run_length_bmp(data)
    return width * height * (SLOW_EFFORT if is_slow else max(1, _scans(data) // SCANS_A_PASS))


def is_apart(data: Data) -> bool:
    """True for a file that is decoded apart however small its header says that it is."""
    return format_of(bytes(data[:HEAD])) in APART or _is_run_length_bmp(data)


def _is_run_length_bmp(data: Data) -> bool:
    """True for a BMP that Pillow decodes in Python, byte by byte."""
    return data[:2] == b"BM" and data[_BMP_COMPRESSION] in _RUN_LENGTH


def format_of(head: bytes) -> str | None:
    """Which of FORMATS a file that begins with `head` has; None for any other file."""
    for magic, name in _OWN.items():
        if head.startswith(magic):
            return name if name != "WEBP" or head[8:12] == b"WEBP" else None
    return "AVIF" if _brands(head) & {b"avif", b"avis"} else None


def foreign(head: bytes, formats: tuple[str, ...] = FORMATS) -> str | None:
    """What a file is that has none of `formats`, and what to do; None for one that has, and for bytes of no known kind.

    `head` is its first HEAD bytes, or all that it has.
    """
    kind = format_of(head)
    if kind in formats:
        return None
    name, remedy = (f"a {kind} picture, which is not decoded here", _CONVERT) if kind else _describe(head)
    return f"{name} is no image of the formats {', '.join(formats)}; {remedy}" if name else None


def _describe(head: bytes) -> tuple[str, str]:
    """What a file is, and what to do with it; empty for bytes of no known kind."""
    if not head:
        return "an empty file", "a file that was read before is to be rewound by seek(0)"
    for offset, magic, name, remedy in _OTHERS:
        if head.startswith(magic, offset):
            return name, remedy
    if re.match(rb"P[1-7f]\s", head, re.IGNORECASE):
        return "a Netpbm picture (PPM)", _CONVERT
    if brands := _brands(head):
        return next(((name, remedy) for brand, name, remedy in _BRANDS if brand in brands), _VIDEO)
    return _describe_text(head)


def _describe_text(head: bytes) -> tuple[str, str]:
    """The same of a file of text."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # whose last character may be cut
    except UnicodeDecodeError:
        return "", ""
    if re.search(r"[\x00-\x08\x0e-\x1f]", text):
        return "", ""
    start = text.lstrip("\ufeff \t\r\n")
    for pattern, name, remedy in _TEXTS:
        if re.match(pattern, start, re.IGNORECASE | re.DOTALL):
            return name, remedy
    if is_base64_image(start):
        return "base64 text", "decode it: base64.b64decode(text)"
    return "text", "give a path as str or Path, and a file's content as bytes"


def is_base64_image(text: str) -> bool:
    """True for a text that begins as a file of one of FORMATS does in base64."""
    try:
        return len(text) >= 64 and format_of(base64.b64decode(text[:64], validate=True)) is not None
    except (binascii.Error, ValueError):
        return False


def _brands(head: bytes) -> set[bytes]:
    """What an ISO media file says it can be read as; empty for other files."""
    if head[4:8] != b"ftyp":
        return set()
    size = min(int.from_bytes(head[:4]), len(head))
    return {head[8:12], *(head[at : at + 4] for at in range(16, size, 4))}


def _tiff_refusal(data: Data) -> str | None:
    """Why a TIFF is not even opened; None where it may be.

    A directory that ends early is left to Pillow, which reads as far as this does.
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

_OWN: Final = {
    JPEG_MAGIC: "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"RIFF": "WEBP",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000",
    b"\xff\x4f\xff\x51": "JPEG2000",
}
_CONVERT: Final = "convert it to PNG or JPEG"
_RENDER: Final = "render what is meant of it to PNG"
_PIXELS: Final = "give its picture as an array (height, width, 3)"
_UNPACK: Final = "unpack it, and give a picture that is in it"
_VIDEO: Final = ("a video", "give one of its frames")
_OTHERS: Final = (
    (0, b"%PDF", "a PDF document", _RENDER),
    (0, b"%!PS", "PostScript (EPS)", _RENDER),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript (EPS)", _RENDER),
    (0, b"8BPS", "a Photoshop document (PSD)", "export it as PNG"),
    (0, b"gimp xcf", "a GIMP document (XCF)", "export it as PNG"),
    (0, b"\0\0\1\0", "an icon (ICO)", _CONVERT),
    (0, b"\0\0\2\0", "a cursor (CUR)", _CONVERT),
    (0, b"icns", "an icon (ICNS)", _CONVERT),
    (0, b"\xff\x0a", "a JPEG XL picture", _CONVERT),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture", _CONVERT),
    (0, b"II\xbc", "a JPEG XR picture", _CONVERT),
    (0, b"qoif", "a QOI picture", _CONVERT),
    (0, b"DDS ", "a DDS texture", _CONVERT),
    (0, b"AT&TFORM", "a DjVu document", _RENDER),
    (0, b"v/1\1", "an OpenEXR picture", "bring it to 8 bits"),
    (0, b"#?R", "a Radiance HDR picture", "bring it to 8 bits"),
    (0, b"SIMPLE  =", "a FITS file", _PIXELS),
    (344, b"n+1\0", "a NIfTI volume", _PIXELS),
    (128, b"DICM", "a DICOM file", "window its pixel array to 0…255, and give that"),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw file", "develop it to JPEG or PNG"),
    (0, b"IIU\0", "a camera's raw file", "develop it to JPEG or PNG"),
    (0, b"IIRO", "a camera's raw file", "develop it to JPEG or PNG"),
    (0, b"\x93NUMPY", "a NumPy array (.npy)", "send its pixels: the SDK and the command line do so with .npy files"),
    (0, b"\x89HDF", "an HDF5 file", _PIXELS),
    (0, b"PK\3\4", "a ZIP archive (also .npz, .docx, .keras)", _UNPACK),
    (0, b"PK\5\6", "an empty ZIP archive", _UNPACK),
    (0, b"\x1f\x8b", "a gzip file", _UNPACK),
    (0, b"BZh", "a bzip2 file", _UNPACK),
    (0, b"\xfd7zXZ", "an xz file", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file", _UNPACK),
    (0, b"7z\xbc\xaf", "a 7z archive", _UNPACK),
    (0, b"Rar!", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"\x80\2", "a pickle", _PIXELS),
    (0, b"\x80\3", "a pickle", _PIXELS),
    (0, b"\x80\4", "a pickle", _PIXELS),
    (0, b"\x80\5", "a pickle", _PIXELS),
    (8, b"AVI ", *_VIDEO),
    (0, b"\x1aE\xdf\xa3", *_VIDEO),
)
"""Offset and magic bytes, what a file with them is, and what to do with it."""
_BRANDS: Final = (
    *((brand, "a HEIC picture", _CONVERT) for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1")),
    (b"crx ", "a camera's raw file", "develop it to JPEG or PNG"),
)
_TEXTS: Final = (
    (r"data:", "a data URL", "decode it: base64.b64decode(url.partition(',')[2])"),
    (r"[a-z][a-z0-9+.-]+://\S+\s*$", "a URL", "give what is there, not its address"),
    (r"(<\?xml.*)?(<!--.*)?(<!doctype svg.*)?<svg", "an SVG drawing", _RENDER),
    (r"<!doctype html|<html", "a web page (HTML)", "look at what was downloaded: it is no picture"),
    (r"<\?xml", "XML", "give a picture"),
    (r"version https://git-lfs", "a Git LFS pointer", "fetch the file that it stands for: git lfs pull"),
    (r"[{\[]", "JSON", "decode what is in it, and give that"),
)
"""Patterns of what a text begins with, what it is, and what to do with it."""
