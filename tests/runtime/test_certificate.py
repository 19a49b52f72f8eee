"""A bundle is compared again with what PyTorch said."""

import json

import pytest

from invad import runtime
from invad.errors import ArtifactError
from invad.runtime.bundle import ExportInfo
from invad.runtime.certificate import certify
from invad.runtime.engines import Options, open_engine
from invad.system.plain import from_plain

pytest.importorskip("onnxscript", reason="exporting needs invad[onnx]")
pytest.importorskip("onnxruntime", reason="exporting needs invad[onnx]")


def test_verify_sees_a_changed_expectation(own_bundle):
    expected = own_bundle / "probes" / "expected.json"
    told = json.loads(expected.read_text())
    told["probes"][1]["score"] += 0.5
    expected.write_text(json.dumps(told))
    with pytest.raises(ArtifactError, match=r"expected\.json: altered or truncated"):
        runtime.load(own_bundle)
    found = certify(_unchecked(own_bundle), own_bundle)
    assert found.problems[0].startswith("probe tall_grey.png: score")
    assert not found.to_plain()["passed"]


def _unchecked(folder):
    """The detector of a bundle whose files were changed after writing."""
    plain = json.loads((folder / "bundle.json").read_text())
    del plain["files"], plain["content_hash"], plain["format_version"]
    info = from_plain(ExportInfo, plain, "bundle.json")
    return runtime.ExportedDetector(info, open_engine("auto", "onnx", folder / info.graph, Options()))
