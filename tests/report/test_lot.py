"""The report of a lot: what it counts, what it bounds, and that paper cuts none of its boxes."""

import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import find_objects, label

from invad.errors import DataError
from invad.report.lot import (
    LeastTypical,
    LotDrift,
    LotPart,
    LotPicture,
    Setting,
    View,
    write_lot_report,
)
from invad.report.order import Mark, order_chart
from invad.report.places import Spot, zones
from invad.report.spread import Judged, defect_lines, where
from invad.report.wording import plus_minus

SETTING = Setting(
    score_limits=(2.0, 3.0), map_limits=(4.0, 6.0), rates=(0.05, 0.01), normals=199, unit="good images"
)
STEADY = LotDrift(said="No drift is seen.")


def defect(x=10.0, y=10.0, peak=8.0, number=1):
    return {
        **{"defect": number, "centroid_x": x, "centroid_y": y, "peak": peak, "share_of_limit": peak / 4},
        **{"length_px": 7.0, "width_px": 5.0, "length_uncertainty_px": 4.0, "width_uncertainty_px": 4.0},
        **{"area_px": 30, "area_uncertainty_px": 12.0, "length_mm": None},
    }


def decided(score):
    return "bad" if score > 3 else "review" if score > 2 else "good"


def lot(scores, defects=lambda i, score: (), seen=None, size_hw=(40, 60)):
    """Parts with these scores, and what was seen of them."""
    seen = seen or LeastTypical()
    parts = []
    for i, score in enumerate(scores):
        name, decision = f"lot/part_{i:05d}.png", decided(score)
        seen.see(i, score, decision == "good", [view(i, score, size_hw)])
        picture = LotPicture(
            name=name, decision=decision, size_hw=size_hw, defects=defects(i, score), p_value=0.5
        )
        parts.append(LotPart(name=name, decision=decision, score=score, p_value=0.5, pictures=[picture]))
    return parts, seen


def view(i, score, size_hw=(40, 60), member=""):
    """A grey picture whose heat map is as high as its score."""
    pixels = np.full((*size_hw, 3), 60 + i % 100, np.uint8)
    heat = np.full(size_hw, score * 2, np.float32)
    return View(pixels=pixels, map_HW=heat, map_limits=SETTING.map_limits, member=member, above=score)


def written(folder, parts, seen, **changed):
    given = {"title": "Lot 7", "lost": [], "setting": SETTING, "drift": STEADY, "facts": {"model": "m"}}
    path = write_lot_report(folder / "lot.html", parts=parts, seen=seen, **(given | changed))
    return path.read_text(encoding="utf-8")


def test_zones_are_those_of_the_picture_whatever_its_size():
    found = zones([Spot(0, 0), Spot(0.999, 0.999), Spot(1, 1), Spot(0.3, 0.6)], [(100, 200), (10, 20)])
    assert (found.rows, found.columns) == (4, 8)
    assert found.counts == {(0, 0): 1, (3, 7): 2, (2, 2): 1}
    places = found.pareto()
    assert [(p.name, p.count, p.share, p.together) for p in places] == [
        ("H4", 2, 0.5, 0.5),
        ("A1", 1, 0.25, 0.75),
        ("C3", 1, 0.25, 1.0),
    ]


def test_places_of_passed_parts_are_counted_apart():
    flagged = Judged(name="a", decision="bad", size_hw=(10, 10), defects=[defect(1, 1), defect(9, 9, 9.0)])
    passed = Judged(name="b", decision="good", size_hw=(10, 10), defects=[defect(5, 5)])
    lines = defect_lines([passed, flagged])
    assert (lines.total, lines.flagged, lines.passed, lines.unit) == (2, 1, 1, "px")
    assert [(line.number, line.one["peak"]) for line in lines.lines] == [(2, 9.0), (2, 8.0)]
    assert where("x", [flagged]).total == 2
    assert where("x", [Judged(name="b", decision="bad", size_hw=(1, 1), defects=())]) is None


