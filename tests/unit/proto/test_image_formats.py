"""Image files of the supported formats are opened; others are refused by the name of their format."""

from __future__ import annotations

import base64
import io
import resource
import time
import warnings

import hostile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from convlens.v1 import image_formats
from convlens.v1.file_signatures import FORMATS, HEAD_BYTES, explain_unsupported, format_of
from convlens.v1.image_formats import PictureError, decodable_formats, open_picture

RGB = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))


def encode(fmt, **options):
    file = io.BytesIO()
    RGB.save(file, fmt, **options)
    return file.getvalue()


FILES = {fmt: encode(fmt) for fmt in FORMATS} | {"JPEG2000 codestream": encode("JPEG2000", no_jp2=True)}
MEDIA = b"\0\0\0\x18ftyp%b\0\0\0\0isom%b"
UNSUPPORTED = {
    "a HEIC picture": [MEDIA % (b"heic", b"mif1"), MEDIA % (b"mif1", b"heic"), MEDIA % (b"msf1", b"hevc")],
    "a camera's raw file": [MEDIA % (b"crx ", b"isom"), b"FUJIFILMCCD-RAW 0201", b"IIU\0\x18\0\0\0"],
    "a video": [MEDIA % (b"qt  ", b"qt  "), MEDIA % (b"mp42", b"mp41"), b"RIFF\0\0\0\0AVI LIST", b"\x1aE\xdf\xa3"],
    "a PDF document": [b"%PDF-1.7\n%\xe2\xe3"],
    "an SVG drawing": [
        b"<svg xmlns='http://www.w3.org/2000/svg'>",
        b"\xef\xbb\xbf <?xml version='1.0'?>\n<!-- drawn -->\n<!DOCTYPE svg PUBLIC><svg>",
    ],
    "a web page (HTML)": [b"<!doctype HTML>\n<html>", b"\n<html lang='en'>"],
    "XML": [b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"],
    "JSON": [b'{"detail": "not found"}', b"[1, 2]"],
    "text": ["Straße".encode(), "ä".encode() * 300, b"a,b\n1,2\n", b"dog.png"],
    "a Git LFS pointer": [b"version https://git-lfs.github.com/spec/v1\noid sha256:0"],
    "a data URL": [b"data:image/png;base64,iVBORw0KGgo="],
    "a URL": [b"https://host/dog.jpg\n", b"s3://bucket/key"],
    "base64 text": [base64.b64encode(data) for data in FILES.values()],
    "a JPEG XL picture": [b"\xff\x0a\x00", b"\0\0\0\x0cJXL \r\n\x87\n"],
    "a Photoshop document (PSD)": [b"8BPS\0\1"],
    "an icon (ICO)": [b"\0\0\1\0\1\0"],
    "PostScript (EPS)": [b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\xc5\xd0\xd3\xc6\x1e\0"],
    "a Netpbm picture (PPM)": [b"P6\n8 8\n255\n\xff\xfe\0", b"P2 8 8"],
    "a DICOM file": [bytes(128) + b"DICM\2\0"],
    "a NIfTI volume": [b"\x5c\1\0\0" + bytes(340) + b"n+1\0"],
    "an HDF5 file": [b"\x89HDF\r\n\x1a\n"],
    "a NumPy array (.npy)": [b"\x93NUMPY\1\0"],
    "a ZIP archive (also .npz, .docx, .keras)": [b"PK\3\4\x14\0"],
    "a gzip file": [b"\x1f\x8b\x08"],
    "a tar archive": [b"dog.png" + bytes(250) + b"ustar\x0000"],
    "a pickle": [b"\x80\4\x95"],
    "an empty file": [b""],
}


@pytest.mark.parametrize(("name", "data"), [(name, data) for name, several in UNSUPPORTED.items() for data in several])
def test_a_file_of_another_format_is_refused_by_name_and_with_a_remedy(name, data):
    message = explain_unsupported(data[:HEAD_BYTES])
    assert message.startswith(f"{name} is no image of the formats JPEG, PNG, WEBP, GIF, BMP, TIFF, JPEG2000, AVIF; ")
    assert len(message.partition("; ")[2]) > 5
    with pytest.raises(PictureError, match="is no image of the formats"):
        open_picture(data)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_each_format_is_recognised_and_opened(name):
    data = FILES[name]
    assert format_of(data[:512]) == name.partition(" ")[0]
    assert explain_unsupported(data[:512]) is None
    with open_picture(memoryview(data)) as image:
        assert (image.format, image.size) == (name.partition(" ")[0], (8, 8))


def test_unrecognised_bytes_are_left_to_the_decoder():
    for data in (b"\x01\x02\x03" * 99, b"\xfe\xff" * 300, b"RIFF\0\0\0\0WAVE", b"\0" * 600):
        assert explain_unsupported(data[:512]) is None
        with pytest.raises(PictureError, match="the bytes are no image of the formats JPEG"):
            open_picture(data)


@pytest.mark.parametrize("name", ["PNG", "TIFF", "AVIF"])
def test_a_file_damaged_at_its_beginning_is_refused_as_damaged(name):
    with pytest.raises(PictureError, match=f"the {name} file is damaged, or of a variant that is not read"):
        open_picture(FILES[name][:24] + bytes(200))


@pytest.mark.parametrize(("name", "lacking"), [("AVIF", "avif"), ("WEBP", "webp"), ("JPEG2000", "jpg_2000")])
def test_a_format_that_pillow_lacks_is_refused_by_name(monkeypatch, name, lacking):
    for function in ("get_supported_modules", "get_supported_codecs"):
        names = [name for name in getattr(features, function)() if name != lacking]
        monkeypatch.setattr(features, function, lambda names=names: names)
    decodable_formats.cache_clear()
    try:
        assert set(FORMATS) - set(decodable_formats()) == {name}
        with pytest.raises(PictureError, match=f"a {name} picture, which is not decoded here"):
            open_picture(FILES[name])
    finally:
        decodable_formats.cache_clear()


MANY = 70_000
BOMBS = {
    "70000 values": hostile.tiff((273, 4, MANY, 200), tail=bytes(4 * MANY + 100)),
    "tiles of 60000×60000": hostile.tiff((322, 4, 1, 60_000), (323, 4, 1, 60_000), (324, 4, 1, 200)),
    "tiles of 16777217×1 ": hostile.tiff((322, 5, 1, 16), (324, 4, 1, 200)),
    "70000 values, tag 258": hostile.tiff((258, 3, MANY, 200), tail=bytes(2 * MANY + 100)),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_tiff_that_would_need_much_memory_is_not_opened(bomb):
    with pytest.raises(PictureError, match=r"allowed: (65536|16777216)"):
        open_picture(bomb)


def test_a_tiff_of_ten_million_strips_takes_neither_time_nor_memory():
    bomb = hostile.tiff((273, 4, 10_000_000, 200), tail=bytes(40_000_100))
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(PictureError):
        open_picture(bomb)
    assert time.monotonic() - began < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB


def test_a_directory_of_too_many_entries_is_refused_in_a_tiff_and_a_bigtiff():
    big = b"II+\0\x08\0\0\0" + (16).to_bytes(8, "little") + (1 << 40).to_bytes(8, "little") + bytes(99)
    for file in (b"II*\0\x08\0\0\0\xff\xff" + bytes(99), b"MM\0*\0\0\0\x08\xff\xff" + bytes(99), big):
        with pytest.raises(PictureError, match=r"has \d+ tags; allowed: 4096"):
            open_picture(file)


@given(st.sampled_from(sorted(FILES)), st.data())
@settings(max_examples=150, deadline=None)
def test_no_file_is_opened_as_another_format_than_its_first_bytes_say(name, draw):
    data = bytearray(FILES[name])
    for at in draw.draw(st.lists(st.integers(0, min(len(data), 300) - 1), min_size=1, max_size=8)):
        data[at] = draw.draw(st.integers(0, 255))
    detected = format_of(bytes(data[:512]))
    try:
        with open_picture(bytes(data)) as image:
            assert image.format in {detected, "MPO"}
    except Exception:  # noqa: BLE001 - callers treat any error as damage
        return


def test_pillows_warnings_are_not_logged():
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x09\0\0\0\xff\xff\0\0"
    jpeg = encode("JPEG", exif=exif)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with open_picture(jpeg) as image:
            image.getexif()
        assert caught
        caught.clear()
        image_formats.ignore_warnings()
        with open_picture(jpeg) as image:
            image.getexif()
        warnings.warn("another's", stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["another's"]
