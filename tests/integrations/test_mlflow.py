"""A bundle in MLflow's registry, and back: no pickle, no PyTorch, the same scores."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from invad import __version__, runtime
from invad.errors import ArtifactError, ConfigError
from invad.fit.tracking import tracking

mlflow = pytest.importorskip("mlflow", reason="needs invad[mlflow]")
pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning:mlflow", "ignore::UserWarning:mlflow", "ignore::DeprecationWarning"
)
SRC = Path(runtime.__file__).parents[2]


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    yield tmp_path
    mlflow.set_tracking_uri(before)


@pytest.fixture
def pictures(write_parts, tmp_path):
    samples = write_parts(tmp_path / "pictures", 2) + write_parts(
        tmp_path / "pictures", 1, first=9, defect=True
    )
    return [sample.path for sample in samples]


BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "timm", "torchvision"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
import mlflow, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
frame = pandas.DataFrame({"image": [open(path, "rb").read() for path in sys.argv[2:]] + [b"no image"]})
print(model.predict(frame, params={"category": "part"}).to_json(orient="records"))
"""


def test_a_bundle_is_logged_and_runs_without_torch(bundle, store, pictures):
    from invad.integrations.mlflow import log_model

    logged = log_model(bundle, requirements=["invad-runtime"])
    place = Path(mlflow.artifacts.download_artifacts(logged.model_uri))
    files = [path for path in place.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".joblib")]
    environment = {**os.environ, "PYTHONPATH": str(SRC), "MLFLOW_ALLOW_FILE_STORE": "true"}
    command = [sys.executable, "-c", BLOCKED, str(place), *map(str, pictures)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=store)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])
    expected = runtime.load(bundle).predict(pictures, category="part")
    assert [row["score"] for row in rows[:3]] == pytest.approx([one.score for one in expected])
    assert [row["decision"] for row in rows[:3]] == [one.decision for one in expected]
    assert (rows[3]["score"], rows[3]["decision"]) == (None, None)
    assert rows[3]["error"]


def test_the_run_lies_beside_those_of_trainings(bundle, store):
    from invad.integrations.mlflow import log_model

    with tracking(store / "t.jsonl", ["mlflow"], "training", {}):
        pass
    log_model(bundle, requirements=["invad-runtime"])
    client = mlflow.MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("invad").experiment_id])
    assert {run.info.run_name for run in runs} == {"training", bundle.name}
    assert {run.info.status for run in runs} == {"FINISHED"}
    own = next(run for run in runs if run.info.run_name == bundle.name)
    assert own.data.params["content_hash"] == runtime.load(bundle).content_hash


def test_it_goes_to_the_active_run(bundle, store):
    from invad.integrations.mlflow import log_model

    mlflow.set_experiment("of somebody")
    with mlflow.start_run() as run:
        logged = log_model(bundle, requirements=["invad-runtime"])
    assert logged.run_id == run.info.run_id


def test_the_requirements_are_the_runtime_and_its_engine(bundle, store):
    from invad.integrations.mlflow import log_model

    logged = log_model(bundle)
    place = Path(mlflow.artifacts.download_artifacts(logged.model_uri))
    said = (place / "requirements.txt").read_text().split()
    assert f"invad-runtime[onnx]=={__version__}" in said
    assert not [line for line in said if line.startswith("torch")]


def test_a_damaged_bundle_is_not_logged(own_bundle, store):
    from invad.integrations.mlflow import log_model

    (own_bundle / "model.onnx").write_bytes(b"")
    with pytest.raises(ArtifactError, match="altered or truncated"):
        log_model(own_bundle)
    assert not (store / "mlruns").exists() or not list((store / "mlruns").rglob("MLmodel"))


def test_what_cannot_be_logged_is_one_line(bundle, store, monkeypatch):
    """An engine that cannot run it, and a server that is not there."""
    from invad.integrations.mlflow import log_model

    with pytest.raises(ConfigError, match="engine 'abacus' is unknown; choose one of auto, onnxruntime"):
        log_model(bundle, engine="abacus")
    with pytest.raises(ConfigError, match="engine torch does not run the onnx bundle"):
        log_model(bundle, engine="torch")
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    with pytest.raises(
        ConfigError, match=r"server http://127\.0\.0\.1:9 cannot be reached; check MLFLOW_TRACKING"
    ):
        log_model(bundle)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("invad.fit.tracking.is_reachable", lambda address: True)  # and is lost a moment later
    with pytest.raises(
        ArtifactError, match=r"MLflow does not take it \(.*; check MLFLOW_TRACKING_URI$"
    ) as raised:
        log_model(bundle)
    assert "\n" not in str(raised.value)
