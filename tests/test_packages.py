"""What would be published: built from the source distribution, installed elsewhere and used there."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from PIL import Image

from invad.system.version import __version__

ROOT = Path(__file__).resolve().parents[1]
LARGEST_MB = 12


def run(*command, cwd, **environment):
    inherited = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS") if name in os.environ}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env={"HOME": str(cwd), **inherited, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheels(built):
    names = ("invad", "invad_runtime")
    return {name: built / f"{name}-{__version__}-py3-none-any.whl" for name in names}


def tracked(*paths):
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout of git to compare with")
    done = subprocess.run(["git", "ls-files", "-z", *paths], cwd=ROOT, capture_output=True, check=True)
    return {name for name in done.stdout.decode().split("\0") if (ROOT / name).is_file()}


def names_in(wheel):
    with zipfile.ZipFile(wheel) as packed:
        return set(packed.namelist())


def metadata_of(wheel):
    with zipfile.ZipFile(wheel) as packed:
        (name,) = [name for name in packed.namelist() if name.endswith(".dist-info/METADATA")]
        return Metadata.from_email(packed.read(name), validate=True)


def test_the_source_distribution_is_the_whole_checkout(built):
    unpacked = built / f"invad-{__version__}"
    there = {p.relative_to(unpacked).as_posix() for p in unpacked.rglob("*") if p.is_file()}
    assert tracked() - there == set()


def test_the_wheel_has_every_file_of_the_package_and_no_other(wheels):
    assert wheels["invad"].stat().st_size < LARGEST_MB * 1e6
    there = names_in(wheels["invad"])
    assert {f"src/{name}" for name in there if name.startswith("invad/")} >= tracked("src/invad")
    assert {name.split("/")[0] for name in there} == {"invad", f"invad-{__version__}.dist-info"}


def test_the_wheel_of_the_runtime_has_types_pages_and_no_network(wheels):
    there = names_in(wheels["invad_runtime"])
    assert {"invad/py.typed", "invad/serve/pages/static/vendor/htmx-2.0.11.min.js"} <= there
    assert not {name for name in there if name.endswith(".safetensors") or "/backbones/" in name}
    assert "torch" not in {
        Requirement(str(r)).name for r in metadata_of(wheels["invad_runtime"]).requires_dist
    }


@pytest.mark.parametrize("name", ["invad", "invad_runtime"])
def test_metadata_are_valid_and_whole(wheels, name):
    found = metadata_of(wheels[name])
    assert (str(found.version), found.license_expression) == (__version__, "Apache-2.0")
    assert found.license_files == ["LICENSE"]
    assert any(part.endswith(".dist-info/licenses/LICENSE") for part in names_in(wheels[name]))
    assert found.description_content_type == "text/markdown"
    assert found.description.startswith(f"# {found.name}\n")
    assert "Typing :: Typed" in found.classifiers
    assert re.fullmatch(r">=3\.1\d", str(found.requires_python))


def test_the_licence_of_the_runtime_is_that_of_invad():
    assert (ROOT / "runtime/LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_extras_of_the_runtime_bring_what_those_of_invad_bring(wheels):
    """But for those that export, which the runtime only runs."""
    extras = {}
    for name in wheels:
        found = metadata_of(wheels[name])
        rows = [Requirement(str(one)) for one in found.requires_dist]
        extras[name] = {
            extra: {
                str(one).partition(";")[0] for one in rows if one.marker and f'"{extra}"' in str(one.marker)
            }
            for extra in found.provides_extra
        }
    shared = set(extras["invad"]) & set(extras["invad_runtime"]) - {"onnx", "openvino"}
    assert "line" in shared
    for extra in shared:
        assert extras["invad"][extra] <= extras["invad_runtime"][extra], extra


USED = """
import sys
from invad.cli import main
sys.argv[0] = "invad"
try:
    main()
finally:
    own = [getattr(m, "__file__", None) or "" for n, m in sys.modules.items() if n.split(".")[0] == "invad"]
    assert len(own) > 5 and all(name.startswith({target!r}) for name in own), own
"""


def test_an_installed_wheel_works_without_the_checkout(wheels, short_detector, draw, tmp_path):
    target, away = tmp_path / "site", tmp_path / "away"
    away.mkdir()
    pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index")
    run(*pip, "--no-compile", "--target", target, wheels["invad"], cwd=away)
    assert (
        run(target / "bin/invad", "--version", cwd=away, PYTHONPATH=str(target)).strip()
        == f"invad {__version__}"
    )
    short_detector.save(away / "model")
    Image.fromarray(draw(3, defect=True)).save(away / "part.png")
    code = USED.format(target=str(target))
    rows = run("-c", code, "predict", "model", "part.png", "--csv", "-", cwd=away, PYTHONPATH=str(target))
    told = dict(zip(*[line.split(",") for line in rows.splitlines()[:2]], strict=True))
    expected = short_detector.predict(away / "part.png")
    assert told["decision"] == expected.decision
    assert float(told["score"]) == pytest.approx(expected.score, rel=1e-4)
