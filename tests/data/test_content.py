"""Pictures are known by what they show, not by their files."""

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from invad.data.check import check_dataset
from invad.data.content import BLANK, copies, copies_in_words, file_digest, pixel_digest
from invad.data.images import read_image


def test_the_format_and_the_metadata_do_not_matter_and_one_level_does(tmp_path, draw):
    picture = Image.fromarray(draw(0))
    notes = PngInfo()
    notes.add_text("Comment", "taken on Monday")
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "b.bmp")
    picture.save(tmp_path / "c.tif")
    picture.save(tmp_path / "d.png", pnginfo=notes)
    picture.save(tmp_path / "e.webp", lossless=True)
    files = sorted(tmp_path.iterdir())
    assert len({file_digest(path) for path in files}) == 5
    assert len({pixel_digest(read_image(path)) for path in files}) == 1
    other = draw(0).copy()
    other[63, 63, 2] ^= 1
    assert pixel_digest(other) != pixel_digest(draw(0))
    assert pixel_digest(draw(0)[:, :32]) != pixel_digest(draw(0)[:32])


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (90, 91, 92)])
def test_pictures_of_one_colour_are_all_alike(colour):
    assert pixel_digest(np.full((5, 7, 3), colour, np.uint8)) == BLANK
    almost = np.full((5, 7, 3), colour, np.uint8)
    almost[4, 6, 0] ^= 1
    assert pixel_digest(almost) != BLANK


def test_a_file_that_cannot_be_read_has_no_digest(tmp_path):
    assert file_digest(tmp_path / "none") == file_digest(tmp_path) == ""


def test_copies_are_those_after_the_first(tmp_path):
    found = copies(["a", "b", "a", "c", "b", "a"])
    assert found == {2: 0, 4: 1, 5: 0}
    words = copies_in_words(found, [tmp_path / f"{i}.png" for i in range(6)])
    assert words.startswith(f"3 of 6 images are copies of others ({tmp_path}/2.png of 0.png, ")
    many = copies_in_words(copies(["a"] * 9), [tmp_path / f"{i}.png" for i in range(9)])
    assert many.startswith("8 of 9 images")
    assert many.endswith(" and 5 more)")


def test_a_check_of_the_data_names_copies(tmp_path, write_parts):
    samples = write_parts(tmp_path / "train" / "good", 3)
    write_parts(tmp_path / "test" / "good", 2, first=10)
    write_parts(tmp_path / "test" / "spot", 1, first=20, defect=True)
    assert check_dataset(tmp_path).problems == ()
    Image.open(samples[1].path).save(samples[1].path.with_name("copy.bmp"))
    (problem,) = check_dataset(tmp_path).problems
    assert "1 of 4 images are copies of others" in problem
    assert "001.png" in problem
    assert "copy.bmp" in problem
