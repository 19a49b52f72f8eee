"""A detector small enough to train in a test: 64-pixel images, a random backbone, a one-block denoiser.

Imports of torch are inside the fixtures: tests of pure code are collected and run without it.
"""

import importlib
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from invad.records import Sample
from invad.system.lock import sole_writer
from invad.system.packages import PACKAGES

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ALONE = "INVAD_TEST_ALONE"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run a test that is marked `alone` in a process of its own.

    SIGINT ended processes of the suite without a word, twice, whatever handler Python had for it; which of
    the libraries that other tests had loaded is behind it is not known.
    """
    if pyfuncitem.get_closest_marker("alone") is None or ALONE in os.environ:
        return None
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider"]
    # in the usual place it would clear away what earlier runs left, which can take minutes
    with tempfile.TemporaryDirectory() as own:
        done = subprocess.run(
            [*command, "--basetemp", f"{own}/alone", pyfuncitem.nodeid],
            cwd=pyfuncitem.config.rootpath,
            env={**kept, ALONE: "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    return True


def pytest_collection_modifyitems(items):
    """Spread the files of the service, whose tests wait, evenly among the others, which keep a core busy.

    One kind after the other, the processes of a run first wait for the cores, and then the cores for them.
    """
    files = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    waiting = [path for path in files if "serve" in path.parts]
    working = [path for path in files if "serve" not in path.parts]
    place = {path: (i + 0.5) / len(kind) for kind in (waiting, working) for i, path in enumerate(kind)}
    items[:] = [item for path in sorted(files, key=lambda path: place[path]) for item in files[path]]


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """once(name, make): the folder that make(folder) has made, one for all processes of a test run."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root

    def shared(name, make):
        place = root / "once" / name
        place.mkdir(parents=True, exist_ok=True)
        made, finished = place / "made", place / "finished"
        with sole_writer(place, "test", waiting=lambda: None):
            if not finished.exists():
                shutil.rmtree(made, ignore_errors=True)
                make(made)
                finished.touch()
        return made

    return shared


@pytest.fixture(scope="session")
def built(once):
    """A folder with the source distribution of invad, the wheel made of it, and that of invad-runtime."""
    pytest.importorskip("hatchling", reason="building needs hatchling")

    def make(folder):
        def build(kind, source):
            command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", folder]
            subprocess.run(command, cwd=source, check=True, capture_output=True)

        build("sdist", Path(__file__).parents[1])
        with tarfile.open(next(folder.glob("invad-*.tar.gz"))) as packed:
            packed.extractall(folder, filter="data")
        unpacked = next(path for path in folder.iterdir() if path.is_dir())
        build("wheel", unpacked)
        build("wheel", unpacked / "runtime")

    return once("built", make)


@pytest.fixture
def put(tmp_path, monkeypatch):
    """put(name, version, code): a package as pip installs it, found before all others, not loaded yet.

    code: of its module, None for one that is nowhere. What was loaded of it is loaded again after the test.
    """
    shelf = tmp_path / "site-packages"
    shelf.mkdir()
    monkeypatch.syspath_prepend(shelf)
    before, tops = dict(sys.modules), set()

    def make(name, version, code=""):
        module = PACKAGES[name].module or name
        top = module.split(".")[0]
        tops.add(top)
        for loaded in [one for one in sys.modules if one.split(".")[0] == top]:
            del sys.modules[loaded]
        if code is None:
            sys.modules[top] = None
            return
        record = shelf / f"{name.replace('-', '_')}-{version}.dist-info"
        record.mkdir()
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        *parents, last = module.split(".")
        folder = shelf.joinpath(*parents)
        folder.mkdir(parents=True, exist_ok=True)
        for depth in range(len(parents)):
            shelf.joinpath(*parents[: depth + 1], "__init__.py").touch()
        (folder / f"{last}.py").write_text(code)
        importlib.invalidate_caches()

    yield make
    for name in [one for one in sys.modules if one.split(".")[0] in tops]:
        del sys.modules[name]
    sys.modules.update({name: old for name, old in before.items() if name.split(".")[0] in tops})


@pytest.fixture(autouse=True)
def _own_logging():
    """A service that a test begins in this process takes the loggers for its own; others write elsewhere."""
    names = ("invad.serve", "uvicorn", "asyncua", "pymodbus")
    before = {name: (logging.getLogger(name).handlers, logging.getLogger(name).propagate) for name in names}
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    for name, (handlers, propagate) in before.items():
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(levels[name])


