"""InvAD in anomalib: its Engine, its command line, its exports and its checkpoints."""

import logging
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

if "anomalib" not in sys.modules:
    pytest.importorskip("anomalib", reason="needs invad[anomalib], which scripts/setup does not install")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own deprecated parts
    import anomalib.engine
    from anomalib.data import Folder
    from anomalib.deploy import ExportType
    from anomalib.models import get_model, list_models

    import invad.integrations.anomalib as plugin
from invad.data.datasets import load_dataset
from invad.detector.detector import Detector
from invad.errors import ConfigError, NotCalibratedError
from invad.integrations.anomalib import InvAD
from invad.scoring.rates import POOLED

pytestmark = pytest.mark.filterwarnings("ignore::Warning")
"""Of Lightning and anomalib: no logger, no optimiser, few workers, deprecated parts."""

SIDE = 64
NORMALS = 16


@pytest.fixture(scope="module")
def parts(write_parts, tmp_path_factory):
    root = tmp_path_factory.mktemp("anomalib") / "disc"
    write_parts(root / "train" / "good", NORMALS)
    write_parts(root / "test" / "good", 4, first=100)
    write_parts(root / "test" / "spot", 4, first=200, defect=True)
    (root / "ground_truth" / "spot").mkdir(parents=True)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[32:44, 32:44] = 255
    for i in range(200, 204):
        Image.fromarray(mask).save(root / "ground_truth" / "spot" / f"{i:03d}.png")
    return root


