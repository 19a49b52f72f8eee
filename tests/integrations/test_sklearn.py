"""The estimator of scikit-learn: its conventions, and the decisions of `Detector`."""

import io
import pickletools
from pathlib import Path

import joblib
import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone, is_outlier_detector
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks, get_tags

from invad.detector.detector import Detector
from invad.errors import DataError
from invad.integrations.sklearn import InvADDetector
from invad.records import Sample
from invad.scoring.rates import Rates

GOOD, BAD = 16, 8

SETTINGS_ALONE = {
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_no_attributes_set_in_init",
    "check_valid_tag_types",
}
"""Checks of scikit-learn that look at settings and tags, never at X."""


def small(**settings):
    return InvADDetector(preset="fast", size=64, **settings)


@pytest.fixture(scope="module")
def pictures(draw):
    """N x H x W x 3, and 1 for each good one, -1 for each with a spot; in no order."""
    X = np.stack([draw(i) for i in range(GOOD)] + [draw(100 + i, defect=True) for i in range(BAD)])
    y = np.array([1] * GOOD + [-1] * BAD)
    order = np.random.default_rng(0).permutation(len(y))
    return X[order], y[order]


@pytest.fixture(scope="module")
def fitted(pictures):
    return small().fit(*pictures)


@pytest.fixture(scope="module")
def unseen(draw):
    return np.stack([draw(200 + i, defect=i % 2 == 1) for i in range(6)])


def test_larger_is_more_normal(fitted, unseen):
    scores, decision, labels = (
        fitted.score_samples(unseen),
        fitted.decision_function(unseen),
        fitted.predict(unseen),
    )
    assert scores.dtype == decision.dtype == np.float64
    assert labels.dtype.kind == "i"
    assert scores.shape == decision.shape == labels.shape == (6,)
    assert labels.tolist() == [1, -1] * 3
    assert np.array_equal(decision, scores - fitted.offset_)
    assert np.array_equal(labels, np.where(decision >= 0, 1, -1))
    assert scores[::2].min() > scores[1::2].max()


def test_it_decides_as_the_detector_does(fitted, unseen):
    said = fitted.detector_.predict(list(unseen))
    assert fitted.score_samples(unseen).tolist() == [-one.score for one in said]
    assert fitted.p_values(unseen).tolist() == [one.p_value for one in said]
    assert fitted.decisions(unseen) == [one.decision for one in said]
    maps = fitted.anomaly_maps(unseen)
    assert all(np.array_equal(own, one.anomaly_map) for own, one in zip(maps, said, strict=True))
    bad = [one.decision == "bad" for one in said]
    assert (fitted.predict(unseen) == -1).tolist() == bad


def test_a_picture_at_the_limit_is_no_outlier(fitted, unseen):
    """Bad is what lies above the limit, as the detector says it."""
    at = clone(fitted)
    at.detector_, at.offset_ = fitted.detector_, fitted.score_samples(unseen[1:2])[0]
    assert at.decision_function(unseen[1:2]).tolist() == [0.0]
    assert at.predict(unseen[1:2]).tolist() == [1]


def test_files_and_arrays_are_learned_alike(pictures, fitted, unseen, tmp_path):
    X, y = pictures
    normals = X[y == 1]
    paths = [tmp_path / f"{i:03d}.png" for i in range(len(normals))]
    for path, one in zip(paths, normals, strict=True):
        Image.fromarray(one).save(path)
    expected = fitted.score_samples(unseen)
    for own in (np.array([str(path) for path in paths]), [*paths[:3], *normals[3:]]):
        assert np.array_equal(small().fit(own).score_samples(unseen), expected)
    samples = [Sample(path=path, category="part") for path in paths]
    settings = small()._settings()
    detector = Detector.fit(samples, preset=settings, rates=Rates(), device="cpu")
    assert [-one.score for one in detector.predict(list(unseen))] == expected.tolist()


def test_sizes_and_depths_may_differ(draw):
    mixed = [draw(i, size=(96, 64)).astype(np.uint16) * np.uint16(257) for i in range(10)]
    mixed += [draw(50 + i).astype(np.float64)[..., 0] / 255 for i in range(10)]
    holder = np.empty(20, dtype=object)
    holder[:] = mixed
    estimator = small().fit(holder)
    assert [one.shape for one in estimator.anomaly_maps(mixed[9:11])] == [(64, 96), (64, 64)]


