"""train, predict, info and calibrate on parts of which there are several pictures."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from invad.detector.detector import Detector


def picture(seed, light, defect=False):
    rng = np.random.default_rng([seed, light])
    y, x = np.mgrid[:64, :64] / 64
    grey = 60 + 50 * (np.hypot(x - 0.5, y - 0.5) < 0.35) + 30 * (x, y)[light - 1] + rng.normal(0, 3, (64, 64))
    if defect and light == 2:
        grey[26:44, 26:44] = 255 * (np.indices((18, 18)).sum(0) // 3 % 2)
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8))


def write(folder, seeds, defect=False):
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for light in (1, 2):
            picture(seed, light, defect).save(folder / f"part{seed:03d}_light{light}.png")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("bolts")
    write(root / "good", range(16))
    write(root / "spot", range(100, 103), defect=True)
    return root


@pytest.fixture(scope="module")
def trained(run, data, tmp_path_factory):
    """(the model's folder, what training said)."""
    folder = tmp_path_factory.mktemp("model")
    made = run("train", data, "--output", folder, "--preset", "fast", "--parts", "names", "--json", "-")
    assert made.exit_code == 0, made.stderr
    return folder, json.loads(made.stdout)


def test_training_says_what_the_parts_are(trained):
    _, told = trained
    assert told["parts"] == {"rule": "names", "fusion": "scores", "members": ["light1", "light2"]}
    assert told["limits"]["unit"] == "good parts"
    assert told["normals"]["light1"] == told["normals"]["light2"]


def test_a_row_for_each_part_with_its_pictures(run, trained, data, tmp_path):
    model, _ = trained
    odd = shutil.copytree(data / "spot", tmp_path / "in")
    write(odd, [200])
    (odd / "part101_light1.png").unlink()
    picture(0, 1).save(odd / "notes.png")
    files = ["--json", tmp_path / "p.json", "--csv", tmp_path / "p.csv", "--output", tmp_path / "seen"]
    result = run("predict", model, odd, *files)
    assert result.exit_code == 0, result.stderr
    told = json.loads((tmp_path / "p.json").read_text())
    rows = {row["part"]: row for row in told["parts"]}
    assert list(rows) == [str(odd / "notes.png"), "part100", "part101", "part102", "part200"]
    assert "finds no part and member in 'notes.png'" in rows[str(odd / "notes.png")]["error"]
    assert rows["part100"]["decision"] == "bad"
    assert rows["part100"]["seen_by"] == "light2"
    assert rows["part101"]["reason"] == "no light1"
    assert rows["part101"]["decision"] != "good"
    detector = Detector.load(model)
    names = {f"light{i}": odd / f"part200_light{i}.png" for i in (1, 2)}
    alone = detector.predict_part(names)
    assert rows["part200"]["score"] == alone.score
    assert rows["part200"]["members"]["light2"]["p_value"] == alone.members["light2"].p_value
    with (tmp_path / "p.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert table[1]["light2_path"] == str(odd / "part100_light2.png")
    assert table[2]["light1_score"] == ""
    assert float(table[4]["score"]) == alone.score
    assert "4 parts" not in result.stdout
    assert "5 parts: " in result.stdout
    assert "1 unreadable" in result.stdout
    overlays = sorted(path.name for path in (tmp_path / "seen").iterdir())
    assert overlays[:3] == [f"part{n}_light{i}_overlay.png" for n, i in ((100, 1), (100, 2), (101, 2))]


def test_the_report_of_a_lot_shows_which_picture_decided(run, trained, data, tmp_path):
    model, _ = trained
    lot = shutil.copytree(data / "spot", tmp_path / "in")
    write(lot, [200])
    (lot / "part101_light1.png").unlink()
    for light in (1, 2):
        (lot / f"part102_light{light}.png").write_bytes(b"no picture")
    files = ["--report", tmp_path / "lot.html", "--json", tmp_path / "p.json"]
    result = run("predict", model, lot, *files)
    assert result.exit_code == 0, result.stderr
    rows = {row["part"]: row for row in json.loads((tmp_path / "p.json").read_text())["parts"]}
    places = {member: one["defects"] for member, one in rows["part100"]["members"].items()}
    alone = Detector.load(model).predict(lot / "part100_light2.png", category="light2")
    review, _ = Detector.load(model).calibrations["light2"].map_limits()
    assert places["light2"][0]["peak"] == pytest.approx(float(alone.anomaly_map.max()))
    assert places["light2"][0]["share_of_limit"] == pytest.approx(places["light2"][0]["peak"] / review)
    html = " ".join((tmp_path / "lot.html").read_text(encoding="utf-8").replace("\u00a0", " ").split())
    assert "<strong>3</strong><span>parts judged" in html
    assert f"{Detector.load(model).fusion.calibration.n} good parts set the limits" in html
    assert html.count('class="member decided"') == 3
    assert "part102_light1.png" in html  # could not be judged, and is named
    assert "part101: no light1." in html
    of_flagged = [row["members"].values() for row in rows.values() if row["decision"] != "good"]
    flagged = sum(len(one["defects"]) for members in of_flagged for one in members)
    assert f"<strong>{flagged}</strong><span>places that stand out" in html


def test_the_table_of_defects_has_a_row_for_each_picture(run, trained, data, tmp_path):
    pytest.importorskip("pyarrow", reason="Parquet needs invad[tables]")
    from pyarrow import parquet

    model, _ = trained
    lot = shutil.copytree(data / "spot", tmp_path / "in")
    (lot / "part101_light1.png").unlink()
    picture(0, 1).save(lot / "notes.png")
    told = {}
    for ending in ("csv", "json", "parquet", "html"):
        table = tmp_path / f"d.{ending}"
        options = ["--defects", table, "--scale", "0.1mm", "--json", tmp_path / "p.json"]
        result = run("predict", model, lot, *options)
        assert result.exit_code == 0, result.stderr
        told[ending] = table
    rows = {row["part"]: row for row in json.loads((tmp_path / "p.json").read_text())["parts"]}
    with told["csv"].open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["error"] != "" for row in table if row["part"].endswith("notes.png")] == [True]
    pictures = {(row["part"], row["member"]) for row in table if row["member"]}
    assert pictures == {(f"part{n}", f"light{i}") for n in (100, 101, 102) for i in (1, 2)} - {
        ("part101", "light1")
    }
    own = [row for row in table if (row["part"], row["member"]) == ("part100", "light2")]
    found = rows["part100"]["members"]["light2"]["defects"]
    assert len(own) == max(1, len(found)) > 0
    assert (own[0]["decision"], own[0]["path"]) == ("bad", str(lot / "part100_light2.png"))
    assert float(own[0]["length_mm"]) == found[0]["length_mm"]
    assert json.loads(told["json"].read_text())["parts"][1]["members"]["light2"]["defects"] == found
    columns = parquet.read_table(told["parquet"])
    assert columns["member"].to_pylist() == [row["member"] or None for row in table]
    html = told["html"].read_text(encoding="utf-8")
    assert "part100_light2.png" in html
    assert "data:image" in html


def test_a_part_that_lacks_a_picture_fails_where_review_does(run, trained, data, tmp_path):
    model, _ = trained
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(data / "good/part000_light1.png", alone)
    assert run("predict", model, alone, "--fail-on", "review").exit_code == 3
    strict = run("predict", model, alone, "--strict")
    assert strict.exit_code != 0
    assert strict.stderr.strip().splitlines()[-1].endswith("part000: no light2")


def test_one_picture_is_judged_as_its_member(run, trained, data):
    model, _ = trained
    picture = data / "good/part000_light1.png"
    result = run("predict", model, picture, "--category", "light1", "--json", "-")
    assert json.loads(result.stdout)["images"][0]["path"] == str(picture)


def test_files_of_other_names_are_read_by_another_rule(run, trained, data, tmp_path):
    model = shutil.copytree(trained[0], tmp_path / "model")
    rule = ["--parts", r"(?P<member>light\d)-(?P<part>\d+)"]
    for kind, seeds, defect in (("good", range(500, 506), False), ("spot", (100,), True)):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for seed in seeds:
            for light in (1, 2):
                picture(seed, light, defect).save(tmp_path / "set" / kind / f"light{light}-{seed}.png")
    seen = run("predict", model, tmp_path / "set/spot", *rule, "--json", "-")
    (row,) = json.loads(seen.stdout)["parts"]
    alone = Detector.load(model).predict_part(
        {f"light{i}": data / f"spot/part100_light{i}.png" for i in (1, 2)}
    )
    assert (row["part"], row["score"]) == ("100", alone.score)
    measured = run("evaluate", model, tmp_path / "set", *rule, "--json", "-", "--layout", "folder")
    assert json.loads(measured.stdout)["parts"]["n_anomalous"] == 1
    assert "Calibrated on 6 good parts" in run("calibrate", model, tmp_path / "set/good", *rule).stdout
    assert Detector.load(model).fusion.rule == "names"  # as in training, next time


def test_single_images_have_no_rule(run, detector, own_parts, one_line, tmp_path):
    model = tmp_path / "single"
    detector.save(model)
    good = own_parts / "gasket" / "train" / "good"
    for verb in ("predict", "calibrate", "evaluate"):
        folder = own_parts if verb == "evaluate" else good
        assert "this model judges single images" in one_line(run(verb, model, folder, "--parts", "names"))


def test_an_archive_is_scored_by_pictures_alone(run, trained, data, tmp_path):
    pytest.importorskip("ray", reason="scoring archives needs invad[archive]")
    result = run("predict", trained[0], data / "good", "--engine", "ray", "--output", tmp_path / "out")
    assert result.exit_code != 0
    assert "this model judges parts by their pictures" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [["--batch", "2"]])
