"""Which pictures are of one part: by names, by pages, by frames."""

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from invad.data.images import read_image
from invad.data.layouts.base import Dataset
from invad.data.members import (
    PATTERNS,
    Rule,
    member_samples,
    members_in_order,
    parts_of_files,
    pictures,
    split_by_part,
    whole_parts,
    windows,
    with_windows,
)
from invad.data.pages import Page
from invad.data.samples import read_sample
from invad.errors import ConfigError, DataError
from invad.observer import Silent
from invad.records import Sample

NAMES, PAGES = Rule.parse("names"), Rule.parse("pages")
RNG = np.random.default_rng(0)
STACK = RNG.integers(0, 65536, (3, 20, 30), np.uint16)
COLOURS = RNG.integers(0, 256, (2, 20, 30, 3), np.uint8)


class Told(Silent):
    def __init__(self):
        self.notes = []

    def note(self, line):
        self.notes.append(line)


def samples(*names, **more):
    return [Sample(path=Path("/d") / name, category="bolt", **more) for name in names]


def files(*names):
    return [(Path("/d") / name, Path(name)) for name in names]


def tiff(path, array, **options):
    tifffile.imwrite(path, array, photometric="minisblack", **options)
    return path


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("(", "no regular expression"),
        ("part_(\\d+)", "names no group part and no group member"),
        ("(?P<part>.*)_", "names no group member; give an expression such as"),
        ("pages:X", "after 'pages:' give Z"),
    ],
)
def test_what_is_no_rule_is_said_in_one_line(text, line):
    with pytest.raises(ConfigError) as caught:
        Rule.parse(text)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "name", "part", "member"),
    [
        ("names", "part017_light1.png", "part017", "light1"),
        ("names", "test/good/a_b_top.tif", "test/good/a_b", "top"),
        ("views", "OK/S0001/x_0001_OK_C3_2023.jpg", "OK/S0001", "C3"),
        (r"(?P<member>light\d)/(?P<part>.+)\.png", "good/light2/017.png", "good/017", "light2"),
    ],
)
def test_a_rule_finds_part_and_member(rule, name, part, member):
    (found,) = pictures(Path("/d") / name, Path(name), Rule.parse(rule))
    assert (found.part, found.member, found.source) == (part, member, Path("/d") / name)


def test_a_name_without_part_and_member_is_named():
    parts, others = parts_of_files(files("a_top.png", "a_side.png", "notes.png"), NAMES)
    assert [part.part for part in parts] == ["a"]
    assert [str(path) for path, _ in others] == ["/d/notes.png"]
    assert "finds no part and member in 'notes.png'" in str(others[0][1])


def test_a_picture_that_is_there_twice_is_not_chosen_from():
    (part,), _ = parts_of_files(files("a_top.png", "a_top.bmp", "a_side.png"), NAMES)
    assert part.members["side"] == Path("/d/a_side.png")
    assert str(part.members["top"]) == "top is there twice, /d/a_top.png and /d/a_top.bmp"


def test_parts_of_two_folders_are_two():
    one, two = (Path("/x/a_top.png"), Path("a_top.png")), (Path("/y/a_top.png"), Path("a_top.png"))
    parts, _ = parts_of_files([one, two], NAMES)
    assert len(parts) == 2


# ------------------------------------------------------------------ pages


@pytest.mark.parametrize("options", [{}, {"metadata": {"axes": "CYX"}}, {"metadata": None}, {"ome": True}])
def test_pages_are_members_with_every_grey_level(tmp_path, options):
    path = tiff(tmp_path / "part7.tif", STACK, **options)
    found = pictures(path, Path(path.name), PAGES)
    assert [(one.part, one.member) for one in found] == [("part7", f"page{i}") for i in (1, 2, 3)]
    for one, expected in zip(found, STACK, strict=True):
        pixels = read_image(one.source)
        assert pixels.dtype == np.uint16
        assert np.array_equal(pixels[..., 0], expected)


def test_pages_that_pillow_wrote_and_compressed(tmp_path):
    path = tmp_path / "a.tif"
    first, second = (Image.fromarray(one) for one in COLOURS)
    first.save(path, save_all=True, append_images=[second], compression="tiff_lzw")
    for one, expected in zip(pictures(path, Path("a.tif"), PAGES), COLOURS, strict=True):
        assert np.array_equal(read_image(one.source), expected)


def test_colour_is_no_page(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, COLOURS[0], photometric="rgb")
    (one,) = pictures(path, Path("a.tif"), PAGES)
    assert one.source == path
    tifffile.imwrite(path, COLOURS, photometric="rgb")
    assert len(pictures(path, Path("a.tif"), PAGES)) == 2


