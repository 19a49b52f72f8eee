"""InvAD as a model of anomalib, for its Engine and its command line.

Importing this module registers it: `get_model("inv_ad")`, `anomalib train --model
invad.integrations.anomalib.InvAD`. It is fitted once, at the end of the first epoch, by `Detector.fit`, and
calibrated on normal images held out of the training set: no image of the validation or test part sets a
threshold. What a checkpoint holds are tensors, the model folder as bytes among them.
"""

import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from invad.data.images import read_image
from invad.data.lossless import keep_pixels
from invad.detector.detector import Detector
from invad.errors import ArtifactError, NotCalibratedError
from invad.model.settings import preset_named
from invad.records import Sample
from invad.scoring.calibration import Calibration
from invad.scoring.rates import POOLED, Rates
from invad.system.packages import importing, using

HOST = ("anomalib", "lightning")

with importing(HOST, "anomalib", __name__):
    from anomalib import LearningType
    from anomalib.data import Batch, InferenceBatch
    from anomalib.metrics import Evaluator
    from anomalib.models.components import AnomalibModule, MemoryBankMixin
    from anomalib.post_processing import PostProcessor
    from anomalib.pre_processing import PreProcessor
    from anomalib.visualization import Visualizer
    from torchvision.transforms.v2 import Resize

logger = logging.getLogger(__name__)

CATEGORY = "images"
OPSET = 18
"""Of ONNX files: what PyTorch writes, without a conversion that fails."""

NEAR_LEVEL = 1e-3
"""Of a grey level: 8-bit images come as floats, and are kept as the levels they were."""

SMALLEST = 1e-6


