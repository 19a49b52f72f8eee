"""Two results side by side: what is counted, and what the tests say, against independent figures."""

import csv
import json

import numpy as np
import pytest
from scipy.stats import binom, hypergeom

from invad.errors import DataError
from invad.evaluation.compare import Results, Row, compare, mcnemar, read_results


def results(*rows, **changed):
    made = [
        Row(name=name, score=score, p_value=0.5, decision=decision, label=label)
        for name, score, decision, label in rows
    ]
    return Results(source="x", rows=tuple(made), **changed)


def test_mcnemar_is_the_sign_test():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(1, 7) == pytest.approx(2 * binom.cdf(1, 8, 0.5))
    assert mcnemar(7, 1) == mcnemar(1, 7)


def test_parts_in_common_are_their_own_control():
    a = results(("1", 1, "good", None), ("2", 5, "bad", None), ("3", 1, "good", None), ("a", 1, "good", None))
    b = results(("3", 9, "bad", None), ("2", 7, "review", None), ("1", 2, "good", None))
    found = compare(a, b)
    assert [(x.name, x.decision, y.decision) for x, y in found.changed] == [
        ("3", "good", "bad"),  # the largest change first
        ("2", "bad", "review"),
    ]
    (test,) = found.tests
    assert (test.both, test.only_a, test.only_b, test.neither) == (1, 0, 1, 1)
    assert (found.ranking, found.lots) == (None, None)


def test_labels_part_false_alarms_from_defects():
    rng = np.random.default_rng(0)
    names = [str(i) for i in range(60)]
    labels = ["good"] * 30 + ["dent"] * 30
    truth = np.repeat([0.0, 1.0], 30)
    poor, fine = truth + rng.normal(0, 1.5, 60), truth + rng.normal(0, 0.2, 60)

    def of(scores):
        decided = ["bad" if score > 0.5 else "good" for score in scores]
        return results(*zip(names, scores.tolist(), decided, labels, strict=True))

    found = compare(of(poor), of(fine))
    alarms, caught = found.tests
    assert (alarms.total, caught.total) == (30, 30)
    assert alarms.only_a > alarms.only_b
    assert caught.only_b > caught.only_a
    assert caught.p_value < 0.05
    assert found.ranking.b > found.ranking.a
    low, high = found.ranking.difference_95
    assert 0 < low < found.ranking.b - found.ranking.a < high
    same = compare(of(poor), of(poor))
    assert same.ranking.difference_95 == (0.0, 0.0)
    assert same.changed == ()


def test_lots_without_a_part_in_common_are_two_samples():
    a = results(*[(f"a{i}", 1, "bad" if i < 1 else "good", None) for i in range(50)])
    b = results(*[(f"b{i}", 1, "bad" if i < 15 else "good", None) for i in range(50)])
    found = compare(a, b)
    assert (found.pairs, found.tests) == ((), ())
    assert (found.lots.flagged_a, found.lots.flagged_b) == (1, 15)
    chances = hypergeom.pmf(np.arange(17), 100, 16, 50)
    assert found.lots.p_value == pytest.approx(chances[chances <= chances[1] * (1 + 1e-9)].sum())


HEAD = ["path", "score", "p_value", "decision", "error"]


def write(path, *rows, head=HEAD):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return path


def test_csv_and_json_hold_the_same_rows(tmp_path):
    table = write(tmp_path / "a.csv", ["1", "0.5", "0.4", "good", ""], ["2", "", "", "", "cut off"])
    plain = {"path": "1", "score": 0.5, "p_value": 0.4, "decision": "good"}
    lost = {"path": "2", "score": None, "p_value": None, "decision": None, "error": "cut off"}
    (tmp_path / "a.json").write_text(json.dumps({"content_hash": "h", "images": [plain, lost]}))
    first, second = read_results(table), read_results(tmp_path / "a.json")
    assert first.rows == second.rows
    assert (first.unjudged, second.unjudged, second.content_hash) == (1, 1, "h")


def test_parts_of_several_pictures_are_named_by_the_part(tmp_path):
    table = write(tmp_path / "a.csv", ["p1", "0.5", "0.4", "good", ""], head=["part", *HEAD[1:]])
    row = {"part": "p1", "score": 0.5, "p_value": 0.4, "decision": "good"}
    (tmp_path / "a.json").write_text(json.dumps({"parts": [row]}))
    assert read_results(table).rows == read_results(tmp_path / "a.json").rows


def test_frames_of_a_video_are_parts_of_their_own(tmp_path):
    head = ["path", "frame", *HEAD[1:]]
    rows = [["v.mkv", str(i), "1", "0.5", "good", ""] for i in range(2)]
    assert len(read_results(write(tmp_path / "v.csv", *rows, head=head)).rows) == 2


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "holds no judged part"),
        ([["1", "", "", "", "lost"]], "holds no judged part"),
        ([["1", "1", "0.5", "good", ""]] * 2, "names 1 2 times"),
        ([["1", "nan", "0.5", "good", ""]], "row 1 has no score"),
        ([["1", "1", "2", "good", ""]], "row 1 has no score"),
        ([["1", "1", "0.5", "fine", ""]], "row 1 has no score"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path, rows, words):
    with pytest.raises(DataError, match=words):
        read_results(write(tmp_path / "x.csv", *rows))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="row 1 lacks path"):
        read_results(write(tmp_path / "x.csv", ["1"], head=["x"]))
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(DataError, match="is no JSON"):
        read_results(tmp_path / "x.json")
    (tmp_path / "y.json").write_text("[]")
    with pytest.raises(DataError, match="has no rows"):
        read_results(tmp_path / "y.json")
    with pytest.raises(DataError, match="No such file"):
        read_results(tmp_path / "none.csv")
    with pytest.raises(DataError, match="no prediction files"):
        read_results(tmp_path)
