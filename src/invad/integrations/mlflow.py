"""MLflow: an exported bundle as a model of its registry, without pickle and without PyTorch.

The model is code that MLflow runs again ("models from code") and the folder of the bundle beside it.
"""

import base64
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from invad.errors import ArtifactError, DataError, in_one_line
from invad.fit.tracking import MLflow
from invad.runtime import load
from invad.runtime.bundle import read_bundle
from invad.runtime.engines import fitting_engines
from invad.system.packages import importing, using
from invad.system.version import __version__

HOST = ("mlflow-skinny", "pandas")

with importing(HOST, "mlflow", __name__):
    import pandas as pd
    from mlflow import active_run, pyfunc
    from mlflow.exceptions import MlflowException
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import PythonModel  # type: ignore[attr-defined,unused-ignore]
    from mlflow.types.schema import ColSpec, DataType, ParamSchema, ParamSpec, Schema

CODE = """\
from mlflow.models import set_model

from invad.integrations.mlflow import BundleModel

set_model(BundleModel())
"""
"""What MLflow keeps in place of a pickle."""

ENGINES = {"onnx": "onnx", "openvino": "openvino", "torch": ""}
"""Extra of invad-runtime by the format of a bundle."""


class BundleModel(PythonModel):  # type: ignore[misc,unused-ignore]
    """The artifact `bundle`, and `engine` of the model's configuration (see `invad.runtime.load`)."""

    def load_context(self, context: Any) -> None:
        """Raises ArtifactError for a bundle that is damaged."""
        configured = getattr(context, "model_config", None) or {}
        self.detector = load(context.artifacts["bundle"], configured.get("engine", "auto"))

    # Without types: MLflow would take them for the signature, which `log_model` gives.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """A DataFrame of `score`, `p_value`, `decision` and `error`, a row for each of the column `image`.

        image: encoded bytes. params: `category`. What cannot be read has an error and no decision.
        """
        category = (params or {}).get("category") or None
        images = [_bytes(one) for one in model_input["image"]]
        found = self.detector.predict_many(images, category=category)
        rows = [
            (None, None, None, str(one))
            if isinstance(one, DataError)
            else (one.score, one.p_value, one.decision, None)
            for one in found
        ]
        return pd.DataFrame(rows, columns=["score", "p_value", "decision", "error"]).astype(
            {"score": float, "p_value": float}
        )


def _bytes(image: Any) -> bytes:
    return base64.b64decode(image) if isinstance(image, str) else bytes(image)


with using(HOST, __name__):
    SIGNATURE = ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, "image")]),
        outputs=Schema(
            [
                ColSpec(DataType.double, "score", required=False),
                ColSpec(DataType.double, "p_value", required=False),
                ColSpec(DataType.string, "decision", required=False),
                ColSpec(DataType.string, "error", required=False),
            ]
        ),
        params=ParamSchema([ParamSpec("category", DataType.string, "")]),
    )


def log_model(
    bundle: str | Path,
    name: str = "invad",
    *,
    engine: str = "auto",
    requirements: Sequence[str] | None = None,
    registered_model_name: str | None = None,
) -> Any:
    """Log an exported bundle and return MLflow's ModelInfo.

    The bundle is checked first. It goes to the active run or, without one, to a run of its own in the
    experiment `invad`, beside those of `invad train --track mlflow`. engine: what `load_model` will run it
    with. requirements: packages to serve it with, by default invad-runtime of this version with the engine of
    the bundle, never PyTorch. Raises ArtifactError for a folder that is no whole bundle and where MLflow
    takes nothing, ConfigError for an engine that cannot run it and where MLflow has changed.
    """
    folder = Path(bundle)
    info, content = read_bundle(folder)
    fitting_engines(engine, info.format, folder)
    extra = ENGINES[info.format]
    default = [f"invad-runtime{extra and f'[{extra}]'}=={__version__}", *([] if extra else ["torch"])]
    facts = {"content_hash": content, "format": info.format, "precision": info.precision}
    facts |= {"preset": info.preset, "backbone": info.backbone}
    with _taken(folder), _in_a_run(folder.name, facts), tempfile.TemporaryDirectory() as place:
        code = Path(place) / "invad_model.py"
        code.write_text(CODE, encoding="utf-8")
        with using(HOST, __name__):
            return pyfunc.log_model(
                name=name,
                python_model=str(code),
                artifacts={"bundle": str(folder.absolute())},
                model_config={"engine": engine},
                signature=SIGNATURE,
                pip_requirements=list(requirements or default),
                metadata={"invad_content_hash": content},
                registered_model_name=registered_model_name,
            )


@contextmanager
def _taken(folder: Path) -> Iterator[None]:
    """What MLflow refuses, or a server that is not there, as one line."""
    try:
        yield
    except MlflowException as error:
        said = in_one_line(error, most=300)
        raise ArtifactError(
            f"{folder}: MLflow does not take it ({said}); check MLFLOW_TRACKING_URI"
        ) from error


@contextmanager
def _in_a_run(name: str, facts: dict[str, str]) -> Iterator[None]:
    """The active run, or one of its own, which ends as failed where something fails."""
    if active_run() is not None:
        yield
        return
    run = MLflow(name, facts)
    failed = True
    try:
        yield
        failed = False
    finally:
        run.close(failed)
