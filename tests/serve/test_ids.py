"""Names of results rise with the order in which they were given."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from invad.serve import ids
from invad.serve.ids import Ids, number_of, text_of


def test_they_rise_and_differ_whatever_the_clock_does(monkeypatch):
    clock = iter([5_000_000_000, 5_000_000_000, 4_000_000_000, 1_000_000, 6_000_000_000])
    monkeypatch.setattr(ids.time, "time_ns", lambda: next(clock))
    given = Ids()
    made = [given.new() for _ in range(5)]
    assert made == sorted(set(made))
    assert number_of(made[-1]) >> 80 == 6_000


def test_a_new_process_goes_on_above_the_last_one():
    later = text_of((1 << 47) << 80)
    assert Ids(later).new() > later


def test_threads_get_different_ones():
    given = Ids()
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: given.new(), range(400)))
    assert len(set(made)) == 400


def test_text_and_number_are_the_same():
    assert text_of(0) == "0" * 26
    # the example of github.com/ulid/spec begins with the time 1469922850259
    assert number_of("01ARZ3NDEKTSV4RRFFQ69G5FAV") >> 80 == 1469922850259
    with pytest.raises(ValueError, match="no ULID"):
        number_of("short")


def test_they_follow_what_another_process_gave():
    given, other = Ids(), Ids()
    for _ in range(3):
        given.follow(other.new())
        other.follow(last := given.new())
        assert other.new() > last
    given.follow(None)
    assert given.new() > last
