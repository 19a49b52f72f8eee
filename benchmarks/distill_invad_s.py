"""Make the weights that ship as `invad-s`: two ImageNet teachers, photographs, and drawn pictures.

    python benchmarks/distill_invad_s.py --teachers ../shared/teachers --images ../shared/images/natural \
        --output runs/invad_s
    ... --start runs/invad_s --output runs/invad_s_2 --pools 12 --lr 0.002     # goes on from there

The teachers are given as a folder with a `teachers.py` that has `load_teacher(name)`, for machines that
cannot reach a model hub; with a hub, `invad backbones distill --teacher resnet50 --images FOLDER` does the
same with any timm network.
"""

import argparse
import importlib.util
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from invad.backbones.base import Backbone, BackboneInfo
from invad.backbones.student import load_student, save_student
from invad.fit.distill import DistillConfig, distill, load_pictures

LICENCES = {
    "resnet50": "MIT (Kaiming He's ResNet-50, Keras port), trained on ImageNet-1k",
    "mobilenet_edgetpu": "Apache-2.0 (mlcommons/mobile_models), trained on ImageNet-1k",
}


class LocalTeacher(Backbone):
    """A teacher from a local `teachers.py`; strides 2, 4, 8, 16."""

    def __init__(self, name: str, net: nn.Module):
        super().__init__(BackboneInfo(name=name, source="local teachers.py", licence=LICENCES[name]))
        self.net = net

    def features(self, x_B3HW: Tensor) -> list[Tensor]:
        return self.net(x_B3HW)


def load_teachers(folder: Path, names: list[str]) -> list[Backbone]:
    spec = importlib.util.spec_from_file_location("teachers", folder / "teachers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [LocalTeacher(n, module.load_teacher(n)).freeze() for n in names]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--teachers", type=Path, required=True)
    parser.add_argument("--names", default="mobilenet_edgetpu,resnet50")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--pools", type=int, default=DistillConfig().pools)
    parser.add_argument("--pool", type=int, default=DistillConfig().pool)
    parser.add_argument("--reuse", type=int, default=DistillConfig().reuse)
    parser.add_argument("--crop", type=int, default=DistillConfig().crop)
    parser.add_argument("--lr", type=float, default=DistillConfig().lr)
    parser.add_argument("--seed", type=int, default=DistillConfig().seed)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--start", type=Path, help="a student to go on from: its path without .safetensors")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = DistillConfig(
        pools=args.pools, pool=args.pool, reuse=args.reuse, crop=args.crop, lr=args.lr, seed=args.seed
    )
    started, window = time.perf_counter(), []

    def log(step: int, loss: float) -> None:
        window.append(loss)
        if step % 50 == 0:
            mean = sum(window[-50:]) / 50
            print(f"{step}/{config.steps} loss {mean:.4f} {time.perf_counter() - started:.0f} s", flush=True)

    teachers = load_teachers(args.teachers, args.names.split(","))
    start, before = load_student(args.start) if args.start else (None, None)
    student, record = distill(teachers, load_pictures(args.images), config, log, start)
    if before is not None:
        record["start"] = before
    save_student(args.output, student, record)
    print(record["explained_variance"], record["seconds"])


if __name__ == "__main__":
    main()
