"""Which engine runs a bundle, and what is said of one that cannot."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from invad import runtime
from invad.errors import ConfigError

pytest.importorskip("onnxscript", reason="exporting needs invad[onnx]")
pytest.importorskip("onnxruntime", reason="exporting needs invad[onnx]")


def test_waiting_threads_of_onnx_runtime_sleep(bundle):
    options = runtime.load(bundle, "onnxruntime").engine.session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


REPORTS = "from invad import runtime; import sys; print(runtime.load(*sys.argv[1:], threads=1).engine.name)"


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_engine_leaves_nothing_for_its_maker_in_the_home_folder(engine, bundle, tmp_path):
    pytest.importorskip(engine)
    environment = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS") if name in os.environ}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src")}
    words = [sys.executable, "-c", REPORTS, str(bundle), engine]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.stdout == f"{engine}\n", done.stderr
    left = {path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("*") if path.is_file()}
    assert left <= {(".cache", "invad")}


def test_engines_that_cannot_run_it(bundle, monkeypatch):
    with pytest.raises(ConfigError, match="engine 'abacus' is unknown; choose one of auto, onnxruntime"):
        runtime.load(bundle, "abacus")
    with pytest.raises(ConfigError, match="engine torch does not run the onnx bundle"):
        runtime.load(bundle, "torch")
    with pytest.raises(ConfigError, match=r"device 'tpu': this ONNX Runtime has .*cpu"):
        runtime.load(bundle, "onnxruntime", device="tpu")
    with pytest.raises(ConfigError, match="threads = -1"):
        runtime.load(bundle, threads=-1)
    monkeypatch.setattr("invad.runtime.engines.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"openvino is not installed; pip install 'invad\[openvino\]'"):
        runtime.load(bundle, "openvino")
    with pytest.raises(ConfigError, match="no engine for an onnx bundle is installed"):
        runtime.load(bundle)
