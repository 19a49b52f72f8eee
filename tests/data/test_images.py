import io
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from array import array
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps

from invad.data.formats import FORMATS, HEAD_BYTES, IMAGE_SUFFIXES, format_of
from invad.data.images import read_image
from invad.data.listing import list_images, survey
from invad.data.masks import doubt, read_mask, read_mask_codes
from invad.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
RGB8 = RNG.integers(0, 256, (7, 5, 3), dtype=np.uint8)
RGB16 = RNG.integers(0, 65536, (7, 5, 3), dtype=np.uint16)
RAMP16 = np.arange(65536, dtype=np.uint16).reshape(256, 256)  # every grey level once


def encoded(pixels, kind, **options):
    stream = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(stream, kind, **options)
    return stream.getvalue()


def tiff(pixels, **options):
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    return stream.getvalue()


def png16(pixels):
    """16-bit PNG of H x W x C (2: grey and alpha, 3: RGB, 4: RGBA), written by hand as Pillow cannot."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


def grey3(grey):
    return np.repeat(grey[..., None], 3, axis=2)


def assert_pixels(pixels, expected):
    assert pixels.dtype == expected.dtype
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, expected)


# 8 bits


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "TGA", "PCX", "SGI", "QOI", "PPM", "JPEG2000"])
def test_lossless_rgb(kind, tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(encoded(RGB8, kind))
    for source in (path, str(path), path.read_bytes(), Image.open(io.BytesIO(path.read_bytes()))):
        assert_pixels(read_image(source), RGB8)


def test_lossy_formats_agree_with_pillow():
    smooth = np.full((32, 48, 3), (200, 90, 30), np.uint8)
    for kind in ("JPEG", "WEBP"):
        data = encoded(smooth, kind, quality=95)
        assert_pixels(read_image(data), np.array(Image.open(io.BytesIO(data)).convert("RGB")))
        assert np.abs(read_image(data).astype(int) - smooth).max() <= 4


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA"])
def test_modes_become_rgb(mode, kind):
    if (kind, mode) == ("BMP", "LA"):
        pytest.skip("BMP has no grey with alpha")
    image = Image.fromarray(RGB8).convert(mode)
    assert_pixels(read_image(encoded(image, kind)), np.array(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind):
    flat = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # no cyan, all magenta and yellow: red
    np.testing.assert_allclose(read_image(encoded(flat, kind))[8, 8].astype(int), (255, 0, 0), atol=8)


def test_alpha_is_ignored_not_blended():
    image = Image.new("RGBA", (2, 2), (10, 20, 30, 0))
    assert_pixels(read_image(encoded(image, "PNG")), np.full((2, 2, 3), (10, 20, 30), np.uint8))


@pytest.mark.parametrize("transparency", [0, bytes([0, 128])])
def test_palette_with_transparency_gives_no_warning(transparency):
    image = Image.fromarray(RGB8).quantize(4)
    data = encoded(image, "PNG", transparency=transparency)
    assert_pixels(read_image(data), np.array(image.convert("RGB")))
    lazy = Image.open(io.BytesIO(data))
    read_image(lazy)
    assert "transparency" in lazy.info  # the caller's image is not edited


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_exif_orientation(orientation, kind):
    exif = Image.Exif()
    exif[274] = orientation
    data = encoded(RGB8, kind, exif=exif)
    upright = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert upright.shape[:2] == ((7, 5) if orientation < 5 else (5, 7))
    assert_pixels(read_image(data), upright)
    assert_pixels(read_image(Image.open(io.BytesIO(data))), upright)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_16_bit_tiffs(orientation):
    image = Image.fromarray(RGB8)
    image.getexif()[274] = orientation
    order = np.array(ImageOps.exif_transpose(image))
    tag = [(274, "H", 1, orientation, True)]
    expected16 = order.astype(np.uint16) * 257
    data = tiff(RGB8.astype(np.uint16) * 257, photometric="rgb", extratags=tag)
    assert_pixels(read_image(data), expected16)
    grey = tiff(RGB8[..., 0].astype(np.uint16) * 257, extratags=tag)
    assert_pixels(read_image(grey), grey3(expected16[..., 0]))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_exif_does_not_cost_the_pixels():
    data = encoded(RGB8, "JPEG", exif=b"Exif\0\0" + b"II*\0\xff\xff\xff\x7f" + b"junk")
    assert read_image(data).shape == (7, 5, 3)


# 16 bits: every level must survive


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}])
def test_grey16_keeps_every_level(kind, options):
    if kind == "PNG" and options:
        pytest.skip("a TIFF option")
    assert_pixels(read_image(encoded(RAMP16, kind, **options)), grey3(RAMP16))


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_grey16_tiff_byte_orders(byteorder, bigtiff):
    assert_pixels(read_image(tiff(RAMP16, byteorder=byteorder, bigtiff=bigtiff)), grey3(RAMP16))


@pytest.mark.parametrize("dtype", [np.int32, np.uint32])
def test_32_bit_integers_that_fit_16(dtype):
    assert_pixels(read_image(tiff(RAMP16.astype(dtype))), grey3(RAMP16))


def test_signed_16_bit_tiff():
    signed = (RAMP16 // 2).astype(np.int16)
    assert_pixels(read_image(tiff(signed)), grey3(RAMP16 // 2))
    with pytest.raises(DataError, match="<bytes>: values -1 to 3 do not fit"):
        read_image(tiff(np.array([[-1, 3]], np.int16)))


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colour16_png(channels):
    pixels = RNG.integers(0, 65536, (6, 9, channels), dtype=np.uint16)
    expected = pixels[..., :3] if channels > 2 else grey3(pixels[..., 0])
    assert_pixels(read_image(png16(pixels)), expected)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": True},
        {"tile": (16, 16)},
    ],
)
def test_colour16_tiff(options):
    assert_pixels(read_image(tiff(RGB16, photometric="rgb", **options)), RGB16)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_planar_colour16_tiff(compression):
    data = tiff(RGB16.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", compression=compression)
    assert_pixels(read_image(data), RGB16)


@pytest.mark.parametrize("alpha", ["assocalpha", "unassalpha", "unspecified"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_colour16_tiff_with_alpha_gives_the_stored_colours(alpha, compression):
    pixels = RNG.integers(0, 65536, (7, 5, 4), dtype=np.uint16)
    data = tiff(pixels, photometric="rgb", extrasamples=[alpha], compression=compression)
    assert_pixels(read_image(data), pixels[..., :3])


def test_grey_and_alpha_16_tiff():
    data = tiff(RGB16[..., :2], photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"])
    assert_pixels(read_image(data), grey3(RGB16[..., 0]))


def lzw_tiff(pixels, order, predictor, rows_per_strip):
    """H x W x 3 uint16 as LZW strips: libtiff (through Pillow) packs the bytes, the tags are set by hand."""
    height, width, channels = pixels.shape
    values = pixels.astype(np.uint16)
    if predictor == 2:
        values = np.diff(values, axis=1, prepend=np.zeros((height, 1, channels), np.uint16))
    raw = values.astype(f"{order}u2").view(np.uint8).reshape(height, -1)
    strips = []
    for start in range(0, height, rows_per_strip):
        rows = raw[start : start + rows_per_strip]
        packed = encoded(rows, "TIFF", compression="tiff_lzw", tiffinfo={278: len(rows)})
        page = tifffile.TiffFile(io.BytesIO(packed)).pages[0]
        assert len(page.dataoffsets) == 1
        strips.append(packed[page.dataoffsets[0] : page.dataoffsets[0] + page.databytecounts[0]])
    n = len(strips)
    tags = [
        (256, [width]),
        (257, [height]),
        (258, [16] * 3),
        (259, [5]),
        (262, [2]),
        (273, [0] * n),
        (277, [3]),
    ]
    tags += [(278, [rows_per_strip]), (279, [len(strip) for strip in strips]), (317, [predictor])]
    extra = 8 + 2 + 12 * len(tags) + 4
    first = extra + sum(4 * len(value) for _, value in tags if len(value) > 1)
    tags[5] = (273, [first + sum(map(len, strips[:i])) for i in range(n)])
    entries, tail = b"", b""
    for tag, value in tags:
        entries += struct.pack(f"{order}HHI", tag, 4, len(value))
        entries += struct.pack(f"{order}I", extra + len(tail) if len(value) > 1 else value[0])
        tail += struct.pack(f"{order}{len(value)}I", *value) if len(value) > 1 else b""
    magic = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(tags))
    return magic + entries + bytes(4) + tail + b"".join(strips)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("rows_per_strip", [3, 100])
def test_lzw_colour16_tiff(order, predictor, rows_per_strip):
    pixels = RNG.integers(0, 65536, (10, 33, 3), dtype=np.uint16)
    assert_pixels(read_image(lzw_tiff(pixels, order, predictor, rows_per_strip)), pixels)


def test_white_is_zero_tiffs_are_turned_round():
    assert_pixels(read_image(tiff(RAMP16, photometric="miniswhite")), grey3(65535 - RAMP16))
    assert_pixels(read_image(tiff(RGB8[..., 0], photometric="miniswhite")), grey3(255 - RGB8[..., 0]))


def frames(kind, count=2, **options):
    pictures = [Image.fromarray(np.roll(np.tile(RGB8, (4, 4, 1)), i, 0)) for i in range(count)]
    stream = io.BytesIO()
    pictures[0].save(stream, kind, save_all=True, append_images=pictures[1:], **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PNG", "WEBP", "MPO"])
def test_one_of_several_pages_is_never_judged(kind):
    assert read_image(frames(kind, 1)).shape == (28, 20, 3)
    with pytest.raises(DataError, match=r"<bytes>: has 3 (pages|frames|pictures); save each"):
        read_image(frames(kind, 3))


def test_a_reduction_is_not_judged_in_place_of_its_picture():
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(RGB8[::2, ::2], photometric="rgb", subfiletype=1)
        writer.write(RGB8, photometric="rgb")
    assert_pixels(read_image(stream.getvalue()), RGB8)


@pytest.mark.parametrize(
    ("kind", "lossless"), [("GIF", True), ("PPM", True), ("JPEG2000", True), ("AVIF", False)]
)
def test_further_formats_of_pillow(kind, lossless):
    grey = np.repeat(RGB8[..., :1], 3, axis=2)
    options = {"quality": 100} if kind == "AVIF" else {}
    found = read_image(encoded(grey, kind, **options))
    assert np.abs(found.astype(int) - grey).max() <= (0 if lossless else 6)
    if kind in ("PPM", "JPEG2000"):
        assert_pixels(read_image(encoded(RAMP16, kind)), grey3(RAMP16))


@pytest.mark.parametrize("most", [65535, 1023])
@pytest.mark.parametrize("plain", [False, True])
def test_colour_ppm_keeps_every_level(most, plain):
    pixels = RNG.integers(0, most + 1, (6, 4, 3), dtype=np.uint16)
    body = " ".join(map(str, pixels.ravel())).encode() if plain else pixels.astype(">u2").tobytes()
    data = (b"P3" if plain else b"P6") + b"\n# made by hand\n4 6\n" + str(most).encode() + b"\n" + body
    assert_pixels(read_image(data), np.round(pixels / most * 65535).astype(np.uint16))


def jpeg2000(pixels, depth=None, **options):
    """depth: what the header says of each channel instead, as in a file of more bits."""
    data = bytearray(encoded(pixels, "JPEG2000", **options))
    at = data.find(b"\xff\x4f\xff\x51") + 42
    if depth is not None:
        for channel in range(data[at - 1]):
            data[at + 3 * channel] = depth
    return bytes(data)


@pytest.mark.parametrize(("pixels", "depth"), [(RGB8, 15), (RGB8, 9), (RGB8[..., 0], 16)])
def test_levels_that_pillow_would_lose_are_refused_with_advice(pixels, depth):
    with pytest.raises(DataError, match=rf"of {depth + 1} bits .* would be left; save it as PNG or TIFF"):
        read_image(jpeg2000(pixels, depth))
    with pytest.raises(DataError, match="of 16 bits of an SGI image 8 would be left; save it as PNG"):
        read_image(encoded(RGB8, "SGI", bpc=2))


@pytest.mark.parametrize("bits", [8, 16])
def test_signed_jpeg2000_does_not_move(bits):
    top = 1 << (bits - 1)
    levels = np.linspace(0, top - 1, 35).astype(f"u{bits // 8}").reshape(7, 5)
    stored = jpeg2000(levels, signed=True)
    assert_pixels(read_image(stored), grey3(levels))
    with pytest.raises(DataError, match=f"values -{top} to {top - 1} do not fit"):
        read_image(jpeg2000(levels | np.where(np.eye(7, 5), top, 0).astype(levels.dtype), signed=True))


def test_signed_bytes_do_not_wrap():
    levels = np.arange(-4, 4, dtype=np.int8).reshape(2, 4)
    for pixels in (levels, np.repeat(levels[..., None], 3, axis=2)):
        with pytest.raises(DataError, match="values -4 to 3"):
            read_image(tiff(pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack"))
    assert_pixels(read_image(tiff(levels + np.int8(4))), grey3(levels.astype(np.uint8) + np.uint8(4)))


def test_white_is_zero_and_alpha_as_stored_in_every_depth():
    grey = np.linspace(0, 1, 8, dtype=np.float32).reshape(2, 4)
    assert_pixels(read_image(tiff(grey, photometric="miniswhite")), grey3(1 - grey))
    pixels = RNG.integers(0, 256, (7, 5, 4), dtype=np.uint8)
    assert_pixels(read_image(tiff(pixels, photometric="rgb", extrasamples=["assocalpha"])), pixels[..., :3])
    with pytest.raises(DataError, match="8 bits in the colour space CFA"):
        read_image(tiff(RGB8[..., 0], photometric="cfa"))


def test_bytes_like_objects_files_and_pipes(tmp_path, monkeypatch):
    data = encoded(RGB8, "PNG")
    path = tmp_path / "x.png"
    path.write_bytes(data)
    with path.open("rb") as file:
        strided = memoryview(np.repeat(np.frombuffer(data, np.uint8), 2).tobytes())[::2]
        for source in (bytearray(data), memoryview(data), strided, array("B", data), io.BytesIO(data), file):
            assert_pixels(read_image(source), RGB8)
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(DataError, match="-: standard input is closed"):
        read_image("-")
    with path.open(encoding="latin-1") as text, pytest.raises(DataError, match="opened as text"):
        read_image(text)
    script = "import sys; from invad.data.images import read_image; print(read_image(sys.argv[1]).sum())"
    for name in ("-", "/dev/stdin"):
        run = subprocess.run(
            [sys.executable, "-c", script, name], input=data, capture_output=True, check=True
        )
        assert int(run.stdout) == int(RGB8.sum())


def test_the_limit_can_be_raised_as_its_message_says(monkeypatch):
    monkeypatch.setattr("invad.data.images.MAX_PIXELS", 34)
    with pytest.raises(DataError, match="set the environment variable INVAD_MAX_PIXELS=35"):
        read_image(encoded(RGB8, "PNG"))
    monkeypatch.setenv("INVAD_MAX_PIXELS", "35")
    assert_pixels(read_image(encoded(RGB8, "PNG")), RGB8)
    monkeypatch.setenv("INVAD_MAX_PIXELS", "many")
    with pytest.raises(ConfigError, match="give a number of pixels"):
        read_image(encoded(RGB8, "PNG"))


def test_16_bit_cmyk_is_refused():
    data = tiff(RNG.integers(0, 9, (4, 4, 4), dtype=np.uint16), photometric="separated")
    with pytest.raises(DataError, match="colour space"):
        read_image(data)


# floats


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_tiff(dtype):
    grey = RNG.random((6, 4)).astype(dtype)
    assert_pixels(read_image(tiff(grey)), grey3(grey.astype(np.float32)))
    with pytest.raises(DataError, match=r"<bytes>: float values 0 to 2 leave \[0, 1\]"):
        read_image(tiff(np.array([[0, 2]], dtype)))


# arrays and tensors


def test_arrays():
    assert_pixels(read_image(RGB8), RGB8)
    assert_pixels(read_image(RGB16.astype(">u2")), RGB16)
    assert_pixels(read_image(RGB8[..., 0]), grey3(RGB8[..., 0]))
    assert_pixels(read_image(RGB8[..., :1]), grey3(RGB8[..., 0]))
    assert_pixels(read_image(np.dstack([RGB8, RGB8[..., 0]])), RGB8)
    assert_pixels(read_image(RGB8[..., 0] > 99), grey3((RGB8[..., 0] > 99) * np.uint8(255)))
    assert_pixels(read_image(RGB8[::-1, ::2]), RGB8[::-1, ::2])
    assert_pixels(read_image(np.array([[0.0, 1.00001]])), grey3(np.array([[0, 1]], np.float32)))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32, torch.float64])
def test_tensors_equal_arrays(dtype):
    array = (RGB8 / 255 if dtype.is_floating_point else RGB8).astype(str(dtype).removeprefix("torch."))
    tensor = torch.from_numpy(array.transpose(2, 0, 1).copy())
    assert_pixels(read_image(tensor), read_image(array))
    assert_pixels(read_image(tensor[0]), read_image(array[..., 0]))
    assert_pixels(read_image(tensor[:1]), read_image(array[..., 0]))
    if dtype.is_floating_point:
        assert_pixels(read_image(tensor.requires_grad_()), read_image(array))
        assert read_image(tensor.detach().bfloat16()).dtype == np.float32


@settings(max_examples=30, deadline=None)
@given(
    hnp.arrays(st.sampled_from([np.uint8, np.uint16]), hnp.array_shapes(min_dims=2, max_dims=2, max_side=9))
)
def test_written_is_read(grey):
    assert_pixels(read_image(encoded(grey, "PNG")), grey3(grey))
    assert_pixels(read_image(tiff(grey)), grey3(grey))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros((4, 4, 5), np.uint8), "4 x 4 x 5"),
        (np.zeros((2, 4, 4, 3), np.uint8), "2 x 4 x 4 x 3"),
        (np.zeros((), np.uint8), "scalar"),
        (np.zeros((4, 4), np.int64), "int64 is ambiguous"),
        (np.full((4, 4), np.nan), "not finite"),
        (np.full((4, 4), np.inf), "not finite"),
        (np.full((4, 4), 255.0), "divide by full scale"),
        (np.full((4, 4), -0.1), "divide by full scale"),
        (torch.zeros(1, 3, 4, 4), "C x H x W"),
        (torch.zeros(5, 4, 4), "C x H x W"),
    ],
)
def test_arrays_that_are_no_images(array, message):
    with pytest.raises(DataError, match=message) as caught:
        read_image(array)
    assert str(caught.value).startswith("<array>: ")
    assert "\n" not in str(caught.value)


def test_other_types_are_refused():
    with pytest.raises(DataError, match="list is not an image"):
        read_image([[1, 2], [3, 4]])


# hostile files


HOSTILE = {
    "png": encoded(np.tile(RGB8, (9, 9, 1)), "PNG"),
    "jpg": encoded(np.tile(RGB8, (9, 9, 1)), "JPEG"),
    "bmp": encoded(np.tile(RGB8, (9, 9, 1)), "BMP"),
    "webp": encoded(np.tile(RGB8, (9, 9, 1)), "WEBP", lossless=True),
    "tif": tiff(np.tile(RGB8, (9, 9, 1)), photometric="rgb"),
    "16.png": png16(np.tile(RGB16, (9, 9, 1))),
    "16.tif": tiff(np.tile(RGB16, (9, 9, 1)), photometric="rgb", compression="zlib"),
    "lzw.tif": lzw_tiff(np.tile(RGB16, (9, 9, 1)), "<", 2, 100),
    "gif": encoded(np.tile(RGB8, (9, 9, 1)), "GIF"),
    "jp2": encoded(np.tile(RGB8, (9, 9, 1)), "JPEG2000"),
    "16.jp2": encoded(np.tile(RGB16[..., 0], (9, 9)), "JPEG2000"),
    "avif": encoded(np.tile(RGB8, (9, 9, 1)), "AVIF"),
    "ppm": encoded(np.tile(RGB8, (9, 9, 1)), "PPM"),
    "16.ppm": b"P6 45 63 65535\n" + np.tile(RGB16, (9, 9, 1)).astype(">u2").tobytes(),
    "tga": encoded(np.tile(RGB8, (9, 9, 1)), "TGA"),
    "rle.tga": encoded(np.tile(RGB8, (9, 9, 1)), "TGA", compression="tga_rle"),
    "pcx": encoded(np.tile(RGB8, (9, 9, 1)), "PCX"),
    "sgi": encoded(np.tile(RGB8, (9, 9, 1)), "SGI"),
    "qoi": encoded(np.tile(RGB8, (9, 9, 1)), "QOI"),
}


def test_every_format_that_pillow_writes_is_treated_as_hostile(tmp_path):
    assert {format_of(data[:HEAD_BYTES], "").name for data in HOSTILE.values()} == {
        known.name for known in FORMATS if known.name not in ("HEIC", "DICOM")
    }
    for suffix, data in HOSTILE.items():
        path = tmp_path / f"part.{suffix}"
        path.write_bytes(data)
        assert read_image(path).shape == (63, 45, 3)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("suffix", HOSTILE)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.9])
def test_truncated_files(suffix, share, tmp_path):
    path = tmp_path / f"part.{suffix}"
    path.write_bytes(HOSTILE[suffix][: int(share * len(HOSTILE[suffix]))])
    with pytest.raises(DataError) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(HOSTILE)), st.data())
def test_flipped_bytes_give_pixels_or_a_data_error(suffix, data):
    damaged = bytearray(HOSTILE[suffix])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, min(len(damaged), 400) - 1))] = data.draw(st.integers(0, 255))
    try:
        pixels = read_image(bytes(damaged), max_pixels=10_000_000)
    except DataError:
        return
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3


def test_not_an_image(tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("these are not the bytes you are looking for")
    with pytest.raises(DataError, match=r"notes\.png: none of the formats PNG, JPEG"):
        read_image(path)
    with pytest.raises(DataError, match="no such file"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(DataError, match="is a folder"):
        read_image(tmp_path)
    with pytest.raises(DataError, match="cannot be opened"):
        read_image("nul\0byte.png")
    with pytest.raises(DataError, match="<bytes>: is empty"):
        read_image(b"")


def test_zero_size_png():
    data = bytearray(encoded(RGB8, "PNG"))
    data[16:20] = bytes(4)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(DataError, match="<bytes>"):
        read_image(bytes(data))


def bomb_png(side, depth):
    header = struct.pack(">IIBBBBB", side, side, depth, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 9) + b"IDAT" + bytes(13)


@pytest.mark.parametrize(
    "data",
    [
        bomb_png(50_000, 8),
        bomb_png(50_000, 16),
        encoded(RGB8, "BMP")[:18] + struct.pack("<ii", 50_000, 50_000) + encoded(RGB8, "BMP")[26:],
        lzw_tiff(RGB16, "<", 1, 100).replace(
            struct.pack("<HHII", 256, 4, 1, 5), struct.pack("<HHII", 256, 4, 1, 10**9)
        ),
    ],
)
def test_bombs_are_refused_by_the_header(data):
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="over the limit of 200000000"):
            read_image(data)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_max_pixels():
    data = encoded(RGB8, "PNG")
    assert read_image(data, max_pixels=35).shape == (7, 5, 3)
    for source in (data, Image.open(io.BytesIO(data)), png16(RGB16), tiff(RGB16, photometric="rgb")):
        with pytest.raises(DataError, match="5 x 7 pixels is over the limit of 34"):
            read_image(source, max_pixels=34)


@pytest.mark.parametrize("limit", [10, 20])  # Pillow would raise, Pillow would warn
def test_only_our_limit_counts(monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    for data in (encoded(RGB8, "PNG"), encoded(RGB8, "TIFF"), encoded(RGB8, "BMP")):
        assert_pixels(read_image(data), RGB8)
        assert limit == Image.MAX_IMAGE_PIXELS
    assert_pixels(read_image(lzw_tiff(RGB16, "<", 2, 100)), RGB16)
    with pytest.raises(DataError):
        read_image(encoded(RGB8, "TIFF")[:100])
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to count open files")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_files_are_closed(tmp_path):
    for suffix, data in HOSTILE.items():
        (tmp_path / f"whole.{suffix}").write_bytes(data)
        (tmp_path / f"broken.{suffix}").write_bytes(data[: len(data) // 2])
    before = len(list(Path("/proc/self/fd").iterdir()))
    kept = []
    for path in list_images(tmp_path):
        try:
            read_image(path)
        except DataError as error:
            kept.append(error)
    assert len(kept) == len(HOSTILE)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# masks


def write_mask(folder, levels, name="mask.png"):
    path = folder / name
    Image.fromarray(levels).save(path)
    return path


@pytest.mark.parametrize("levels", [[0, 255], [0, 1], [0, 1, 2, 3], [0, 85, 170, 255], list(range(21))])
def test_label_masks_split_above_zero(levels, tmp_path):
    mask = np.resize(np.array(levels, np.uint8), (8, 8))
    np.testing.assert_array_equal(read_mask(write_mask(tmp_path, mask)), mask > 0)


def test_codes_of_a_mask_serve_every_rule(tmp_path):
    grey = np.arange(200, dtype=np.uint8).reshape(10, 20)
    codes, least = read_mask_codes(write_mask(tmp_path, grey))
    np.testing.assert_array_equal(codes >= 1, grey > 0)
    np.testing.assert_array_equal(codes == 2, grey > 127)
    assert (codes.dtype, codes.max(), least) == (np.uint8, 2, 2)  # many levels: antialiased
    labels = write_mask(tmp_path, (grey // 70).astype(np.uint8), "labels.png")
    codes, least = read_mask_codes(labels, size_hw=(10, 20))
    assert (codes.max(), least) == (1, 1)
    with pytest.raises(DataError, match="mask is 20 x 10 pixels"):
        read_mask_codes(labels, size_hw=(5, 5))


def test_soft_masks_split_at_half(tmp_path):
    y, x = np.mgrid[:40, :40]
    sharp = (np.hypot(y - 20, x - 20) < 12) * np.uint8(255)
    soft = np.array(Image.fromarray(sharp).resize((33, 33), Image.Resampling.BICUBIC))
    assert len(np.unique(soft)) > 8
    read = read_mask(write_mask(tmp_path, soft))
    np.testing.assert_array_equal(read, soft > 127)
    assert not np.array_equal(read, soft > 0)
    np.testing.assert_array_equal(read_mask(write_mask(tmp_path, sharp, "mask.JPG")), sharp > 0)
    wide = write_mask(tmp_path, soft.astype(np.uint16) * 257, "wide.png")
    np.testing.assert_array_equal(read_mask(wide), soft > 127)


def test_mask_of_few_levels_in_a_jpeg_is_split_at_half(tmp_path):
    nearly = np.full((16, 16), 1, np.uint8)  # a flat block that compression left at 1 instead of 0
    nearly[8:] = 254
    path = write_mask(tmp_path, nearly, "mask.jpg")
    assert len(np.unique(read_image(path))) <= 8
    np.testing.assert_array_equal(read_mask(path), nearly > 127)


def test_mask_kinds(tmp_path):
    truth = np.zeros((6, 4), bool)
    truth[2:, 1:] = True
    colour = np.where(truth[..., None], np.array([0, 0, 200], np.uint8), np.uint8(0))
    palette = Image.fromarray(colour).quantize(2)
    palette.save(tmp_path / "palette.png")
    assert write_mask(tmp_path, truth, "bits.png").exists()
    write_mask(tmp_path, colour, "colour.png")
    tifffile.imwrite(tmp_path / "float.tif", truth.astype(np.float32))
    for name in ("bits.png", "colour.png", "palette.png", "float.tif"):
        mask = read_mask(tmp_path / name)
        assert mask.dtype == np.bool_
        np.testing.assert_array_equal(mask, truth)


def test_a_mask_in_alpha_is_read_there_and_a_whole_one_is_doubted(tmp_path):
    truth = np.zeros((20, 20), bool)
    truth[5:12, 6:14] = True
    for colour in (255, 0):
        layer = np.full((20, 20, 4), colour, np.uint8)
        layer[..., 3] = truth * np.uint8(255)
        np.testing.assert_array_equal(read_mask(write_mask(tmp_path, layer)), truth)
    assert doubt(truth) is None
    for whole in (~truth, np.ones((20, 20), bool)):
        assert "of the whole picture" in doubt(whole)
    assert "marks no pixel" in doubt(np.zeros((20, 20), bool))


def test_mask_size(tmp_path):
    path = write_mask(tmp_path, np.zeros((6, 4), np.uint8))
    assert read_mask(path, size_hw=(6, 4)).shape == (6, 4)
    with pytest.raises(DataError, match=r"mask\.png: mask is 4 x 6 pixels, its image 6 x 4"):
        read_mask(path, size_hw=(4, 6))


# listings


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def listed(folder, **options):
    return [path.relative_to(folder).as_posix() for path in list_images(folder, **options)]


def test_list_images_natural_order(tmp_path):
    touch(tmp_path, "part10.png", "part2.PNG", "Part1.jpg", "b/1.tif", "b10/1.bmp", "b9/1.webp", "notes.txt")
    touch(tmp_path, ".hidden.png", ".cache/1.png", "b/._1.png", "Thumbs.db")
    assert listed(tmp_path) == ["b/1.tif", "b9/1.webp", "b10/1.bmp", "Part1.jpg", "part2.PNG", "part10.png"]
    assert listed(tmp_path, recursive=False) == ["Part1.jpg", "part2.PNG", "part10.png"]
    touch(tmp_path, *(f"all/x{suffix.upper()}" for suffix in IMAGE_SUFFIXES))
    assert len(list_images(tmp_path / "all")) == len(IMAGE_SUFFIXES)


def test_list_images_links(tmp_path):
    touch(tmp_path, "data/a/1.png", "elsewhere/2.png")
    try:
        (tmp_path / "data/a/loop").symlink_to(tmp_path / "data", target_is_directory=True)
        (tmp_path / "data/linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        (tmp_path / "data/gone.png").symlink_to(tmp_path / "nothing.png")
    except OSError:
        pytest.skip("no right to make links")
    assert listed(tmp_path / "data") == ["a/1.png", "linked/2.png"]


def test_list_images_errors(tmp_path):
    touch(tmp_path, "x.png")
    with pytest.raises(DataError, match="no such folder"):
        list_images(tmp_path / "missing")
    with pytest.raises(DataError, match="is a file"):
        list_images(tmp_path / "x.png")
    assert list_images(tmp_path, recursive=False) == (tmp_path / "x.png",)


def test_files_that_are_not_taken_are_named(tmp_path):
    touch(
        tmp_path, "1.png", "2.psd", "sub/3.PSD", "README", "notes.txt", "Thumbs.db", "@eaDir/1.png/THUMB.jpg"
    )
    touch(tmp_path, "$RECYCLE.BIN/x.png", "__MACOSX/1.png", "lost+found/#5.psd", "._1.psd")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing.png")
    os.mkfifo(tmp_path / "pipe.png")
    found = survey(tmp_path)
    assert [path.name for path in found.images] == ["1.png"]
    (line,) = found.in_words()
    assert line.startswith(
        "5 files were not taken (.psd 2, links that lead nowhere 1, no ending 1, pipes or devices 1)"
    )


def test_heic_is_read_where_its_plugin_is_installed(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    ramp = np.repeat(np.arange(0, 192, 3, dtype=np.uint8)[None, :, None], 48, axis=0).repeat(3, axis=2)
    heif.from_pillow(Image.fromarray(ramp)).save(tmp_path / "part.heic", quality=100)
    pixels = read_image(tmp_path / "part.heic")
    assert (pixels.shape, pixels.dtype) == (ramp.shape, np.uint8)
    assert np.abs(pixels.astype(int) - ramp).max() <= 3
