"""Images of every format and orientation are read to the right pixels; damaged and huge ones are refused."""

from __future__ import annotations

import io
import struct
import threading
import zlib

import hostile
import keras
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from convlens.v1 import spec_pb2, tensors
from convlens.v1.file_signatures import FORMATS
from convlens.worker.images import ImageDecoder, ImageUnreadableError, UnreadableAtError

HEIGHT, WIDTH = 37, 53
LIMIT = 1_000_000
RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
RGB = Image.fromarray(NOISE)
PALETTE = RGB.quantize(64)
READER = ImageDecoder(LIMIT)
GREY = RGB.convert("L")
DEEP = RNG.integers(0, 1 << 16, (HEIGHT, WIDTH), np.uint16)
WIPE = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
ALPHA = Image.fromarray(np.dstack([NOISE, WIPE]))


def encode(image, fmt, **options):
    file = io.BytesIO()
    image.save(file, fmt, **options)
    return file.getvalue()


def read(data, height=HEIGHT, width=WIDTH, limit=LIMIT, channels=3):
    return ImageDecoder(limit).read([spec_pb2.Image(encoded=b"")], [data], height, width, channels=channels)[0]


def read_pixels(array, height=HEIGHT, width=WIDTH, limit=LIMIT, channels=3, value_range=0):
    image, data = describe_pixels(array)
    image.value_range = value_range
    return ImageDecoder(limit).read([image], [data], height, width, channels=channels)[0]


def describe_pixels(array):
    """Return pixels as a worker gets them: an Image whose tensor has no data, and the data."""
    tensor = tensors.encode(np.asarray(array))
    data = tensor.data
    tensor.ClearField("data")
    return spec_pb2.Image(pixels=tensor), data


def over_white(rgb, alpha):
    a = np.asarray(alpha, float)[..., None] / 255
    return rgb * a + 255 * (1 - a)


LOSSLESS = {
    "PNG": (encode(RGB, "PNG"), NOISE),
    "WEBP": (encode(RGB, "WEBP", lossless=True), NOISE),
    "BMP": (encode(RGB, "BMP"), NOISE),
    "TIFF": (encode(RGB, "TIFF"), NOISE),
    "deflated TIFF": (encode(RGB, "TIFF", compression="tiff_adobe_deflate"), NOISE),
    "BigTIFF": (encode(RGB, "TIFF", big_tiff=True), NOISE),
    "TIFF of two pages": (encode(RGB, "TIFF", save_all=True, append_images=[RGB.rotate(180)]), NOISE),
    "16-bit grey TIFF": (encode(Image.fromarray(DEEP), "TIFF"), np.dstack([(DEEP >> 8).astype(np.uint8)] * 3)),
    "JPEG 2000": (encode(RGB, "JPEG2000"), NOISE),
    "JPEG 2000 codestream": (encode(RGB, "JPEG2000", no_jp2=True), NOISE),
    "palette PNG": (encode(PALETTE, "PNG"), np.asarray(PALETTE.convert("RGB"))),
    "palette BMP": (encode(PALETTE, "BMP"), np.asarray(PALETTE.convert("RGB"))),
    "GIF": (encode(PALETTE, "GIF"), np.asarray(PALETTE.convert("RGB"))),
    "animated GIF": (
        encode(PALETTE, "GIF", save_all=True, append_images=[PALETTE.point(lambda v: 63 - v)]),
        np.asarray(PALETTE.convert("RGB")),
    ),
    "grey PNG": (encode(GREY, "PNG"), np.dstack([np.asarray(GREY)] * 3)),
    "black and white PNG": (
        encode(GREY.convert("1"), "PNG"),
        np.dstack([np.asarray(GREY.convert("1")) * np.uint8(255)] * 3),
    ),
    "16-bit grey PNG": (encode(Image.fromarray(DEEP), "PNG"), np.dstack([(DEEP >> 8).astype(np.uint8)] * 3)),
}
LOSSY = {
    "JPEG": encode(RGB, "JPEG", quality=80),
    "progressive JPEG": encode(RGB, "JPEG", progressive=True),
    "JPEG 4:4:4": encode(RGB, "JPEG", subsampling=0),
    "JPEG 4:2:2": encode(RGB, "JPEG", subsampling=1),
    "JPEG of RGB planes": encode(RGB, "JPEG", keep_rgb=True),
    "JPEG with a comment": encode(RGB, "JPEG", comment=b"of a photo"),
    "grey JPEG": encode(GREY, "JPEG"),
    "CMYK JPEG": encode(RGB.convert("CMYK"), "JPEG"),
    "lossy WEBP": encode(RGB, "WEBP", quality=70),
    "AVIF": encode(RGB, "AVIF"),
    "TIFF of JPEG strips": encode(RGB, "TIFF", compression="jpeg"),
}
FILES = {name: data for name, (data, _) in LOSSLESS.items()} | LOSSY


