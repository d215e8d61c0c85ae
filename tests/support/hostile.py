"""Hostile values for every field of any message, derived from its descriptor, and hostile image files."""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st
from PIL import Image

from convlens.v1.file_signatures import FORMATS

F = FieldDescriptor
MANY = 200
_INTS = (0, 1, -1, 2, 3, 7, 14, 224, 1000, 1001, 65_535, 2**31 - 1, -(2**31), 2**32 + 3, 2**62, 2**63 - 1, -(2**63))
_FLOATS = (0.0, -0.0, 0.15, 1.0, -1.0, 255.0, 255.5, 1e-45, 3.4e38, math.inf, -math.inf, math.nan)
_TEXTS = (
    "", "null", "saliency", "block5_conv3", "block1_conv1", "fc1", "predictions", "flatten", " null", "NULL", "nul\0l",
    "../../etc/passwd", "{0.__class__}", "%s%n", "$(id)", "\r\nSET x y", "💥" * 20, "\u202e", "a" * 100, "0", "-1",
    "9" * 20, "9" * 100, "1e400", "nan", "²", "0" * 32, "f" * 32, "F" * 32, "00000000-0000-0000-0000-000000000000",
    "{12345678-1234-5678-1234-567812345678}", "urn:uuid:12345678123456781234567812345678", "convlens:job:x",
)  # fmt: skip


def _file(kind: str, side: int = 8, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), (200, 10, 30)).save(out, kind, **options)
    return out.getvalue()


