"""Decoding ahead: the order, the errors, and how much is held."""

import threading

import numpy as np
import pytest
from PIL import Image

from invad.data.ahead import read_ahead
from invad.errors import DataError


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """20 images whose grey level is their number."""
    folder = tmp_path_factory.mktemp("numbered")
    paths = [folder / f"{i}.png" for i in range(20)]
    for i, path in enumerate(paths):
        # The first are the largest, so that threads finish them last.
        Image.fromarray(np.full((400 - 20 * i, 8), i, np.uint8)).save(path)
    return paths


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_order_and_pixels_are_those_of_the_sources(files, workers):
    found = list(read_ahead(files, workers, ahead=6))
    assert [source for source, _ in found] == files
    assert [int(pixels[0, 0, 0]) for _, pixels in found] == list(range(20))


@pytest.mark.parametrize("workers", [0, 3])
def test_what_cannot_be_read_is_told_in_its_place(files, workers, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    sources = [files[0], tmp_path / "broken.png", files[1], tmp_path / "missing.png"]
    found = [pixels for _, pixels in read_ahead(sources, workers, ahead=2)]
    assert [isinstance(one, DataError) for one in found] == [False, True, False, True]
    assert "broken.png" in str(found[1])
    assert "no such file" in str(found[3])


@pytest.mark.parametrize(("workers", "ahead", "most"), [(0, 5, 1), (1, 1, 2), (3, 5, 6)])
def test_only_a_few_are_taken_before_they_are_asked_for(files, workers, ahead, most):
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield files[0]

    results = read_ahead(endless(), workers, ahead)
    for given in range(1, 30):
        next(results)
        assert taken <= given - 1 + most
    results.close()


def test_closed_early_no_thread_remains(files):
    results = read_ahead(files, workers=3, ahead=10)
    next(results)
    assert any(thread.name.startswith("invad-decode") for thread in threading.enumerate())
    results.close()
    assert not any(thread.name.startswith("invad-decode") for thread in threading.enumerate())


def test_errors_of_the_sources_themselves_are_not_swallowed(files):
    def failing():
        yield files[0]
        raise RuntimeError("camera gone")

    with pytest.raises(RuntimeError, match="camera gone"):
        list(read_ahead(failing(), workers=2, ahead=4))