@pytest.fixture(scope="module")
def data(parts):
    return Folder(
        name="disc",
        root=parts,
        normal_dir="train/good",
        abnormal_dir="test/spot",
        normal_test_dir="test/good",
        mask_dir="ground_truth/spot",
        train_batch_size=5,
        eval_batch_size=3,
        num_workers=0,
        val_split_mode="same_as_test",
    )


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    logging.disable(logging.WARNING)
    made = anomalib.engine.Engine(
        default_root_dir=tmp_path_factory.mktemp("results"),
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    yield made
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def fitted(engine, data):
    model = InvAD(preset="fast", size=SIDE)
    engine.fit(model=model, datamodule=data)
    return model.eval()


@pytest.fixture
def pictures(draw):
    """B x 3 x H x W in [0, 1], and the same as lists of pixels."""
    pixels = [draw(300 + i, defect=i % 2 == 1) for i in range(4)]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255, pixels


def test_it_is_registered_by_the_import():
    assert {type(get_model(name)) for name in ("inv_ad", "InvAD")} == {InvAD}
    assert "inv_a_d" in list_models()


def test_scores_and_limits_are_those_of_the_detector_on_the_same_folder(fitted, parts, pictures):
    batch, pixels = pictures
    own = Detector.fit(load_dataset(parts).train, preset=fitted.settings, device="cpu")
    expected = own.predict(pixels)
    with torch.inference_mode():
        found = fitted.model(batch)
    assert np.abs(found.pred_score.numpy() - [one.score for one in expected]).max() < 1e-4
    maps = np.stack([one.anomaly_map for one in expected])
    assert np.abs(found.anomaly_map[:, 0].numpy() - maps).max() < 1e-4
    assert fitted.post_processor.image_threshold.item() == pytest.approx(
        own.calibrations[POOLED].score_limits()[1], rel=1e-6
    )
    assert fitted.post_processor.pixel_threshold.item() == pytest.approx(
        own.calibrations[POOLED].map_limits()[1], rel=1e-6
    )
    assert fitted.detector().calibrations[POOLED] == own.calibrations[POOLED]
    assert fitted.detector().info.fit.trained == own.info.fit.trained


def test_labels_are_the_decisions_of_the_detector(fitted, pictures):
    batch, pixels = pictures
    with torch.inference_mode():
        said = fitted(batch)
    assert said.pred_label.tolist() == [one.decision == "bad" for one in fitted.detector().predict(pixels)]
    assert said.pred_label.tolist() == (said.pred_score > 0.5).tolist()
    assert 0 < said.pred_score.min() < said.pred_score.max() < 1


def test_no_image_of_a_validation_set_moves_a_limit(fitted, engine, data):
    engine.validate(model=fitted, datamodule=data)
    own, post = fitted.detector().calibrations[POOLED], fitted.post_processor
    assert post.image_threshold.item() == pytest.approx(own.score_limits()[1], rel=1e-6)
    assert post.pixel_threshold.item() == pytest.approx(own.map_limits()[1], rel=1e-6)
    assert post.image_max.item() == pytest.approx(max(own.scores), rel=1e-6)
    assert post.image_min.item() == pytest.approx(np.median(own.scores), rel=1e-6)


def test_far_scores_keep_their_order(fitted):
    post, far = fitted.post_processor, torch.tensor([10.0, 100.0, 1000.0, 2000.0])
    normalised = post._normalize(far, post.image_min, post.image_max, post.image_threshold)
    assert (normalised.diff() > 0).all()
    assert normalised.max() < 1
    at = post._normalize(post.image_threshold, post.image_min, post.image_max, post.image_threshold)
    assert at.item() == 0.5


def test_the_engine_tests_and_predicts(fitted, engine, data):
    (figures,) = engine.test(model=fitted, datamodule=data, verbose=False)
    assert figures["image_AUROC"] == 1
    batches = engine.predict(model=fitted, datamodule=data)
    assert sum(len(batch.pred_score) for batch in batches) == 8
    for batch in batches:
        assert batch.pred_label.tolist() == batch.gt_label.tolist()
        assert batch.anomaly_map.shape[-2:] == (SIDE, SIDE)


def test_a_checkpoint_holds_tensors_alone_and_gives_the_same_scores(fitted, engine, pictures):
    batch, pixels = pictures
    path = engine.trainer.checkpoint_callback.best_model_path or engine.best_model_path
    state = torch.load(path, weights_only=True)["state_dict"]
    assert [name for name in state if name.startswith("model.")] == ["model.folder"]
    again = InvAD.load_from_checkpoint(path).eval()
    with torch.inference_mode():
        for one, other in zip(again(batch)[:2], fitted(batch)[:2], strict=True):
            assert torch.equal(one, other)
    assert again.detector().predict(pixels[0]).p_value == fitted.detector().predict(pixels[0]).p_value


def test_a_damaged_checkpoint_is_refused(fitted):
    state = fitted.state_dict()
    damaged = state["model.folder"].clone()
    damaged[-10] += 1
    with pytest.raises(Exception, match="altered or truncated"):
        InvAD(preset="fast", size=SIDE).load_state_dict({**state, "model.folder": damaged})


def test_its_exports_say_the_same_for_any_size(fitted, engine, draw, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs invad[onnx]")
    pytest.importorskip("onnxscript", reason="needs invad[onnx]")
    openvino = pytest.importorskip("openvino", reason="needs invad[openvino]")
    path = engine.export(model=fitted, export_type=ExportType.ONNX, export_root=tmp_path)
    session = onnxruntime.InferenceSession(str(path))
    xml = engine.export(model=fitted, export_type=ExportType.OPENVINO, export_root=tmp_path)
    # Otherwise it computes in the type that the processor has instructions for.
    compiled = openvino.Core().compile_model(xml, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for size in ((64, 64), (96, 70)):
        pixels = np.stack([draw(400 + i, defect=i == 1, size=size) for i in range(2)])
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            said = fitted(batch)
        for outputs in (
            dict(
                zip(
                    [o.name for o in session.get_outputs()],
                    session.run(None, {"input": batch.numpy()}),
                    strict=True,
                )
            ),
            {output.any_name: value for output, value in compiled(batch.numpy()).items()},
        ):
            assert np.abs(outputs["pred_score"] - said.pred_score.numpy()).max() < 1e-4
            assert np.abs(outputs["anomaly_map"] - said.anomaly_map.numpy()).max() < 1e-3
            assert outputs["pred_label"].tolist() == said.pred_label.tolist()


def test_the_command_line_trains_it(parts, tmp_path, monkeypatch):
    from anomalib.cli import AnomalibCLI

    monkeypatch.chdir(tmp_path)
    AnomalibCLI(
        args=[
            "train",
            *(
                "--model",
                "invad.integrations.anomalib.InvAD",
                "--model.preset",
                "fast",
                "--model.size",
                str(SIDE),
            ),
            *("--data", "anomalib.data.Folder", "--data.name", "disc", "--data.root", str(parts)),
            *("--data.normal_dir", "train/good", "--data.abnormal_dir", "test/spot"),
            *("--data.normal_test_dir", "test/good", "--data.num_workers", "0"),
            *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
            *("--default_root_dir", str(tmp_path / "results")),
        ]
    )
    (path,) = (tmp_path / "results").rglob("model.ckpt")
    assert InvAD.load_from_checkpoint(path).detector().info.fit.normals == {"images": NORMALS}


def test_unequal_levels_are_kept_as_floats(draw):
    image = torch.from_numpy(draw(1)).permute(2, 0, 1) / 255
    assert plugin._pixels(image).dtype == np.uint8
    assert np.array_equal(plugin._pixels(image), draw(1))
    between = (image + 0.001).clamp(0, 1)
    assert plugin._pixels(between).dtype == np.float32
    assert np.array_equal(plugin._pixels(between), between.permute(1, 2, 0).numpy())


def test_before_it_is_fitted_it_says_so(pictures):
    model = InvAD(preset="fast", size=SIDE)
    for call in (model.detector, lambda: model(pictures[0])):
        with pytest.raises(NotCalibratedError, match=r"not fitted yet; run Engine\.fit"):
            call()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "fastest"}, "preset 'fastest' is unknown"),
        ({"size": 3}, "area_side = 3"),
        ({"false_alarm_rate": 0.5}, "the review band needs review >= bad"),
    ],
)
def test_settings_that_do_not_exist_are_refused_in_one_line(settings, message):
    with pytest.raises(ConfigError, match=message) as raised:
        InvAD(**settings)
    assert "\n" not in str(raised.value)


def test_a_further_epoch_changes_nothing(fitted, data, pictures):
    """Lightning puts what it trains into that mode, and gives the images again."""
    with torch.inference_mode():
        before = fitted(pictures[0])
    fitted.train()
    data.setup()
    fitted.training_step(next(iter(data.train_dataloader())), 0)
    fitted.on_train_epoch_end()
    assert not fitted.model.graph.training
    fitted.eval()
    with torch.inference_mode():
        assert torch.equal(fitted(pictures[0]).pred_score, before.pred_score)