def png(width: int, height: int, data: bytes) -> bytes:
    """A PNG whose header gives this size and whose compressed pixels are `data`."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tiff(*entries: tuple[int, int, int, int], tail: bytes = bytes(100), bits: int = 8) -> bytes:
    """A grey TIFF of 8×8 pixels with further entries (tag, type, count, value); deflated if it has tiles."""
    directory = {256: (4, 1, 8), 257: (4, 1, 8), 258: (3, 1, bits), 259: (3, 1, 1), 262: (3, 1, 1), 277: (3, 1, 1)}
    directory |= {tag: tuple(entry) for tag, *entry in entries}
    if 322 in directory:
        directory[259] = (3, 1, 8)
    body = b"".join(struct.pack("<HHII", tag, *directory[tag]) for tag in sorted(directory))
    return b"II*\0" + struct.pack("<IH", 8, len(directory)) + body + bytes(4) + tail


def files() -> dict[str, bytes]:
    """Valid and invalid image files, by description."""
    good = {kind: _file(kind) for kind in FORMATS}
    frames = [Image.new("P", (8, 8), colour) for colour in range(3)]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    bomb = zlib.compress(bytes(1 << 24), 9)
    bad = {
        "empty": b"",
        "text": b"no image at all",
        "huge by its header": png(2**31 - 1, 2**31 - 1, b""),
        "a bomb": png(60_000, 60_000, bomb),
        "pixels that do not inflate": png(8, 8, b"\0" * 50),
        "more pixels than it says": png(1, 1, bomb),
        "no rows": png(0, 8, zlib.compress(b"")),
        "a GIF that is a ZIP": good["GIF"] + b"PK\x03\x04" + bytes(30),
        "a JPEG that is a page": good["JPEG"][:20] + b"<script>" + good["JPEG"][20:],
        "PPM": _file("PPM"),
        "a TIFF of millions of strips": tiff((273, 4, 1_000_000, 122), tail=bytes(4_000_000)),
        "a TIFF of one huge tile": tiff((322, 4, 1, 60_000), (323, 4, 1, 60_000), (324, 4, 1, 122), (325, 4, 1, 50)),
        "a TIFF without an end": tiff((278, 4, 1, 0))[:60],
        "animated": out.getvalue(),
    }
    cut = {f"half a {kind}": data[: len(data) // 2] for kind, data in good.items()}
    stubs = {f"a {kind}'s beginning": data[:12] for kind, data in good.items()}
    return good | bad | cut | stubs


_BYTES = (*files().values(), bytes(192), bytes(768), struct.pack("<192f", *[math.nan] * 192), b"\xff" * 768)


def bounds(field: F) -> tuple[int, int]:
    """The minimum and the maximum of an integer field."""
    signed = field.cpp_type in {F.CPPTYPE_INT32, F.CPPTYPE_INT64}
    bits = 32 if field.cpp_type in {F.CPPTYPE_INT32, F.CPPTYPE_UINT32} else 64
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def scalars(field: F) -> tuple[Any, ...]:
    """Values for one element of a field that is not a message."""
    match field.cpp_type:
        case F.CPPTYPE_STRING if field.type == F.TYPE_BYTES:
            return _BYTES
        case F.CPPTYPE_STRING:
            return _TEXTS
        case F.CPPTYPE_FLOAT | F.CPPTYPE_DOUBLE:
            return _FLOATS
        case F.CPPTYPE_BOOL:
            return (False, True)
        case F.CPPTYPE_ENUM:
            return (*field.enum_type.values_by_number, 99, -1, 2**31 - 1)
        case _:
            least, most = bounds(field)
            return tuple(value for value in _INTS if least <= value <= most)


def put(message: Message, field: F, value: Any) -> None:
    """Set a field of any kind; a list replaces a repeated field."""
    if field.is_repeated:
        message.ClearField(field.name)
        getattr(message, field.name).extend(value)
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(value)
        getattr(message, field.name).SetInParent()
    else:
        setattr(message, field.name, value)


def spoilt(good: Message) -> Iterator[tuple[str, Message]]:
    """Yield the path of each field, at any depth, and a copy of `good` with a hostile value in that field."""
    for field in good.DESCRIPTOR.fields:
        for value in _replacements(good, field):
            other = type(good)()
            other.CopyFrom(good)
            put(other, field, value)
            yield field.name, other
        if field.message_type is not None:
            yield from _deeper(good, field)


def _replacements(good: Message, field: F) -> list[Any]:
    """Hostile values of a whole field, repeated or not."""
    empty = GetMessageClass(field.message_type)() if field.message_type is not None else None
    singles = [empty] if field.message_type is not None else list(scalars(field))
    if not field.is_repeated:
        return singles
    now = list(getattr(good, field.name))
    doubled = [*now, *now[:1]]
    extended = [[*now, value] for value in singles]
    return [[], doubled, (now or singles) * MANY, *([value] for value in singles), *extended]


def _deeper(good: Message, field: F) -> Iterator[tuple[str, Message]]:
    """Yield the hostile copies of a message field; of a repeated field, only those of the last element."""
    elements = list(getattr(good, field.name)) if field.is_repeated else [getattr(good, field.name)]
    if field.is_repeated and not elements:
        elements = [GetMessageClass(field.message_type)()]
    for path, inner in spoilt(elements[-1]):
        other = type(good)()
        other.CopyFrom(good)
        put(other, field, [*elements[:-1], inner] if field.is_repeated else inner)
        yield f"{field.name}.{path}", other


def messages(kind: Descriptor, depth: int = 6) -> st.SearchStrategy[Message]:
    """Messages of a type with any fields set to hostile or random values."""
    fields = {field.name: field for field in kind.fields if depth or field.message_type is None}
    values = {
        name: st.none() | st.deferred(lambda field=field: _values(field, depth)) for name, field in fields.items()
    }

    def build(contents: dict[str, Any]) -> Message:
        message = GetMessageClass(kind)()
        for name, value in contents.items():
            if value is not None:
                put(message, fields[name], value)
        return message

    return st.fixed_dictionaries(values).map(build)


def _values(field: F, depth: int) -> st.SearchStrategy[Any]:
    """Values of a field: hostile ones, and any others of its type."""
    if field.message_type is not None:
        single = messages(field.message_type, depth - 1)
    else:
        single = st.sampled_from(scalars(field)) | _any(field)
    return st.lists(single, max_size=3) if field.is_repeated else single


def _any(field: F) -> st.SearchStrategy[Any]:
    match field.cpp_type:
        case F.CPPTYPE_STRING if field.type == F.TYPE_BYTES:
            return st.binary(max_size=200)
        case F.CPPTYPE_STRING:
            return st.text(max_size=40)
        case F.CPPTYPE_FLOAT | F.CPPTYPE_DOUBLE:
            return st.floats(width=32)
        case F.CPPTYPE_BOOL:
            return st.booleans()
        case F.CPPTYPE_ENUM:
            return st.integers(-(2**31), 2**31 - 1)
        case _:
            return st.integers(*bounds(field))
