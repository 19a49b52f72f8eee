"""Bundles whose files are not what was written."""

import pytest

from invad import runtime
from invad.errors import ArtifactError

pytest.importorskip("onnxscript", reason="exporting needs invad[onnx]")
pytest.importorskip("onnxruntime", reason="exporting needs invad[onnx]")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda b: (b / "model.onnx").write_bytes((b / "model.onnx").read_bytes()[:5000]), "model.onnx: alt"),
        (lambda b: (b / "model.onnx").unlink(), "model.onnx: is missing"),
        (lambda b: (b / "bundle.json").unlink(), "bundle.json is missing"),
        (lambda b: (b / "bundle.json").write_text("{"), "bundle.json: unreadable"),
        (
            lambda b: (b / "bundle.json").write_text(
                (b / "bundle.json").read_text().replace('"format_version": 2', '"format_version": 9')
            ),
            "bundle format 9",
        ),
        (
            lambda b: (b / "bundle.json").write_text((b / "bundle.json").read_text().replace("0.01", "0.02")),
            "bundle.json: altered",
        ),
    ],
)
def test_a_damaged_bundle_is_refused(own_bundle, spoil, words):
    spoil(own_bundle)
    with pytest.raises(ArtifactError) as caught:
        runtime.load(own_bundle)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