def test_the_order_chart_draws_every_part_until_there_are_too_many():
    scores = [1.0, 2.5, 1.2, 9.0]
    few = order_chart(scores, [decided(s) for s in scores], (2.0, 3.0), [Mark(2, "since 3")])
    assert (few.count("<circle"), few.count('class="mark"')) == (4, 1)
    assert "since 3" in few
    scores = [1.0 + (i % 7) / 10 for i in range(9999)] + [5.0]
    many = order_chart(scores, [decided(s) for s in scores], (2.0, 3.0))
    assert many.count('class="range"') == 400
    assert many.count("of-bad") == 1
    assert len(many) < 200_000


def test_the_pictures_kept_are_those_of_the_highest_scores():
    scores = np.random.default_rng(0).permutation(200).tolist()
    _, seen = lot(scores, seen=LeastTypical(most=5))
    assert [scores[number] for number, _ in seen.pictures()] == [199, 198, 197, 196, 195]
    assert len(seen.kept) == 5


def test_a_lot_of_ten_thousand_parts_stays_small_and_says_what_it_leaves_out(tmp_path):
    scores = np.random.default_rng(1).uniform(0, 4, 10_000).tolist()
    parts, seen = lot(scores, lambda i, score: [defect(number=1), defect(number=2)] if score > 2 else ())
    html = written(tmp_path, parts, seen)
    assert len(html) < 2_000_000
    assert html.count("<article>") == 36
    assert "36 of 10000 parts" in html
    flagged = sum(score > 2 for score in scores)
    assert f"The clearest 200 of {2 * flagged} places are listed" in html
    assert [word for word in ("<script", "http://", "https://") if word in html] == []


def test_the_operating_point_is_held_against_what_chance_allows(tmp_path):
    parts, seen = lot([1.0] * 95 + [2.5] * 3 + [4.0] * 2)
    text = " ".join(written(tmp_path, parts, seen).replace("\u00a0", " ").split())
    # Beta-binomial of 100 parts and 199 normals: 5 of 100 at 5 % are as expected, 60 of 100 are not.
    assert "<b>5</b> called bad or sent to review. If all parts were good" in text
    assert "would be normal: as expected" in text
    assert "1.6 % to 11.3 %" in text  # Clopper and Pearson of 5 of 100
    many, seen = lot([1.0] * 40 + [4.0] * 60)
    assert "more than chance explains" in written(tmp_path, many, seen)


def test_a_flagged_part_whose_heat_map_stays_below_its_limit_is_not_said_to_be_none(tmp_path):
    for scores, found in ([1.0, 2.5], ()), ([1.0, 1.0], ()), ([1.0, 2.5], [defect()]):
        parts, seen = lot(scores, lambda i, score, found=found: found if score > 2 else ())
        text = " ".join(written(tmp_path, parts, seen).replace("\u00a0", " ").split())
        none = "No place: no heat map of a flagged part is above its review limit." in text
        assert none == (not found)
        assert "0 flagged parts" not in text
        assert ("1 place in 1 flagged part: where a heat map is above" in text) == bool(found)
        assert ("Places are larger than the defects in them" in text) == bool(found)


def test_a_size_has_no_more_digits_than_its_bound():
    told = [
        plus_minus(*pair).replace("\u00a0", " ") for pair in ((0.9346, 1.124), (53.15, 16), (412.7, 377.9))
    ]
    assert told == ["0.9 ± 1.1", "53 ± 16", "413 ± 378"]
    assert plus_minus(0.12345, 0.0456).startswith("0.123")


def test_what_is_wrong_is_said(tmp_path):
    parts, seen = lot([1.0])
    with pytest.raises(DataError, match="not one part"):
        written(tmp_path, [], seen)
    html = written(tmp_path, parts, seen, lost=[(f"<b>{i}", "cut off") for i in range(22)])
    assert "&lt;b&gt;0: cut off" in html
    assert "2 more parts could not be judged" in html
    assert "<b>0:" not in html