def test_nothing_is_learned_from_what_y_calls_defective(pictures, fitted, unseen):
    X, y = pictures
    assert fitted.detector_.info.fit.normals == {"images": GOOD}
    alone = small().fit(X[y == 1])
    assert np.array_equal(alone.score_samples(unseen), fitted.score_samples(unseen))


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((20, 5)), "X has the shape 20 x 5: give pictures"),
        (np.zeros(20), "X has the shape 20: give pictures"),
        (np.zeros((64, 64, 3), np.uint8), "that of one picture: give X"),
        (np.zeros((2, 2, 8, 8, 3), np.uint8), "give pictures, N x H x W"),
        (np.zeros((0, 8, 8)), "X holds no picture"),
        ([], "X holds no picture"),
        ("folder", "give a list of pictures or of their paths"),
        (Path("folder"), "give a list of pictures or of their paths"),
        (7, "X is a int: give an array or a list"),
        (["no/such/file.png"] * 2, "no/such/file.png"),
        ([np.full((8, 8, 3), 2.0)], "float values 2 to 2 leave"),
        ([{"a": 1}], "dict is not an image"),
    ],
)
def test_what_is_no_set_of_pictures_is_refused_in_one_line(X, message, fitted):
    for call in (small().fit, fitted.predict, fitted.score_samples, fitted.decision_function):
        with pytest.raises(ValueError, match=message) as raised:
            call(X)
        assert isinstance(raised.value, DataError)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("y", [[0] * 24, [1] * 23, [[1]] * 24, ["good"] * 24, 1])
def test_other_labels_are_refused(pictures, y):
    with pytest.raises(ValueError, match="give one label for each of the 24 pictures, 1 for a normal"):
        small().fit(pictures[0], y)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "fastest"}, "preset 'fastest' is unknown"),
        ({"false_alarm_rate": 2}, "bad false-alarm rate = 2"),
        ({"random_state": "x"}, "random_state = 'x'"),
        ({"size": 3}, "area_side = 3"),
    ],
)
def test_settings_out_of_range_are_refused_by_fit_alone(pictures, settings, message):
    estimator = InvADDetector(**settings)
    with pytest.raises(Exception, match=message) as raised:
        estimator.fit(*pictures)
    assert type(raised.value).__module__ == "invad.errors"


def test_before_fit_it_says_so(unseen):
    for name in ("predict", "score_samples", "decision_function", "p_values", "decisions", "anomaly_maps"):
        with pytest.raises(NotFittedError):
            getattr(small(), name)(unseen)


def test_the_checks_of_scikit_learn_that_need_no_table_pass():
    name, estimator = "InvADDetector", small()
    estimator_checks.check_no_attributes_set_in_init(name, estimator)
    estimator_checks.check_get_params_invariance(name, estimator)
    estimator_checks.check_set_params(name, estimator)
    estimator_checks.check_parameters_default_constructible(name, estimator)
    estimator_checks.check_estimator_repr(name, estimator)
    estimator_checks.check_estimator_cloneable(name, estimator)
    estimator_checks.check_estimator_tags_renamed(name, estimator)
    estimator_checks.check_valid_tag_types(name, estimator)


def test_check_estimator_never_fits():
    """As the documentation says: of an estimator of pictures there is no table to test it with."""
    with pytest.warns(SkipTestWarning, match="requires input"):
        done = estimator_checks.check_estimator(small())
    assert {one["check_name"] for one in done} <= SETTINGS_ALONE


def test_it_is_an_outlier_detector_of_pictures():
    tags = get_tags(small()).input_tags
    assert is_outlier_detector(small())
    assert not tags.two_d_array
    assert tags.one_d_array
    assert tags.three_d_array
    assert not hasattr(small(), "contamination")


def test_a_clone_has_the_settings_and_nothing_learned(fitted):
    again = clone(fitted)
    assert again.get_params() == fitted.get_params()
    assert not hasattr(again, "detector_")


def test_a_stored_estimator_is_the_same_and_holds_no_class_of_torch(fitted, unseen, tmp_path):
    joblib.dump(fitted, tmp_path / "estimator.joblib")
    again = joblib.load(tmp_path / "estimator.joblib")
    assert np.array_equal(again.score_samples(unseen), fitted.score_samples(unseen))
    assert again.offset_ == fitted.offset_
    assert isinstance(fitted.detector_, Detector)
    stream = io.BytesIO((tmp_path / "estimator.joblib").read_bytes())
    text = {argument for _, argument, _ in pickletools.genops(stream) if isinstance(argument, str)}
    modules = {word.split(".")[0].split(" ")[0] for word in text}
    assert "invad" in modules
    assert modules & {"torch", "timm", "torchvision"} == set()


def test_cross_validation_and_a_search_over_settings(pictures, tmp_path):
    X, y = pictures
    folds = StratifiedKFold(2, shuffle=True, random_state=0)
    mirrored = FunctionTransformer(lambda X: X[:, :, ::-1])
    pipeline = Pipeline([("mirror", mirrored), ("invad", small(cache=tmp_path))])
    areas = cross_val_score(pipeline, X, y, cv=folds, scoring="roc_auc")
    assert areas.min() > 0.9

    search = GridSearchCV(
        pipeline,
        {"invad__false_alarm_rate": [1e-200, 0.01]},
        cv=folds,
        scoring={"area": "roc_auc", "balanced": "balanced_accuracy"},
        refit="balanced",
        error_score="raise",
    ).fit(X, y)
    assert search.best_params_ == {"invad__false_alarm_rate": 0.01}
    assert get_scorer("roc_auc")(search, X, y) == 1
    # Both rates of a fold, and the two folds of before, read the features that were computed once.
    assert len(list(tmp_path.glob("features-*"))) == 3
