"""Other detectors at their defaults, with random weights, which take as long as trained ones.

The models are anomalib's own classes; `pixels -> score and map` as its deployed models go: grey levels to
[0, 1], ImageNet normalisation, network, score and map. Its PatchCore keeps 10 % of the cells of 240 images.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino as ov
import openvino.properties as properties
import torch
from numpy.typing import NDArray
from openvino.properties import hint
from torch import Tensor, nn

SIDE = 256
IMAGES = 240
CORESET = 0.1
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Detect = Callable[[NDArray[np.uint8]], Any]


class Normalised(nn.Module):
    """Pixels B x 3 x H x W in [0, 1] to score and map of an anomalib model, as plain tensors."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        said = self.model((x - self.mean) / self.std)
        return said.pred_score, said.anomaly_map


def patchcore() -> nn.Module:
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    model = PatchcoreModel(layers=["layer2", "layer3"], backbone="wide_resnet50_2", pre_trained=False)
    cells = round(CORESET * IMAGES * (SIDE // 8) ** 2)
    model.memory_bank = torch.rand(cells, sum(model.feature_extractor.out_dims))
    return model


def padim() -> nn.Module:
    from anomalib.models.image.padim.torch_model import PadimModel

    model = PadimModel(backbone="resnet18", layers=["layer1", "layer2", "layer3"], pre_trained=False)
    places = (SIDE // 4) ** 2
    model.gaussian.mean = torch.zeros(model.n_features, places)
    model.gaussian.inv_covariance = torch.eye(model.n_features).repeat(places, 1, 1)
    return model


def efficient_ad() -> nn.Module:
    from anomalib.models.image.efficient_ad.torch_model import EfficientAdModel, EfficientAdModelSize

    return EfficientAdModel(model_size=EfficientAdModelSize.S)


MODELS = {
    "anomalib PatchCore, wide_resnet50_2, 10 % coreset": patchcore,
    "anomalib PaDiM, resnet18": padim,
    "anomalib EfficientAD-S": efficient_ad,
}


def eager(model: nn.Module) -> Detect:
    """In PyTorch as it is."""
    net = Normalised(model)

    def detect(pixels: NDArray[np.uint8]) -> tuple[float, Any]:
        with torch.inference_mode():
            score, anomaly_map = net(torch.from_numpy(_unit(pixels)))
        return float(score.max()), anomaly_map.numpy()

    return detect


def openvino(model: nn.Module, threads: int) -> Detect:
    """Converted by OpenVINO, float32, tuned for latency."""
    example = torch.zeros(1, 3, SIDE, SIDE)
    converted = ov.convert_model(Normalised(model), example_input=example, input=[1, 3, SIDE, SIDE])
    compiled = ov.Core().compile_model(
        converted,
        "CPU",
        {
            hint.performance_mode: hint.PerformanceMode.LATENCY,
            hint.inference_precision: ov.Type.f32,
            properties.inference_num_threads: threads,
        },
    )
    request = compiled.create_infer_request()

    def detect(pixels: NDArray[np.uint8]) -> tuple[float, Any]:
        found = request.infer([_unit(pixels)])
        return float(found[0].max()), found[1]

    return detect


def _unit(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255))
