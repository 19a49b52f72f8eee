"""A model of parts, from files to decision: fit, save, load, calibrate, export; the same in numpy alone."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image

from invad.data.members import Rule, member_samples
from invad.data.preprocess import resize_map
from invad.data.region import Region
from invad.errors import ConfigError, DataError
from invad.records import Sample
from invad.scoring.fusion import fuse
from invad.scoring.sizes import level_of

MEMBERS = ("light1", "light2")


def picture(seed, light, defect=False, size=64):
    """A disc under one of two lights; the defect shows under the second."""
    rng = np.random.default_rng([seed, light])
    y, x = np.mgrid[:size, :size] / size
    ramp = (x, y)[light - 1]
    grey = 60 + 50 * (np.hypot(x - 0.5, y - 0.5) < 0.35) + 30 * ramp + rng.normal(0, 3, (size, size))
    if defect and light == 2:
        grey[30:40, 30:40] = 255
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


LEFT = Region(frame=(64, 64), include=(((0, 0), (24, 0), (24, 64), (0, 64)),))


def members(seed, defect=False):
    return {f"light{light}": picture(seed, light, defect) for light in (1, 2)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    for seed in range(24):
        for name, pixels in members(seed).items():
            Image.fromarray(pixels).save(folder / f"part{seed:03d}_{name}.png")
    return folder


@pytest.fixture(scope="module")
def plain(tiny_preset):
    """Without a network to train."""
    return replace(
        tiny_preset, scales=(1.0,), denoiser=None, fine=None, top_fractions=None, second_space=None
    )


@pytest.fixture(scope="module", params=["scores", "cells"])
def of_parts(request, files, plain, make_backbone):
    from invad.detector.detector import Detector

    options = {"preset": plain, "backbone": make_backbone(), "device": "cpu"}
    return Detector.fit(files, parts="names", fusion=request.param, **options)


def alike(one, other, within=1e-6):
    # Zero is the usual score of a part, near which a share of it is nothing.
    assert one.score == pytest.approx(other.score, rel=within, abs=within)
    assert one.p_value == pytest.approx(other.p_value, rel=within)
    assert (one.decision, one.reason, one.seen_by) == (other.decision, other.reason, other.seen_by)


def test_a_part_is_judged_by_the_light_that_sees_the_defect(of_parts):
    good, bad = of_parts.predict_part(members(100)), of_parts.predict_part(members(101, defect=True))
    assert (good.decision, bad.decision, bad.seen_by) == ("good", "bad", "light2")
    assert bad.p_value == pytest.approx(1 / 25)
    assert tuple(bad.members) == MEMBERS
    assert bad.members["light2"].p_value < bad.members["light1"].p_value
    assert of_parts.fusion.members == MEMBERS
    assert of_parts.fusion.calibration.n == 24


def test_cells_give_the_part_a_map(of_parts):
    bad = of_parts.predict_part(members(101, defect=True))
    if of_parts.fusion.kind == "scores":
        assert bad.anomaly_map is None
        return
    y, x = np.unravel_index(bad.anomaly_map.argmax(), bad.anomaly_map.shape)
    assert bad.anomaly_map.shape == (64, 64)
    assert 20 <= y < 50
    assert 20 <= x < 50
    odd = {"light1": picture(100, 1), "light2": picture(100, 2, size=72)}
    assert "of several sizes (64 x 64, 72 x 72)" in of_parts.predict_part(odd).reason


def test_the_scores_of_a_part_are_those_of_its_pictures_fused(of_parts):
    part = members(7)
    whole = of_parts.predict_part(part)
    single = {name: of_parts.predict(pixels, category=name) for name, pixels in part.items()}
    fusion = of_parts.fusion
    scores, cells = ({n: getattr(one, key) for n, one in single.items()} for key in ("score", "cells"))
    assert whole.score == fuse(fusion.kind, fusion.scales, scores, cells).score
    assert whole.members["light1"].score == single["light1"].score


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"light2": None}, "no light2"),
        ({"light2": DataError("light2 is there twice, a and b")}, "light2 is there twice, a and b"),
        ({"light2": b"no picture"}, "<bytes>"),
        ({"light3": picture(0, 1)}, "light3 is unknown, the model has light1, light2"),
        ({"light1": None, "light2": None}, "no light1; no light2"),
    ],
)
def test_a_part_with_something_wrong_is_never_good(of_parts, change, reason):
    given = {name: x for name, x in {**members(100), **change}.items() if x is not None}
    found = of_parts.predict_part(given)
    assert found.decision == "review"
    assert reason in found.reason
    assert (found.score is None) == (not found.members)


def test_a_bad_part_stays_bad_when_a_picture_is_missing(of_parts):
    found = of_parts.predict_part({"light2": picture(101, 2, defect=True)})
    assert (found.decision, found.reason) == ("bad", "no light1")


def test_a_folder_is_judged_by_the_rule_of_the_model(of_parts, files, tmp_path):
    found = list(of_parts.predict_parts(files))
    assert [part.part for part in found] == [f"part{i:03d}" for i in range(24)]
    assert found[3].members["light2"].path == str(files / "part003_light2.png")
    alike(found[3], of_parts.predict_part(members(3)))
    Image.fromarray(picture(1, 1)).save(tmp_path / "odd.png")
    with pytest.raises(DataError, match=r"finds no part and member in 'odd\.png'"):
        list(of_parts.predict_parts(tmp_path))


def test_a_saved_model_says_the_same(of_parts, tmp_path):
    from invad.detector.detector import Detector

    before = of_parts.predict_part(members(101, defect=True))
    of_parts.save(tmp_path / "model")
    loaded = Detector.load(tmp_path / "model", device="cpu")
    assert loaded.fusion == of_parts.fusion
    alike(loaded.predict_part(members(101, defect=True)), before)
    card = (tmp_path / "model/README.md").read_text()
    assert "24 good parts" in card
    assert "predict_parts" in card


def test_a_bundle_says_the_same(of_parts, tmp_path):
    pytest.importorskip("onnxscript", reason="exporting needs invad[onnx]")
    pytest.importorskip("onnxruntime", reason="exporting needs invad[onnx]")
    from invad import runtime
    from invad.detector.detector import Detector
    from invad.export import ExportConfig, export
    from invad.runtime import changing
    from invad.scoring.rates import Rates

    export(of_parts, tmp_path / "bundle", ExportConfig())
    bundle = runtime.load(tmp_path / "bundle")
    assert bundle.fusion == of_parts.fusion
    for given in (members(100), members(101, defect=True), {"light1": picture(100, 1)}):
        alike(bundle.predict_part(given), of_parts.predict_part(given), within=1e-3)
    one = bundle.predict_part(members(100))
    scores, cells = ({n: getattr(x, key) for n, x in one.members.items()} for key in ("score", "cells"))
    fusion = of_parts.fusion
    assert one.score == pytest.approx(fuse(fusion.kind, fusion.scales, scores, cells).score, abs=1e-6)
    # Limits that are made of what it keeps are those that the model makes of what it keeps.
    of_parts.save(tmp_path / "model")
    detector = Detector.load(tmp_path / "model", device="cpu")
    changes = [{"rates": Rates(review=0.3, bad=0.1)}, {"min_area": 300.0}]
    if fusion.kind == "scores":
        changes.append({"region": LEFT, "min_area": "none"})
    for number, change in enumerate(changes):
        detector.calibrate(**change)
        changing.save(changing.calibrated(bundle, **change), tmp_path / str(number))
        bundle = runtime.load(tmp_path / str(number))
        limits, own = detector.fusion.calibration, bundle.fusion.calibration
        assert own.scores == pytest.approx(limits.scores, rel=1e-4, abs=1e-4)
        assert (own.rates, bundle.region, bundle.smallest) == (
            limits.rates,
            detector.region,
            detector.smallest,
        )
        assert set(changing.warnings_about(bundle)) <= set(detector.warnings())
        assert ("in sight" in " ".join(detector.warnings())) == ("region" in change)
        for given in (members(100), members(101, defect=True)):
            told, said = detector.predict_part(given), bundle.predict_part(given)
            alike(said, told, within=1e-3)
            assert said.decision == told.decision
    if fusion.kind == "cells":
        with pytest.raises(ConfigError, match="region of interest does not go with the fusion of cells"):
            changing.calibrated(bundle, region=LEFT)
    with pytest.raises(ConfigError, match="a region of one category goes with models of single pictures"):
        changing.calibrated(bundle, regions={"light1": LEFT})
    with pytest.raises(ConfigError, match="layout triton takes one image"):
        export(of_parts, tmp_path / "triton", ExportConfig(layout="triton", batch=8))


def test_a_smallest_area_of_defects_has_limits_of_whole_parts(of_parts, tmp_path):
    from invad.detector.detector import Detector

    of_parts.save(tmp_path / "model")
    detector = Detector.load(tmp_path / "model", device="cpu")
    bad, good = members(101, defect=True), members(100)
    detector.calibrate(min_area=300)
    assert detector.fusion.calibration.n == 24
    small = detector.predict_part(bad)
    assert (small.decision, small.seen_by) == ("bad", "light2")
    # By hand: the level of each map above which a part of 300 pixels stands, against that of good parts.
    maps = {name: one.cells for name, one in small.members.items()}
    if detector.fusion.kind == "cells":
        z = {
            n: (m - c) / s
            for (n, m), (c, s) in zip(maps.items(), detector.fusion.scales.values(), strict=True)
        }
        levels = {"all": np.max(list(z.values()), axis=0)}
    else:
        levels = maps
    found = {n: level_of(resize_map(m.astype(np.float32), (16, 16)), 300 / 16) for n, m in levels.items()}
    if detector.fusion.kind == "scores":
        found = {
            n: (v - detector.fusion.scales[n][0]) / detector.fusion.scales[n][1] for n, v in found.items()
        }
    assert small.score == pytest.approx(max(found.values()), rel=1e-5)
    other = Detector.load(tmp_path / "model", device="cpu")
    other.calibrate(min_area=1000)
    assert other.predict_part(good).decision == "good"
    large = other.predict_part(bad)
    assert large.members["light2"].score < small.members["light2"].score
    detector.save(tmp_path / "sized")
    alike(Detector.load(tmp_path / "sized", device="cpu").predict_part(bad), small)
    if detector.fusion.kind == "scores":
        export = pytest.importorskip("invad.export")
        pytest.importorskip("onnxscript", reason="exporting needs invad[onnx]")
        from invad import runtime

        export.export(detector, tmp_path / "bundle", export.ExportConfig())
        alike(runtime.load(tmp_path / "bundle").predict_part(bad), small, within=1e-3)
    detector.calibrate(min_area="none")
    back, limits = detector.fusion.calibration.score_limits(), of_parts.fusion.calibration.score_limits()
    assert back == pytest.approx(limits, rel=0.01)  # from maps that are kept as float16


def test_rates_are_changed_without_pictures(of_parts, tmp_path):
    from invad.detector.detector import Detector
    from invad.scoring.rates import Rates

    of_parts.save(tmp_path / "model")
    detector = Detector.load(tmp_path / "model", device="cpu")
    detector.calibrate(rates=Rates(review=0.3, bad=0.2))
    before, after = of_parts.fusion.calibration, detector.fusion.calibration
    assert after.rates == Rates(review=0.3, bad=0.2)
    assert after.scores == pytest.approx(before.scores, rel=0.01, abs=0.01)  # maps are kept with 16 bits
    assert after.score_limits()[0] < before.score_limits()[0]


def test_what_a_region_ignores_is_in_no_score_of_a_part(files, plain, make_backbone):
    from invad.detector.detector import Detector

    options = {"preset": plain, "backbone": make_backbone(), "device": "cpu", "region": LEFT}
    detector = Detector.fit(files, parts="names", **options)
    good, hurt = members(100), members(100)
    hurt["light2"][30:40, 44:54] = 255
    assert detector.predict_part(hurt).score == pytest.approx(detector.predict_part(good).score, abs=1e-6)
    with pytest.raises(ConfigError, match="a region of interest does not go with the fusion of cells"):
        Detector.fit(files, parts="names", fusion="cells", **options)


def test_a_single_picture_needs_its_member(of_parts):
    with pytest.raises(ConfigError, match="use predict_parts; for one picture give its member"):
        of_parts.predict(picture(0, 1))
    assert of_parts.predict(picture(0, 1), category="light1").decision == "good"


def test_a_model_of_images_judges_no_parts(short_detector):
    with pytest.raises(ConfigError, match="judges single images; train one with --parts"):
        short_detector.predict_part(members(0))


def test_parts_are_calibrated_anew(of_parts, plain, files, tmp_path, make_backbone):
    from invad.detector.detector import Detector

    options = {"preset": plain, "backbone": make_backbone(), "device": "cpu"}
    detector = Detector.fit(files, parts="names", fusion=of_parts.fusion.kind, **options)
    for seed in range(200, 230):
        for name, pixels in members(seed).items():
            Image.fromarray(pixels).save(tmp_path / f"part{seed:03d}_{name}.png")
    detector.calibrate(tmp_path)
    assert detector.fusion.calibration.n == 30
    assert detector.fusion.windows == of_parts.fusion.windows
    assert detector.predict_part(members(101, defect=True)).decision == "bad"


@pytest.mark.parametrize("count", [24, 64])  # by one of four models, and of five
def test_the_pictures_of_a_part_are_held_out_together(count, plain, make_backbone, tmp_path):
    from invad.fit.fit import fit

    for seed in range(count):
        for name, pixels in members(seed).items():
            if (seed, name) != (0, "light1"):  # so that the members have other numbers of pictures
                Image.fromarray(pixels).save(tmp_path / f"part{seed:03d}_{name}.png", compress_level=1)
    samples = [Sample(path=path, category="x") for path in sorted(tmp_path.iterdir())]
    fitted = fit(member_samples(samples, Rule.parse("names"), tmp_path), plain, make_backbone())
    parts, groups = {}, {}
    for sample, group in zip(fitted.held_samples, fitted.held_groups, strict=True):
        parts.setdefault(sample.sample_id, []).append(sample.member)
        groups.setdefault(sample.sample_id, set()).add(group)
    assert len(parts) == count
    assert all(sorted(own) == ["light1", "light2"] for part, own in parts.items() if part != "part000")
    assert all(len(own) == 1 for own in groups.values())
    assert len(set.union(*groups.values())) == len(parts)


def test_lights_of_16_bits_keep_their_levels(plain, make_backbone, tmp_path):
    """A dark light and a bright one: with one window for both the dark one would have a sixtieth of it."""
    from invad.detector.detector import Detector

    def pages(seed, defect=False):
        dark, bright = (picture(seed, light)[..., 0].astype(np.uint16) for light in (1, 2))
        if defect:
            dark[24:40, 24:40] = 255 * (np.indices((16, 16)).sum(0) % 2)
        return np.stack([dark * 4, bright * 200 + 5000])

    def write(path, stack):
        tifffile.imwrite(path, stack, photometric="minisblack")
        return path

    (tmp_path / "good").mkdir()
    for seed in range(20):
        write(tmp_path / f"good/part{seed:02d}.tif", pages(seed))
    options = {"preset": plain, "backbone": make_backbone(), "device": "cpu"}
    detector = Detector.fit(tmp_path / "good", parts="pages", **options)
    (_, dark), (_, bright) = detector.fusion.windows
    assert 65535 * dark < 1400
    assert bright > 0.5
    (tmp_path / "new").mkdir()
    write(tmp_path / "new/bad.tif", pages(50, defect=True))
    write(tmp_path / "new/good.tif", pages(51))
    bad, good = detector.predict_parts(tmp_path / "new")
    assert (bad.part, bad.decision, bad.seen_by) == ("bad", "bad", "page1")
    assert good.decision == "good"
    assert bad.members["page1"].path.endswith("bad.tif page 1")
    given = dict(zip(("page1", "page2"), pages(50, defect=True), strict=True))
    alike(detector.compile().predict_part(given), bad, within=1e-3)


def test_a_folder_with_defects_is_split_by_parts(plain, make_backbone, tmp_path):
    """Of a folder without a split a fifth of the good ones is kept for testing, whole parts."""
    from invad.detector.detector import Detector

    for kind, seeds in (("good", range(40)), ("spot", range(100, 102))):
        (tmp_path / kind).mkdir()
        for seed in seeds:
            for name, pixels in members(seed, defect=kind == "spot").items():
                Image.fromarray(pixels).save(tmp_path / kind / f"part{seed:03d}_{name}.png", compress_level=1)
    options = {"preset": plain, "backbone": make_backbone(), "device": "cpu"}
    detector = Detector.fit(tmp_path, parts="names", **options)
    assert detector.info.fit.normals["light1"] == detector.info.fit.normals["light2"] >= 28


def test_samples_of_members_need_their_rule(files, plain, make_backbone):
    from invad.detector.detector import Detector

    samples = [Sample(path=path, category="x") for path in sorted(files.iterdir())]
    made = member_samples(samples, Rule.parse("names"), files)
    options = {"preset": plain, "backbone": make_backbone(), "device": "cpu"}
    with pytest.raises(ConfigError, match="say by which rule"):
        Detector.fit(made, **options)
    with pytest.raises(ConfigError, match="fusion = 'mean': give scores or cells"):
        Detector.fit(made, parts="names", fusion="mean", **options)
