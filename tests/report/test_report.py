import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from invad.errors import ConfigError, DataError
from invad.metrics.alarms import count_interval
from invad.records import Sample, ScoredSample
from invad.report import heatmap, overlay, save_overlay, write_report
from invad.report.charts import histogram, mean_roc, nice_ticks
from invad.report.colours import BACKGROUND, OUTLINE, RED, YELLOW, display
from invad.report.gallery import _room, fit, groups, pictures
from invad.report.tables import decision_rows, defect_rows, share, verdict
from invad.report.wording import METRICS, fraction, number, p_value_text, percent

LIMITS = (3.0, 4.0)
SCORE_LIMITS = (2.0, 5.0)
NASTY = "<script>alert('&\"x')</script>"


def decide(score):
    review, bad = SCORE_LIMITS
    return "bad" if score >= bad else "review" if score >= review else "good"


def scored_image(folder, score, p_value, *, defect="good", category="tile", mask=False, name=None):
    path = folder / f"{category}_{defect}_{score}.png" if name is None else folder / name
    rng = np.random.default_rng(int(score * 100))
    Image.fromarray(rng.integers(0, 255, (40, 60, 3), np.uint8)).save(path, format="PNG")
    mask_path = None
    if mask:
        mask_path = path.with_name(path.stem + "_mask.png")
        drawn = np.zeros((40, 60), np.uint8)
        drawn[10:20, 10:20] = 255
        Image.fromarray(drawn).save(mask_path)
    return ScoredSample(
        sample=Sample(path=path, category=category, defect=defect, mask_path=mask_path),
        score=score,
        p_value=p_value,
        decision=decide(score),
        anomaly_map=np.full((16, 16), score, np.float32),
        score_limits=SCORE_LIMITS,
    )


@pytest.fixture
def scored(tmp_path):
    good = [scored_image(tmp_path, s, p) for s, p in [(0.5, 0.9), (1.0, 0.6), (1.5, 0.4), (5.5, 0.01)]]
    defects = [
        scored_image(tmp_path, 1.1, 0.55, defect="crack", mask=True),
        scored_image(tmp_path, 0.7, 0.83, defect="crack", mask=True),
        scored_image(tmp_path, 3.0, 0.05, defect="crack", mask=True),
        scored_image(tmp_path, 9.0, 0.01, defect="hole", mask=True),
    ]
    return good + defects


def metrics_of(**changed):
    keys = [key for key in METRICS if key not in ("false_alarm_rate", "images_per_second")]
    values = {key: 0.9071 - i * 0.1013 for i, key in enumerate(keys)}
    values |= {"false_alarm_rate": 0.25, "images_per_second": 12.34, "n_normal": 4, "n_anomalous": 4}
    return values | {"categories": {"tile": dict(values)}} | changed


def report(folder, scored, metrics=None, **changed):
    options = {"title": "Tiles", "map_limits": LIMITS, "facts": {"model": "m"}, "notes": []} | changed
    path = folder / "report.html"
    assert (
        write_report(path, scored=scored, metrics=metrics_of() if metrics is None else metrics, **options)
        == path
    )
    return path.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Collects tags with attributes, all text, and checks that tags are closed in order."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open, self.rows = [], [], [], []
        self.feed(html.replace("\u00a0", " "))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def images(self):
        return [attributes for tag, attributes in self.tags if tag == "img"]


# Colours


def test_colours_at_the_limits_are_those_promised():
    values = np.array([[-100, 2.0, 3.0, 3.5, 4.0, 1e9]], np.float32)
    ground, below, at_review, between, at_bad, far = heatmap(values, LIMITS)[0].astype(int)
    assert list(ground) == list(below) == list(BACKGROUND)
    assert list(at_review) == list(YELLOW)
    np.testing.assert_allclose(between, (np.array(YELLOW) + RED) / 2, atol=1)
    assert list(at_bad) == list(far) or list(at_bad) == list(OUTLINE)
    solid = heatmap(np.full((9, 9), 4.0, np.float32), LIMITS)
    assert list(solid[4, 4]) == list(RED)


def test_an_unsuspicious_map_leaves_the_image_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)
    drawn = overlay(pixels, np.full((8, 9), 2.0, np.float32), LIMITS)
    np.testing.assert_array_equal(drawn, pixels)


