"""Images of callers: files are sent unchanged, pixels as tensors; what is no image is refused."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from convlens.client import InvalidArgument
from convlens.client.batching import Batcher
from convlens.client.images import pack, picture

NOISE = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)


def png(orientation=1):
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(NOISE).save(file, "PNG", exif=exif)
    return file.getvalue()


FILE = png()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_files_bytes_are_sent_unchanged(kind):
    (image,) = pack(kind(FILE))
    assert image.encoded == FILE


def test_a_path_is_read(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(FILE)
    assert [image.encoded for image in pack([path, str(path)])] == [FILE, FILE]
    assert list(pack(str(path))) == list(pack(path))
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        pack(tmp_path / "gone.png")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_arrays_are_sent_as_tensors(dtype):
    array = NOISE.astype(dtype) if dtype == np.uint8 else NOISE * dtype(0.999)
    for images in (array, array[None], [array], array[:, ::-1][:, ::-1]):
        (image,) = pack(images)
        assert image.pixels.dtype == dtype
        np.testing.assert_array_equal(image.pixels, array)
    assert len(pack(np.stack([array] * 3))) == 3


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK"])
def test_a_pillow_image_is_sent_as_upright_pixels(mode):
    image = Image.fromarray(NOISE).convert(mode)
    (packed,) = pack(image)
    np.testing.assert_array_equal(packed.pixels, np.asarray(image.convert("RGB")))
    (turned,) = pack(Image.open(io.BytesIO(png(6))))
    np.testing.assert_array_equal(turned.pixels, np.rot90(NOISE, -1))


@pytest.mark.parametrize(
    "image", [None, 3, [None], {"a": 1}, {1}, NOISE[..., :2], NOISE[None, None], [NOISE[None]], [[1, 2]], object()]
)
def test_anything_but_an_image_is_refused_with_what_is_allowed(image):
    with pytest.raises(InvalidArgument, match="is no image; allowed: a path, bytes, a Pillow image, or") as caught:
        pack(image)
    assert caught.value.field == "images"


def test_the_photo_of_a_figure_is_the_one_that_was_sent():
    for image, expected in ((FILE, NOISE), (png(3), NOISE[::-1, ::-1]), (NOISE, NOISE), (NOISE + np.float32(0), NOISE)):
        np.testing.assert_array_equal(np.asarray(picture(pack(image)[0])), expected)


def npy(header):
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000000, 3), }\n") + b"1234", "truncated"),
        (npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 4, 3), }\n"), "the NumPy file cannot be read"),
        (npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': ((2, 4, 3\n"), "the NumPy file cannot be read"),
        (npy(b"{'descr': '''|u1\n"), "the NumPy file cannot be read"),
        (
            npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (2, 4, 3), }\n")[:40],
            "the NumPy file cannot be read",
        ),
        (npy(b"{}")[:8], "the NumPy file cannot be read"),
        (b"\x93NUMPY\x03\x00\x00\x00\x00\x00", "for arrays that are no images"),
    ],
)
def test_a_damaged_npy_file_is_refused_before_memory_is_allocated(data, message, tmp_path):
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(InvalidArgument, match=rf"a\.npy: .*{message}") as caught:
        pack(tmp_path / "a.npy")
    assert caught.value.field == "images"


def closed_file():
    file = io.BytesIO(FILE)
    file.close()
    return file


def damaged_archive():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a.png", FILE)
    return zipfile.ZipFile(io.BytesIO(file.getvalue().replace(FILE[-20:], bytes(20))))


@pytest.mark.parametrize(
    ("file", "cause"),
    [
        (closed_file, ValueError),
        (lambda: damaged_archive().open("a.png"), zipfile.BadZipFile),
        (lambda: zipfile.Path(damaged_archive(), "a.png"), zipfile.BadZipFile),
        (lambda: gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(FILE)[:-9])), EOFError),
        (lambda: gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(FILE)[:10] + b"\xff" * 40)), zlib.error),
    ],
    ids=["closed", "damaged archive", "path in a damaged archive", "cut off", "damaged"],
)
def test_a_file_that_cannot_be_read_is_refused_and_leaves_its_error_in_its_place(file, cause):
    with pytest.raises(InvalidArgument, match="it cannot be read") as caught:
        pack(file())
    assert isinstance(caught.value.__cause__, cause)
    assert caught.value.field == "images"
    batcher = Batcher()
    batcher.add(file())
    batcher.add(FILE)
    batch = batcher.flush()
    assert list(batch.errors) == [0]
    assert len(batch.images) == 1


def test_an_error_of_the_operating_system_is_raised_unchanged():
    class BrokenConnection:
        def read(self):
            raise ConnectionResetError("by the peer")

    with pytest.raises(ConnectionResetError):
        pack(BrokenConnection())


def test_an_empty_path_is_refused():
    with pytest.raises(InvalidArgument, match="an empty path"):
        pack("")
