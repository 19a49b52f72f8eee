"""Pipelines of diffusers, made here with random weights or with closed forms; nothing is fetched."""

import json
import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from invad.data.images import read_image
from invad.detector.detector import Detector
from invad.diffusion.ddim import invert, sample
from invad.diffusion.readings import ReadingConfig
from invad.diffusion.schedule import SPACINGS, timesteps
from invad.errors import ArtifactError, ConfigError, DataError
from invad.records import Sample

diffusers = pytest.importorskip("diffusers", reason="needs invad[diffusers]")

from diffusers.models.unets.unet_2d import UNet2DOutput  # noqa: E402

from invad.integrations.diffusers import (  # noqa: E402
    InversionScheduler,
    from_pipeline,
    load,
    noise_model,
)
from invad.integrations.diffusers.noise import as_noise, schedule_of  # noqa: E402

SIDE = 16
BLOCKS = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
DOWN_UP = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
KINDS = ("epsilon", "sample", "v_prediction")


def tiny_unet(seed=0, channels=3, **options):
    torch.manual_seed(seed)
    given = {"sample_size": SIDE, "in_channels": channels, "out_channels": channels, **BLOCKS, **DOWN_UP}
    return diffusers.UNet2DModel(**given, **options).eval()


class GaussianUNet(diffusers.UNet2DModel):
    """The exact predictor for pixels of N(mean, variance) each, in what its scheduler says it predicts."""

    def __init__(self, mean, variance, scheduler, learned_variance=False):
        super().__init__(sample_size=SIDE, **BLOCKS, **DOWN_UP)
        self.register_buffer("mean", mean)
        self.register_buffer("variance", variance)
        self.kind, self.learned_variance = scheduler.config.prediction_type, learned_variance
        self.register_buffer("abar_T", scheduler.alphas_cumprod)

    def forward(self, sample, timestep, return_dict=True):
        a = self.abar_T[torch.as_tensor(timestep).reshape(-1)].view(-1, 1, 1, 1)
        eps = (1 - a).sqrt() * (sample - a.sqrt() * self.mean) / (a * self.variance + 1 - a)
        clean = (sample - (1 - a).sqrt() * eps) / a.sqrt()
        said = {"epsilon": eps, "sample": clean, "v_prediction": a.sqrt() * eps - (1 - a).sqrt() * clean}
        m = said[self.kind]
        return UNet2DOutput(sample=torch.cat([m, 7 + m], 1) if self.learned_variance else m)


def pixels_of(samples):
    from invad.data.preprocess import Preprocess

    preprocess = Preprocess((SIDE, SIDE))
    return 2 * torch.stack([preprocess(read_image(one.path)) for one in samples]) - 1


@pytest.fixture(scope="module")
def gaussian(good_parts):
    """gaussian(kind, ...): a pipeline that knows mean and variance of the first 32 good parts exactly."""
    x = pixels_of(good_parts[:32])

    def make(kind="epsilon", **options):
        scheduler = diffusers.DDPMScheduler(prediction_type=kind)
        unet = GaussianUNet(x.mean(0), x.var(0) + 1e-3, scheduler, **options)
        return diffusers.DDPMPipeline(unet=unet, scheduler=scheduler)

    return make


@pytest.fixture(scope="module")
def ddpm():
    return diffusers.DDPMPipeline(unet=tiny_unet(), scheduler=diffusers.DDPMScheduler())


@pytest.fixture(scope="module")
def detector(gaussian, good_parts):
    return from_pipeline(gaussian(), good_parts[32:])


# The scheduler