class InvADModel(nn.Module):
    """Images B x 3 x H x W in [0, 1], of any size, to scores and maps of their size.

    folder: the bytes of the model folder, empty before it is fitted. All else follows from it, so that the
    state of this module is that one tensor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("folder", torch.zeros(0, dtype=torch.uint8))
        self.register_buffer("levels", torch.tensor([0.0, 1.0]), persistent=False)
        self.graph: nn.Module | None = None
        self.register_state_dict_post_hook(_drop_graph)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_miss_no_graph)  # type: ignore[no-untyped-call]
        self.folder: Tensor
        self.levels: Tensor

    def forward(self, image_B3HW: Tensor) -> InferenceBatch:
        """Scores B and maps B x 1 x H x W, as `Detector.predict` gives them."""
        if self.graph is None:
            raise NotCalibratedError("InvAD: not fitted yet; run Engine.fit, or load a checkpoint")
        category_B = image_B3HW.new_zeros(image_B3HW.shape[0], dtype=torch.int64)
        score_B, _, _, map_BHW, *_ = self.graph(image_B3HW.permute(0, 2, 3, 1), self.levels, category_B)
        return InferenceBatch(pred_score=score_B, anomaly_map=map_BHW[:, None])

    def train(self, mode: bool = True) -> "InvADModel":
        """As every module, but what was fitted stays as it is."""
        super().train(mode)
        if self.graph is not None:
            self.graph.eval()
        return self

    def take(self, detector: Detector) -> None:
        """Become this detector. Raises ConfigError for one of several input sizes."""
        device = self.levels.device
        self.folder = torch.frombuffer(bytearray(_packed(detector)), dtype=torch.uint8).to(device)
        self._build(detector)

    def detector(self) -> Detector:
        """The detector, to save, export or calibrate by invad itself."""
        if not len(self.folder):
            raise NotCalibratedError("InvAD: not fitted yet; run Engine.fit, or load a checkpoint")
        return _unpacked(self.folder.cpu().numpy().tobytes(), str(self.levels.device))

    def _build(self, detector: Detector) -> None:
        graph = detector.compile().engine.graph  # type: ignore[attr-defined]
        assert isinstance(graph, nn.Module)
        self.graph = graph

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Tensor], prefix: str, *arguments: Any, **options: Any
    ) -> None:
        self._prefix = prefix
        kept = state_dict.get(f"{prefix}folder")
        if kept is not None:
            # Buffers are filled in place, so they need their size first.
            self.folder = torch.empty_like(kept, device=self.levels.device)
        super()._load_from_state_dict(state_dict, prefix, *arguments, **options)
        if len(self.folder):
            with torch.inference_mode(False):
                self._build(self.detector())


def _drop_graph(module: InvADModel, state: dict[str, Tensor], prefix: str, _: Any) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}graph.")]:
        del state[name]


def _miss_no_graph(module: InvADModel, keys: Any) -> None:
    own = f"{module._prefix}graph."
    keys.missing_keys[:] = [name for name in keys.missing_keys if not name.startswith(own)]


class CalibratedPostProcessor(PostProcessor):  # type: ignore[misc]
    """Labels by limits of held-out normal images; what a validation set holds changes nothing.

    With x the distance to the limit, in units of that between the median of held-out normals and the limit,
    a normalised score is (1 + x / (1 + |x|)) / 2: the limit is 0.5, the median normal 0.25, and unlike a
    clamp or a sigmoid it keeps the order of scores far beyond.
    """

    def take(self, calibration: Calibration) -> None:
        """Keep the limits of a calibration."""
        scores = {"image": calibration.scores, "pixel": calibration.peaks}
        limits = {"image": calibration.score_limits()[1], "pixel": calibration.map_limits()[1]}
        for name, limit in limits.items():
            getattr(self, f"_{name}_threshold").fill_(limit)
            getattr(self, f"{name}_min").fill_(float(np.median(scores[name])))
            getattr(self, f"{name}_max").fill_(max(scores[name]))

    def on_validation_batch_end(self, *arguments: Any, **options: Any) -> None:
        """Nothing: the limits are there."""

    def on_validation_epoch_end(self, *arguments: Any, **options: Any) -> None:
        """Nothing: the limits are there."""

    @staticmethod
    def _normalize(
        preds: Tensor | None, norm_min: Tensor, norm_max: Tensor, threshold: Tensor
    ) -> Tensor | None:
        if preds is None:
            return None
        x = (preds - threshold) / (threshold - norm_min).clamp_min(SMALLEST)
        return (1 + x / (1 + x.abs())) / 2


class InvAD(MemoryBankMixin, AnomalibModule):  # type: ignore[misc]
    """Anomaly detection by diffusion inversion (arXiv 2504.05662).

    preset, backbone: as for `Detector.fit`, by their names. size: side of a square of as many pixels as the
    input has, by default that of the preset; images are resized inside, so the pre-processor does nothing.
    false_alarm_rate, review_rate: shares of normal images at or above the limits; the first sets what
    anomalib labels. seed: by default that of the preset. The other arguments are those of every model of
    anomalib. Raises ConfigError for settings that do not exist; fitting raises as `Detector.fit`.
    """

    def __init__(
        self,
        preset: str = "standard",
        backbone: str | None = None,
        size: int | None = None,
        false_alarm_rate: float = 0.01,
        review_rate: float = 0.05,
        seed: int | None = None,
        pre_processor: nn.Module | bool = True,
        post_processor: nn.Module | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        with using(HOST, __name__):
            super().__init__(
                pre_processor=pre_processor,
                post_processor=post_processor,
                evaluator=evaluator,
                visualizer=visualizer,
            )
        self.settings = preset_named(preset).override(backbone=backbone, area_side=size, seed=seed)
        self.rates = Rates(review=review_rate, bad=false_alarm_rate)
        self.model = InvADModel()
        self._seen: dict[tuple[str, Path], None] = {}
        self._kept: tempfile.TemporaryDirectory[str] | None = None

    def training_step(self, batch: Batch, *arguments: Any, **options: Any) -> Tensor:
        """Keep the images of the batch; returns a loss of nothing, which Lightning asks for."""
        if not self._is_fitted:
            if self._kept is None:
                self._kept = tempfile.TemporaryDirectory(prefix="invad-anomalib-")
            names = batch.image_path or [""] * len(batch.image)
            for name, image_3HW in zip(names, batch.image, strict=True):
                path = keep_pixels(_pixels(image_3HW), Path(self._kept.name))
                self._seen[str(name), path] = None
        return torch.zeros((), device=self.device, requires_grad=True)

    def fit(self) -> None:
        """Learn from the images that were kept, of which some are held out and set the limits."""
        # By name: a loader shuffles, and the result must not depend on it.
        samples = [Sample(path=path, category=CATEGORY) for _, path in sorted(self._seen)]
        # Lightning validates in a mode in which nothing can be trained or changed later.
        with torch.inference_mode(False), torch.enable_grad():
            detector = Detector.fit(
                samples, preset=self.settings, rates=self.rates, strict=True, device=str(self.device)
            )
            self.model.take(detector)
            if isinstance(self.post_processor, CalibratedPostProcessor):
                self.post_processor.take(detector.calibrations[POOLED])
        for line in detector.warnings():
            logger.warning(line)
        self._seen.clear()
        if self._kept is not None:
            self._kept.cleanup()
            self._kept = None

    def validation_step(self, batch: Batch, *arguments: Any, **options: Any) -> Batch:
        """The batch with scores and maps."""
        return batch.update(**self.model(batch.image)._asdict())

    def detector(self) -> Detector:
        """What was fitted, for `invad` itself. Raises NotCalibratedError before."""
        return self.model.detector()

    def to_onnx(self, *arguments: Any, **options: Any) -> Path:
        """As every model of anomalib, in the opset that PyTorch writes."""
        path: Path = super().to_onnx(*arguments, **{"opset_version": OPSET, **options})
        return path

    @staticmethod
    def configure_optimizers() -> None:
        """None: nothing is learned step by step."""

    @staticmethod
    def configure_pre_processor(image_size: tuple[int, int] | None = None) -> PreProcessor:
        """None by default, because images of any size are resized inside, in exports, too."""
        return PreProcessor(None if image_size is None else Resize(image_size, antialias=False))

    def configure_post_processor(self) -> PostProcessor:
        """Limits of held-out normal images."""
        return CalibratedPostProcessor()

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """One pass over the images, on one device."""
        return {"max_epochs": 1, "val_check_interval": 1.0, "num_sanity_val_steps": 0, "devices": 1}

    @property
    def learning_type(self) -> LearningType:
        """Normal images alone."""
        return LearningType.ONE_CLASS


def _pixels(image_3HW: Tensor) -> NDArray[Any]:
    """H x W x 3 of uint8, where the image has 8-bit levels, else of float32 in [0, 1]."""
    values: NDArray[np.float32] = image_3HW.detach().float().cpu().numpy().transpose(1, 2, 0)
    levels = values * 255
    nearest = levels.round()
    if np.abs(levels - nearest).max() < NEAR_LEVEL and nearest.min() >= 0 and nearest.max() <= 255:
        return nearest.astype(np.uint8)
    return read_image(values)


def _packed(detector: Detector) -> bytes:
    """The files of the model folder: a line with their names and lengths, then one after the other."""
    with tempfile.TemporaryDirectory(prefix="invad-anomalib-") as folder:
        detector.save(folder)
        files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    head = json.dumps({name: len(content) for name, content in files.items()}).encode()
    return b"\n".join([head, b"".join(files.values())])


def _unpacked(packed: bytes, device: str) -> Detector:
    head, _, content = packed.partition(b"\n")
    try:
        lengths: dict[str, int] = json.loads(head)
    except ValueError:
        raise ArtifactError("the checkpoint holds no invad model; fit it again") from None
    with tempfile.TemporaryDirectory(prefix="invad-anomalib-") as folder:
        start = 0
        for name, length in lengths.items():
            (Path(folder) / Path(name).name).write_bytes(content[start : start + length])
            start += length
        return Detector.load(folder, device=device)
