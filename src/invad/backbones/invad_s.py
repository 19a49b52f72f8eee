"""`invad-s`: the backbone that ships inside the package, so that everything works without a network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from invad.backbones.base import Backbone, BackboneInfo
from invad.backbones.student import Student, StudentConfig, load_student
from invad.errors import WeightsError
from invad.system.plain import from_plain, to_plain

NAME = "invad-s"
WEIGHTS = Path(__file__).parent / "weights" / "invad_s"
LICENCE = "Apache-2.0 (weights distilled from ImageNet-trained teachers, see the model card)"


class StudentBackbone(Backbone):
    """A distilled student; strides 4, 8, 16."""

    def __init__(self, info: BackboneInfo, student: Student):
        super().__init__(info, size_multiple=4)
        self.student = student

    def features(self, x_B3HW: Tensor) -> list[Tensor]:
        return self.student.trunk(x_B3HW)


def load_invad_s(weights: Path | None = None) -> Backbone:
    """The shipped student, or one made by `invad backbones distill` (the path of its .safetensors file).

    Raises WeightsError when the files are missing or are not a student's.
    """
    if weights is None:
        return _backbone(load_student(WEIGHTS)[0], "shipped with invad")
    if weights.suffix not in ("", ".safetensors"):
        raise WeightsError(
            f"{weights}: {NAME} takes the .safetensors file that 'invad backbones distill' writes; for a "
            "checkpoint of another network name it with --backbone"
        )
    stem = weights.with_suffix("") if weights.suffix else weights
    return _backbone(load_student(stem)[0], str(weights))


def empty_invad_s(shape: Mapping[str, Any]) -> Backbone:
    """A student of this shape (see BackboneInfo), weights random. Raises ConfigError for no such shape."""
    config = from_plain(StudentConfig, dict(shape), "its shape")
    return _backbone(Student(config).eval(), "a saved model")


def _backbone(student: Student, source: str) -> Backbone:
    info = BackboneInfo(name=NAME, source=source, licence=LICENCE, shape=to_plain(student.config))
    return StudentBackbone(info, student)