@pytest.mark.parametrize("spacing", sorted(SPACINGS))
@pytest.mark.parametrize("steps", [1, 3, 10])
def test_the_walk_of_the_scheduler_is_that_of_the_library(spacing, steps):
    unet, x = tiny_unet(), torch.randn(2, 3, SIDE, SIDE)
    scheduler = InversionScheduler(spacing=spacing)
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps.tolist() == list(timesteps(spacing, steps))
    walked = [x]
    with torch.no_grad():
        for t in scheduler.timesteps:
            output = unet(scheduler.scale_model_input(walked[-1], t), t).sample
            walked.append(scheduler.step(output, t, walked[-1]).prev_sample)
        expected = invert(lambda x, t: unet(x, t).sample, x, scheduler.schedule, scheduler.timesteps.tolist())
    for own, latent in zip(walked, expected.latents, strict=True):
        assert (own - latent).abs().max() <= 1e-6 * latent.abs().max()
    assert torch.equal(walked[-1], expected.noises[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_on_unit_gaussian_data_each_step_turns_by_the_angle_between_the_levels(kind):
    scheduler = InversionScheduler(prediction_type=kind)
    unet = GaussianUNet(torch.zeros(3, 1, 1), torch.ones(3, 1, 1), scheduler, learned_variance=True)
    scheduler.set_timesteps(4)
    x = torch.randn(2, 3, SIDE, SIDE)
    angles = [math.acos(math.sqrt(scheduler.schedule.abar(t))) for t in scheduler.timesteps.tolist()]
    for t, (here, there) in zip(scheduler.timesteps, pairwise([*angles, math.pi / 2]), strict=True):
        (moved,) = scheduler.step(unet(x, t).sample, t, x, return_dict=False)
        torch.testing.assert_close(moved, math.cos(there - here) * x, rtol=1e-4, atol=2e-6)
        x = moved


def test_a_walk_that_does_not_end_in_noise_asks_once_less():
    unet, x = tiny_unet(), torch.randn(1, 3, SIDE, SIDE)
    scheduler = InversionScheduler(terminal=False)
    scheduler.set_timesteps(timesteps=[0, 200, 500])
    assert scheduler.timesteps.tolist() == [0, 200]
    with torch.no_grad():
        expected = invert(
            lambda x, t: unet(x, t).sample, x, scheduler.schedule, [0, 200, 500], terminal=False
        ).latent
        for t in scheduler.timesteps:
            x = scheduler.step(unet(x, t).sample, t, x).prev_sample
    assert torch.equal(x, expected)


def test_the_scheduler_is_saved_and_made_from_others(tmp_path, caplog):
    other = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_end=0.012,
        prediction_type="v_prediction",
        timestep_spacing="leading",
    )
    scheduler = InversionScheduler.from_config(other.config, spacing="paper")
    assert torch.equal(scheduler.alphas_cumprod, other.alphas_cumprod)
    scheduler.save_pretrained(tmp_path)
    kept = json.loads((tmp_path / "scheduler_config.json").read_text())
    assert kept["_class_name"] == "InversionScheduler"
    again = InversionScheduler.from_pretrained(tmp_path, local_files_only=True)
    assert (again.config.spacing, again.config.prediction_type) == ("paper", "v_prediction")
    assert torch.equal(again.alphas_cumprod, other.alphas_cumprod)
    assert len(again) == 1000
    assert caplog.records == []


def test_a_half_precision_walk_computes_in_float32():
    scheduler = InversionScheduler()
    scheduler.set_timesteps(3)
    x, eps = torch.randn(1, 3, 4, 4).half(), torch.randn(1, 3, 4, 4).half()
    moved = scheduler.step(eps, 500, x).prev_sample
    assert moved.dtype == torch.float16
    assert torch.equal(moved, scheduler.step(eps.float(), 500, x.float()).prev_sample.half())


def test_the_scheduler_refuses_in_one_line():
    scheduler = InversionScheduler()
    x = torch.zeros(1, 3, 4, 4)
    with pytest.raises(ConfigError, match=r"timestep = 3: call set_timesteps"):
        scheduler.step(x, 3, x)
    scheduler.set_timesteps(3)
    with pytest.raises(ConfigError, match=r"timestep = 3: call set_timesteps"):
        scheduler.step(x, 3, x)
    with pytest.raises(ConfigError, match="sort the levels"):
        scheduler.set_timesteps(timesteps=[5, 3])
    with pytest.raises(ConfigError, match="100 levels"):
        InversionScheduler(num_train_timesteps=100).set_timesteps(3)
    with pytest.raises(ConfigError, match="level 999 of this model the share of signal is 0"):
        InversionScheduler(rescale_betas_zero_snr=True).set_timesteps(3)
    with pytest.raises(ConfigError, match="flow matching"):
        InversionScheduler(prediction_type="flow_prediction")
    for other in (diffusers.FlowMatchEulerDiscreteScheduler(), diffusers.EDMEulerScheduler()):
        with pytest.raises(ConfigError, match=r"holds no noise levels .*, as none of flow matching or EDM"):
            InversionScheduler.from_config(other.config)


# From what a network says to noise


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reading", [None, ReadingConfig(kind="inversion", timesteps=(0, 500, 999))])
def test_all_kinds_of_prediction_give_the_same_maps(gaussian, detector, good_parts, draw, kind, reading):
    made = from_pipeline(gaussian(kind, learned_variance=True), good_parts[32:40], reading=reading)
    plain = from_pipeline(gaussian(), good_parts[32:40], reading=reading)
    torch.testing.assert_close(made.read(draw(3)), plain.read(draw(3)), rtol=1e-3, atol=1e-4)


def test_noise_comes_back_out_of_what_was_mixed():
    x0, eps = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    signal, spread = 0.6, 0.8
    said = {"epsilon": eps, "sample": x0, "v_prediction": signal * eps - spread * x0}
    for kind, output in said.items():
        found = as_noise(kind, output, signal * x0 + spread * eps, signal, spread)
        torch.testing.assert_close(found, eps, rtol=1e-5, atol=1e-6)


# The detector


def test_a_pipeline_becomes_a_detector(detector, good_parts, draw):
    assert detector.info.reading == ReadingConfig(kind="early", timesteps=(100, 200, 300))
    good = [detector.predict(draw(seed)) for seed in range(100, 120)]
    bad = [detector.predict(draw(seed, defect=True)) for seed in range(100, 120)]
    assert min(one.score for one in bad) > max(one.score for one in good)
    assert {one.decision for one in bad} == {"bad"}
    assert [one.decision for one in good].count("bad") <= 2
    for one in (*good, *bad):
        held = np.array(detector.calibrations[""].scores)
        assert one.p_value == (1 + (held >= one.score).sum()) / (len(held) + 1)
        assert one.anomaly_map.shape == (64, 64)
    y, x = np.unravel_index(bad[0].anomaly_map.argmax(), (64, 64))
    assert (28 <= y < 48, 28 <= x < 48) == (True, True)
    assert len(detector.defects(bad[0])) > 0


def test_a_score_depends_neither_on_other_images_nor_on_the_size_of_the_file(detector, draw):
    images = [draw(7), draw(8, defect=True), draw(9, size=(96, 64))]
    alone = [detector.predict(one).score for one in images]
    assert [one.score for one in detector.predict(images)] == alone
    together = [one.score for one in detector.predict_many(images, batch=3)]
    assert together == pytest.approx(alone, rel=1e-4)


def test_the_norms_are_those_of_the_closed_form(gaussian, good_parts, draw):
    pipe = gaussian()
    found = from_pipeline(pipe, good_parts[32:40], cell=4, reading=ReadingConfig(timesteps=(200,)))
    a = float(pipe.scheduler.alphas_cumprod[200])
    x = 2 * found.preprocess(draw(5)) - 1
    eps = math.sqrt(1 - a) * (x - math.sqrt(a) * pipe.unet.mean) / (a * pipe.unet.variance + 1 - a)
    cells = eps.square().sum(0).view(4, 4, 4, 4).sum((1, 3)).sqrt()
    torch.testing.assert_close(found.read(draw(5))[0], cells, rtol=1e-4, atol=1e-5)
    assert found.grid_hw == (4, 4)


def test_levels_are_chosen_by_the_signal_that_is_left(good_parts):
    scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    pipe = diffusers.DDPMPipeline(unet=tiny_unet(), scheduler=scheduler)
    levels = from_pipeline(pipe, good_parts[:4]).info.reading.timesteps
    found = [float(scheduler.alphas_cumprod[t]) for t in levels]
    assert found == pytest.approx([0.8951, 0.6564, 0.3940], abs=2e-3)
    assert levels != (100, 200, 300)


def test_a_network_in_training_is_set_to_inference(good_parts, draw):
    unet = tiny_unet(dropout=0.5).train()
    pipe = diffusers.DDPMPipeline(unet=unet, scheduler=diffusers.DDPMScheduler())
    made = from_pipeline(pipe, good_parts[:4])
    assert made.predict(draw(1)).score == made.predict(draw(1)).score


def test_other_sizes_and_grey_networks(good_parts, draw):
    pipe = diffusers.DDPMPipeline(unet=tiny_unet(channels=1), scheduler=diffusers.DDPMScheduler())
    made = from_pipeline(pipe, good_parts[:4], input_hw=(16, 48), cell=2)
    assert made.grid_hw == (8, 24)
    assert made.predict(draw(1, size=(96, 32))).anomaly_map.shape == (32, 96)


def test_a_calibration_is_repeated_and_refuses_what_lets_black_pass(detector, gaussian, good_parts, tmp_path):
    own = from_pipeline(gaussian(), good_parts[32:48])
    before = own.calibrations[""].n
    assert any("false-alarm rate of 1.00%" in line for line in own.calibrate(good_parts[32:]))
    assert (before, own.calibrations[""].n) == (16, 32)
    assert own.calibrations == detector.calibrations
    with pytest.raises(DataError, match="at least 2"):
        own.calibrate(good_parts[:1])
    with pytest.raises(DataError, match="calibration takes normal images only"):
        own.calibrate([Sample(path=good_parts[0].path, category="part", defect="spot")])


def test_groups_and_categories_count_as_in_any_detector(gaussian, good_parts):
    samples = [
        Sample(path=one.path, category="a" if i < 8 else "b", group=f"g{i // 2}")
        for i, one in enumerate(good_parts[32:48])
    ]
    made = from_pipeline(gaussian(), samples)
    assert {name: one.n for name, one in made.calibrations.items()} == {"": 8, "a": 4, "b": 4}
    with pytest.raises(ConfigError, match="choose from a, b"):
        made.predict(good_parts[0].path, category="c")


# Saved and read again


def test_a_detector_is_saved_whole_and_read_without_anything_else(ddpm, good_parts, draw, tmp_path):
    made = from_pipeline(
        ddpm, good_parts[:12], reading=ReadingConfig(kind="inversion", timesteps=(0, 500, 999))
    )
    content = made.save(tmp_path / "model")
    again = load(tmp_path / "model", device="cpu")
    assert again.content_hash == content
    one, two = made.predict(draw(3, defect=True)), again.predict(draw(3, defect=True))
    assert (one.score, one.p_value, one.decision) == (two.score, two.p_value, two.decision)
    assert np.array_equal(one.anomaly_map, two.anomaly_map)
    assert again.calibrate(good_parts[:12]) == made.warnings()
    assert again.content_hash is None
    with pytest.raises(ArtifactError, match="exists and is not empty"):
        made.save(tmp_path / "model")
    with pytest.raises(ArtifactError, match=r"invad\.integrations\.diffusers"):
        Detector.load(tmp_path / "model")
    weights = next((tmp_path / "model/pipeline/unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="missing, altered or truncated"):
        load(tmp_path / "model")


def test_a_network_of_half_precision_is_walked_in_float32(good_parts, draw, tmp_path):
    reading = ReadingConfig(kind="inversion", timesteps=(0, 500, 999))
    pipes = [diffusers.DDPMPipeline(unet=tiny_unet(), scheduler=diffusers.DDPMScheduler()) for _ in range(2)]
    pipes[1].unet.half()
    whole, half = (from_pipeline(pipe, good_parts[:4], reading=reading) for pipe in pipes)
    assert half.read(draw(1)).dtype == torch.float32
    torch.testing.assert_close(half.read(draw(1)), whole.read(draw(1)), rtol=0.02, atol=0.02)
    half.save(tmp_path / "model")
    again = load(tmp_path / "model", device="cpu")
    assert (again.model.dtype, again.predict(draw(1)).score) == (torch.float16, half.predict(draw(1)).score)


def test_a_model_of_another_kind_is_not_taken_for_a_pipeline(tmp_path, short_detector):
    short_detector.save(tmp_path / "model")
    with pytest.raises(ArtifactError, match="is a trained model, no saved pipeline"):
        load(tmp_path / "model")
    with pytest.raises(ArtifactError, match="no such model folder"):
        load(tmp_path / "nothing")


# Latent models


class Latents(diffusers.DiffusionPipeline):
    """What StableDiffusionPipeline has of networks, without a text encoder."""

    def __init__(self, vae, unet, scheduler):
        super().__init__()
        self.register_modules(vae=vae, unet=unet, scheduler=scheduler)


def tiny_vae(**options):
    torch.manual_seed(1)
    blocks = {
        "block_out_channels": (8, 8),
        "norm_num_groups": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    return diffusers.AutoencoderKL(latent_channels=4, **blocks, **options).eval()


def prompted_unet(**options):
    torch.manual_seed(2)
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        cross_attention_dim=8,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        **BLOCKS,
        **options,
    ).eval()


def test_a_prompted_network_is_read_in_the_space_of_its_autoencoder(good_parts, draw):
    vae = tiny_vae(scaling_factor=0.5, shift_factor=0.25)
    pipe = Latents(vae, prompted_unet(), diffusers.DDIMScheduler(beta_schedule="scaled_linear"))
    with pytest.raises(ConfigError, match="give prompt_embeds, 1 x tokens x 8"):
        from_pipeline(pipe, good_parts[:4])
    embeds = torch.randn(1, 5, 8)
    made = from_pipeline(pipe, good_parts[:4], prompt_embeds=embeds, reading=ReadingConfig(timesteps=(200,)))
    assert (made.info.input_hw, made.grid_hw) == ((16, 16), (8, 8))
    with torch.no_grad():
        x = 2 * made.preprocess(draw(2))[None] - 1
        z = 0.5 * (vae.encode(x).latent_dist.mode() - 0.25)
        eps = pipe.unet(z, 200, encoder_hidden_states=embeds).sample
    torch.testing.assert_close(made.read(draw(2)), eps.norm(dim=1), rtol=1e-4, atol=1e-5)
    assert made.predict(draw(2)).score == made.predict(draw(2)).score


def test_a_transformer_with_classes_is_asked_for_none(good_parts, draw, tmp_path):
    torch.manual_seed(3)
    transformer = diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        sample_size=8,
        num_embeds_ada_norm=10,
        norm_num_groups=4,
    )
    for values in transformer.parameters():
        torch.nn.init.normal_(values, std=0.2)
    pipe = diffusers.DiTPipeline(transformer=transformer, vae=tiny_vae(), scheduler=diffusers.DDIMScheduler())
    made = from_pipeline(pipe, good_parts[:4], reading=ReadingConfig(timesteps=(200,)))
    with torch.no_grad():
        z = tiny_vae().encode(2 * made.preprocess(draw(2))[None] - 1).latent_dist.mode() * 0.18215
        said = {
            c: transformer(z, torch.tensor([200]), torch.tensor([c])).sample[:, :4].norm(dim=1)
            for c in (9, 10)
        }
    torch.testing.assert_close(made.read(draw(2)), said[10], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(made.read(draw(2)), said[9], rtol=1e-2)
    made.save(tmp_path / "model")
    assert load(tmp_path / "model", device="cpu").predict(draw(2)).score == made.predict(draw(2)).score


def test_stable_diffusion_is_asked_with_an_empty_prompt(good_parts, draw, tmp_path):
    transformers = pytest.importorskip("transformers", reason="Stable Diffusion needs transformers")
    (tmp_path / "vocab.json").write_text(json.dumps({"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    tokenizer.model_max_length = 5
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "vocab_size": 3, "max_position_embeddings": 5}
    encoder = transformers.CLIPTextModel(transformers.CLIPTextConfig(**ends, **sizes)).eval()
    pipe = diffusers.StableDiffusionPipeline(
        vae=tiny_vae(),
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=prompted_unet(),
        scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made = from_pipeline(pipe, good_parts[:4])
    ids = torch.tensor([[0, 1, 1, 1, 1]])
    given = from_pipeline(pipe, good_parts[:4], prompt_embeds=encoder(ids)[0].detach())
    torch.testing.assert_close(made.read(draw(2)), given.read(draw(2)))
    made.save(tmp_path / "model")
    assert load(tmp_path / "model", device="cpu").predict(draw(2)).score == made.predict(draw(2)).score


# What is not read


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scheduler": diffusers.FlowMatchEulerDiscreteScheduler()}, "flow matching (as in SD3 and Flux)"),
        ({"scheduler": diffusers.EDMEulerScheduler()}, "EDMEulerScheduler has no alphas_cumprod"),
        ({"unet": tiny_unet(channels=4)}, "UNet2DModel of 4 channels that are no pixels"),
        ({"unet": tiny_unet(num_class_embeds=4)}, "UNet2DModel that wants a class"),
        ({"unet": torch.nn.Identity()}, "has a Identity; read are UNet2DModel"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_pipelines_are_refused_in_one_line(good_parts, change, said):
    parts = {"unet": tiny_unet(), "scheduler": diffusers.DDPMScheduler(), **change}
    with pytest.raises(ConfigError) as refused:
        from_pipeline(SimpleNamespace(components=parts, **parts), good_parts[:4])
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_latent_pipelines_that_want_more_are_refused(good_parts):
    embeds = torch.zeros(1, 5, 8)
    more = prompted_unet(addition_embed_type="text", encoder_hid_dim=8)
    cases = [
        (tiny_vae(), more, r"more than a prompt \(addition_embed_type\)"),
        (tiny_vae(), prompted_unet(in_channels=9), r"more than latents \(9 channels\)"),
        (tiny_unet(), prompted_unet(), "a UNet2DModel where an AutoencoderKL is"),
    ]
    for vae, unet, said in cases:
        with pytest.raises(ConfigError, match=said):
            noise_model(Latents(vae, unet, diffusers.DDPMScheduler()), embeds)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"input_hw": (15, 15)}, r"input_hw = \(15, 15\): images of 15 x 15 .* do not pass the pipeline"),
        ({"cell": 3}, "cell = 3: give a divisor of 16 and 16"),
        ({"cell": -1}, "cell = -1: give a divisor"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(ddpm, good_parts, options, said):
    with pytest.raises(ConfigError, match=said):
        from_pipeline(ddpm, good_parts[:4], **options)


def test_levels_that_the_model_lacks_are_refused(good_parts):
    short = diffusers.DDPMPipeline(
        unet=tiny_unet(), scheduler=diffusers.DDPMScheduler(num_train_timesteps=100)
    )
    with pytest.raises(ConfigError, match=r"level 200 is outside 0\.\.99"):
        from_pipeline(short, good_parts[:4], reading=ReadingConfig(timesteps=(50, 200)))
    blind = diffusers.DDPMScheduler(rescale_betas_zero_snr=True)
    pipe = diffusers.DDPMPipeline(unet=tiny_unet(), scheduler=blind)
    with pytest.raises(ConfigError, match="level 999 of this model the share of signal is 0"):
        from_pipeline(pipe, good_parts[:4], reading=ReadingConfig(kind="inversion", timesteps=(0, 999)))


def test_nothing_but_a_pipeline_is_taken(good_parts):
    with pytest.raises(ConfigError, match="str is no pipeline of diffusers"):
        from_pipeline("runwayml/some-model", good_parts[:4])
    parts = {"unet": tiny_unet(), "scheduler": diffusers.DDPMScheduler()}
    with pytest.raises(ConfigError, match=r"'a\.png' is a str, no Sample; give a folder, or Sample\(path="):
        from_pipeline(SimpleNamespace(components=parts, **parts), ["a.png"])


def test_sampling_and_inversion_meet(gaussian):
    """Down and up again on a model that is exact: the error falls as the steps grow."""
    pipe = gaussian()
    model, schedule = noise_model(pipe), schedule_of(pipe.scheduler)
    x = pipe.unet.mean[None] + 0.1 * torch.randn(1, 3, SIDE, SIDE)

    def lost(steps):
        levels = timesteps("reference", steps)
        noised = invert(model.predict_noise, x, schedule, levels, terminal=False).latent
        return (sample(model.predict_noise, noised, schedule, levels[::-1]).latent - x).norm()

    with torch.no_grad():
        assert lost(200) < lost(50) < lost(10)