def test_what_parts_are_not_judged_with_is_one_line(run, trained, data, options, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    model, _ = trained
    result = run("predict", model, data / "good", *options)
    assert result.exit_code != 0
    assert "a model of parts is not used with it" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ("part(\\d+)", "names no group part and no group member"),
        ("(?P<part>bolt\\d+)_(?P<member>\\w)", "finds no part and member in"),
    ],
)
def test_a_rule_that_does_not_fit_is_one_line(run, data, tmp_path, rule, line):
    result = run("train", data, "--output", tmp_path / "m", "--preset", "fast", "--parts", rule)
    assert result.exit_code != 0
    said = result.stderr.strip().splitlines()
    assert line in said[-1]
    assert not (tmp_path / "m").exists()


def test_info_and_calibrate_speak_of_parts(run, trained, data, tmp_path):
    model = shutil.copytree(trained[0], tmp_path / "model")
    assert "light1, light2, found by names, fused by the largest score" in " ".join(
        run("info", model).stdout.split()
    )
    told = json.loads(run("info", model, "--json", "-").stdout)
    assert told["parts"]["members"] == ["light1", "light2"]
    fresh = write(tmp_path / "fresh", range(300, 312))
    result = run("calibrate", model, fresh)
    assert result.exit_code == 0, result.stderr
    assert "Calibrated on 12 good parts" in result.stdout
    assert Detector.load(model).fusion.calibration.n == 12