def test_depth_and_time_are_taken_where_it_is_said(tmp_path):
    path = tiff(tmp_path / "a.tif", STACK, metadata={"axes": "ZYX"})
    with pytest.raises(DataError, match=r"differ in depth; give --parts pages:Z"):
        pictures(path, Path("a.tif"), PAGES)
    assert len(pictures(path, Path("a.tif"), Rule.parse("pages:Z"))) == 3


def test_pages_of_several_sizes_are_refused_with_their_list(tmp_path):
    path = tmp_path / "mixed.tif"
    with tifffile.TiffWriter(path) as writer:
        for page in (STACK[0], STACK[1], STACK[2, :10, :10]):
            writer.write(page, metadata=None)
    with pytest.raises(DataError, match=r"one size and kind \(2 of 30 x 20 uint16, 1 of 10 x 10 uint16\)"):
        pictures(path, Path("mixed.tif"), PAGES)


def test_a_thumbnail_is_no_page(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(STACK[0], metadata=None)
        writer.write(STACK[1], metadata=None)
        writer.write(STACK[2, :10, :10], metadata=None, subfiletype=1)
    assert len(pictures(path, Path("a.tif"), PAGES)) == 2


def test_a_file_of_several_pages_says_what_can_be_done(tmp_path):
    path = tiff(tmp_path / "a.tif", STACK)
    with pytest.raises(DataError, match=r"has 3 pages; save each .* pictures of one part"):
        read_image(path)
    with pytest.raises(DataError, match="has no page 4, only 3"):
        read_image(Page(path, 3))


def test_a_damaged_file_is_one_line(tmp_path):
    path = tiff(tmp_path / "a.tif", STACK)
    path.write_bytes(path.read_bytes()[:9])
    with pytest.raises(DataError, match=r"a\.tif") as caught:
        pictures(path, Path("a.tif"), PAGES)
    assert "\n" not in str(caught.value)


def test_frames_of_dicom_are_members(tmp_path):
    pytest.importorskip("pydicom", reason="reading DICOM needs invad[dicom]")
    from dicoms import dicom

    path = tmp_path / "scan.dcm"
    path.write_bytes(dicom(STACK[0], value=STACK.tobytes(), NumberOfFrames=3))
    found = pictures(path, Path("scan.dcm"), PAGES)
    assert [one.member for one in found] == ["frame1", "frame2", "frame3"]
    for one, expected in zip(found, STACK, strict=True):
        assert np.array_equal(read_image(one.source)[..., 0], expected)
    with pytest.raises(DataError, match="has no frame 4, only 3"):
        read_image(Page(path, 3))
    path.write_bytes(dicom(STACK[0], value=STACK[:2].tobytes(), NumberOfFrames=3))
    with pytest.raises(DataError, match="is cut off, 2400 of 3600 bytes"):
        read_image(Page(path, 0))


def test_each_frame_of_dicom_is_brought_to_values_by_its_own_rule(tmp_path):
    pytest.importorskip("pydicom", reason="reading DICOM needs invad[dicom]")
    from pydicom.dataset import Dataset

    from dicoms import dicom

    def rule(intercept):
        inner, outer = Dataset(), Dataset()
        inner.RescaleSlope, inner.RescaleIntercept = 1, intercept
        outer.PixelValueTransformationSequence = [inner]
        return outer

    stack = STACK // 2
    groups = [rule(0), rule(7), rule(11)]
    path = tmp_path / "scan.dcm"
    path.write_bytes(
        dicom(
            stack[0],
            value=stack.tobytes(),
            NumberOfFrames=3,
            PerFrameFunctionalGroupsSequence=groups,
        )
    )
    for number, more in enumerate((0, 7, 11)):
        assert np.array_equal(read_image(Page(path, number))[..., 0], stack[number] + more)


# ------------------------------------------------------------------ samples


def test_samples_become_members_and_half_written_parts_are_left_out():
    given = samples("a_top.png", "a_side.png", "b_top.png", "b_side.png", "c_top.png")
    made = member_samples(given, NAMES, Path("/d"))
    assert {(s.sample_id, s.member, s.category) for s in made[:2]} == {
        ("a", "top", "top"),
        ("a", "side", "side"),
    }
    told = Told()
    kept = whole_parts(made, told)
    assert [s.sample_id for s in kept] == ["a", "a", "b", "b"]
    assert told.notes == ["left out, because a picture is missing: c lacks side"]
    assert members_in_order(kept) == ("side", "top")


def test_members_are_in_natural_order():
    made = member_samples(samples("a_light10.png", "a_light2.png"), NAMES, Path("/d"))
    assert members_in_order(made) == ("light2", "light10")


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["a_top.png", "a_top.bmp"], "both are top of a; keep one"),
        (["x.png", "y.png"], "finds no part and member in 'x.png'"),
        (["a_top.png", "b_side.png", "c_top.png", "d_side.png"], "0 of 4 parts have all of side, top"),
        (
            [f"{part}_{side}.png" for part in "abc" for side in ("top", "side")] + ["a_tpo.png"],
            "tpo is a member of 1 of 3 parts, such as a",
        ),
    ],
)
def test_what_cannot_be_learned_from_is_said_in_one_line(names, line):
    with pytest.raises(DataError) as caught:
        whole_parts(member_samples(samples(*names), NAMES, Path("/d")), Silent())
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_member_does_not_calibrate():
    made = member_samples(samples("a_top.png", "a_back.png"), NAMES, Path("/d"))
    with pytest.raises(DataError, match="has a member back, and the model knows top, side"):
        whole_parts(made, Silent(), ("top", "side"))


