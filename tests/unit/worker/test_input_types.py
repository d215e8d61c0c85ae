"""One picture gives the same pixels by path, as bytes, as a Pillow image, and as the photo of a figure."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from parsed_images import parse_images
from PIL import Image

from convlens.client import InvalidArgument
from convlens.client.images import pack, picture
from convlens.v1.image_formats import open_picture
from convlens.v1.pictures import to_rgb
from convlens.worker.images import ImageDecoder, UnreadableAtError

HEIGHT, WIDTH = 30, 40
RNG = np.random.default_rng(3)
PHOTO = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
RGB = Image.fromarray(PHOTO)
GREY = RGB.convert("L")
ALPHA = Image.fromarray(RNG.integers(0, 256, (HEIGHT, WIDTH), np.uint8))
DEEP = RNG.integers(0, 1 << 16, (HEIGHT, WIDTH), np.uint16)
PALETTE = RGB.quantize(64)


def few_bits(rows, bits, color_type=0, transparent=0):
    """A PNG with `bits` a sample, of colour type 0 (grey) or 2 (RGB), with a transparent level or colour."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    samples = 3 if color_type else 1
    digits = ["".join(f"{value:0{bits}b}" for value in row) for row in rows]
    lines = b"".join(
        b"\0" + int(line.ljust(-len(line) % 8 + len(line), "0"), 2).to_bytes(-(-len(line) // 8)) for line in digits
    )
    head = struct.pack(">IIBBBBB", len(rows[0]) // samples, len(rows), bits, color_type, 0, 0, 0)
    key = struct.pack(f">{samples}H", *([transparent] * samples))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(name, body)
        for name, body in ((b"IHDR", head), (b"tRNS", key), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    )


def encode(image, fmt="PNG", **options):
    file = io.BytesIO()
    image.save(file, fmt, **options)
    return file.getvalue()


def with_alpha(image):
    image = image.copy()
    image.putalpha(ALPHA)
    return image


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


TRANSLUCENT_PALETTE = PALETTE.copy()
TRANSLUCENT_PALETTE.info["transparency"] = bytes(range(0, 256, 4))
PICTURES = {
    "RGB": encode(RGB),
    "RGBA": encode(with_alpha(RGB)),
    "LA": encode(with_alpha(GREY)),
    "LA TIFF": encode(with_alpha(GREY), "TIFF"),
    "PA TIFF": encode(PALETTE.convert("PA"), "TIFF"),
    "RGB with a transparent colour": encode(RGB, transparency=tuple(map(int, PHOTO[0, 0]))),
    "grey with a transparent level": encode(GREY, transparency=99),
    "palette with a transparent entry": encode(PALETTE, transparency=5),
    "palette with translucent entries": encode(TRANSLUCENT_PALETTE),
    "GIF with a transparent entry": encode(PALETTE, "GIF", transparency=7),
    "WebP with alpha": encode(with_alpha(RGB), "WEBP", lossless=True),
    "AVIF with alpha": encode(with_alpha(RGB), "AVIF"),
    "JPEG 2000 with alpha": encode(with_alpha(RGB), "JPEG2000"),
    "TIFF with alpha": encode(with_alpha(RGB), "TIFF", compression="tiff_lzw"),
    "TIFF with premultiplied alpha": encode(with_alpha(RGB), "TIFF", tiffinfo={338: 1}),
    "CMYK JPEG": encode(RGB.convert("CMYK"), "JPEG"),
    "CMYK TIFF": encode(RGB.convert("CMYK"), "TIFF"),
    "YCbCr TIFF": encode(RGB.convert("YCbCr"), "TIFF"),
    "JPEG": encode(RGB, "JPEG"),
    "grey JPEG": encode(GREY, "JPEG"),
    "grey": encode(GREY),
    "black and white": encode(GREY.convert("1")),
    "16-bit PNG": encode(Image.fromarray(DEEP)),
    "16-bit TIFF": encode(Image.fromarray(DEEP), "TIFF"),
    "16-bit TIFF, big-endian": encode(Image.fromarray(DEEP.astype(">u2")), "TIFF"),
    "16-bit PNG with a transparent level": encode(Image.fromarray(DEEP), transparency=int(DEEP[4, 4])),
    "4-bit grey with a transparent level": few_bits([[0, 1, 2, 3, 4, 5]], 4, transparent=3),
    "2-bit grey with a transparent level": few_bits([[0, 1, 2, 3, 1, 0]], 2, transparent=1),
    "1-bit grey with a transparent level": few_bits([[0, 1, 1, 0, 1, 0]], 1, transparent=0),
    "palette": encode(PALETTE),
    **{
        f"{fmt} of orientation {orientation}": encode(RGB, fmt, exif=exif_of(orientation))
        for fmt in ("JPEG", "TIFF", "WEBP", "AVIF")
        for orientation in (3, 6, 7)
    },
    "RGBA turned": encode(with_alpha(RGB), exif=exif_of(6)),
    "16-bit PNG turned": encode(Image.fromarray(DEEP), exif=exif_of(8)),
    "two frames": encode(PALETTE, "GIF", save_all=True, append_images=[PALETTE.rotate(180)]),
    "two pictures of a phone": encode(RGB, "MPO", save_all=True, append_images=[RGB.rotate(180)]),
}


def model_pixels(image, size):
    """Return the pixels that a model of this input size gets of an image."""
    packed = pack(image)
    return ImageDecoder(1 << 20).read(*parse_images(packed), *size)[0]


def by_input_type(data, path):
    """The picture by every input type."""
    path.write_bytes(data)
    opened = Image.open(path)
    loaded = Image.open(io.BytesIO(data))
    loaded.load()
    return {"path": path, "bytes": data, "opened": opened, "loaded": loaded, "a copy in memory": loaded.copy()}


@pytest.mark.parametrize("name", PICTURES)
def test_an_image_has_the_same_pixels_by_every_input_type_and_in_the_figure(name, tmp_path):
    inputs = by_input_type(PICTURES[name], tmp_path / "picture")
    with Image.open(inputs["path"]) as image:
        image.load()
        size = to_rgb(image).size[::-1]
    for model_size in (size, (24, 24)):
        first, *others = (model_pixels(image, model_size) for image in inputs.values())
        for other in others:
            np.testing.assert_array_equal(first, other)
    for image in inputs.values():
        np.testing.assert_array_equal(np.asarray(picture(pack(image)[0])), model_pixels(image, size))


@pytest.mark.parametrize(
    ("image", "same"),
    [
        (with_alpha(RGB).convert("RGBa"), with_alpha(RGB).convert("RGBa").convert("RGBA")),
        (with_alpha(GREY).convert("La"), with_alpha(GREY).convert("La").convert("LA")),
        (PALETTE.convert("PA"), PALETTE),
        (RGB.convert("RGBX"), RGB),
    ],
    ids=["RGBa", "La", "PA", "RGBX"],
)
def test_pillow_modes_that_no_file_has_are_converted(image, same):
    np.testing.assert_array_equal(model_pixels(image, (HEIGHT, WIDTH)), model_pixels(same, (HEIGHT, WIDTH)))


def test_the_callers_image_is_not_changed():
    image = Image.open(io.BytesIO(PICTURES["RGBA turned"]))
    pack(image)
    assert (image.mode, image.size, image.getexif()[0x0112]) == ("RGBA", (WIDTH, HEIGHT), 6)


def test_transparent_pixels_become_white_whatever_their_colour():
    clear = RGB.copy()
    clear.putalpha(0)
    for image in (clear, encode(clear), encode(clear, "WEBP", lossless=True, exact=True)):
        assert (model_pixels(image, (HEIGHT, WIDTH)) == 255).all()


@pytest.mark.parametrize(
    ("bits", "values", "transparent", "greys"),
    [
        (4, [0, 1, 2, 3, 4, 5], 3, [0, 17, 34, 255, 68, 85]),
        (4, [0, 1, 2, 3, 4, 15], 15, [0, 17, 34, 51, 68, 255]),
        (2, [0, 1, 2, 3, 1, 0], 1, [0, 255, 170, 255, 255, 0]),
        (2, [0, 1, 2, 3, 1, 0], 2, [0, 85, 255, 255, 85, 0]),
        (2, [0, 1, 2, 3, 1, 0], 0, [255, 85, 170, 255, 85, 255]),
        (1, [0, 1, 1, 0, 1, 0], 0, [255] * 6),
        (8, [3, 17, 34, 51, 68, 85], 3, [255, 17, 34, 51, 68, 85]),
        (8, [0, 17, 34, 50, 68, 85], 3, [0, 17, 34, 50, 68, 85]),
    ],
)
def test_a_transparent_level_of_few_bits_is_scaled(bits, values, transparent, greys, tmp_path):
    for image in by_input_type(few_bits([values], bits, transparent=transparent), tmp_path / "grey.png").values():
        assert model_pixels(image, (1, 6))[0, :, 0].tolist() == greys


def test_a_transparent_16_bit_colour_is_refused_with_the_remedy_by_every_input_type(tmp_path):
    file = few_bits([[1000, 1000, 1000, 60000, 1, 2]], 16, 2, transparent=1000)
    for image in by_input_type(file, tmp_path / "deep.png").values():
        with pytest.raises((InvalidArgument, UnreadableAtError), match="alpha channel, or in 8 bits"):
            model_pixels(image, (1, 2))


@pytest.mark.parametrize("kind", ["F", "I", "I;16 of 12 bits"])
def test_images_of_an_unknown_white_level_are_refused_by_every_input_type(kind):
    values = {"F": np.float32(GREY), "I": np.int32(GREY), "I;16 of 12 bits": DEEP >> 4}[kind]
    image = Image.fromarray(values)
    messages = []
    for variant in (image, encode(image, "TIFF")):
        with pytest.raises((InvalidArgument, UnreadableAtError)) as caught:
            model_pixels(variant, (HEIGHT, WIDTH))
        messages.append(str(caught.value).partition(" (reason")[0].partition(" (field")[0])
    assert messages[0] == messages[1]
    assert "scale it to 8 bits" in messages[0]


def test_a_16_bit_png_opened_as_mode_i_by_an_older_pillow_is_16_bits():
    image = Image.open(io.BytesIO(PICTURES["16-bit PNG"]))
    older = image.convert("I")
    older.format = "PNG"
    np.testing.assert_array_equal(np.asarray(to_rgb(older)), np.asarray(to_rgb(image)))


def test_a_16_bit_tiff_with_inverted_grey_is_refused():
    file = encode(Image.fromarray(DEEP), "TIFF", tiffinfo={262: 0})
    with open_picture(file) as image:
        assert image.tag_v2[262] == 0
    with pytest.raises(UnreadableAtError, match="0 is white"):
        model_pixels(file, (HEIGHT, WIDTH))


@pytest.mark.parametrize("value_range", [(0, 1), (-1, 1), (0, 255), None])
def test_the_photo_of_a_figure_is_scaled_by_the_range_of_its_floats(value_range):
    low, high = value_range or (0, 255)
    floats = low + PHOTO / 255 * (high - low)
    for image, channels in ((floats, 3), (floats[..., :1], 1)):
        (packed,) = pack(image, value_range)
        shown = np.asarray(picture(packed))
        assert shown.shape == (HEIGHT, WIDTH, 3)
        np.testing.assert_array_equal(shown[..., :channels], PHOTO[..., :channels])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_photo_as_whole_floats_gives_the_pixels_of_uint8_at_any_size(channels):
    def read(image, value_range=None):
        (packed,) = pack(image, value_range)
        return packed, ImageDecoder(1 << 20).read(*parse_images([packed]), 24, 24, channels=channels)[0]

    _, expected = read(PHOTO)
    for floats, value_range in (
        (PHOTO.astype(np.float32), None),
        (PHOTO.astype(np.float64), (0, 255)),
        (PHOTO / np.float32(255), (0, 1)),
        (PHOTO / 255, (0, 1)),
        (PHOTO / 127.5 - 1, (-1, 1)),
    ):
        packed, actual = read(floats, value_range)
        np.testing.assert_array_equal(actual, expected)
        assert packed.pixels.nbytes == PHOTO.size
        assert not packed.message.value_range