@pytest.fixture(scope="session")
def browser():
    """Debian's chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of invad[test]")
    if CHROMIUM is None:
        pytest.skip("needs a browser, such as Debian's chromium")
    options = ["--no-sandbox"] if os.getuid() == 0 else []
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=[*options, "--disable-gpu"])
        yield opened
        opened.close()


# Both look at a clock, and beside other work any example may be slow once: the test then fails as "flaky".
settings.register_profile("invad", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("invad")


@pytest.fixture(scope="session")
def make_backbone():
    """make_backbone(seed): a frozen student with random weights, which a saved model can name."""
    import torch

    from invad.backbones.invad_s import empty_invad_s

    def make(seed=0):
        shape = {"stem": 8, "widths": [8, 12, 16], "blocks": [0, 1, 1], "heads": [4, 6, 8]}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            backbone = empty_invad_s(shape)
        backbone.info = replace(backbone.info, source=f"random, seed {seed}", licence="none")
        return backbone.freeze()

    return make


@pytest.fixture(scope="session")
def tiny_preset():
    from invad.diffusion.denoiser import DenoiserConfig
    from invad.model.settings import DIRECTIONS, Preset, TrainConfig

    return Preset(
        area_side=64,
        scales=(1.0, 0.5),
        denoiser=DenoiserConfig(kind="mlp", width=16, depth=1, mlp_ratio=1.0),
        train=TrainConfig(steps=4, batch=4, warmup=1),
        top_fractions=(0.02, 0.02, 0.01),
        second_space=DIRECTIONS,
    )


@pytest.fixture(scope="session")
def draw():
    """draw(seed, defect=False, size=(w, h)): uint8 H x W x 3, a disc with noise, perhaps a bright spot."""

    def picture(seed, defect=False, size=(64, 64)):
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[: size[1], : size[0]] / (size[1], size[0])[0]
        disc = (np.hypot(x - 0.5, y - 0.5) < 0.35) * 90.0
        grey = 70 + disc + 20 * x + rng.normal(0, 4, (size[1], size[0]))
        if defect:
            grey[size[1] // 2 : size[1] // 2 + 12, size[0] // 2 : size[0] // 2 + 12] = 255 * rng.random(
                (12, 12)
            )
        return np.repeat(grey.clip(0, 255).round().astype(np.uint8)[..., None], 3, axis=2)

    return picture


@pytest.fixture(scope="session")
def write_parts(draw):
    """write_parts(folder, count, first=0): PNG files of good parts; returns their samples."""

    def write(folder, count, first=0, category="part", size=(64, 64), defect=False):
        folder.mkdir(parents=True, exist_ok=True)
        samples = []
        for i in range(first, first + count):
            path = folder / f"{i:03d}.png"
            Image.fromarray(draw(i, defect, size)).save(path)
            kind = "spot" if defect else "good"
            samples.append(Sample(path=path, category=category, defect=kind))
        return samples

    return write


@pytest.fixture(scope="session")
def good_parts(write_parts, tmp_path_factory):
    """64 samples of one category. Not to be written to."""
    return write_parts(tmp_path_factory.mktemp("good"), 64)


@pytest.fixture(scope="session")
def detector(good_parts, tiny_preset, make_backbone):
    """Fitted on `good_parts`. Not to be calibrated."""
    from invad.detector.detector import Detector

    return Detector.fit(good_parts, preset=tiny_preset, backbone=make_backbone(), device="cpu")


@pytest.fixture(scope="session")
def draw_cloth():
    """draw_cloth(seed, spot=None): uint8 120 x 160 x 3, a weave that begins anywhere, with noise, perhaps a
    spot of 8 pixels at (top, left)."""

    def picture(seed, spot=None):
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:120, :160]
        grey = 110 + rng.normal(0, 5, (120, 160))
        across, down = rng.uniform(0, 2 * np.pi, 2)
        grey += 20 * np.sin(x / 6 + across) + 20 * np.sin(y / 7 + down)
        if spot is not None:
            top, left = spot
            grey[top : top + 8, left : left + 8] = 255 * rng.random((8, 8))
        return np.repeat(grey.clip(0, 255).round().astype(np.uint8)[..., None], 3, axis=2)

    return picture


@pytest.fixture(scope="session")
def cloth(draw_cloth, tmp_path_factory):
    """A folder: train/good with 20 pictures, test/good and test/spot with 4 each."""
    root = tmp_path_factory.mktemp("cloth")
    for part, first, count in (("train/good", 0, 20), ("test/good", 100, 4), ("test/spot", 200, 4)):
        (root / part).mkdir(parents=True)
        for seed in range(first, first + count):
            spot = (40, 10 + 30 * (seed - 200)) if "spot" in part else None
            Image.fromarray(draw_cloth(seed, spot)).save(root / part / f"{seed}.png")
            if spot is not None:
                mask = np.zeros((120, 160), np.uint8)
                mask[spot[0] : spot[0] + 8, spot[1] : spot[1] + 8] = 255
                (root / "ground_truth/spot").mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(root / "ground_truth/spot" / f"{seed}_mask.png")
    return root


@pytest.fixture(scope="session")
def tile_preset(tiny_preset):
    """Without a network and a fine grid: what tiles of 64 pixels need to be told apart."""
    from invad.diffusion.empirical import EmpiricalConfig

    known = EmpiricalConfig(cells=200)
    return replace(
        tiny_preset, denoiser=None, empirical=known, fine=None, top_fractions=None, second_space=None
    )


@pytest.fixture(scope="session")
def tiled_detector(cloth, tile_preset):
    """Of tiles of 64 pixels, fitted on `cloth`. Not to be calibrated.

    With the shipped backbone: random weights tell a grey picture from cloth by the smaller scales alone.
    """
    from invad import TiledDetector, Tiling

    return TiledDetector.fit(cloth, tiling=Tiling(tile_px=64), preset=tile_preset, device="cpu")


@pytest.fixture(scope="session")
def draw_lights(draw_cloth):
    """draw_lights(seed, spot=None): a part of cloth under two lights, by member; a spot shows under the
    second, which is the brighter one."""

    def pictures(seed, spot=None):
        second = draw_cloth(5000 + seed, spot).astype(np.int16) + 60
        return {"light1": draw_cloth(seed), "light2": second.clip(0, 255).astype(np.uint8)}

    return pictures


@pytest.fixture(scope="session")
def lit_cloth(draw_lights, tmp_path_factory):
    """A folder of 14 good parts, part000_light1.png to part013_light2.png."""
    folder = tmp_path_factory.mktemp("lit")
    for seed in range(14):
        for name, pixels in draw_lights(seed).items():
            Image.fromarray(pixels).save(folder / f"part{seed:03d}_{name}.png", compress_level=1)
    return folder


@pytest.fixture(scope="session")
def tiled_parts(lit_cloth, tile_preset):
    """Of parts of two pictures in tiles of 64 pixels, fitted on `lit_cloth`. Not to be calibrated."""
    from invad import TiledDetector, Tiling

    options = {"preset": tile_preset, "device": "cpu"}
    return TiledDetector.fit(lit_cloth, tiling=Tiling(tile_px=64), parts="names", **options)


@pytest.fixture(scope="session")
def short_detector(good_parts, tiny_preset, make_backbone):
    """As `detector`, but of one size, one level and one grid: half the graph, for what any graph shows."""
    from invad.detector.detector import Detector

    reading = replace(tiny_preset.reading, timesteps=(300,))
    preset = replace(
        tiny_preset, scales=(1.0,), reading=reading, fine=None, top_fractions=None, second_space=None
    )
    return Detector.fit(good_parts, preset=preset, backbone=make_backbone(), device="cpu")


@pytest.fixture(scope="session")
def tiny_detectors(good_parts, tiny_preset, make_backbone):
    """A detector per named preset, its networks made small. Not to be calibrated."""
    from invad.detector.detector import Detector
    from invad.diffusion.denoiser import DenoiserConfig
    from invad.model.settings import PRESETS

    dit = DenoiserConfig(kind="dit", width=16, depth=1, heads=2, gaussian=True)
    mlp = replace(tiny_preset.denoiser, gaussian=True)
    bare = replace(dit, patch=2, gaussian=False)
    settings = {
        name: replace(
            preset,
            backbone=tiny_preset.backbone,
            strides=tiny_preset.strides,
            area_side=64,
            scales=tuple(s for s in preset.scales if s >= 0.5),
            denoiser=preset.denoiser and {"dit": dit, "paper": bare}.get(name, mlp),
            train=tiny_preset.train,
        )
        for name, preset in PRESETS.items()
    }
    return {
        name: Detector.fit(good_parts[:24], preset=preset, backbone=make_backbone(), device="cpu")
        for name, preset in settings.items()
    }


@pytest.fixture(scope="session")
def two_categories(write_parts, tmp_path_factory, tiny_preset, make_backbone):
    """60 parts and 30 of another category, which are brighter and larger. Not to be calibrated."""
    from invad.detector.detector import Detector

    root = tmp_path_factory.mktemp("two")
    samples = write_parts(root / "part", 60)
    samples += write_parts(root / "wide", 30, first=100, category="wide", size=(96, 64))
    return Detector.fit(samples, preset=tiny_preset, backbone=make_backbone(), device="cpu")


@pytest.fixture(scope="session")
def bundle(request, once):
    """Of `two_categories`: any size, one image at a time, ONNX. Not to be written to."""
    pytest.importorskip("onnxscript", reason="exporting needs invad[onnx]")
    pytest.importorskip("onnxruntime", reason="exporting needs invad[onnx]")

    def make(folder):
        from invad.export import ExportConfig, export

        export(request.getfixturevalue("two_categories"), folder, ExportConfig())

    return once("bundle", make)


@pytest.fixture
def own_bundle(bundle, tmp_path):
    return Path(shutil.copytree(bundle, tmp_path / "own"))
