"""--report of predict: what the parts of a lot have in common, as one page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invad.cli.defects import DefectTable, scale_of
from invad.cli.rows import Row, RowFile
from invad.errors import ConfigError, DataError

if TYPE_CHECKING:
    from invad.detector.opening import AnyDetector
    from invad.evaluation.drift import DriftReport
    from invad.records import Hw, PartPrediction, Prediction
    from invad.report.lot import LotDrift, LotPart, View
    from invad.runtime.predictor import Pixels
    from invad.scoring.calibration import Calibration
    from invad.scoring.scale import Scale

ENDING = ".html"


class LotReport(RowFile):
    """The file of --report: gathers what its page shows, and writes it once all rows are there."""

    def __init__(
        self, path: Path, detector: "AnyDetector", category: str | None, head: Mapping[str, Any], title: str
    ):
        """head: facts of the page. Raises ConfigError for another ending than .html, or without jinja2."""
        if path.suffix.lower() != ENDING:
            raise ConfigError(f"--report {path}: end the name in .html")
        from invad.evaluation.drift import watch
        from invad.report.lot import LeastTypical
        from invad.report.rendering import environment
        from invad.scoring.calibration import for_category

        environment()
        self.watch = watch  # imported now: what the small runtime lacks must not be missed at the end
        self.path, self.target, self.rows = path, str(path), 0
        self.head, self.title = head, title
        self.detector = detector
        self.fusion = detector.fusion if category is None else None
        self.calibration = for_category(detector.calibrations, category)
        self.unit = self.calibration.unit
        if self.fusion is not None:
            self.calibration, self.unit = self.fusion.calibration, self.fusion.unit
        self.seen = LeastTypical()
        self.sizes_hw: dict[str, Hw] = {}
        self.parts: list[LotPart] = []
        self.lost: list[tuple[str, str]] = []

    def see(self, pixels: "Pixels", prediction: "Prediction") -> None:
        """Keep a picture of the part whose row comes next, if it is among the least typical."""
        from invad.report.lot import View

        limits = self.calibration.map_limits()
        view = View(pixels=pixels, map_HW=prediction.anomaly_map, map_limits=limits)
        self._see(prediction.score, prediction.decision, [view])

    def see_part(self, pixels: "Mapping[str, Pixels | DataError]", found: "PartPrediction") -> None:
        """The same of a part that was judged by its pictures, by member."""
        from invad.report.lot import View
        from invad.scoring.calibration import for_category

        if found.score is None or found.seen_by is None:
            return
        views = [
            View(
                pixels=own,
                map_HW=one.anomaly_map,
                map_limits=for_category(self.detector.calibrations, member).map_limits(),
                member=member,
                above=found.above[member],
            )
            for member, one in found.members.items()
            if not isinstance(own := pixels[member], DataError)
        ]
        shown = pixels[found.seen_by]
        if found.anomaly_map is not None and not isinstance(shown, DataError):
            limits = self.calibration.map_limits()
            views.append(
                View(
                    pixels=shown,
                    map_HW=found.anomaly_map,
                    map_limits=limits,
                    member="all together",
                    together=True,
                )
            )
        self._see(found.score, found.decision, views)

    def _see(self, score: float, decision: str, views: "Sequence[View]") -> None:
        self.sizes_hw = {view.member: (view.pixels.shape[0], view.pixels.shape[1]) for view in views}
        self.seen.see(len(self.parts), score, decision == "good", views)

    def add(self, row: Row) -> None:
        self.rows += 1
        name = row["part"] if "part" in row else row["path"]
        if row.get("frame") is not None:
            name = f"{name}, frame {row['frame']} at {row['time']:.3f} s"
        if "error" in row:
            self.lost.append((name, row["error"]))
        elif row["score"] is None:
            self.lost.append((name, row["reason"]))
        else:
            self.parts.append(self._part(name, row))

    def _part(self, name: str, row: Row) -> "LotPart":
        from invad.report.lot import LotPart, LotPicture

        members: Mapping[str, Row] = row.get("members", {"": row})
        return LotPart(
            name=name,
            decision=row["decision"],
            score=row["score"],
            p_value=row["p_value"],
            seen_by=row.get("seen_by", ""),
            reason=row.get("reason", ""),
            pictures=[
                LotPicture(
                    name=name,
                    kind=member,
                    decision=row["decision"],
                    size_hw=self.sizes_hw[member],
                    defects=one["defects"],
                    p_value=one["p_value"],
                    above=one.get("above", 0.0),
                )
                for member, one in members.items()
            ],
        )

    def close(self, whole: bool) -> None:
        if not self.parts:
            return
        from invad.report.lot import Setting, write_lot_report

        rates = self.calibration.rates
        write_lot_report(
            self.path,
            title=self.title,
            parts=self.parts,
            lost=self.lost,
            seen=self.seen,
            setting=Setting(
                score_limits=self.calibration.score_limits(),
                map_limits=None if self.fusion is not None else self.calibration.map_limits(),
                rates=(rates.review, rates.bad),
                normals=self.calibration.n,
                unit=self.unit,
                members=() if self.fusion is None else self.fusion.members,
            ),
            drift=drift_of(self.parts, self.calibration, self.unit, self.watch),
            facts={name.replace("_", " "): str(value) for name, value in self.head.items()},
            notes=[] if whole else ["The run ended early: this page holds what was judged until then."],
        )


class Measured:
    """What is measured of each part for the table of defects, the report of the lot, or both."""

    def __init__(self, scale: "Scale | None", table: DefectTable | None, report: LotReport | None):
        self.scale, self.table, self.report = scale, table, report

    def of(self, detector: "AnyDetector", pixels: "Pixels", prediction: "Prediction") -> dict[str, Any]:
        """What the row of an image says of its defects. Raises DataError."""
        found = detector.defects(prediction, self.scale)
        if self.report is not None:
            self.report.see(pixels, prediction)
        if self.table is None:
            return {"defects": [asdict(one) for one in found]}
        return self.table.row(found, lambda: pixels)

    def of_part(
        self, detector: "AnyDetector", pixels: "Mapping[str, Pixels | DataError]", found: "PartPrediction"
    ) -> dict[str, dict[str, Any]]:
        """What the row of a part says of the defects in each of its pictures, by member. Raises DataError."""
        if self.report is not None:
            self.report.see_part(pixels, found)
        measured = {}
        for member, one in found.members.items():
            own, defects = pixels[member], detector.defects(one, self.scale)
            if self.table is None or isinstance(own, DataError):
                measured[member] = {"defects": [asdict(defect) for defect in defects]}
            else:
                measured[member] = self.table.row(defects, partial(_as_it_is, own))
        return measured

    def files(self) -> list[RowFile]:
        """Where the rows go, too. Raises DataError."""
        made: list[RowFile] = [] if self.table is None else [self.table.file()]
        return made if self.report is None else [*made, self.report]


def _as_it_is(pixels: "Pixels") -> "Pixels":
    return pixels


@dataclass(frozen=True, slots=True)
class Wanted:
    """The files of --defects and --report, as far as they were asked for."""

    defects: Path | None
    report: Path | None

    def scale(
        self, text: str | None, homography: Path | None, others: Sequence[object], elsewhere: bool
    ) -> "Scale | None":
        """What --scale or --homography says. others: names of files that are written, too. elsewhere: no map
        comes here. Raises ConfigError or DataError of one line."""
        named = {"--defects": self.defects, "--report": self.report}
        asked = {option: file for option, file in named.items() if file is not None}
        if not asked and (text, homography) != (None, None):
            raise ConfigError(
                "--scale and --homography measure for --defects FILE or --report FILE, which is missing"
            )
        for option, file in asked.items():
            if elsewhere:
                raise ConfigError(
                    f"{option} needs the maps, which --server and --engine ray keep; judge with a MODEL here"
                )
            if [str(other) for other in (*others, *asked.values())].count(str(file)) > 1:
                raise ConfigError(
                    f"{option} {file}: another option writes to this file; give it one of its own"
                )
        return scale_of(text, homography)

    def measured(
        self,
        detector: "AnyDetector",
        category: str | None,
        head: Mapping[str, Any],
        paths: Sequence[str],
        scale: "Scale | None",
        videos: bool,
    ) -> "Measured | None":
        """What gathers them, if one was asked for. paths: as they were named. Raises ConfigError."""
        if self.defects is None and self.report is None:
            return None
        table, of_parts = None, detector.fusion is not None and category is None
        if self.defects is not None:
            table = DefectTable(self.defects, scale, head, videos, of_parts)
        page = None
        if self.report is not None:
            name = Path(paths[0]).absolute().name
            title = f"Lot {name}" if len(paths) == 1 else f"Lot {name} and {len(paths) - 1} more"
            page = LotReport(self.report, detector, category, head, title)
        return Measured(scale, table, page)


def drift_of(
    parts: "list[LotPart]", calibration: "Calibration", unit: str, watch: "Callable[..., DriftReport]"
) -> "LotDrift":
    """Whether the scores of a lot are still like those that its limits were made from, in words.

    unit: what the limits were made from.
    """
    from invad.report.lot import LotDrift
    from invad.scoring.drift import DriftSettings

    try:
        found = watch([(part.name, part.score) for part in parts], calibration, DriftSettings())
    except DataError as error:
        return LotDrift(said=f"Drift cannot be seen: of the {unit} that set the limits, {error}.")
    last = found.readings[-1]
    used = sum(reading.used for reading in found.readings)
    thinned = "" if found.every == 1 else f" (each {found.every}th alone, because neighbours are alike)"
    among = f"among {used} parts that were not flagged{thinned}, against {found.reference} {unit}"
    if found.alarm is None and not last.notice:
        return LotDrift(said=f"No drift is seen {among}: the scores go on as they began.")
    where = "lower" if last.effect > 0.5 else "higher"
    since = f"Scores are {where}, probably from part {min(last.since, len(parts) - 1) + 1} on ({among})"
    if found.alarm is None:
        return LotDrift(said=f"{since}, by little.", since=last.since)
    return LotDrift(
        said=f"{since}: parts look different, which was clear at part {found.alarm + 1}. Look whether light, "
        "camera or product changed.",
        since=last.since,
        alarm=found.alarm,
    )
