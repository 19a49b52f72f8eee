"""A detector of the tests whose score is the mean grey level."""

import io
import threading
from dataclasses import replace

import numpy as np
from PIL import Image

from invad.records import Prediction
from invad.runtime.predictor import Predictor
from invad.scoring.calibration import Calibration
from invad.scoring.fusion import Fusion

LIMITS = Calibration(scores=tuple(range(40)), peaks=tuple(range(40)))


class Greys(Predictor):
    """Grey levels as scores. gate: runs wait for it. It fails for pictures of the level `fails`."""

    content_hash = "0" * 64
    grid_hw = (1, 2)

    def __init__(self, fails=None, number=None):
        self.calibrations = {"": LIMITS, "part": replace(LIMITS, scores=tuple(range(100, 140)))}
        self.fails, self.number = fails, number
        self.runs, self.entered = [], 0
        self.gate = threading.Event()
        self.gate.set()
        self.engine = type("Engine", (), {"name": "greys", "device": "cpu"})()

    def kind(self, pixels):
        return pixels.shape

    def judge(self, pixels, category=None):
        self.entered += 1
        assert self.gate.wait(60)
        self.runs.append([(one.shape[:2], category) for one in pixels])
        scores = [float(one.mean()) for one in pixels]
        if self.fails in scores:
            raise RuntimeError("the engine has a fault")
        return [
            Prediction(
                path=None,
                category=category,
                score=score if self.number is None else self.number,
                p_value=0.0,  # as a graph that was exported before the last calibration
                decision="good",
                anomaly_map=spot(one.shape[:2], score),
            )
            for one, score in zip(pixels, scores, strict=True)
        ]


class GreyParts(Greys):
    """Parts whose score is the grey level of their brightest picture: good up to 38, bad from 40 on."""

    def __init__(self, *members, rule="names", **options):
        super().__init__(**options)
        self.calibrations = {"": LIMITS, **dict.fromkeys(members, LIMITS)}
        self.fusion = Fusion(
            rule=rule,
            kind="scores",
            members=members,
            windows=((0.0, 65535.0),) * len(members),
            centres=(0.0,) * len(members),
            spreads=(1.0,) * len(members),
            calibration=LIMITS,
        )


def spot(size_hw, value):
    """A map of zeros with a square of 2 x 2 in its first corner."""
    map_hw = np.zeros(size_hw, np.float32)
    map_hw[:2, :2] = value
    return map_hw


def png(level, size=(4, 3)):
    stream = io.BytesIO()
    Image.new("RGB", size, (level, level, level)).save(stream, "PNG")
    return stream.getvalue()