def test_every_format_has_a_file():
    assert {Image.open(io.BytesIO(data)).format for data in FILES.values()} == set(FORMATS)


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_lossless_file_gives_the_pixels_that_went_in(name):
    data, pixels = LOSSLESS[name]
    actual = read(data)
    assert actual.dtype == np.uint8
    np.testing.assert_array_equal(actual, pixels)


@pytest.mark.parametrize("name", sorted(FILES.keys() - {"16-bit grey PNG", "16-bit grey TIFF"}))
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (16, 24), (80, 61), (224, 224)])
def test_decoding_and_resizing_gives_exactly_the_pixels_of_keras(name, size):
    expected = keras.utils.load_img(io.BytesIO(FILES[name]), target_size=size, interpolation="bilinear")
    np.testing.assert_array_equal(read(FILES[name], *size), np.asarray(expected))


@pytest.mark.parametrize(
    ("data", "colours"),
    [
        (encode(ALPHA, "PNG"), over_white(NOISE, WIPE)),
        (encode(ALPHA, "WEBP", lossless=True, exact=True), over_white(NOISE, WIPE)),
        (encode(ALPHA.convert("LA"), "PNG"), over_white(np.dstack([np.asarray(GREY)] * 3), WIPE)),
        (
            encode(RGB, "PNG", transparency=tuple(map(int, NOISE[0, 0]))),
            np.where((NOISE[0, 0] == NOISE).all(-1, keepdims=True), 255, NOISE),
        ),
        (
            encode(PALETTE, "PNG", transparency=5),
            over_white(np.asarray(PALETTE.convert("RGB")), (np.asarray(PALETTE) != 5) * 255),
        ),
        (
            encode(PALETTE, "GIF", transparency=5),
            over_white(np.asarray(PALETTE.convert("RGB")), (np.asarray(PALETTE) != 5) * 255),
        ),
    ],
    ids=["PNG", "WEBP", "grey PNG", "one colour", "palette", "GIF"],
)
def test_transparency_is_composed_over_white(data, colours):
    np.testing.assert_allclose(read(data).astype(float), colours, atol=1.01)


STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: np.rot90,
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: np.rot90(a, -1),
}
"""How a camera stores an upright picture, by EXIF orientation."""


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("fmt", ["PNG", "WEBP", "TIFF"])
def test_an_image_is_rotated_upright_from_every_orientation(orientation, fmt):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](NOISE)))
    options = {"lossless": True} if fmt == "WEBP" else {}
    np.testing.assert_array_equal(read(encode(stored, fmt, exif=exif, **options)), NOISE)


def test_a_jpeg_is_rotated_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    flat = np.zeros((64, 32, 3), np.uint8)
    flat[:32] = 255  # white above, black below
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(flat)))
    actual = read(encode(stored, "JPEG", quality=95, exif=exif), 64, 32)
    np.testing.assert_allclose(actual.astype(int), flat, atol=3)


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'


@pytest.mark.parametrize("source", ["EXIF", "XMP"])
def test_a_jpeg_of_the_models_size_is_rotated_by_its_metadata(source):
    exif = Image.Exif()
    exif[0x0112] = 3
    picture = np.zeros((64, 32, 3), np.uint8)
    picture[:32] = 255  # white above, black below
    stored = Image.fromarray(picture[::-1, ::-1].copy())
    metadata = {"exif": exif} if source == "EXIF" else {"xmp": XMP}
    actual = read(encode(stored, "JPEG", quality=95, **metadata), 64, 32)
    np.testing.assert_allclose(actual.astype(int), picture, atol=3)


def test_bytes_like_markers_in_a_comment_neither_hide_nor_cause_a_rotation():
    exif = Image.Exif()
    exif[0x0112] = 3
    rotated, upright = (encode(RGB, "JPEG", quality=95, **metadata) for metadata in ({"exif": exif}, {}))
    comment = b"\xff\xfe\x00\x08\xff\xda\xff\xe1\x00\x02"
    for file in (rotated, upright):
        with_comment = file[:2] + comment + file[2:]
        np.testing.assert_array_equal(read(with_comment), read(file))
    assert np.abs(read(rotated).astype(int) - read(upright)[::-1, ::-1]).mean() < 8


