"""Detectors on the frames of videos, against the image files of their pixels."""

import numpy as np
import pytest
from PIL import Image

from clips import write_clip
from invad.errors import ConfigError, DataError

pytest.importorskip("av", reason="PyAV is not installed")


@pytest.fixture(scope="module")
def greys(draw):
    """Five parts of 16 bits, with levels that 8 bits do not have."""
    deep = [draw(i, defect=i == 3)[..., 0].astype(np.uint16) * 257 for i in range(5)]
    return [picture - np.uint16(i) * (picture > 300) for i, picture in enumerate(deep)]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("exported", [False, True])
def test_sixteen_bits_are_judged_as_in_a_file(detector, greys, tmp_path, exported, batch):
    judging = detector.compile() if exported else detector
    clip = write_clip(tmp_path / "clip.mkv", greys, layout="gray16le")
    judged = list(judging.predict_video(clip, batch=batch))
    assert [frame.number for frame, _ in judged] == [0, 1, 2, 3, 4]
    for (frame, found), picture in zip(judged, greys, strict=True):
        path = tmp_path / f"{frame.number}.png"
        Image.fromarray(picture).save(path)
        alone = judging.predict(path)
        assert (frame.pixels == picture[..., None]).all()
        assert found.path == str(clip)
        assert found.score == (alone.score if batch == 1 else pytest.approx(alone.score, rel=1e-3))
        assert found.decision == alone.decision
    if batch == 1:
        coarse = judging.predict((greys[1] // 257).astype(np.uint8))
        assert coarse.score != judged[1][1].score


def test_a_frame_that_the_bundle_does_not_take_is_named(detector, greys, tmp_path):
    """It is for images of one other size."""
    clip = write_clip(tmp_path / "clip.mkv", greys, layout="gray16le")
    judging = detector.compile(size_hw=(96, 64))
    judged = list(judging.predict_video(clip))
    assert str(judged[1][1]).startswith(f"{clip}: frame 1 at 0.040 s: 64 x 64 pixels, the bundle")
    assert all(isinstance(frame.pixels, DataError) for frame, _ in judged)
    with pytest.raises(DataError, match=r"frame 0 at 0\.000 s: 64 x 64 pixels, the bundle takes"):
        next(judging.predict_video(clip, strict=True))


def test_the_call_refuses_what_cannot_be_asked(detector, tmp_path):
    with pytest.raises(ConfigError, match="every = 0: give seconds above 0"):
        detector.predict_video(tmp_path / "clip.mp4", every=0)
    with pytest.raises(DataError, match="no such file"):
        next(detector.predict_video(tmp_path / "clip.mp4"))
