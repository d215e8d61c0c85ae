"""Which format a file has, by its first bytes: one of those that are read, or which other one and what to do then.

One table for client, server and worker.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from typing import Final

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF")
"""The formats that are read, by Pillow's names. Its parsers of others are never called."""
JPEG_MAGIC: Final = b"\xff\xd8\xff"
HEAD_BYTES: Final = 512
"""First bytes of a file, enough to recognise its format."""

_SIGNATURES: Final = {
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
_TO_ARRAY: Final = "give its picture as an array (height, width, 3)"
_UNPACK: Final = "unpack it, and give a picture that is in it"
_VIDEO: Final = ("a video", "give one of its frames")
_OTHER_SIGNATURES: Final = (
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
    (0, b"SIMPLE  =", "a FITS file", _TO_ARRAY),
    (344, b"n+1\0", "a NIfTI volume", _TO_ARRAY),
    (128, b"DICM", "a DICOM file", "window its pixel array to 0…255, and give that"),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw file", "develop it to JPEG or PNG"),
    (0, b"IIU\0", "a camera's raw file", "develop it to JPEG or PNG"),
    (0, b"IIRO", "a camera's raw file", "develop it to JPEG or PNG"),
    (0, b"\x93NUMPY", "a NumPy array (.npy)", "send its pixels: the SDK and the command line do so with .npy files"),
    (0, b"\x89HDF", "an HDF5 file", _TO_ARRAY),
    (0, b"PK\3\4", "a ZIP archive (also .npz, .docx, .keras)", _UNPACK),
    (0, b"PK\5\6", "an empty ZIP archive", _UNPACK),
    (0, b"\x1f\x8b", "a gzip file", _UNPACK),
    (0, b"BZh", "a bzip2 file", _UNPACK),
    (0, b"\xfd7zXZ", "an xz file", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file", _UNPACK),
    (0, b"7z\xbc\xaf", "a 7z archive", _UNPACK),
    (0, b"Rar!", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"\x80\2", "a pickle", _TO_ARRAY),
    (0, b"\x80\3", "a pickle", _TO_ARRAY),
    (0, b"\x80\4", "a pickle", _TO_ARRAY),
    (0, b"\x80\5", "a pickle", _TO_ARRAY),
    (8, b"AVI ", *_VIDEO),
    (0, b"\x1aE\xdf\xa3", *_VIDEO),
)
"""Offset and magic bytes; what a file with them is, and what to do with it."""
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
"""What a text begins with; what it is, and what to do with it."""


def format_of(head: bytes) -> str | None:
    """Return which of FORMATS a file has that begins with `head`; None for another format."""
    for magic, name in _SIGNATURES.items():
        if head.startswith(magic):
            return name if name != "WEBP" or head[8:12] == b"WEBP" else None
    return "AVIF" if _brands(head) & {b"avif", b"avis"} else None


def explain_unsupported(head: bytes, formats: tuple[str, ...] = FORMATS) -> str | None:
    """Say what a file is that has none of `formats`, and what to do; None where it has one, or is not recognised.

    `head` is its first HEAD_BYTES bytes, or all that it has.
    """
    kind = format_of(head)
    if kind in formats:
        return None
    name, remedy = (f"a {kind} picture, which is not decoded here", _CONVERT) if kind else _describe(head)
    return f"{name} is no image of the formats {', '.join(formats)}; {remedy}" if name else None


def _describe(head: bytes) -> tuple[str, str]:
    """Return what a file is and what to do with it; empty strings where it is not recognised."""
    if not head:
        return "an empty file", "a file that was read before is to be rewound by seek(0)"
    for offset, magic, name, remedy in _OTHER_SIGNATURES:
        if head.startswith(magic, offset):
            return name, remedy
    if re.match(rb"P[1-7f]\s", head, re.IGNORECASE):
        return "a Netpbm picture (PPM)", _CONVERT
    if brands := _brands(head):
        return next(((name, remedy) for brand, name, remedy in _BRANDS if brand in brands), _VIDEO)
    return _describe_text(head)


def _describe_text(head: bytes) -> tuple[str, str]:
    """As _describe(), of a text file."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
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
    """Return whether a text begins like a file of one of FORMATS in base64."""
    try:
        return len(text) >= 64 and format_of(base64.b64decode(text[:64], validate=True)) is not None
    except (binascii.Error, ValueError):
        return False


def _brands(head: bytes) -> set[bytes]:
    """Return the brands of an ISO media file, which are its formats; none for other files."""
    if head[4:8] != b"ftyp":
        return set()
    size = min(int.from_bytes(head[:4]), len(head))
    return {head[8:12], *(head[at : at + 4] for at in range(16, size, 4))}