def test_a_jpeg_with_a_harmless_fault_is_read_as_pillow_reads_it():
    jpeg = LOSSY["JPEG"]
    scan = jpeg.index(b"\xff\xda")
    faulty = jpeg[:scan] + bytes(5) + jpeg[scan:]  # libjpeg warns of extraneous bytes before a marker
    with pytest.raises(ValueError, match="extraneous"):
        simplejpeg.decode_jpeg(faulty)
    np.testing.assert_array_equal(read(faulty), np.asarray(Image.open(io.BytesIO(faulty))))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0nonsense", b"Exif\0\0"])
def test_unreadable_exif_rotates_nothing(exif):
    np.testing.assert_array_equal(read(encode(RGB, "PNG", exif=exif)), NOISE)


@pytest.mark.parametrize(
    "name", sorted(FILES.keys() - {"animated GIF", "TIFF of two pages"})
)  # whose first picture may be complete
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused_and_never_half_grey(name, share):
    with pytest.raises(ImageUnreadableError, match=r"damaged|no image of the formats JPEG, PNG, WEBP, GIF, BMP"):
        read(FILES[name][: int(len(FILES[name]) * share)])


@given(st.sampled_from(sorted(FILES)), st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_give_an_image_or_a_refusal_and_nothing_else(name, draw):
    data = bytearray(FILES[name])
    for at in draw.draw(st.lists(st.integers(0, len(data) - 1), min_size=1, max_size=8)):
        data[at] ^= draw.draw(st.integers(1, 255))
    try:
        actual = read(bytes(data))
    except ImageUnreadableError:
        return
    assert actual.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    "data",
    [encode(RGB, "PPM"), encode(RGB, "ICO"), b"", b"no image", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\x01\xfe" * 99],
    ids=["PPM", "ICO", "nothing", "text", "EPS", "nothing known"],
)
def test_unsupported_formats_are_refused_naming_the_supported_ones(data):
    with pytest.raises(ImageUnreadableError, match="no image of the formats JPEG, PNG, WEBP, GIF, BMP"):
        read(data)


def bomb(width, height):
    """A PNG with this size in its header and no pixels, so that decoding it would raise another error."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_a_tiff_of_another_size_than_its_tiles_is_refused_before_they_are_decoded():
    with pytest.raises(ImageUnreadableError, match="tiles of 60000×60000 pixels"):
        read(hostile.files()["a TIFF of one huge tile"])


@pytest.mark.parametrize("size", [(1001, 1000), (50_000, 50_000), (1 << 30, 2)])
def test_a_pixel_bomb_is_refused_before_a_pixel_is_decoded(size):
    with pytest.raises(ImageUnreadableError, match=f"{size[0] * size[1]} pixels, {LIMIT} are allowed"):
        read(bomb(*size))


def test_an_image_at_the_limit_is_read():
    assert read(LOSSLESS["PNG"][0], limit=HEIGHT * WIDTH).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(ImageUnreadableError, match="are allowed"):
        read(LOSSLESS["PNG"][0], limit=HEIGHT * WIDTH - 1)
    with pytest.raises(ImageUnreadableError, match="are allowed"):
        read_pixels(NOISE, limit=HEIGHT * WIDTH - 1)


def test_pixels_of_the_models_size_are_unchanged():
    floats = RNG.uniform(0, 255, NOISE.shape).astype(np.float32)
    np.testing.assert_array_equal(read_pixels(NOISE), NOISE)
    np.testing.assert_array_equal(read_pixels(floats), floats)


def test_consecutive_pixels_of_one_buffer_are_not_copied():
    pack = np.random.default_rng(2).integers(0, 256, (4, HEIGHT, WIDTH, 3), np.uint8)
    buffer = b"before" + pack.tobytes() + b"behind"
    size = pack[0].nbytes
    image = spec_pb2.Image(pixels=tensors.encode(pack[0]))
    views = [memoryview(buffer)[6 + i * size :][:size] for i in range(4)]

    def read_all(*data):
        return READER.read([image] * len(data), data, HEIGHT, WIDTH)

    for some in (slice(4), slice(1, 3), slice(2, 3)):
        assert np.shares_memory(read_all(*views[some]), np.frombuffer(buffer, np.uint8))
        np.testing.assert_array_equal(read_all(*views[some]), pack[some])
    for order in ([1, 0], [0, 2], [3, 3], [0, 1, 1]):
        np.testing.assert_array_equal(read_all(*(views[i] for i in order)), pack[order])
    copies = [bytes(image) for image in views]
    np.testing.assert_array_equal(read_all(*copies), pack)
    np.testing.assert_array_equal(read_all(views[0], copies[1]), pack[:2])


def test_pixels_are_resized_as_a_file_is_and_floats_are_rounded_where_they_are_whole_numbers():
    np.testing.assert_array_equal(read_pixels(NOISE, 20, 30), read(LOSSLESS["PNG"][0], 20, 30))
    np.testing.assert_array_equal(read_pixels(NOISE.astype(np.float32), 20, 30), read_pixels(NOISE, 20, 30))
    floats = read_pixels(NOISE * np.float32(0.999), 20, 30)
    assert floats.dtype == np.float32
    np.testing.assert_allclose(floats, read_pixels(NOISE, 20, 30), atol=1.3)
    assert (floats % 1 != 0).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.5, 255.5])
def test_float_pixels_outside_0_to_255_are_refused(value):
    array = np.full((HEIGHT, WIDTH, 3), 100, np.float32)
    array[3, 4, 1] = value
    with pytest.raises(ImageUnreadableError, match="finite and within 0…255"):
        read_pixels(array)


ZERO_ONE, MINUS_ONE = spec_pb2.VALUE_RANGE_0_1, spec_pb2.VALUE_RANGE_MINUS_1_1


def test_floats_are_scaled_to_255_by_their_range():
    unit = NOISE.astype(np.float32) / 255
    for pixels, value_range in ((unit, ZERO_ONE), (unit * 2 - 1, MINUS_ONE)):
        actual = read_pixels(pixels, value_range=value_range)
        assert actual.dtype == np.float32
        np.testing.assert_allclose(actual, NOISE, atol=1e-4)
        np.testing.assert_allclose(
            read_pixels(pixels, 20, 30, value_range=value_range), read_pixels(np.float32(NOISE), 20, 30), atol=1e-3
        )
    np.testing.assert_array_equal(read_pixels(unit, value_range=spec_pb2.VALUE_RANGE_0_255), unit)


@pytest.mark.parametrize(
    ("pixels", "value_range", "message"),
    [
        (NOISE.astype(np.float32) / 255, 0, r"nearly black .* value_range=\(0, 1\)"),
        (np.zeros((4, 4, 3), np.float32), 0, r"value_range=\(0, 255\)"),
        (NOISE.astype(np.float32), ZERO_ONE, "finite and within 0…1"),
        (NOISE.astype(np.float32), MINUS_ONE, "finite and within -1…1"),
        (NOISE, ZERO_ONE, "value_range is for float pixels"),
    ],
)
def test_floats_that_do_not_fit_their_range_are_refused(pixels, value_range, message):
    with pytest.raises(ImageUnreadableError, match=message):
        read_pixels(pixels, value_range=value_range)


def test_a_range_of_a_file_is_refused():
    with pytest.raises(ImageUnreadableError, match="image files are in 0…255"):
        READER.read([spec_pb2.Image(encoded=b"", value_range=ZERO_ONE)], [LOSSLESS["PNG"][0]], HEIGHT, WIDTH)


LUMA = np.asarray(RGB.convert("L"))[..., None]


@pytest.mark.parametrize(("height", "width"), [(HEIGHT, WIDTH), (20, 30)])
def test_a_grey_model_gets_grey_unchanged_and_the_luma_of_colours(height, width):
    expected = np.asarray(Image.fromarray(LUMA[..., 0]).resize((width, height), Image.Resampling.BILINEAR))[..., None]
    if (height, width) == (HEIGHT, WIDTH):
        expected = LUMA
    for actual in (
        read(encode(GREY, "PNG"), height, width, channels=1),
        read(LOSSLESS["PNG"][0], height, width, channels=1),
        read_pixels(NOISE, height, width, channels=1),
        read_pixels(LUMA, height, width, channels=1),
    ):
        assert actual.dtype == np.uint8
        np.testing.assert_array_equal(actual, expected)
    for floats in (NOISE.astype(np.float32), LUMA.astype(np.float32)):
        actual = read_pixels(floats, height, width, channels=1)
        assert actual.shape == (height, width, 1)
        np.testing.assert_allclose(actual, expected, atol=1.1)


@pytest.mark.parametrize("name", ["JPEG", "grey JPEG", "JPEG of RGB planes"])
def test_a_jpeg_is_decoded_to_grey_as_keras_does(name):
    expected = keras.utils.load_img(io.BytesIO(FILES[name]), color_mode="grayscale")
    np.testing.assert_array_equal(read(FILES[name], channels=1)[..., 0], np.asarray(expected))


def test_grey_pixels_are_repeated_for_colour_models_and_not_copied_for_grey_ones():
    np.testing.assert_array_equal(read_pixels(LUMA), np.dstack([LUMA] * 3))
    np.testing.assert_array_equal(read_pixels(LUMA, 20, 30), np.dstack([read_pixels(LUMA, 20, 30, channels=1)] * 3))
    image, data = describe_pixels(LUMA)
    whole = data * 2
    views = [memoryview(whole)[: len(data)], memoryview(whole)[len(data) :]]
    actual = READER.read([image] * 2, views, HEIGHT, WIDTH, channels=1)
    assert np.shares_memory(actual, np.frombuffer(whole, np.uint8))
    np.testing.assert_array_equal(actual, [LUMA, LUMA])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"shape \(height, width, 3\)"),
        (np.zeros((4, 4, 4), np.uint8), r"shape \(height, width, 3\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"shape \(height, width, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
        (np.zeros((4, 0, 3), np.float32), "empty"),
        (np.zeros((4, 4, 3), np.int64), "uint8 or float32"),
        (np.zeros((4, 4, 3), np.float16), "uint8 or float32"),
    ],
)
def test_arrays_that_are_no_images_are_refused(array, message):
    with pytest.raises(ImageUnreadableError, match=message):
        read_pixels(array)


def test_a_malformed_tensor_and_an_empty_message_are_refused():
    image, data = describe_pixels(NOISE)
    with pytest.raises(ImageUnreadableError, match="malformed"):
        READER.read([image], [data[:-1]], HEIGHT, WIDTH)
    with pytest.raises(ImageUnreadableError, match="neither"):
        READER.read([spec_pb2.Image()], [b""], HEIGHT, WIDTH)


def test_several_images_are_one_array_of_which_the_first_unreadable_one_is_named():
    encoded, png = spec_pb2.Image(encoded=b""), LOSSLESS["PNG"][0]
    floats, pixels = describe_pixels(NOISE.astype(np.float32))
    assert READER.read([encoded] * 2, [png] * 2, HEIGHT, WIDTH).dtype == np.uint8
    mixed = READER.read([encoded, floats], [png, pixels], HEIGHT, WIDTH)
    assert mixed.dtype == np.float32
    np.testing.assert_array_equal(mixed[0], mixed[1])
    with pytest.raises(UnreadableAtError) as caught:
        READER.read([encoded, encoded, spec_pb2.Image()], [png, b"x", b""], HEIGHT, WIDTH)
    assert caught.value.index == 1


def test_many_large_files_are_read_in_several_threads_and_the_first_unreadable_one_is_named(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    reader = ImageDecoder(LIMIT)
    file = encode(Image.effect_noise((512, 512), 90).convert("RGB"), "PNG")
    threads = set()
    open_image = Image.open

    def open_and_record(*args, **kwargs):
        threads.add(threading.current_thread().name)
        return open_image(*args, **kwargs)

    monkeypatch.setattr(Image, "open", open_and_record)
    actual = reader.read([spec_pb2.Image(encoded=b"")] * 8, [file] * 8, HEIGHT, WIDTH)
    assert len(threads) > 1
    for image in actual:
        np.testing.assert_array_equal(image, read(file))
    files = [file, file, file, b"x" * len(file), file, file, file, b"x"]
    with pytest.raises(UnreadableAtError) as caught:
        reader.read([spec_pb2.Image(encoded=b"")] * 8, files, HEIGHT, WIDTH, 16)
    assert caught.value.index == 19


def test_avif_files_are_decoded_one_at_a_time(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    noise = encode(Image.effect_noise((512, 512), 90).convert("RGB"), "AVIF", quality=95, speed=10)
    running, counts, threads = [], [], set()

    def record_and_convert(image):
        running.append(image)
        counts.append(len(running))
        threads.add(threading.current_thread().name)
        image.load()
        running.remove(image)
        return image.convert("RGB")

    monkeypatch.setattr("convlens.worker.images.to_rgb", record_and_convert)
    ImageDecoder(LIMIT).read([spec_pb2.Image(encoded=b"")] * 8, [noise] * 8, HEIGHT, WIDTH)
    assert len(threads) > 1
    assert max(counts) == 1