def of_several(scores, members, seen):
    """Parts of so many pictures, of which the last lies highest and shows a defect."""
    parts = []
    for i, score in enumerate(scores):
        above = {member: score - (len(members) - 1 - n) for n, member in enumerate(members)}
        views = [view(i, own, member=member) for member, own in above.items()]
        seen.see(i, score, decided(score) == "good", views)
        pictures = [
            LotPicture(
                **{"name": f"p{i}", "kind": member, "decision": decided(score), "size_hw": (40, 60)},
                **{"defects": [defect()] if own > 2 else [], "p_value": 0.5, "above": own},
            )
            for member, own in above.items()
        ]
        parts.append(
            LotPart(
                **{"name": f"p{i}", "decision": decided(score), "score": score, "p_value": 0.5},
                **{"pictures": pictures, "seen_by": members[-1], "reason": "no light9" if i == 1 else ""},
            )
        )
    return parts


def test_a_part_of_several_pictures_is_one_row_with_the_one_that_decided(tmp_path):
    members = tuple(f"light{n}" for n in range(1, 9))
    seen = LeastTypical()
    parts = of_several([1.0, 2.5, 5.0], members, seen)
    setting = replace(SETTING, map_limits=None, unit="good parts", members=members)
    html = " ".join(written(tmp_path, parts, seen, setting=setting).replace("\u00a0", " ").split())
    assert "<strong>3</strong><span>parts judged" in html
    assert "199 good parts set the limits" in html
    assert (html.count("<article>"), html.count('class="member decided"')) == (3, 3)
    # Of eight pictures the six that lie highest are shown, each with its heat map.
    assert html.count('class="member') == 3 * 6 + 3  # and the box around them
    assert html.count("2 more pictures, which lie lower") == 3
    assert "<b>light3</b>" in html
    assert "<b>light2</b>" not in html
    # light8 alone shows a place on the part with 2.5, light6 to light8 on that with 5.
    for member, count in (("light6", 1), ("light7", 1), ("light8", 2)):
        assert f"Flagged parts, {member} <span" in html
        assert f"Flagged parts, {member}: {count} place" in html
    assert "Flagged parts, light5" not in html
    assert "<strong>4</strong><span>places that stand out" in html
    assert '<span class="quiet">3</span> p2 <span class="quiet">light8</span>' in html
    assert "1 part could not be judged by all pictures, and so cannot be good: p1: no light9." in html


GREEN = "article, .tile, .where-they-lie { background: #0f0 !important; outline: 4px solid #0f0; }</style>"


def test_paper_cuts_no_box(browser, tmp_path):
    reader = shutil.which("pdftoppm")
    if reader is None:
        pytest.skip("needs pdftoppm, of Debian's poppler-utils")
    scores = [1.0] * 20 + [2.5, 3.5] * 8
    parts, seen = lot(scores, lambda i, score: [defect(30, 20)] if score > 2 else (), size_hw=(300, 400))
    html = written(tmp_path, parts, seen)
    boxes = html.count("<article>") + html.count('class="tile"') + html.count('class="where-they-lie"')
    page_of = tmp_path / "green.html"
    page_of.write_text(html.replace("</style>", GREEN, 1), encoding="utf-8")
    page = browser.new_page()
    page.goto(page_of.as_uri())
    page.pdf(path=tmp_path / "lot.pdf", format="A4", print_background=True)
    page.close()
    subprocess.run([reader, "-r", "40", "-png", tmp_path / "lot.pdf", tmp_path / "page"], check=True)
    found = 0
    for picture in sorted(tmp_path.glob("page*.png")):
        pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
        green, _ = label((pixels[..., 1] > 200) & (pixels[..., 0] < 80) & (pixels[..., 2] < 80))
        own = [s for s in find_objects(green) if min(s[0].stop - s[0].start, s[1].stop - s[1].start) > 12]
        # A box that runs over an edge of the paper has no end there.
        assert all(s[0].stop < pixels.shape[0] and s[1].stop < pixels.shape[1] for s in own)
        found += len(own)
    # A box that is cut lies on two pages and is counted twice.
    assert found == boxes
