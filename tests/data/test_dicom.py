"""DICOM: levels, colours, millimetres, and files that are not what they say."""

import io
import os
import struct
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pydicom = pytest.importorskip("pydicom", reason="needs invad[dicom]")

from pydicom import uid  # noqa: E402
from pydicom.dataset import Dataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.pixels.processing import convert_color_space  # noqa: E402

from dicoms import PATIENT, dicom  # noqa: E402
from invad.data.check import check_dataset  # noqa: E402
from invad.data.dicom import SIGNED_ZERO, spacing  # noqa: E402
from invad.data.images import read_image, turned  # noqa: E402
from invad.data.listing import survey  # noqa: E402
from invad.data.masks import read_mask  # noqa: E402
from invad.errors import DataError  # noqa: E402

RNG = np.random.default_rng(0)
RAMP16 = np.arange(65536, dtype=np.uint16).reshape(256, 256)
RAMP12 = np.arange(4096, dtype=np.uint16).reshape(64, 64)
GREY8 = RNG.integers(0, 256, (7, 5), dtype=np.uint8)
RGB8 = RNG.integers(0, 256, (8, 6, 3), dtype=np.uint8)
HU = RNG.integers(-1024, 3072, (9, 7)).astype(np.int16)


def grey3(grey):
    return np.repeat(grey[..., None], 3, axis=2)


def same(data, expected):
    pixels = read_image(data)
    assert pixels.dtype == expected.dtype
    np.testing.assert_array_equal(pixels, grey3(expected) if expected.ndim == 2 else expected)


