"""docs/images.md: each accepted input gives the pixels that the page states, and each refused one its error.

From the caller's value through the SDK's request to the pixels that a worker's model gets.
"""

from __future__ import annotations

import base64
import io
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from parsed_images import parse_images
from PIL import Image

from convlens.client import InvalidArgument
from convlens.client.images import one_by_one, pack
from convlens.worker.images import ImageDecoder, UnreadableAtError

PAGE = (Path(__file__).parents[3] / "docs" / "images.md").read_text()
RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 10, 14
PHOTO = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
PHOTO[0, 0] = 255
RGB = Image.fromarray(PHOTO)
GREY = np.asarray(RGB.convert("L"))
GREYS = np.dstack([GREY] * 3)
DEEP = RNG.integers(0, 1 << 16, (HEIGHT, WIDTH), np.uint16)
BATCH = np.stack([PHOTO, PHOTO[::-1]])
UNIT = PHOTO.astype(np.float32) / 255
LIMIT = 10_000


def encode(image, fmt="PNG", **options):
    file = io.BytesIO()
    image.save(file, fmt, **options)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


FILE = encode(RGB)


class Tensor:
    """A library's tensor that exports DLPack, or raises `error` instead."""

    def __init__(self, array, error=None):
        self.array, self.error = array, error

    def __dlpack__(self, **options):
        if self.error:
            raise self.error
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def detach(self):
        return self


class Upload:
    """A web framework's upload, asynchronous."""

    filename = "dog.png"

    async def read(self):
        return FILE


class SecondFrame:
    """An animation at its second frame."""

    def __new__(cls):
        image = Image.open(io.BytesIO(ANIMATED))
        image.seek(1)
        return image


ANIMATED = encode(RGB, "WEBP", lossless=True, save_all=True, append_images=[Image.fromarray(PHOTO[::-1])])


@dataclass(eq=False)
class Case:
    images: object
    """What the caller passes, or a function that makes it where it can be used once only or needs the folder."""
    pixels: object = None
    """What the model gets."""
    match: str = ""
    """What the refusal says."""
    value_range: tuple | None = None
    error: type = InvalidArgument
    field: str = "images"
    atol: float = 1e-4
    is_map: bool = False

    def read(self):
        images = self.images() if callable(self.images) else self.images
        images = one_by_one(images, self.value_range) if self.is_map else images
        packed = pack(images, self.value_range)
        return ImageDecoder(LIMIT).read(*parse_images(packed), HEIGHT, WIDTH)


def opened(data, at=0, mode="rb"):
    file = io.StringIO(data) if mode == "r" else io.BytesIO(data)
    file.seek(at)
    return file


def closed(data):
    file = io.BytesIO(data)
    file.close()
    return file


def transparent(image, colour):
    image = image.copy()
    image.info["transparency"] = colour
    return image


