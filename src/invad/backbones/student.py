"""The small convolutional network behind `invad-s`: strides 4, 8 and 16, about a million parameters.

Dense 3 x 3 convolutions while the maps are large and thin, depth-wise ones where they are wide: on a
CPU in eager mode that is faster per unit of accuracy than depth-wise convolutions throughout.
In distillation a linear head per stride predicts the teachers' features; the backbone's output is the stage
outputs below the heads, which tell as much in fewer channels, and the heads are not saved.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from invad.errors import WeightsError, in_one_line
from invad.system.files import replacing, writing
from invad.system.plain import read_plain, to_plain
from invad.system.tensors import save_tensors


@dataclass(frozen=True, slots=True)
class StudentConfig:
    """Widths, blocks and expansion per stage (strides 4, 8, 16), and the channels each head predicts."""

    stem: int = 24
    widths: tuple[int, ...] = (40, 72, 128)
    blocks: tuple[int, ...] = (1, 2, 4)
    expansions: tuple[int, ...] = (3, 4, 4)
    dense: tuple[bool, ...] = (True, True, False)
    heads: tuple[int, ...] = ()


def _conv(
    c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(c_out),
    ]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if act else nn.Sequential(*layers)


class InvertedResidual(nn.Module):
    """Expand, mix in space (dense or depth-wise 3 x 3), project linearly; add the input when shapes agree."""

    def __init__(self, c_in: int, c_out: int, expansion: int, stride: int, dense: bool):
        super().__init__()
        mid = c_in * expansion
        spatial = (
            [_conv(c_in, mid, 3, stride)]
            if dense
            else [_conv(c_in, mid, 1), _conv(mid, mid, 3, stride, groups=mid)]
        )
        self.body = nn.Sequential(*spatial, _conv(mid, c_out, 1, act=False))
        self.skip = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.skip else y


class Student(nn.Module):
    """B x 3 x H x W (ImageNet-normalised) to maps at strides 4, 8, 16, finest first.

    `trunk` gives the stages' outputs, `forward` the heads' predictions of the teachers.
    """

    def __init__(self, config: StudentConfig):
        super().__init__()
        self.config = config
        self.stem = _conv(3, config.stem, 3, 2)
        stages, c_in = [], config.stem
        for width, blocks, expansion, dense in zip(
            config.widths, config.blocks, config.expansions, config.dense, strict=True
        ):
            layers = [InvertedResidual(c_in, width, max(expansion, 4), 2, dense)]
            layers += [InvertedResidual(width, width, expansion, 1, dense) for _ in range(blocks)]
            stages.append(nn.Sequential(*layers))
            c_in = width
        self.stages = nn.ModuleList(stages)
        self.heads = nn.ModuleList(
            nn.Conv2d(w, c, 1) for w, c in zip(config.widths, config.heads, strict=bool(config.heads))
        )

    def trunk(self, x: Tensor) -> list[Tensor]:
        """The stage outputs before the heads."""
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> list[Tensor]:
        return [head(m) for head, m in zip(self.heads, self.trunk(x), strict=True)]


@dataclass(frozen=True, slots=True)
class _Description:
    """What the JSON file beside the weights says."""

    student: StudentConfig
    record: dict[str, object]


def save_student(stem: Path, student: Student, record: Mapping[str, object]) -> None:
    """Write `stem`.safetensors (half precision) and `stem`.json (shape, and how it was made), both or none.

    Raises WeightsError when they cannot be written.
    """
    tensors = {
        k: v.half().contiguous() if v.is_floating_point() else v
        for k, v in student.state_dict().items()
        if not k.endswith("num_batches_tracked") and not k.startswith("heads.")
    }
    config = replace(student.config, heads=())
    text = json.dumps(to_plain(_Description(config, dict(record))), indent=1)
    weights, described = _files(stem)
    with writing(stem, WeightsError):
        stem.parent.mkdir(parents=True, exist_ok=True)
        with replacing(weights) as new_weights, replacing(described) as new_description:
            new_description.write_text(text + "\n", encoding="utf-8")
            save_tensors(new_weights, tensors)


def load_student(stem: Path) -> tuple[Student, dict[str, object]]:
    """Read what `save_student` wrote: the network in evaluation mode, float32, and the record.

    Raises WeightsError when a file is missing, damaged or not of a student.
    """
    weights, described = _files(stem)
    for path in (weights, described):
        if not path.is_file():
            raise WeightsError(
                f"{path}: no such file; a student is a .safetensors and a .json file of one name, "
                "as 'invad backbones distill' writes them"
            )
    told = read_plain(_Description, described, WeightsError, "'invad backbones distill' writes such files")
    try:
        student = Student(told.student)
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        said = in_one_line(error)
        raise WeightsError(f"{described}: does not describe an invad student ({said})") from None
    try:
        state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(weights).items()}
        missing, unexpected = student.load_state_dict(state, strict=False)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise WeightsError(f"{weights}: not the weights of this student ({in_one_line(error)})") from None
    missing = [k for k in missing if not k.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise WeightsError(
            f"{weights}: not the weights of this student (missing {missing[:3]}, unexpected {unexpected[:3]})"
        )
    return student.eval(), told.record


def _files(stem: Path) -> tuple[Path, Path]:
    # Not with_suffix: a name may have a dot of its own.
    return stem.with_name(stem.name + ".safetensors"), stem.with_name(stem.name + ".json")