def refusal(data, **options):
    with pytest.raises(DataError) as caught:
        read_image(data, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("<bytes>: ")
    return message


# levels


@pytest.mark.parametrize(
    "syntax",
    [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian],
    ids=lambda syntax: syntax.name,
)
def test_every_grey_level_is_that_of_the_tiff(syntax):
    for pixels, stored in ((RAMP16, 16), (RAMP12, 12), (GREY8, 8), (GREY8.astype(np.uint16), 8)):
        stream = io.BytesIO()
        tifffile.imwrite(stream, pixels)
        same(dicom(pixels, syntax=syntax, BitsStored=stored), read_image(stream.getvalue()))


def test_monochrome1_is_the_picture_of_its_inverse():
    for pixels, stored in ((RAMP16, 16), (RAMP12, 12), (GREY8, 8)):
        inverse = ((1 << stored) - 1 - pixels).astype(pixels.dtype)
        same(dicom(inverse, "MONOCHROME1", BitsStored=stored), pixels)


def test_hounsfield_units_are_the_same_however_they_are_stored():
    expected = (HU.astype(int) + SIGNED_ZERO).astype(np.uint16)
    same(dicom(HU), expected)
    same(dicom(HU, RescaleSlope=1, RescaleIntercept=0), expected)
    same(dicom(abs(HU)), (abs(HU.astype(int)) + SIGNED_ZERO).astype(np.uint16))
    for intercept, stored in ((-1024, 12), (-8192, 16)):
        unsigned = (HU.astype(int) - intercept).astype(np.uint16)
        same(dicom(unsigned, BitsStored=stored, RescaleSlope="1", RescaleIntercept=intercept), expected)
    doubled = dicom((HU // 2).astype(np.int16), RescaleSlope=2, RescaleIntercept=0)
    same(doubled, (HU.astype(int) // 2 * 2 + SIGNED_ZERO).astype(np.uint16))


def test_bits_above_those_stored_do_not_count():
    same(dicom(RAMP12 | 0xA000, BitsStored=12), RAMP12)
    signed = np.array([[0x0FFF, 0x0800, 0x07FF, 0]], np.int16)  # of 12 bits: -1, -2048, 2047, 0
    levels = SIGNED_ZERO + np.array([[-1, -2048, 2047, 0]])
    same(dicom(signed, BitsStored=12), levels.astype(np.uint16))


def test_the_table_of_a_modality_is_applied():
    item = Dataset()
    item.LUTDescriptor, item.ModalityLUTType = [256, 0, 16], "US"
    item.LUTData = (7 * np.arange(256) + 3).astype("<u2").tobytes()
    same(dicom(GREY8, ModalityLUTSequence=[item]), (GREY8.astype(np.uint16) * 7 + 3))
    inverted = 65535 - (GREY8.astype(np.uint16) * 7 + 3)
    same(dicom(GREY8, "MONOCHROME1", ModalityLUTSequence=[item]), inverted)


def test_an_enhanced_picture_of_one_frame_has_its_values_in_functional_groups():
    values, measures, groups = Dataset(), Dataset(), Dataset()
    values.RescaleSlope, values.RescaleIntercept = 1, -1024
    measures.PixelSpacing = [0.5, 0.25]
    groups.PixelValueTransformationSequence, groups.PixelMeasuresSequence = [values], [measures]
    data = dicom(RAMP12, BitsStored=12, NumberOfFrames=1, SharedFunctionalGroupsSequence=[groups])
    same(data, (RAMP12 + np.uint16(SIGNED_ZERO - 1024)))


def test_no_display_window_is_applied():
    window = {"WindowCenter": 100, "WindowWidth": 50}
    same(dicom(RAMP12, BitsStored=12, **window), RAMP12)


def test_padding_is_as_dark_as_the_darkest_pixel():
    padded = HU.copy()
    padded[:2] = -2000
    expected = padded.copy()
    expected[:2] = padded[2:].min()
    same(dicom(padded, PixelPaddingValue=-2000), (expected.astype(int) + SIGNED_ZERO).astype(np.uint16))
    bright = RAMP12.copy()
    bright[:, :3] = 4095  # MONOCHROME1: black
    expected = 4095 - bright
    expected[bright >= 4094] = expected[bright < 4094].min()
    options = {"BitsStored": 12, "PixelPaddingValue": 4095, "PixelPaddingRangeLimit": 4094}
    same(dicom(bright, "MONOCHROME1", **options), expected)
    wide = np.where(RAMP12 == 5, 0xF005, RAMP12).astype(np.uint16)
    expected = np.where(RAMP12 == 5, 0, RAMP12).astype(np.uint16)
    same(dicom(wide, BitsStored=12, PixelPaddingValue=0xF005), expected)
    assert "every pixel is padding" in refusal(dicom(np.full((3, 3), 7, np.uint8), PixelPaddingValue=7))


def test_levels_that_would_be_lost_are_refused():
    assert "slope 0.5 would make one level of several" in refusal(
        dicom(RAMP12, RescaleSlope=0.5, RescaleIntercept=0)
    )
    assert "values 0 to 262140 do not fit 16 bits" in refusal(
        dicom(RAMP16, RescaleSlope=4, RescaleIntercept=0)
    )
    assert "of 32 bits 16 would be left" in refusal(dicom(RAMP12.astype(np.uint32)))


# colours


def test_colour_spaces():
    same(dicom(RGB8), RGB8)
    planes = np.ascontiguousarray(np.moveaxis(RGB8, -1, 0)).tobytes()
    same(dicom(RGB8, value=planes, PlanarConfiguration=1), RGB8)
    same(dicom(RGB8.astype(np.uint16) * 257), RGB8.astype(np.uint16) * 257)
    luma = convert_color_space(RGB8, "RGB", "YBR_FULL")
    expected = convert_color_space(luma, "YBR_FULL", "RGB")
    same(dicom(luma, "YBR_FULL"), expected)
    assert np.abs(expected.astype(int) - RGB8).max() <= 2
    halved = luma.reshape(8, 3, 2, 3).copy()
    halved[:, :, 1, 1:] = halved[:, :, 0, 1:]
    stored = np.stack([halved[:, :, 0, 0], halved[:, :, 1, 0], halved[:, :, 0, 1], halved[:, :, 0, 2]], -1)
    expected = convert_color_space(halved.reshape(8, 6, 3), "YBR_FULL", "RGB")
    same(dicom(RGB8, "YBR_FULL_422", value=stored.tobytes()), expected)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_palettes(kind):
    red, green, blue = RNG.integers(0, np.iinfo(kind).max, (3, 256)).astype(kind)
    elements = {}
    for name, table in (("Red", red), ("Green", green), ("Blue", blue)):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 8 * table.itemsize]
        elements[f"{name}PaletteColorLookupTableData"] = table.tobytes()
    same(dicom(GREY8, "PALETTE COLOR", **elements), np.stack([t[GREY8] for t in (red, green, blue)], -1))


def test_a_palette_that_pydicom_would_wrap_is_refused():
    elements = {}
    for name in ("Red", "Green", "Blue"):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [4096, 0, 8]
        elements[f"{name}PaletteColorLookupTableData"] = bytes(4096)
    message = refusal(dicom(RAMP12, "PALETTE COLOR", BitsStored=12, **elements))
    assert "a palette of 4096 colours of 8 bits is not read" in message


def test_one_bit_is_a_label():
    bits = np.tile([0, 1, 1, 0], (4, 4)).astype(np.uint8)
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    data = dicom(bits, value=packed, BitsAllocated=1, BitsStored=1)
    same(data, bits)


# compressed


def test_run_lengths():
    for pixels in (GREY8, RAMP12, RGB8):
        made = pydicom.dcmread(io.BytesIO(dicom(pixels)))
        made.compress(uid.RLELossless, encoding_plugin="pydicom")
        stream = io.BytesIO()
        made.save_as(stream)
        same(stream.getvalue(), pixels)


def jpeg(pixels, kind="JPEG", **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def coded(pixels, code, syntax, **elements):
    return dicom(pixels, syntax=syntax, value=encapsulate([code]), **elements)


def jpeg2000(pixels, **elements):
    options = {"irreversible": False, "no_jp2": True}
    return coded(pixels, jpeg(pixels, "JPEG2000", **options), uid.JPEG2000Lossless, **elements)


def test_jpeg_2000_and_jpeg_are_decoded_by_pillow():
    same(jpeg2000(RAMP16), RAMP16)
    smooth = np.tile(np.arange(0, 250, 5, dtype=np.uint8), (40, 1))
    pixels = read_image(coded(smooth, jpeg(smooth, quality=95), uid.JPEGBaseline8Bit))
    assert np.abs(pixels[..., 0].astype(int) - smooth).max() <= 4


def test_jpeg_ls_with_its_package():
    pytest.importorskip("jpeg_ls", reason="needs pyjpegls")
    made = pydicom.dcmread(io.BytesIO(dicom(RAMP12, BitsStored=12)))
    made.compress(uid.JPEGLSLossless)
    stream = io.BytesIO()
    made.save_as(stream)
    same(stream.getvalue(), RAMP12)


@pytest.mark.parametrize(
    ("syntax", "package"),
    [
        (uid.JPEGLSLossless, "pyjpegls: pip install pyjpegls;"),
        (uid.JPEGLosslessSV1, "python-gdcm: pip install python-gdcm;"),
        (uid.JPEGExtended12Bit, "pylibjpeg-libjpeg: pip install pylibjpeg pylibjpeg-libjpeg;"),
        (uid.HTJ2K, "pylibjpeg-openjpeg: pip install pylibjpeg pylibjpeg-openjpeg;"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_package_that_is_missing_is_named(syntax, package, monkeypatch):
    from pydicom.pixels.decoders.base import get_decoder

    decoder = get_decoder(syntax)
    for plugin in decoder.available_plugins:  # as where they are not installed
        monkeypatch.delitem(decoder._available, plugin)
    message = refusal(coded(RAMP12, b"\xff\xd8\xff\xd9", syntax, BitsStored=12))
    assert f"{syntax.name} needs the package {package} or save it uncompressed" in message


def test_without_pydicom_the_extra_is_named(monkeypatch):
    file = dicom(GREY8)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert "DICOM needs pydicom>=3.0 (not installed); pip install 'invad[dicom]'" in refusal(file)


# millimetres


def test_spacing(tmp_path):
    def of(**elements):
        path = tmp_path / "x.dcm"
        path.write_bytes(dicom(GREY8, **elements))
        return spacing(path)

    assert of() is None
    assert of(PixelSpacing=[0.5, 0.25]) == (0.5, 0.25, "PixelSpacing")
    assert of(ImagerPixelSpacing=[0.1, 0.2]) == (0.1, 0.2, "ImagerPixelSpacing")
    both = {"PixelSpacing": [0.1, 0.2], "ImagerPixelSpacing": [0.1, 0.2]}
    assert of(**both) == (0.1, 0.2, "ImagerPixelSpacing")
    assert of(**both, PixelSpacingCalibrationType="FIDUCIAL") == (0.1, 0.2, "PixelSpacing")
    assert of(NominalScannedPixelSpacing=[2, 3]) == (2, 3, "NominalScannedPixelSpacing")
    with pytest.raises(DataError, match="PixelSpacing is 0 x 1 mm; correct it"):
        of(PixelSpacing=[0, 1])
    (tmp_path / "x.png").write_bytes(jpeg(GREY8, "PNG"))
    assert spacing(tmp_path / "x.png") is None
    with pytest.raises(DataError, match="No such file"):
        spacing(tmp_path / "gone.dcm")
    (tmp_path / "cut.dcm").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(DataError, match="cut off"):
        spacing(tmp_path / "cut.dcm")


# folders


def test_files_without_an_ending_are_found_by_their_mark(tmp_path):
    for name in ("IM0001", "1.2.840.10008.7", "1.2.840.10008.8", "x.DCM", "DICOMDIR"):
        (tmp_path / name).write_bytes(dicom(GREY8))
    (tmp_path / "README").write_text("no picture")
    (tmp_path / "7.3").write_text("no picture")
    os.mkfifo(tmp_path / "IM0002")  # opened, it would wait for ever
    found = survey(tmp_path)
    assert [path.name for path in found.images] == ["1.2.840.10008.7", "1.2.840.10008.8", "IM0001", "x.DCM"]
    assert sorted(path.name for path in found.not_taken) == ["7.3", "IM0002", "README"]
    assert turned(tmp_path / "IM0001") == 1


def test_a_folder_in_the_form_of_bmad_is_read_as_it_is(tmp_path):
    def put(name, pixels):
        path = tmp_path / "Brain" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dicom(pixels))

    label = np.zeros_like(RAMP12, np.uint8)
    label[8:16, 8:16] = 1
    for i in range(3):
        put(f"train/good/1.2.840.1.{i}", RAMP12 + np.uint16(i))
        put(f"test/good/img/1.2.840.2.{i}", RAMP12 + np.uint16(10 + i))
        put(f"test/Ungood/img/1.2.840.3.{i}", RAMP12 + np.uint16(20 + i))
        put(f"test/Ungood/label/1.2.840.3.{i}", label)
    found = check_dataset(tmp_path / "Brain")
    assert (found.layout, found.problems) == ("bmad", ())
    assert found.counts == {
        "brain": {"train": 3, "test_good": 3, "test_defective": 3, "masks": 3, "left_out": 0}
    }
    mask = read_mask(tmp_path / "Brain/test/Ungood/label/1.2.840.3.0", size_hw=(64, 64))
    np.testing.assert_array_equal(mask, label > 0)
    put("test/good/label/1.2.840.2.0", np.zeros_like(label))
    assert not read_mask(tmp_path / "Brain/test/good/label/1.2.840.2.0").any()


# what is wrong with a file


def without_pixels():
    data = dicom(GREY8)
    return data[: data.rindex(b"\xe0\x7f\x10\x00")]


FRAMES = np.zeros((4, 4), np.uint8)
BAD = {
    "the mark alone": (bytes(128) + b"DICM", "names no transfer syntax, or cut off"),
    "no pixels": (without_pixels(), "is DICOM without pixels, or cut off before them"),
    "no size": (dicom(GREY8, Rows=None), "is DICOM without a picture"),
    "no height": (dicom(GREY8, Rows=0, Columns=0), "has no pixels (0 x 0)"),
    "65535": (dicom(GREY8, Rows=65535, Columns=65535), "65535 x 65535 pixels is over the limit of 200000000"),
    "little data": (dicom(GREY8, Rows=9000, Columns=9000), "is cut off, 36 of 81000000 bytes"),
    "cut off": (dicom(RAMP16)[:-100], "is cut off, 130972 of 131072 bytes of pixels are there"),
    "cut off, compressed": (jpeg2000(RAMP16)[:-100], "is cut off in its compressed pixels"),
    "transfer syntax": (
        dicom(GREY8).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0"),
        "its transfer syntax 1.2.840.10008.1.2.9 is unknown; save it uncompressed",
    ),
    "video": (coded(GREY8, b"\0\0\0\1", uid.MPEG2MPML), "MPEG2 Main Profile / Main Level is unknown"),
    "deflated": (dicom(GREY8, syntax=uid.DeflatedExplicitVRLittleEndian), "is not read; save it uncompr"),
    "frames": (dicom(FRAMES, value=bytes(64), NumberOfFrames=4), "has 4 frames; save each as a file"),
    "hidden frames": (dicom(FRAMES, value=bytes(64)), "has 4 frames; save each as a file"),
    "many frames": (dicom(FRAMES, NumberOfFrames=2**31 - 1), "has 2147483647 frames"),
    "colour space": (dicom(RGB8, "HSV"), "its colour space HSV is not read"),
    "samples": (dicom(GREY8, "RGB"), "1 samples a pixel do not go with RGB"),
    "bits": (dicom(GREY8, BitsStored=9), "9 of 8 bits are stored"),
    "another size": (
        coded(GREY8, jpeg(GREY8), uid.JPEGBaseline8Bit, Rows=6),
        "its header says 5 x 6 x 1, its compressed pixels 5 x 7 x 1",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_get_one_line(name):
    data, said = BAD[name]
    assert said in refusal(data)


def large_inside():
    """8 x 8 by their headers; 60000 x 60000, or 2 GB of black, when decoded."""
    small = np.zeros((8, 8), np.uint8)
    code = bytearray(jpeg(small, "JPEG2000", no_jp2=True))
    code[8:16] = struct.pack(">II", 60000, 60000)
    yield coded(small, bytes(code), uid.JPEG2000Lossless)
    code = bytearray(jpeg(small))
    at = code.index(b"\xff\xc0")
    code[at + 5 : at + 9] = struct.pack(">HH", 60000, 60000)
    yield coded(small, bytes(code), uid.JPEGBaseline8Bit)
    runs = struct.pack("<16L", 1, 64, *[0] * 14) + b"\x81\x00" * 500_000
    yield coded(small, runs, uid.RLELossless)


@pytest.mark.parametrize(
    "data",
    [*large_inside(), BAD["65535"][0], BAD["little data"][0], BAD["many frames"][0]],
    ids=["JPEG 2000", "JPEG", "RLE", "65535", "little data", "many frames"],
)
def test_hostile_files_take_no_memory(data):
    with pytest.raises(DataError):
        read_image(dicom(GREY8)[:200])  # what is imported once does not count
    tracemalloc.start()
    try:
        with pytest.raises(DataError):
            read_image(data)
        assert tracemalloc.get_traced_memory()[1] < 12_000_000
    finally:
        tracemalloc.stop()


def test_a_deep_nest_of_sequences_gets_one_line():
    head = dicom(GREY8)
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    tag = b"\x00\x52\x29\x92SQ\x00\x00\xff\xff\xff\xff"
    at = head.rindex(b"\xe0\x7f\x10\x00")
    with pytest.raises(DataError) as caught:
        read_image(head[:at] + (tag + item) * 5000 + head[at:])
    assert "\n" not in str(caught.value)


FLIPPED = [dicom(GREY8), dicom(RGB8), jpeg2000(RAMP12), BAD["another size"][0]]


@settings(max_examples=150)
@given(st.sampled_from(FLIPPED), st.data())
def test_flipped_bytes_give_pixels_or_a_data_error(data, chosen):
    damaged = bytearray(data)
    for _ in range(chosen.draw(st.integers(1, 4))):
        damaged[chosen.draw(st.integers(132, min(len(damaged), 900) - 1))] = chosen.draw(st.integers(0, 255))
    try:
        pixels = read_image(bytes(damaged), max_pixels=10_000_000)
    except DataError:
        return
    assert pixels.shape[2] == 3


def test_pydicom_warns_nobody_and_no_error_names_a_patient():
    data = dicom(GREY8, value=GREY8.tobytes() + bytes(9))  # pydicom warns of excess padding
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        read_image(data)
    assert seen == []
    for bad, _ in BAD.values():
        assert PATIENT not in refusal(bad)