@given(st.floats(-10, 20, width=32), st.lists(st.floats(-1000, 3.875, width=32), min_size=2, max_size=2))
def test_equal_values_have_equal_colours_whatever_else_is_in_the_image(value, others):
    pixels = np.full((5, 5, 3), 90, np.uint8)
    drawn = []
    for other in others:
        values = np.full((5, 5), other, np.float32)
        values[2, 2] = value
        drawn.append(
            (*overlay(pixels, values, LIMITS)[2, 2].tolist(), *heatmap(values, LIMITS)[2, 2].tolist())
        )
    assert drawn[0] == drawn[1]


def test_the_region_above_the_bad_limit_has_a_thin_outline():
    values = np.zeros((20, 20), np.float32)
    values[5:15, 5:15] = 4.0
    drawn = heatmap(values, LIMITS)
    is_outline = (drawn == np.array(OUTLINE, np.uint8)).all(axis=2)
    expected = np.zeros((20, 20), bool)
    expected[5:15, 5:15] = True
    expected[6:14, 6:14] = False
    np.testing.assert_array_equal(is_outline, expected)


def test_equal_limits_and_values_that_are_not_numbers_still_draw():
    values = np.array([[np.nan, -np.inf, np.inf, 3.0]], np.float32)
    drawn = heatmap(values, (3.0, 3.0))
    assert list(drawn[0, 0]) == list(drawn[0, 1]) == list(BACKGROUND)
    assert list(drawn[0, 2]) == list(OUTLINE)


@pytest.mark.parametrize("limits", [(4.0, 3.0), (np.nan, 3.0), (3.0, np.inf)])
def test_impossible_limits_are_refused(limits):
    with pytest.raises(ConfigError, match="map limits"):
        heatmap(np.zeros((2, 2), np.float32), limits)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="resize the map"):
        overlay(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.float32), LIMITS)
    with pytest.raises(DataError, match="H x W x 3"):
        overlay(np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.float32), LIMITS)
    with pytest.raises(DataError, match="H x W"):
        heatmap(np.zeros((1, 4, 4), np.float32), LIMITS)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_deep_images_are_stretched_for_the_screen(dtype):
    ramp = np.linspace(0.01, 0.05, 300)[:, None, None] * (65535 if dtype == np.uint16 else 1)
    shown = display(np.broadcast_to(ramp, (300, 4, 3)).astype(dtype))
    assert shown.dtype == np.uint8
    assert (shown.min(), shown.max()) == (0, 255)
    assert (np.diff(shown[:, 0, 0].astype(int)) >= 0).all()
    assert (display(np.full((3, 3, 3), 7, dtype)) == 128).all()


# The panel


