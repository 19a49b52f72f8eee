"""Verdicts become a data set that `invad evaluate` reads."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import update
from starlette.testclient import TestClient
from typer.testing import CliRunner

from invad.cli.app import app
from invad.data.members import Rule
from invad.data.members import pictures as pictures_of
from invad.errors import DataError
from invad.serve import Client, Options, Service, reviewing
from invad.serve.app import application
from invad.serve.records import Member
from invad.serve.store.schema import result
from invad.serve.verdicts import Words, mask_of, write_set


def runs_of(mask_hw):
    """The definition: lengths of runs, the first of pixels that are not defective."""
    runs, now = [0], False
    for value in mask_hw.ravel().tolist():
        if value != now:
            runs.append(0)
            now = value
        runs[-1] += 1
    return runs


@pytest.fixture(scope="module")
def judged(two_categories, bundle, pictures, tmp_path_factory):
    """(service, model folder, ids by what was said of them, the mask). The service has the bundle of the
    model, so that it computes in no thread of PyTorch."""
    folder = tmp_path_factory.mktemp("judged")
    two_categories.save(folder / "model")
    mask = np.zeros((64, 64), bool)
    mask[32:44, 32:44] = True
    with Service(bundle, folder / "line", options=Options(reserve=0), threads=1) as service:
        good, bad = ([service.inspect(body, category="part") for body in bodies] for bodies in pictures)
        again = service.inspect(pictures[1][0], category="part")

        def say(part, verdict, **more):
            reviewing.review(service, part.id, verdict, "somebody", **more)

        for part in good[:2]:
            say(part, "good")
        say(good[2], "unsure")
        say(good[3], "good")
        say(bad[0], "bad")
        say(again, "bad", defect="Dent / deep", mask=runs_of(mask))
        say(again, "open")
        say(again, "bad", defect="Dent / deep", mask=runs_of(mask))
        say(again, "bad")  # says neither mask nor defect again
        say(bad[1], "bad", defect="good")
        with service.database.write() as connection:
            connection.execute(
                update(result).where(result.c.id == good[3].id).values(image_kept=False, map_kept=False)
            )
        ids = {
            "good": [one.id for one in good[:2]],
            "unsure": good[2].id,
            "gone": good[3].id,
            "train": [one.id for one in good[4:] if one.decision == "good"],
            "masked": again.id,
            "copy": bad[0].id,
            "bare": bad[1].id,
        }
        yield service, folder / "model", ids, mask


def run(*arguments):
    done = CliRunner().invoke(app, [str(word) for word in arguments])
    assert done.exit_code == 0, done.output
    return done


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}


def test_evaluate_reads_what_was_judged_and_nothing_is_left_out_silently(judged, tmp_path):
    service, model, ids, mask = judged
    said = run("serve", "verdicts", "--data", service.folder, "--output", tmp_path / "set", "--json", "-")
    written = json.loads(said.stdout)
    expected = {f"part/test/good/{id}.png" for id in ids["good"]}
    expected |= {f"part/train/good/{id}.png" for id in ids["train"]}
    expected |= {f"part/test/Dent_deep/{ids['masked']}.png", f"part/test/good_defect/{ids['bare']}.png"}
    expected |= {f"part/ground_truth/Dent_deep/{ids['masked']}_mask.png"}
    assert set(content(tmp_path / "set")) == expected
    drawn = Image.open(tmp_path / "set" / f"part/ground_truth/Dent_deep/{ids['masked']}_mask.png")
    assert np.array_equal(np.asarray(drawn) == 255, mask)
    assert sorted(written["left_out"]) == sorted(
        [
            f"{ids['unsure']}: called unsure",
            f"{ids['gone']}: its image is not kept any more",
            f"{ids['copy']}: the same picture as {ids['masked']}",
        ]
    )
    assert (written["good"], written["bad"], written["masks"]) == (2, 2, 1)
    assert written["without_masks"] == [ids["bare"]]
    assert f"warning: {ids['gone']}: its image is not kept any more" in said.stderr
    measured = json.loads(run("evaluate", model, tmp_path / "set", "--device", "cpu", "--json", "-").stdout)
    assert (measured["n_normal"], measured["n_anomalous"]) == (2, 2)
    assert measured["pixel_auroc"] is not None
    assert list(measured["categories"]) == ["part"]


def test_a_client_writes_the_same(judged, tmp_path):
    service, _, ids, _ = judged
    run("serve", "verdicts", "--data", service.folder, "--output", tmp_path / "here", "--station", "default")
    with Client("http://127.0.0.1") as client:
        client._http = TestClient(application(service, without_keys=True), base_url="http://127.0.0.1")
        written = client.export_verdicts(tmp_path / "there", "default")
    assert content(tmp_path / "there") == content(tmp_path / "here") != {}
    assert written.without_masks == (ids["bare"],)


def test_names_that_people_typed_are_no_paths_and_a_folder_is_never_written_over(judged, tmp_path):
    service, _, ids, _ = judged
    part = replace(service.result(ids["masked"]).result, category=None, station="s")
    parts = [replace(part, id=str(number), image_sha256=str(number), verdict="bad") for number in range(4)]
    defects = dict(zip("0123", ("../../up", "Scratch", "scratch", "..."), strict=True))
    body = service.picture(service.result(part.id), "image")
    written = write_set(
        parts,
        [],
        tmp_path / "set",
        lambda one: Words(defect=defects[one.id], mask=None),
        lambda one: [("", body)],
    )
    assert set(content(tmp_path)) == {
        "set/s/test/up/0.png",
        "set/s/test/Scratch/1.png",
        "set/s/test/Scratch/2.png",
        "set/s/test/defect/3.png",
    }
    assert written.left_out == (
        "s: train/good is empty, because no good part without a verdict has an image; put one there",
    )
    with pytest.raises(DataError, match="is not empty"):
        write_set([], [], tmp_path / "set", None, None)
    assert write_set([], [], tmp_path / "none", None, None).left_out == ()


def test_pictures_of_a_part_are_read_back_by_the_rule_that_is_told(judged, tmp_path):
    service, _, ids, _ = judged
    part = replace(service.result(ids["masked"]).result, category=None, station="s", reason=None)
    body = service.picture(service.result(part.id), "image")

    def of(number, *names, **more):
        members = tuple(Member(member=name, score=1.0, p_value=0.5, above=0.0) for name in names)
        return replace(part, id=f"01A{number}", image_sha256=number, members=members, verdict="good", **more)

    judged_parts = [
        of("1", "light_1", "light_2"),
        of("2", "light_1", reason="no light_2"),
        of("3", "up/down"),
        of("4"),
        of("5", "light_1", "light_2", image_kept=False),
    ]
    written = write_set(
        judged_parts,
        [of("6", "light_1", "light_2", reason="light_2 is there twice"), of("7", "light_1", "light_2")],
        tmp_path / "set",
        lambda one: Words(defect=None, mask=None),
        lambda one: [(m.member, body) for m in one.members] or [("", body)] if one.image_kept else None,
    )
    files = set(content(tmp_path / "set"))
    assert files == {
        *(f"s/test/good/01A1_light_{n}.png" for n in (1, 2)),
        *(f"s/train/good/01A7_light_{n}.png" for n in (1, 2)),
        "s_of_one/test/good/01A4.png",  # another rule reads it
    }
    assert [line.split(": ", 1) for line in written.left_out[:3]] == [
        ["01A2", "no light_2"],
        ["01A3", "no file can be named after its picture up/down"],
        ["01A5", "its pictures are not kept any more"],
    ]
    rule = Rule.parse(written.parts)
    told = [pictures_of(tmp_path / name, Path(name), rule)[0] for name in sorted(files) if "light" in name]
    assert {(one.part.rpartition("/")[2], one.member) for one in told} == {
        (id, f"light_{n}") for id in ("01A1", "01A7") for n in (1, 2)
    }


def test_runs_are_pixels_by_rows_and_have_to_fit():
    mask = np.random.default_rng(0).random((7, 5)) < 0.4
    assert np.array_equal(mask_of(runs_of(mask), 5, 7), mask)
    assert mask_of([0, 6], 2, 3).all()
    for runs in ([34], [36, -1]):
        with pytest.raises(DataError, match="do not add up"):
            mask_of(runs, 5, 7)
