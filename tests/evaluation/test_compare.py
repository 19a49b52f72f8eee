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
    labels[0] = "dent"
    with pytest.raises(DataError, match="0: is good in A and dent in B"):
        compare(same.a, of(fine))


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


def of_parts(folder, path, lot, decided=("light1", "light2"), second="0.02"):
    """Rows of two parts of two pictures below `lot`, and one that could not be judged, as CSV or JSON."""
    members = ("light1", "light2")
    head = [
        "part",
        *HEAD[1:],
        "seen_by",
        "reason",
        *(f"{m}_{n}" for m in members for n in ("path", "p_value")),
    ]
    told = [
        {
            **{"part": f"p{i}", "score": 0.5, "p_value": 0.4, "decision": "good" if i else "bad"},
            **{"seen_by": seen, "reason": ""},
            "members": {m: {"path": f"{lot}/p{i}_{m}.png", "p_value": float(second)} for m in members},
        }
        for i, seen in enumerate(decided)
    ]
    lost = {
        "part": "p9",
        "score": None,
        "p_value": None,
        "decision": "review",
        "seen_by": None,
        "members": {},
    }
    if path.endswith(".json"):
        (folder / path).write_text(json.dumps({"parts": [*told, lost]}))
        return folder / path
    rows = [
        [
            *(row[name] if row.get(name) is not None else "" for name in head[:6]),
            *("", *(str(one[name]) for one in row["members"].values() for name in ("path", "p_value"))),
        ]
        for row in [*told, lost]
    ]
    return write(folder / path, *rows, head=head)


def test_pictures_of_a_part_come_with_it(tmp_path):
    table, plain = (read_results(of_parts(tmp_path, name, "plates")) for name in ("a.csv", "a.json"))
    assert table.rows == plain.rows
    assert table.rows[0].members == (("light1", 0.02), ("light2", 0.02))
    assert (table.rows[1].seen_by, table.unjudged, len(table.rows)) == ("light2", 1, 2)


def test_parts_are_matched_by_their_name_and_folder(tmp_path):
    a = of_parts(tmp_path, "a.csv", "plates/monday")
    same = compare(a, of_parts(tmp_path, "b.json", "/data/plates/monday", ("light2", "light2")))
    assert [(x.name, x.seen_by, y.seen_by) for x, y in same.pairs] == [
        ("p0", "light1", "light2"),
        ("p1", "light2", "light2"),
    ]
    other = of_parts(tmp_path, "c.json", "plates/tuesday")
    assert compare(a, other).lots.total_b == 2
    assert len(compare(a, other, same_parts=True).pairs) == 2
    assert compare(a, a, same_parts=False).pairs == ()
    with pytest.raises(DataError, match="no part in common: one names plates/monday/p0, the other 1"):
        compare(a, write(tmp_path / "x.csv", ["1", "1", "0.5", "good", ""]), same_parts=True)


def test_parts_of_one_name_in_two_folders_are_two_parts(tmp_path):
    rows = [
        {**json.loads(of_parts(tmp_path, f"{lot}.json", lot).read_text())["parts"][0]} for lot in ("a", "b")
    ]
    (tmp_path / "both.json").write_text(json.dumps({"parts": rows}))
    assert [row.name for row in read_results(tmp_path / "both.json").rows] == ["a/p0", "b/p0"]


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
