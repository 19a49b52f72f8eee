"""From pixels to millimetres: so much per pixel, or a plane that the camera sees at an angle."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from invad.errors import ConfigError, DataError
from invad.records import Hw
from invad.system.arguments import path_of, require, shown
from invad.system.plain import read_json

UNITS = {"um": 1e-3, "µm": 1e-3, "μm": 1e-3, "mm": 1.0, "cm": 10.0, "m": 1000.0, "in": 25.4}
"""In millimetres. The micro sign has two characters."""

_LENGTH = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?) ?([a-zµμ]*)", re.IGNORECASE)
SMALLEST_TURN = 1e-9
"""Of a homography: its determinant beside those of its columns."""

AGAIN = "give four points, or a matrix of three rows, see 'Defects' in the guide"


@dataclass(frozen=True, slots=True)
class Scale:
    """Where a point of an image lies on the part, in millimetres.

    matrix: a homography, 3 x 3 by rows, of (x, y, 1) in pixels from the outer corner of the first pixel. Make
    one with `per_pixel`, `parse`, `of_points` or `read`. Raises ConfigError for one that is singular.
    """

    matrix: tuple[tuple[float, float, float], ...]

    def __post_init__(self) -> None:
        try:
            matrix = np.asarray(self.matrix, np.float64)
        except (TypeError, ValueError):
            said = f"{shown(self.matrix)} is no homography of 3 rows of 3 numbers"
            raise ConfigError(f"{said}; Scale.parse('0.05mm') and Scale.read(FILE) make a scale") from None
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
            raise ConfigError("a homography has 3 rows of 3 finite numbers")
        lengths = np.linalg.norm(matrix, axis=0)
        if not lengths.all() or abs(np.linalg.det(matrix / lengths)) < SMALLEST_TURN:
            raise ConfigError("the homography is singular: it maps the picture onto a line or a point")

    @classmethod
    def per_pixel(cls, x_mm: float, y_mm: float | None = None) -> "Scale":
        """So many millimetres for a pixel along x, and along y where that differs. Raises ConfigError unless
        they are above 0."""
        require(x_mm=(x_mm, float), y_mm=(y_mm, float | None))
        x, y = float(x_mm), float(x_mm if y_mm is None else y_mm)
        if not (0 < x < np.inf and 0 < y < np.inf):
            raise ConfigError(f"scale {x:g} x {y:g} mm: give lengths of a pixel above 0")
        return cls(((x, 0.0, 0.0), (0.0, y, 0.0), (0.0, 0.0, 1.0)))

    @classmethod
    def parse(cls, text: str) -> "Scale":
        """`0.05mm` for a pixel, or `0.05mm,0.06mm` along x and y; um, mm, cm, m or in.

        Raises ConfigError for a length that is not above 0 or has no unit.
        """
        require(scale=(text, str))
        lengths: list[float] = []
        for word in text.split(","):
            match = _LENGTH.fullmatch(word.strip())
            if match is None or len(lengths) == 2:
                raise ConfigError(
                    f"scale {text}: give the length of a pixel, such as 0.05mm, or two: 0.05mm,0.06mm"
                )
            if (unit := match[2].lower()) not in UNITS:
                said = f"unit {match[2]} is unknown" if unit else "the unit is missing"
                raise ConfigError(f"scale {text}: {said}; write um, mm, cm, m or in, such as 0.05mm")
            lengths.append(float(match[1]) * UNITS[unit])
        if not all(0 < length < np.inf for length in lengths):
            raise ConfigError(f"scale {text}: the length of a pixel has to be above 0, such as 0.05mm")
        return cls.per_pixel(*lengths)

    @classmethod
    def of_points(cls, pixels: Sequence[Sequence[float]], mm: Sequence[Sequence[float]]) -> "Scale":
        """The homography that maps at least four points (x, y) of the image to those of the part.

        With more than four it fits them best, in the least squares of its equations. Raises ConfigError where
        they are too few, or three of four lie on a line.
        """
        try:
            from_N2, to_N2 = np.array(pixels, np.float64), np.array(mm, np.float64)
        except (TypeError, ValueError):
            raise ConfigError("points have to be pairs of numbers") from None
        if from_N2.ndim != 2 or from_N2.shape[1] != 2 or from_N2.shape != to_N2.shape or len(from_N2) < 4:
            raise ConfigError("give at least four points (x, y) in pixels, and as many in mm")
        if not np.isfinite([from_N2, to_N2]).all():
            raise ConfigError("points have to be finite numbers")
        # Both sides are brought to about one, or the equations would be ill conditioned.
        near, far = _to_unit(from_N2), _to_unit(to_N2)
        x, y = (np.c_[from_N2, np.ones(len(from_N2))] @ near.T)[:, :2].T
        u, v = (np.c_[to_N2, np.ones(len(to_N2))] @ far.T)[:, :2].T
        one, zero = np.ones_like(x), np.zeros_like(x)
        equations = np.concatenate(
            [
                np.stack([x, y, one, zero, zero, zero, -u * x, -u * y, -u], 1),
                np.stack([zero, zero, zero, x, y, one, -v * x, -v * y, -v], 1),
            ]
        )
        _, sizes, solutions = np.linalg.svd(equations)
        if sizes[7] < SMALLEST_TURN * sizes[0]:
            raise ConfigError("the homography is singular: three points lie on a line, or two are equal")
        matrix = np.linalg.inv(far) @ solutions[-1].reshape(3, 3) @ near
        return cls(_rows(matrix / np.linalg.norm(matrix)))

    @classmethod
    def read(cls, path: str | Path) -> "Scale":
        """From a JSON file with `pixels` and `mm`, at least four points each, or with `matrix`, three rows.

        Raises DataError naming the file when it cannot be read or its homography cannot be.
        """
        path = path_of(path, "scale")
        plain = read_json(path, DataError, AGAIN)
        try:
            if set(plain) == {"matrix"}:
                return cls(_rows(np.array(plain["matrix"], np.float64)))
            if set(plain) == {"pixels", "mm"}:
                return cls.of_points(plain["pixels"], plain["mm"])
        except (TypeError, ValueError):
            raise DataError(f"{path}: what should be numbers is none; {AGAIN}") from None
        except ConfigError as error:
            raise DataError(f"{path}: {error}") from None
        raise DataError(f"{path}: holds neither 'pixels' and 'mm' nor 'matrix'; {AGAIN}")

    @classmethod
    def of(cls, given: "Scale | str | Path | None") -> "Scale | None":
        """A scale as people give it: itself, a length as for `parse`, the path of a file as for `read`, or
        None. Raises ConfigError for anything else, and as both do."""
        require(scale=(given, Scale | str | Path | None))
        if given is None or isinstance(given, Scale):
            return given
        is_length = isinstance(given, str) and all(
            _LENGTH.fullmatch(word.strip()) for word in given.split(",")
        )
        return cls.parse(str(given)) if is_length else cls.read(given)

    def __call__(self, points_N2: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points ... x 2 of the image, in mm."""
        matrix = np.asarray(self.matrix)
        mapped = points_N2 @ matrix[:, :2].T + matrix[:, 2]
        result: NDArray[np.float64] = mapped[..., :2] / mapped[..., 2:]
        return result

    def require_before(self, size_hw: Hw) -> None:
        """Raises DataError for an image of which a part lies at the horizon or behind it."""
        height, width = size_hw
        corners = np.array([(0, 0, 1), (width, 0, 1), (width, height, 1), (0, height, 1)], np.float64)
        depths = corners @ np.asarray(self.matrix[2])
        if not (depths.min() > 0 or depths.max() < 0):
            raise DataError(
                f"a picture of {width} x {height} pixels reaches the horizon of the homography; check its "
                "points"
            )


def _rows(matrix: NDArray[np.float64]) -> tuple[tuple[float, float, float], ...]:
    if matrix.shape != (3, 3):
        raise ConfigError("a homography has 3 rows of 3 finite numbers")
    return tuple((float(a), float(b), float(c)) for a, b, c in matrix)


def _to_unit(points_N2: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix that moves points around the origin, at a distance of about one."""
    middle = points_N2.mean(axis=0)
    reach = float(np.hypot(*(points_N2 - middle).T).mean())
    if reach == 0:
        raise ConfigError("the homography is singular: all its points are one")
    return np.array([[1 / reach, 0, -middle[0] / reach], [0, 1 / reach, -middle[1] / reach], [0, 0, 1.0]])