@pytest.fixture(scope="module", autouse=True)
def _folder(tmp_path_factory):
    """Change to a folder with the files that the rows name."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "photos").mkdir()
    for name, data in {"dog.png": FILE, "nothing.png": b"", "float.npy": npy(UNIT), "batch.npy": npy(BATCH)}.items():
        (folder / name).write_bytes(data)
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        archive.writestr("dog.png", FILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


def white_under(alpha):
    share = np.asarray(alpha, float)[..., None] / 255
    return PHOTO * share + 255 * (1 - share)


ALPHA = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
RGBA = Image.fromarray(np.dstack([PHOTO, ALPHA]))
PALETTE = RGB.quantize(16)
ROTATED = Image.Exif()
ROTATED[0x0112] = 3

ACCEPTED = {
    "a path, `str` or `Path`": [Case("dog.png", PHOTO), Case(Path("dog.png"), PHOTO)],
    "a file's content: `bytes`, `bytearray`, `memoryview`": [
        *(Case(kind(FILE), PHOTO) for kind in (bytes, bytearray, memoryview)),
        Case(memoryview(bytes(b for byte in FILE for b in (byte, 0)))[::2], PHOTO),
        Case(memoryview(PHOTO), PHOTO),
    ],
    "an open file or an upload: anything with `.read()`": [
        Case(opened(FILE), PHOTO),
        Case(opened(b"head" + FILE, 4), PHOTO),
        Case([opened(FILE), opened(FILE)], [PHOTO] * 2),
    ],
    "a file of a package or of an archive: anything with `.read_bytes()`": [
        Case(lambda: zipfile.Path("photos.zip", "dog.png"), PHOTO)
    ],
    "a `.npy` file": [
        Case("float.npy", PHOTO, value_range=(0, 1)),
        Case("batch.npy", BATCH),
        Case(npy(GREY), GREYS),
        Case(opened(npy(PHOTO)), PHOTO),
    ],
    "a Pillow image": [Case(RGB, PHOTO), Case([RGB, RGB.convert("L")], [PHOTO, GREYS]), Case(SecondFrame, PHOTO[::-1])],
    "an array `(H,W,3)`": [
        Case(PHOTO, PHOTO),
        Case(PHOTO[::-1], PHOTO[::-1]),
        Case(np.full((3, 3, 3), 7, np.uint8), np.full((HEIGHT, WIDTH, 3), 7)),
        Case(np.full((3, 9, 3), 7, np.uint8), np.full((HEIGHT, WIDTH, 3), 7)),
    ],
    "an array `(H,W)` or `(H,W,1)`": [
        Case(GREY, GREYS),
        Case(GREY[..., None], GREYS),
        Case(np.float32(GREY), GREYS),
        Case(np.matrix(GREY), GREYS),
    ],
    "an array `(N,H,W,3)` or `(N,H,W,1)`": [
        Case(BATCH, BATCH),
        Case(BATCH, BATCH, is_map=True),
        Case(np.stack([UNIT * 255, UNIT]), [PHOTO, UNIT]),
        Case(np.stack([UNIT * 255, UNIT]), [PHOTO, UNIT], is_map=True),
        Case(GREY[None, ..., None], GREYS),
    ],
    "a tensor of TensorFlow, JAX and others, by `__array__`": [
        Case(lambda: tf.constant(PHOTO), PHOTO),
        Case(lambda: tf.constant(BATCH), BATCH),
        Case(lambda: tf.Variable(UNIT), PHOTO, value_range=(0, 1)),
        Case(lambda: tf.cast(tf.constant(PHOTO), tf.bfloat16), np.float32(tf.cast(PHOTO, tf.bfloat16))),
    ],
    "a tensor of PyTorch and others on this machine's memory, by DLPack": [
        Case(Tensor(PHOTO), PHOTO),
        Case(Tensor(BATCH), BATCH),
        Case([Tensor(PHOTO), Tensor(GREY)], [PHOTO, GREYS]),
    ],
    "a list, a tuple, an iterator, an array of paths": [
        Case(["dog.png", FILE, RGB, PHOTO], [PHOTO] * 4),
        Case((PHOTO, PHOTO), [PHOTO] * 2),
        Case(lambda: (image for image in BATCH), BATCH),
        Case(lambda: Path().glob("dog.*"), PHOTO),
        Case(np.array(["dog.png", "dog.png"]), [PHOTO] * 2),
        Case(np.array([Path("dog.png"), FILE], object), [PHOTO] * 2, is_map=True),
    ],
    "integers of any width whose values are in 0…255": [
        *(Case(PHOTO.astype(kind), PHOTO) for kind in ("int16", "uint16", "int32", "int64", "uint64", ">i4")),
        Case((PHOTO // 2).astype(np.int8), PHOTO // 2),
        Case(np.zeros((HEIGHT, WIDTH, 3), np.int64), np.zeros((HEIGHT, WIDTH, 3))),
        Case(PHOTO, PHOTO, value_range=(0, 255)),
    ],
    "floats of any precision in 0…255": [
        *(Case(PHOTO.astype(kind), PHOTO) for kind in ("float16", "float32", "float64", "longdouble", ">f4", ">f8")),
        Case(PHOTO / 2, np.float32(PHOTO / 2)),
    ],
    "floats in 0…1 with `value_range=(0, 1)`": [
        Case(UNIT, PHOTO, value_range=(0, 1)),
        Case(PHOTO / 255.0, PHOTO, value_range=[0.0, 1.0]),
        Case(BATCH / 255.0, BATCH, value_range=(0, 1)),
        Case([UNIT, UNIT / 2], [PHOTO, np.float32(PHOTO) / 2], value_range=(0, 1)),
        Case(GREY / 255.0, GREYS, value_range=np.array([0, 1])),
    ],
    "floats in −1…1 with `value_range=(-1, 1)`": [Case(UNIT * 2 - 1, PHOTO, value_range=(-1, 1))],
    "floats in 0…255, however dark, with `value_range=(0, 255)`": [
        Case(UNIT, UNIT, value_range=(0, 255)),
        Case(np.zeros((HEIGHT, WIDTH, 3)), np.zeros((HEIGHT, WIDTH, 3)), value_range=(0, 255)),
    ],
    "one of the formats JPEG, PNG, WebP, GIF, BMP, TIFF, JPEG 2000, AVIF": [
        *(Case(encode(RGB, kind), PHOTO) for kind in ("PNG", "BMP", "TIFF", "JPEG2000")),
        Case(encode(RGB, "WEBP", lossless=True), PHOTO),
        Case(encode(PALETTE, "GIF"), np.asarray(PALETTE.convert("RGB"))),
        *(Case(data, np.asarray(Image.open(io.BytesIO(data)))) for data in (encode(RGB, "JPEG"), encode(RGB, "AVIF"))),
    ],
    "several frames or pages": [
        Case(ANIMATED, PHOTO),
        Case(encode(RGB, "TIFF", save_all=True, append_images=[RGB.rotate(180)]), PHOTO),
    ],
    "an EXIF orientation": [Case(encode(RGB, kind, exif=ROTATED), PHOTO[::-1, ::-1]) for kind in ("PNG", "TIFF")]
    + [Case(Image.open(io.BytesIO(encode(RGB, exif=ROTATED))), PHOTO[::-1, ::-1])],
    "16 bits a sample": [
        Case(make(encode(Image.fromarray(DEEP), kind)), np.dstack([DEEP >> 8] * 3))
        for kind in ("PNG", "TIFF", "JPEG2000")
        for make in (bytes, lambda data: Image.open(io.BytesIO(data)))
    ]
    + [Case(Image.fromarray(DEEP.astype(">u2")), np.dstack([DEEP >> 8] * 3))],
    "transparency of any kind": [
        Case(RGBA, white_under(ALPHA), atol=1.01),
        Case(encode(RGBA), white_under(ALPHA), atol=1.01),
        Case(encode(RGBA, "WEBP", lossless=True, exact=True), white_under(ALPHA), atol=1.01),
        Case(
            encode(RGB, transparency=tuple(map(int, PHOTO[3, 3]))),
            np.where((PHOTO[3, 3] == PHOTO).all(-1, keepdims=True), 255, PHOTO),
        ),
        Case(
            encode(Image.fromarray(DEEP), transparency=int(DEEP[2, 2])),
            np.where(np.dstack([DEEP] * 3) == DEEP[2, 2], 255, np.dstack([DEEP >> 8] * 3)),
        ),
    ],
    "a palette, black and white, CMYK, YCbCr, HSV, LAB": [
        *(
            Case(image, np.asarray(image.convert("RGB")))
            for image in map(RGB.convert, ("P", "1", "CMYK", "YCbCr", "HSV", "LAB"))
        ),
        Case(encode(PALETTE), np.asarray(PALETTE.convert("RGB"))),
        Case(encode(RGB.convert("1")), np.asarray(RGB.convert("1").convert("RGB"))),
    ],
    "grey": [Case(encode(Image.fromarray(GREY)), GREYS), Case(Image.fromarray(GREY), GREYS)],
}

MULTIPLY = r"nearly black in 0…255: multiply them by 255, or say value_range=\(0, 1\)"
FIRST = r"channels come first; give np.transpose\(image, \(1, 2, 0\)\), of PyTorch image.permute\(1, 2, 0\)"
ALWAYS = "is always in 0…255: leave value_range out"
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)

REFUSED = {
    "floats of which none exceeds 1 (or overshoots it by less than 1), such as `photo / 255`": [
        Case(UNIT, match=MULTIPLY),
        Case(PHOTO / 255, match=MULTIPLY),
        Case(UNIT * 1.02, match="exceeds 1.02"),
        Case(np.zeros((HEIGHT, WIDTH, 3), np.float16), match="as dark as that, say value_range=.0, 255."),
        Case([PHOTO, UNIT], match=rf"images\[1\]: .*{MULTIPLY}"),
        Case(BATCH / 255, match=MULTIPLY),
        Case([UNIT, PHOTO], match=MULTIPLY, is_map=True),
        Case(BATCH / 255, match=MULTIPLY, is_map=True),
        Case("float.npy", match=MULTIPLY),
        Case(lambda: tf.constant(UNIT), match=MULTIPLY),
    ],
    "floats below 0": [
        Case(UNIT * 2 - 1, match=r"found -1…1; say value_range=\(-1, 1\)"),
        Case(UNIT * 255 - 120, match="found -120…135; give the photo as it is, since the worker preprocesses it"),
    ],
    "floats above 255, or outside of the `value_range` that is stated, NaN, infinity": [
        Case(UNIT * 65535, match="within 0…255, found .*…65535; scale them"),
        Case(UNIT * 255, match="within 0…1, found .*…255; clip them, or state another", value_range=(0, 1)),
        Case(UNIT * 1.001, match="within 0…1, found .*…1.001; clip them", value_range=(0, 1)),
        Case(UNIT * 2 - 1, match="within 0…1, found -1…1", value_range=(0, 1)),
        Case(UNIT * 300 - 20, match="within 0…255, found -20…280", value_range=(0, 255)),
        *(Case(np.where(UNIT == 1, bad, PHOTO / 2), match="must be finite") for bad in (np.nan, np.inf, 1e300)),
        Case(np.where(UNIT == 1, np.nan, UNIT), match="must be finite", value_range=(0, 1)),
    ],
    "a `value_range` of a file, a Pillow image or integers": [
        Case(image, match=ALWAYS, value_range=(0, 1), field="value_range")
        for image in ("dog.png", FILE, opened(FILE), PHOTO, RGB, BATCH)
    ],
    "another `value_range` than `(0, 255)`, `(0, 1)`, `(-1, 1)`": [
        Case(UNIT, match=r"allowed: \(0, 255\), \(0, 1\), \(-1, 1\)", value_range=value_range, field="value_range")
        for value_range in ((0, 2), (1, 0), (0,), 1, "01", (0, 1, 2), ([], {}))
    ],
    "integers outside of 0…255": [
        Case(DEEP, match=r"keep the upper 8 bits: \(image >> 8\)"),
        Case(PHOTO.astype(int) - 1, match="values -1…254, colours are 0…255"),
        Case(PHOTO.astype(np.int32) + 256, match="values 2..…511"),
    ],
    "booleans, complex numbers, objects, masked values": [
        Case(PHOTO > 99, match=r"image.astype\('uint8'\) \* 255"),
        Case(PHOTO * 1j, match="magnitude"),
        Case(PHOTO.astype(object), match="no numbers"),
        Case(np.zeros((9, 9), "u1,u1"), match="no numbers"),
        Case(np.full((9, 9), "a"), match="no numbers"),
        Case(np.ma.masked_less(PHOTO, 9), match=r"filled\(0\)"),
    ],
    "channels first: `(3,H,W)`, `(1,H,W)`, `(N,3,H,W)`": [
        Case(PHOTO.transpose(2, 0, 1), match=FIRST),
        Case(GREY[None], match=FIRST),
        Case(BATCH.transpose(0, 3, 1, 2), match=r"np.transpose\(images, \(0, 2, 3, 1\)\)"),
        Case(Tensor(np.ascontiguousarray(PHOTO.transpose(2, 0, 1))), match=FIRST),
    ],
    "RGBA arrays `(H,W,4)`, grey and alpha `(H,W,2)`": [
        Case(np.asarray(RGBA), match=r"PIL.Image.fromarray\(image\), which is laid over white, or image\[..., :3\]"),
        Case(np.asarray(RGBA)[None], match="PIL.Image.fromarray"),
        Case(np.asarray(RGBA).transpose(2, 0, 1), match="come first, and are RGBA"),
        Case(PHOTO[..., :2], match=r"image\[..., :1\]"),
    ],
    "`(N,H,W)`, a batch of grey images": [Case(np.stack([GREY] * 5), match=r"images\[..., None\]")],
    "`(H,W)` with W below 5, one axis, five axes, no pixels": [
        Case(PHOTO[0], match=r"given as \(H,W,1\)"),
        Case(PHOTO.reshape(-1), match="it has one axis"),
        Case(np.frombuffer(FILE, np.uint8), match=r"array.tobytes\(\)"),
        Case(BATCH[None], match="give each image by itself"),
        Case(np.uint8(3), match="give each image by itself"),
        Case(PHOTO[:0], match="it is empty"),
        Case(BATCH[:0], match="it is empty"),
    ],
    "a batch among other images": [
        Case([PHOTO, BATCH], match=r"images\[1\]: .*a batch is given by itself"),
        Case(["batch.npy"], match="a batch is given by itself"),
        Case([BATCH], match="a batch is given by itself", is_map=True),
    ],
    "a tensor on a GPU, or one that requires gradients": [
        Case(Tensor(PHOTO, RuntimeError("Can't export tensors that require gradient")), match=r"detach\(\).cpu\(\)"),
        Case(Tensor(PHOTO, BufferError("is on cuda:0")), match=r"\(is on cuda:0\).*image.detach\(\).cpu\(\).numpy\(\)"),
        Case(lambda: tf.keras.Input((8, 8, 3)), match=r"numpy.asarray\(image\)"),
    ],
    "nested lists of numbers": [Case(PHOTO.tolist(), match="list is no image"), Case([1, 2], match="int is no image")],
    "a dict or a set": [Case({"a": PHOTO}, match="Of several images give a list"), Case({"dog.png"}, match="a list")],
    "one image to `map`": [
        Case(image, match=r"map takes many images; give \[image\] for one", is_map=True)
        for image in ("dog.png", Path("dog.png"), FILE, PHOTO, GREY, RGB, opened(FILE), Tensor(PHOTO))
    ],
    "a picture of 32 bits or floats (Pillow's modes `I` and `F`)": [
        Case(make(Image.fromarray(DEEP.astype(kind))), match="does not say which value is white", error=error)
        for kind in (np.int32, np.float32)
        for make, error in (
            (lambda image: image, InvalidArgument),
            (lambda image: encode(image, "TIFF"), UnreadableAtError),
        )
    ],
    "16 bits of which only the lower 12 are used": [
        Case(make(Image.fromarray(DEEP >> 4)), match="it seems to have 12 or 8 bits in 16", error=error)
        for make, error in (
            (lambda image: image, InvalidArgument),
            (encode, UnreadableAtError),
            (lambda image: encode(image, "TIFF"), UnreadableAtError),
        )
    ],
    "RGB of 16 bits with a transparent colour": [
        Case(transparent(RGB, (1000, 2000, 3000)), match="alpha channel, or in 8 bits"),
    ],
    "HEIC, JPEG XL, SVG, PDF, PSD, ICO, EPS, DICOM, HDF5, ZIP, video and others, by their names": [
        Case(HEIC, match="a HEIC picture is no image of the formats JPEG, PNG, .*; convert it to PNG or JPEG"),
        Case(b"%PDF-1.7", match="a PDF document is no image"),
        Case(b'<?xml version="1.0"?>\n<svg xmlns="">', match="an SVG drawing"),
        Case(encode(RGB, "ICO"), match="an icon"),
        Case(opened(b"8BPS\0\1"), match="a Photoshop document"),
    ],
    "a web page, JSON, a Git LFS pointer, any other text": [
        Case(b"<!DOCTYPE html><html>", match="a web page"),
        Case(b'{"error": 404}', match="JSON"),
        Case(b"version https://git-lfs.github.com/spec/v1\n", match="git lfs pull"),
        Case(b"dog.png", match="text is no image .* give a path as str"),
    ],
    "a URL": [
        Case("https://host/dog.png", match=r"is a URL, no path; download it, or give urllib.request.urlopen\(url\)"),
        Case(Path("https://host/dog.png"), match="is a URL, no path"),
        Case("s3://bucket/dog.png", match="is a URL, no path; give the file opened with a library"),
        Case("gs://bucket/dog.png", match="is a URL"),
        Case("FILE:///photos/dog.png", match="give the path behind file://"),
        Case(b"https://host/dog.png\n", match="a URL is no image"),
        Case(["dog.png", "http://host"], match=r"images\[1\]: 'http://host' is a URL"),
    ],
    "a data URL or base64": [
        Case(f"data:image/png;base64,{base64.b64encode(FILE).decode()}", match="is a data URL, no path"),
        Case(base64.b64encode(FILE).decode(), match="is an image in base64"),
        Case(base64.b64encode(encode(RGB, "JPEG")).decode(), match="is an image in base64"),
        Case(base64.encodebytes(FILE).decode(), match="is an image in base64"),
        Case(base64.b64encode(FILE), match=r"base64 text is no image .*b64decode\(text\)"),
        Case(b"data:image/png;base64,iVBO", match="a data URL is no image"),
        Case("<svg>" * 999, match="a text of 4995 characters, '<svg><svg>.*, is no path"),
        Case("a\0b", match="is no path"),
    ],
    "a folder": [Case("photos", match="this is a folder; give the files in it", error=IsADirectoryError)],
    "a path to nothing, an empty path, an empty file": [
        Case("", match="an empty path"),
        Case("cat.png", match=r"cat\.png", error=FileNotFoundError),
        Case("nothing.png", match="nothing.png: the file is empty"),
        Case(b"", match="the file is empty"),
    ],
    "a file opened as text, one that was read before, one that is closed, one with an asynchronous `.read()`": [
        Case(closed(FILE), match="it cannot be read .*give a file that is open"),
        Case(opened("text", mode="r"), match="opened as text; open it with mode 'rb'"),
        Case(opened(FILE, len(FILE)), match=r"it was read before; rewind it: file.seek\(0\)"),
        Case(opened(b""), match="it is empty"),
        Case(Upload(), match=r"the file dog.png is no image: its read\(\) is asynchronous; .*await file.read\(\)"),
    ],
    "a `.npy` file of objects, a `.npz` file": [
        Case(npy(np.array([None])), match="Object arrays cannot be loaded"),
        Case(npy(PHOTO)[:50], match="the NumPy file cannot be read"),
        Case(b"PK\3\4" + bytes(40), match="a ZIP archive"),
    ],
    "a TIFF whose first picture is a thumbnail, as a camera's raw file": [
        Case(encode(RGB, "TIFF", tiffinfo={254: 1}), match="a thumbnail", error=UnreadableAtError)
    ],
    "a damaged or truncated file": [
        Case(FILE[:-60], match="damaged or truncated", error=UnreadableAtError),
        Case(Image.open(io.BytesIO(FILE[:-60])), match="the Pillow image cannot be read: .*truncated"),
    ],
    "more pixels than the server allows (`max_image_pixels`; of all images of a job `max_job_pixels`)": [
        Case(encode(Image.new("1", (200, 200))), match="40000 pixels, 10000 are allowed", error=UnreadableAtError),
        Case(np.zeros((200, 200), np.uint8), match="are allowed", error=UnreadableAtError),
    ],
    "more than 500 scans or 64 EXIF segments of a JPEG, tens of thousands of chunks or segments in any file's header": [
        Case(
            encode(RGB, "JPEG")[:2] + 65 * b"\xff\xe1\0\x08Exif\0\0" + encode(RGB, "JPEG")[2:],
            match="65 EXIF segments; allowed: 64",
            error=UnreadableAtError,
        ),
        Case(
            encode(RGB)[:33] + 40_000 * (bytes(4) + b"prVt" + zlib.crc32(b"prVt").to_bytes(4)) + encode(RGB)[33:],
            match="too many chunks",
            error=UnreadableAtError,
        ),
    ],
}


def rows(title):
    """The first column of the tables below a heading."""
    part = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| (.+?) \| .+ \|$", part, re.MULTILINE)
    return [line for line in lines if line not in {"you give", "the picture has", "---"}]


@pytest.mark.parametrize(("title", "cases"), [("Accepted input", ACCEPTED), ("Refused input", REFUSED)])
def test_the_page_has_these_rows_and_no_others(title, cases):
    assert rows(title) == list(cases)


def parameters(table):
    return [pytest.param(case, id=f"{row}-{i}") for row, cases in table.items() for i, case in enumerate(cases)]


@pytest.mark.parametrize("case", parameters(ACCEPTED))
def test_accepted_input_gives_the_pixels_that_the_page_states(case):
    expected = np.asarray(case.pixels, np.float32)
    pixels = case.read()
    np.testing.assert_allclose(pixels, expected if expected.ndim == 4 else expected[None], atol=case.atol)


@pytest.mark.parametrize("case", parameters(REFUSED))
def test_refused_input_is_reported_with_a_remedy(case):
    with pytest.raises(case.error, match=case.match) as caught:
        case.read()
    if case.error is InvalidArgument:
        assert caught.value.field == case.field
