from pathlib import Path

import pytest

from invad.data.groups import grouped
from invad.errors import ConfigError, DataError
from invad.records import Sample

ROOT = Path("/line")


def samples(*names: str) -> list[Sample]:
    return [Sample(path=ROOT / name, category="part") for name in names]


@pytest.mark.parametrize(
    ("by", "groups"),
    [
        ("folder", ["/line/a", "/line/a", "/line/b"]),
        (r"part_(\d+)", ["1", "2", "1"]),
        (r"^[ab]/", ["a/", "a/", "b/"]),
    ],
)
def test_groups_by_folder_and_path(by, groups):
    given = samples("a/part_1_x.png", "a/part_2_x.png", "b/part_1_y.png")
    assert [s.group for s in grouped(given, by, ROOT)] == groups


def test_groups_by_a_column(tmp_path):
    table = tmp_path / "manifest.csv"
    table.write_text("image_path,lot\na.png,7\nb.png,8\n")
    given = [Sample(path=tmp_path / name, category="part") for name in ("b.png", "a.png")]
    assert [s.group for s in grouped(given, "column:lot", table)] == ["8", "7"]
    with pytest.raises(ConfigError, match="has no column lots; its columns are image_path, lot"):
        grouped(given, "column:lots", table)
    table.write_text("image_path,lot\na.png,7\nb.png,\n")
    with pytest.raises(DataError, match=r"column lot is empty for .*b\.png"):
        grouped(given, "column:lot", tmp_path)


def test_what_gives_no_groups_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="no regular expression"):
        grouped(samples("a.png"), "part_(", ROOT)
    with pytest.raises(DataError, match=r"finds nothing in 'b\.png'"):
        grouped(samples("part_1.png", "b.png"), r"part_\d", ROOT)
    with pytest.raises(ConfigError, match="is no table and holds none"):
        grouped(samples("a.png"), "column:lot", tmp_path)