def test_a_smallest_area_is_tried_and_kept(run, trained, data, tmp_path):
    model = shutil.copytree(trained[0], tmp_path / "model")
    options = ["--min-area", "200", "--json", "-"]
    tried = json.loads(run("predict", model, data / "spot", *options).stdout)["parts"]
    shutil.copytree(data / "spot", tmp_path / "set/spot")
    write(tmp_path / "set/good", range(400, 404))
    measured = run(
        "evaluate", model, tmp_path / "set", "--layout", "folder", *options, "--csv", tmp_path / "e.csv"
    )
    assert measured.exit_code == 0, measured.stderr
    assert run("calibrate", model, "--min-area", "200").exit_code == 0
    kept = json.loads(run("predict", model, data / "spot", "--json", "-").stdout)["parts"]
    assert [row["score"] for row in kept] == [row["score"] for row in tried]
    assert {row["decision"] for row in kept} == {"bad"}
    with (tmp_path / "e.csv").open(newline="") as file:
        rows = {row["path"]: float(row["score"]) for row in csv.DictReader(file)}
    assert rows["spot/part100"] == pytest.approx(kept[0]["score"], rel=1e-6)


def test_a_runtime_that_keeps_nothing_takes_no_parts(run, trained):
    result = run("serve", trained[0], "--stateless", "--no-auth", "--port", "0")
    assert result.exit_code != 0
    assert "a runtime that keeps nothing takes one picture for each part" in " ".join(result.stderr.split())


def test_parts_are_evaluated_by_all_their_pictures(run, trained, data, tmp_path):
    model, _ = trained
    (tmp_path / "set").mkdir()
    write(tmp_path / "set/good", range(400, 406))
    shutil.copytree(data / "spot", tmp_path / "set/spot")
    (tmp_path / "set/spot/part102_light1.png").unlink()
    files = ["--json", tmp_path / "e.json", "--csv", tmp_path / "e.csv", "--report", tmp_path / "e.html"]
    result = run("evaluate", model, tmp_path / "set", *files, "--layout", "folder")
    assert result.exit_code == 0, result.stderr
    told = json.loads((tmp_path / "e.json").read_text())
    parts = told["parts"]
    assert parts["image_auroc"] == 1.0
    assert parts["n_anomalous"] == 3
    assert parts["seen_by"] == {"light1": 0, "light2": 3}
    assert parts["incomplete"] == ["spot/part102"]
    assert parts["calibration_n"] == Detector.load(model).fusion.calibration.n
    assert sorted(told["categories"]) == ["light1", "light2"]
    with (tmp_path / "e.csv").open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert rows["spot/part100"]["label"] == "spot"
    detector = Detector.load(model)
    alone = detector.predict_part({f"light{i}": data / f"spot/part100_light{i}.png" for i in (1, 2)})
    assert float(rows["spot/part100"]["score"]) == pytest.approx(alone.score, rel=1e-6)
    assert rows["spot/part102"]["decision"] != "good"
    assert "Defects that were found show most: 0 in light1, 3 in light2." in " ".join(result.stdout.split())
    report = (tmp_path / "e.html").read_text()
    assert "An image here is a part, judged by light1, light2" in report
    assert "part100_light2.png" in report
    assert "part100_light1.png" not in report
    assert "1 part lacks a picture, the first spot/part102" in " ".join(result.stdout.split())


def test_sizes_are_learned_from_single_pictures(run, data, tmp_path):
    result = run("train", data, "--output", tmp_path / "m", "--parts", "names", "--sizes")
    assert result.exit_code == 2
    assert "--sizes goes with single pictures" in result.stderr
