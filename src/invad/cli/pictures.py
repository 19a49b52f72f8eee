"""The pictures of `invad predict`: overlays to look at, maps to go on with."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invad.cli.videos import Save
from invad.cli.voice import Voice
from invad.data.listing import stem as file_stem
from invad.errors import InvadError, reason
from invad.system.files import fitting_name, make_folder

if TYPE_CHECKING:
    from invad.detector.opening import AnyDetector
    from invad.records import Prediction
    from invad.runtime.predictor import Pixels


class Overlays:
    """Pictures of the images with heat map and verdict. One that cannot be written is a warning."""

    def __init__(self, folder: Path, detector: "AnyDetector", voice: Voice):
        make_folder(folder)
        self.folder, self.detector, self.voice = folder, detector, voice
        self.names = OverlayNames(folder)

    def save(self, image: Path, below: Path, pixels: "Pixels", prediction: "Prediction") -> None:
        target = self.folder / self.names.name(below)
        try:
            _save(self.detector, target, pixels, prediction)
        except (InvadError, OSError) as error:
            said = reason(error, writing=True) if isinstance(error, OSError) else str(error)
            self.voice.warn(f"no overlay of {image}: {said}")


class Maps:
    """The predictions with their heat maps. One that cannot be written ends the run: its rows name no map."""

    def __init__(self, folder: Path, detector: "AnyDetector"):
        make_folder(folder)
        self.folder, self.detector = folder, detector
        self.names = OverlayNames(folder, "map")

    def save(self, image: Path, below: Path, pixels: "Pixels", prediction: "Prediction") -> None:
        from invad.report.maps import write_map
        from invad.scoring.calibration import for_category

        limits = for_category(self.detector.calibrations, prediction.category).map_limits()
        write_map(self.folder / self.names.name(below), prediction, limits, self.detector.content_hash)


def save_all(
    savers: Sequence[Save], image: Path, below: Path, pixels: "Pixels", prediction: "Prediction"
) -> None:
    for save in savers:
        save(image, below, pixels, prediction)


class OverlayNames:
    """`sub/007.png` becomes `sub_007_overlay.png`, numbered where names meet and cut where they are long.

    kind: another word for `overlay`.
    """

    def __init__(self, folder: Path, kind: str = "overlay"):
        self.folder, self.kind = folder, kind
        self.taken: set[str] = set()

    def name(self, below: Path) -> str:
        stem, number = "_".join(below.with_name(file_stem(below)).parts), 1
        name = fitting_name(stem, f"_{self.kind}.png", self.folder)
        # Some file systems take names that differ in case or in the form of an accent for one.
        while (key := unicodedata.normalize("NFC", name).casefold()) in self.taken:
            number += 1
            name = fitting_name(stem, f"_{number}_{self.kind}.png", self.folder)
        self.taken.add(key)
        return name


def _save(detector: "AnyDetector", target: Path, pixels: "Pixels", prediction: "Prediction") -> None:
    from invad.report import save_overlay
    from invad.scoring.calibration import for_category

    save_overlay(
        target,
        pixels,
        prediction.anomaly_map,
        for_category(detector.calibrations, prediction.category).map_limits(),
        decision=prediction.decision,
        score=prediction.score,
        p_value=prediction.p_value,
    )