@pytest.mark.parametrize("size", [(1, 1), (300, 200), (40, 900)])
def test_panel_shows_image_and_overlay_above_a_caption(tmp_path, size):
    pixels = np.full((*size, 3), 80, np.uint8)
    values = np.full(size, 3.0, np.float32)
    path = save_overlay(
        tmp_path / "x.png", pixels, values, LIMITS, decision="review", score=3.14159, p_value=0.021
    )
    panel = np.asarray(Image.open(path))
    factor = max(1, -(-240 // max(size)))
    assert panel.shape[0] > size[0] * factor
    assert panel.shape[1] >= 2 * size[1] * factor
    picture = panel[: size[0] * factor]
    assert (picture == 80).all(axis=2).sum() == size[0] * size[1] * factor**2
    tinted = overlay(pixels, values, LIMITS)[0, 0]
    assert (picture == tinted).all(axis=2).sum() == size[0] * size[1] * factor**2
    assert (panel[size[0] * factor :] != 255).any()


def test_captions_of_other_verdicts_differ(tmp_path):
    pixels, values = np.zeros((60, 60, 3), np.uint8), np.zeros((60, 60), np.float32)
    contents = set()
    for decision, score, p_value in [
        ("good", 1.0, 0.5),
        ("bad", 1.0, 0.5),
        ("good", 2.0, 0.5),
        ("good", 1.0, 0.6),
    ]:
        path = save_overlay(
            tmp_path / "x.png", pixels, values, LIMITS, decision=decision, score=score, p_value=p_value
        )
        contents.add(path.read_bytes())
    assert len(contents) == 4


# The page


def test_the_report_is_well_formed_and_needs_nothing_else(tmp_path, scored):
    html = report(tmp_path, scored)
    page = Page(html)
    assert not re.search(r"https?://|//cdn|@import|url\(", html)
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in page.tags}
    assert len(page.images()) == 4 * 2 + 4 * 3
    for attributes in page.images():
        assert attributes["alt"]
        kind, data = attributes["src"].split(",", 1)
        assert kind == "data:image/jpeg;base64"
        image = Image.open(BytesIO(base64.b64decode(data)))
        assert image.format == "JPEG"
        assert max(image.size) <= 256
    for _, attributes in page.tags:
        assert attributes.get("href", "#").startswith("#")


def test_the_numbers_shown_are_the_numbers_given(tmp_path, scored):
    metrics = metrics_of()
    rows = Page(report(tmp_path, scored, metrics)).rows
    shown = {row[0]: row[1] for row in rows if len(row) == 3}
    for key, (label, _) in METRICS.items():
        if key == "false_alarm_rate":
            assert shown[label] == "25.0 %"
        elif key == "images_per_second":
            assert shown[label] == "12.34"
        else:
            assert shown[label] == f"{metrics[key]:.4f}"
    assert ["Good images", "4", "3 (75.0 %)", "0 (0.0 %)", "1 (25.0 %)"] in rows
    assert ["Defective images", "4", "2 (50.0 %)", "1 (25.0 %)", "1 (25.0 %)"] in rows
    # Scores of the good images are 0.5, 1, 1.5, 5.5: the cracks 1.1, 0.7 and 3 win 2, 1 and 3 of 4 duels.
    assert ["tile", "crack", "3", "0 (0.0 %)", "1 (33.3 %)", "0.55", "0.5000"] in rows
    assert ["tile", "hole", "1", "1 (100.0 %)", "1 (100.0 %)", "0.01", "1.0000"] in rows


def test_the_realised_false_alarm_rate_is_held_against_the_rate_asked(tmp_path, scored):
    text = " ".join("".join(Page(report(tmp_path, scored)).text).split())
    assert "25.0 % of the good images were called bad (1 of 4; 95 % interval 0.6 % to 80.6 %)." in text
    assert "Asked for" not in text
    false_alarms = {
        "review": {"asked": 0.05, "realised": 0.25, "count": 1, "expected_count_95": [0, 1]},
        "bad": {"asked": 0.001, "realised": 0.25, "count": 1, "expected_count_95": [0, 0]},
    }
    text = " ".join(
        "".join(Page(report(tmp_path, scored, metrics_of(false_alarms=false_alarms))).text).split()
    )
    assert "Asked for: 0.1 %, so 0 to 0 of 4 would be normal: more than chance explains." in text
    assert (
        "were called bad or sent to review (1 of 4; 95 % interval 0.6 % to 80.6 %). Asked for: 5.0 %" in text
    )
    assert "so 0 to 1 of 4 would be normal: as expected." in text
    assert verdict(share(50, 1000), count_interval([(1000, 4999)], 0.05)).endswith("as expected")
    assert verdict(share(10, 1000), count_interval([(1000, 4999)], 0.05)).endswith(
        "fewer than chance explains"
    )


def test_worst_miss_comes_first_then_false_alarms_then_typical_images(tmp_path, scored):
    html = report(tmp_path, scored)
    order = ["Missed defects", "0.83", "0.55", "False alarms", "Typical detections", "Typical good images"]
    places = [html.index(f"p = {word}" if word[0] == "0" else f"<h3>{word}") for word in order]
    assert places == sorted(places)
    found = groups(scored, 48)
    assert [[s.score for s in group.chosen] for group in found] == [
        [0.7, 1.1],
        [5.5],
        [3.0, 9.0],
        [1.0, 0.5, 1.5],
    ]


def test_the_gallery_is_bounded_and_says_so(tmp_path, scored):
    html = report(tmp_path, scored, max_gallery=2)
    assert html.count("<article>") == 2
    assert "1 of 2 shown" in html or "2 of 2 shown" in html
    assert "<article>" not in report(tmp_path, scored, max_gallery=0)
    with pytest.raises(ConfigError, match="max_gallery"):
        report(tmp_path, scored, max_gallery=-1)


@given(st.lists(st.integers(0, 100), min_size=4, max_size=4), st.integers(0, 120))
def test_gallery_room_is_used_up_but_never_exceeded(wanted, total):
    given_room = _room(wanted, total)
    assert sum(given_room) == min(total, sum(wanted))
    assert all(0 <= n <= most for n, most in zip(given_room, wanted, strict=True))


def test_a_huge_gallery_stops_before_the_file_is_too_large(tmp_path, scored, monkeypatch):
    monkeypatch.setattr("invad.report.page.GALLERY_BYTES", 20_000)
    html = report(tmp_path, scored)
    assert 0 < html.count("<article>") < 8
    assert "Some are left out" in html


def test_nasty_names_are_escaped_everywhere(tmp_path, scored):
    other = scored_image(tmp_path, 1.2, 0.5, defect="d", category="c", mask=True, name="a<b>&'c.png")
    nasty = replace(other, sample=replace(other.sample, category=NASTY, defect=NASTY))
    metrics = metrics_of(categories={NASTY: metrics_of(), "tile": metrics_of()})
    limits = replace(nasty, score_limits=(1.0, 6.0))
    html = report(
        tmp_path,
        [*scored, limits],
        metrics,
        title=NASTY,
        facts={NASTY: NASTY},
        notes=[NASTY, "synthetic data"],
    )
    assert "<script" not in html
    assert "a<b>" not in html
    page = Page(html)
    assert "".join(page.text).count(NASTY) >= 7
    assert any(NASTY in attributes["alt"] for attributes in page.images())


def test_no_anomalous_images(tmp_path, scored):
    good = scored[:4]
    rows = Page(
        report(tmp_path, good, metrics_of(image_auroc=None, pixel_ap=None, mad=None, images_per_second=None))
    ).rows
    shown = {row[0]: row[1] for row in rows if len(row) == 3}
    assert shown["Image AUROC"] == shown["Pixel AP"] == shown["Images per second"] == "–"
    assert ["Defective images", "0", "0", "0", "0"] in rows
    html = report(tmp_path, good)
    assert "No ROC curve" in html
    assert "By kind of defect" not in html


def test_no_good_images(tmp_path, scored):
    html = report(tmp_path, scored[4:])
    assert "No good images were tested" in html
    assert [row.auroc for row in defect_rows(scored[4:])] == [None, None]


def test_no_images_at_all(tmp_path):
    with pytest.raises(DataError, match="not one image"):
        report(tmp_path, [])


def test_no_masks_and_lost_files_leave_placeholders(tmp_path, scored):
    scored[0].sample.path.unlink()
    scored[4].sample.mask_path.unlink()
    scored[5] = replace(scored[5], sample=replace(scored[5].sample, mask_path=None))
    page = Page(report(tmp_path, scored))
    assert len(page.images()) == 4 * 2 + 4 * 3 - 3
    text = "".join(page.text)
    assert "no image: " in text
    assert "no mask: " in text


def test_several_categories_have_a_table_and_a_histogram_each(tmp_path, scored):
    other = [replace(s, sample=replace(s.sample, category="plate"), score_limits=(2.5, 6.0)) for s in scored]
    metrics = metrics_of(categories={"tile": metrics_of(), "plate": metrics_of(image_auroc=None)})
    page = Page(report(tmp_path, scored + other, metrics))
    assert [row[0] for row in page.rows if len(row) == 12] == ["category", "plate", "tile"]
    assert next(row for row in page.rows if len(row) == 12 and row[0] == "plate")[1:4] == ["4", "4", "–"]
    told = [a["aria-label"] for tag, a in page.tags if tag == "svg"]
    assert [label for label in told if "Histogram" in label] == [
        "Histogram of anomaly scores: 4 good and 4 defective images; review limit 2.5, bad limit 6.",
        "Histogram of anomaly scores: 4 good and 4 defective images; review limit 2, bad limit 5.",
    ]


def test_limits_at_infinity_and_scores_without_number(tmp_path, scored):
    endless = [replace(s, score_limits=(2.0, float("inf"))) for s in scored]
    html = report(tmp_path, endless)
    assert 'class="limit-review"' in html
    assert 'class="limit-bad"' not in html
    endless[0] = replace(endless[0], score=float("nan"))
    with pytest.raises(DataError, match="a report needs numbers"):
        report(tmp_path, endless)


def test_an_older_report_survives_a_failure_and_no_temporary_file_stays(tmp_path, scored):
    path = tmp_path / "report.html"
    path.write_text("older")
    before = set(tmp_path.iterdir())
    with pytest.raises(ConfigError):
        report(tmp_path, scored, map_limits=(2.0, 1.0))
    assert path.read_text() == "older"
    report(tmp_path, scored)
    assert path.read_text() != "older"
    assert set(tmp_path.iterdir()) == before
    with pytest.raises(DataError, match="cannot be written"):
        report(tmp_path / "missing", scored)
    (tmp_path / "folder" / "report.html").mkdir(parents=True)
    with pytest.raises(DataError, match="cannot be written"):
        report(tmp_path / "folder", scored)
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["report.html"]


# Small parts


def test_a_single_hot_pixel_survives_the_thumbnail(tmp_path, scored):
    values = np.zeros((1000, 700), np.float32)
    values[501, 333] = 7
    assert fit(values, (256, 179)).max() == 7
    assert fit(np.full((4, 4), 2, np.float32), (9, 5)).shape == (9, 5)
    tall = replace(scored[4], anomaly_map=values)
    assert [(p.width, p.height) for p in pictures(tall, LIMITS)] == [(60, 40)] * 3


def test_share_interval_is_clopper_pearson():
    alarm = share(0, 100)
    # With no event the upper end solves (1 - p)^n = 0.025.
    assert alarm.low == 0
    assert alarm.high == pytest.approx(1 - 0.025 ** (1 / 100))
    assert share(0, 0).value is None


def test_decisions_add_up(scored):
    for row in decision_rows(scored):
        assert row.good.part + row.review.part + row.bad.part == row.n


def test_histogram_counts_every_score_once():
    rng = np.random.default_rng(0)
    good, defective = rng.gamma(2, 1, 300).tolist(), [*rng.normal(9, 1, 50).tolist(), 1e6]
    svg = histogram(good, defective, (5.0, 7.0))
    for noun, n in (("good", 300), ("defective", 51)):
        assert sum(int(count) for count in re.findall(rf"<title>(\d+) {noun}</title>", svg)) == n
    assert "last bar: all above" in svg
    assert "last bar: all above" not in histogram(good, [8.0], (5.0, 7.0))


def test_mean_roc_of_equal_curves_is_the_curve():
    curve = np.array([[0, 0], [0, 0.5], [0.5, 0.5], [0.5, 1], [1, 1]])
    mean = mean_roc([curve, curve])
    area = (np.diff(mean[:, 0]) * (mean[1:, 1] + mean[:-1, 1]) / 2).sum()
    assert area == pytest.approx(0.75, abs=2e-3)


@given(st.floats(-1e5, 1e5), st.floats(1e-3, 1e6))
def test_ticks_are_inside_and_few(low, span):
    ticks = nice_ticks(low, low + span)
    slack = 1e-9 * (abs(low) + span)
    assert 3 <= len(ticks) <= 9
    assert all(low - slack <= tick <= low + span + slack for tick in ticks)


def test_numbers_as_people_read_them():
    assert [number(v) for v in (None, float("nan"), float("inf"), 3, 0.123456, 12345.6)] == [
        "–",
        "–",
        "∞",
        "3",
        "0.1235",
        "12346",
    ]
    assert [percent(v).replace("\u00a0", " ") for v in (None, 0.0, 0.0004, 0.0123, 1.0)] == [
        "–",
        "0.0 %",
        "0.04 %",
        "1.2 %",
        "100.0 %",
    ]
    assert [p_value_text(p) for p in (1.0, 0.0123, 0.00001)] == ["p = 1", "p = 0.012", "p < 0.0001"]
    assert fraction(None) == "–"