def test_one_product_at_a_time():
    two = [*samples("a_top.png"), Sample(path=Path("/d/nut/b_top.png"), category="nut")]
    with pytest.raises(DataError, match="--parts is for one product, and there are bolt, nut"):
        member_samples(two, NAMES, Path("/d"))


def test_the_views_of_real_iad_are_grouped_by_the_object_that_its_lists_name():
    names = [f"OK/S{i:04d}/bolt_{i:04d}_OK_C{c}_2023.jpg" for i in (1, 2) for c in range(1, 6)]
    given = [
        Sample(path=Path("/d/bolt") / name, category="bolt", sample_id=f"bolt/{name.rpartition('/')[0]}")
        for name in names
    ]
    kept = whole_parts(member_samples(given, Rule.parse("views"), Path("/d")), Silent())
    assert members_in_order(kept) == ("C1", "C2", "C3", "C4", "C5")
    assert {s.sample_id for s in kept} == {"bolt/OK/S0001", "bolt/OK/S0002"}
    assert "views" in PATTERNS


def test_a_part_is_held_out_for_testing_with_all_its_pictures():
    good = samples(*(f"good/{i:03d}_{m}.png" for i in range(40) for m in ("top", "side")))
    bad = samples("spot/000_top.png", "spot/000_side.png", defect="spot")
    data = Dataset(Path("/d"), "folder", tuple(good[:71]), (*good[71:], *bad))
    split = split_by_part(data, NAMES)
    trained, tested = ({s.sample_id for s in own} for own in (split.train, split.test))
    assert not trained & tested
    assert len(split.train) + len(split.test) == 82
    assert len(split.train) == 2 * len(trained)
    assert {s.sample_id for s in split.test if s.is_anomalous} == {"spot/000"}


def test_a_test_part_that_does_not_fit_stops_no_training():
    good = samples(*(f"train/{i}_{m}.png" for i in range(4) for m in ("top", "side")))
    bad = samples("spot/odd.png", defect="spot")
    split = split_by_part(Dataset(Path("/d"), "mvtec", tuple(good), tuple(bad)), NAMES)
    assert len(split.train) == 8
    assert "finds no part and member in 'spot/odd.png'" in split.problems[0].line
    with pytest.raises(DataError, match="finds no part and member"):
        split.sound_test()


def test_each_member_has_a_window_of_its_own(tmp_path):
    dark, light = STACK[0] // 64, STACK[1] // 2 + 30000
    for name, array in (("a_dark.tif", dark), ("a_light.tif", light)):
        tiff(tmp_path / name, array)
    given = [Sample(path=tmp_path / n, category="x") for n in ("a_dark.tif", "a_light.tif")]
    made = member_samples(given, NAMES, tmp_path)
    own = windows(made)
    assert own["dark"][1] < 0.02
    assert own["light"][0] > 0.4
    pixels = read_sample(with_windows(made, own)[0])
    assert pixels.dtype == np.float32
    assert pixels.max() - pixels.min() > 0.8
    low, high = (65535 * level for level in own["dark"])
    expected = (dark.astype(np.float64) - low) / (high - low)
    assert np.abs(pixels[..., 0] - expected.clip(0, 1)).max() < 1e-6
    assert read_sample(made[0]).dtype == np.uint16


def test_pages_are_read_of_tiff_and_dicom_alone(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(COLOURS[0]).save(stream, "GIF")
    path = tmp_path / "a.gif"
    path.write_bytes(stream.getvalue())
    with pytest.raises(DataError, match="pages are read of TIFF and DICOM, and this is GIF"):
        read_image(Page(path, 0))
