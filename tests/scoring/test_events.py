"""Events against their definition, written the slow way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invad.errors import ConfigError
from invad.scoring.events import EventFinder, EventRule, JudgedFrame, find_events


def frames(marks, every=0.5):
    """`.x` as an unflagged and a flagged frame; a digit is flagged with that score."""
    return [
        JudgedFrame(
            number=10 * i,
            time=every * i,
            score=float(mark) if mark.isdigit() else 1.0,
            flagged=mark != ".",
        )
        for i, mark in enumerate(marks)
    ]


def spans(marks, flagged=3, among=5):
    found = find_events(frames(marks), EventRule(flagged=flagged, among=among))
    return [(round(2 * e.start), round(2 * e.end), e.flagged, e.judged) for e in found]


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ("", []),
        ("..xx....x", []),
        ("..xxx..", [(2, 4, 3, 3)]),
        (".x.x.x.", [(1, 5, 3, 5)]),
        (".x..x.x.", []),
        ("xxx....xxx", [(0, 2, 3, 3), (7, 9, 3, 3)]),
        ("xxx...xxx", [(0, 8, 6, 9)]),
        ("xxx.x.x", [(0, 6, 5, 7)]),
        ("xxx...x", [(0, 2, 3, 3)]),
    ],
)
def test_stretches_of_three_among_five(marks, expected):
    assert spans(marks) == expected


def test_single_frames_near_each_other_are_one_event():
    assert spans("x..x.....x", flagged=1, among=4) == [(0, 3, 2, 4), (9, 9, 1, 1)]


def test_the_peak_is_the_flagged_frame_with_the_highest_score():
    (event,) = find_events(frames(".27.7.9"), EventRule(flagged=3, among=5))
    assert (event.peak_frame, event.peak_time, event.peak_score) == (60, 3.0, 9.0)
    (event,) = find_events(frames("77.7"), EventRule(flagged=3, among=5))
    assert (event.peak_frame, event.peak_time) == (0, 0.0)


@pytest.mark.parametrize(("flagged", "among"), [(0, 5), (6, 5), (-1, -1)])
def test_a_rule_that_no_frames_can_fulfil_is_refused(flagged, among):
    with pytest.raises(ConfigError, match="not more than there are"):
        EventRule(flagged=flagged, among=among)


@given(st.text("x.", max_size=40), st.integers(1, 4), st.integers(0, 4))
def test_events_are_what_the_definition_says(marks, flagged, more):
    among = flagged + more
    places = [i for i, mark in enumerate(marks) if mark == "x"]
    runs = [places[i : i + flagged] for i in range(len(places) - flagged + 1)]
    merged = []
    for run in (run for run in runs if run[-1] - run[0] < among):
        if merged and run[0] - max(merged[-1]) < among:
            merged[-1] |= set(run)
        else:
            merged.append(set(run))
    assert spans(marks, flagged, among) == [
        (min(one), max(one), len(one), max(one) - min(one) + 1) for one in merged
    ]


def test_it_holds_no_more_frames_than_the_rule_needs():
    finder = EventFinder(EventRule(flagged=3, among=5))
    for frame in frames("x" * 1000):
        finder.add(frame)
    assert len(finder._recent) == 3
    assert finder.found[0].flagged == 1000
