"""Repositories of the Hugging Face hub: the real client, against a server of this machine."""

import json
import shutil
import threading
import time

import pytest

pytest.importorskip("huggingface_hub", reason="needs invad[hub]")
from huggingface_hub import ModelCard, ModelHubMixin, constants

from invad.detector.detector import Detector
from invad.errors import ArtifactError, ConfigError, DataError
from invad.integrations.hub import HubModel
from repositories import Repositories, server

NAME = "plant/disc"
RESULTS = {"data": "/home/somebody/parts", "categories": {"part": {"image_auroc": 0.98765, "pixel_ap": None}}}


@pytest.fixture
def hub(monkeypatch):
    """An empty hub, which the client takes for its own, and a token for it."""
    store = Repositories()
    serving = server(store)
    threading.Thread(target=serving.serve_forever, args=(0.05,), daemon=True).start()
    _ask(monkeypatch, f"http://127.0.0.1:{serving.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    yield store
    serving.shutdown()
    serving.server_close()


def _ask(monkeypatch, address):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def nobody(monkeypatch):
    """A hub that is not there."""
    _ask(monkeypatch, "http://127.0.0.1:9")


@pytest.fixture(scope="module")
def model(detector, tmp_path_factory):
    """A model folder. Not to be written to."""
    folder = tmp_path_factory.mktemp("hub") / "disc"
    detector.save(folder)
    (folder / "notes.txt").write_text("of the owner alone")
    return folder


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_what_was_sent_comes_back_and_decides_alike(hub, model, detector, draw, tmp_path):
    sent = HubModel(model).push_to_hub(NAME, model_card_kwargs={"results": RESULTS, "license": "cc-by-4.0"})
    assert set(hub.commits[NAME][sent.oid]) == {
        "README.md",
        "calibration.json",
        "config.json",
        "model.safetensors",
    }
    assert hub.private[NAME]
    fetched = HubModel.from_pretrained(NAME, cache_dir=tmp_path)
    assert isinstance(fetched, ModelHubMixin)
    assert (fetched.commit, fetched.subfolder) == (sent.oid, "")
    again = fetched.open(device="cpu")
    assert isinstance(again, Detector)
    assert again.content_hash == Detector.load(model).content_hash
    assert again.predict(draw(1)).score == detector.predict(draw(1)).score


def test_a_card_has_figures_licence_and_what_was_written_by_hand(model, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(model, own)
    text = (own / "README.md").read_text()
    (own / "README.md").write_text(
        text.replace("tags: [", "language: de\ntags: [lid, ") + "Hinweis: nur Linie 3.\n"
    )
    HubModel(own).save_pretrained(
        tmp_path / "saved",
        model_card_kwargs={"results": RESULTS, "license": "cc-by-nc-sa-4.0", "name": "disc"},
    )
    card = ModelCard.load(tmp_path / "saved" / "README.md")
    assert (card.data.library_name, card.data.license, card.data.language) == (
        "invad",
        "cc-by-nc-sa-4.0",
        "de",
    )
    assert {"anomaly-detection", "lid", "model_hub_mixin"} <= set(card.data.tags)
    assert card.data.pipeline_tag is None
    (row,) = card.data.eval_results
    assert (row.metric_type, row.metric_value, row.dataset_name) == ("image_auroc", 0.9877, "parts")
    assert "Hinweis: nur Linie 3." in card.text
    assert "/home/somebody" not in str(card)
    for name, content in contents(own).items():
        if name not in ("README.md", "notes.txt"):
            assert (tmp_path / "saved" / name).read_bytes() == content
    assert not (tmp_path / "saved" / "notes.txt").exists()
    # Figures of a later evaluation take the place of earlier ones.
    later = {"data": "parts", "categories": {"part": {"image_ap": 0.5}}}
    card = HubModel(tmp_path / "saved").generate_model_card(results=later)
    assert [row.metric_type for row in card.data.eval_results] == ["image_ap"]


def test_a_commit_pins_what_is_fetched(hub, model, tmp_path):
    first = HubModel(model).push_to_hub(NAME).oid
    changed = tmp_path / "changed"
    other = Detector.load(model)
    other.save(changed, card="# other\n")
    second = HubModel(changed).push_to_hub(NAME).oid
    assert first != second
    newest = HubModel.from_pretrained(NAME, cache_dir=tmp_path / "cache")
    pinned = HubModel.from_pretrained(NAME, revision=first, cache_dir=tmp_path / "cache")
    assert (newest.commit, pinned.commit) == (second, first)
    assert "# other" in (newest.folder / "README.md").read_text()
    assert "# Anomaly detector" in (pinned.folder / "README.md").read_text()
    # The branch is looked up once: a commit that comes between two files cannot mix them.
    assert [line for line in hub.asked if "/resolve/main/" in line and "config.json" not in line] == []


def test_without_a_network_the_cache_serves(hub, model, tmp_path, monkeypatch):
    commit = HubModel(model).push_to_hub(NAME).oid
    HubModel.from_pretrained(NAME, cache_dir=tmp_path)
    asked = len(hub.asked)
    for revision in (None, "main", commit):
        kept = HubModel.from_pretrained(NAME, revision=revision, cache_dir=tmp_path, local_files_only=True)
        assert kept.commit == commit
    assert len(hub.asked) == asked
    _ask(monkeypatch, "http://127.0.0.1:9")
    assert HubModel.from_pretrained(NAME, cache_dir=tmp_path).commit == commit
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert HubModel.from_pretrained(NAME, cache_dir=tmp_path).commit == commit
    with pytest.raises(ArtifactError, match=r"not in the local cache at v2, .* \(HF_HUB_OFFLINE is set\)"):
        HubModel.from_pretrained(NAME, revision="v2", cache_dir=tmp_path)
    with pytest.raises(
        ArtifactError, match=r"not sent, for the hub cannot be asked \(HF_HUB_OFFLINE is set\)"
    ):
        HubModel(model).push_to_hub(NAME)


def test_without_a_network_and_a_cache_one_line_says_so(nobody, model, tmp_path):
    """And soon: the client alone would try for most of a minute."""
    started = time.monotonic()
    said = r"plant/disc: not in the local cache, .* \(http://127.0.0.1:9 cannot be reached\); fetch it where"
    with pytest.raises(ArtifactError, match=said):
        HubModel.from_pretrained(NAME, cache_dir=tmp_path)
    with pytest.raises(ArtifactError, match=r"not sent, .* \(http://127.0.0.1:9 cannot be reached\)"):
        HubModel(model).push_to_hub(NAME)
    assert time.monotonic() - started < 20


def test_a_folder_never_asks_the_hub(nobody, model):
    assert HubModel.from_pretrained(model).folder == model
    assert HubModel.from_pretrained(str(model.parent), subfolder="disc").commit is None


def test_a_bundle_lies_below_the_model(hub, bundle, model, draw, tmp_path):
    HubModel(model).push_to_hub(NAME)
    sent = HubModel(bundle, subfolder="bundle-onnx").push_to_hub(NAME)
    tree = hub.commits[NAME][sent.oid]
    assert {"config.json", "bundle-onnx/bundle.json"} <= set(tree)
    # No settings of the mixin beside the list of the bundle's own files, and the card is that of the model.
    assert "bundle-onnx/config.json" not in tree
    assert "bundle-onnx/README.md" not in tree
    fetched = HubModel.from_pretrained(NAME, subfolder="bundle-onnx", cache_dir=tmp_path)
    assert fetched.commit == sent.oid
    own = {name: content for name, content in contents(bundle).items() if name in fetched.files}
    assert contents(fetched.folder) == own
    assert fetched.open().predict(draw(1)).decision in ("good", "review", "bad")


def test_a_bundle_of_its_own_gets_a_card(bundle, tmp_path):
    HubModel(bundle).save_pretrained(tmp_path / "saved")
    card = ModelCard.load(tmp_path / "saved" / "README.md")
    assert card.data.library_name == "invad"
    assert "invad-runtime[onnx,hub]" in card.text
    assert set(contents(tmp_path / "saved")) == {*HubModel(bundle).files, "README.md"}
    assert HubModel(tmp_path / "saved").files


def test_a_model_there_is_replaced_only_by_a_whole_one(model, bundle, tmp_path):
    saved = tmp_path / "saved"
    HubModel(model).save_pretrained(saved)
    before = contents(saved)
    broken = HubModel(model)
    broken.files = ("no-such-file", *broken.files)
    with pytest.raises(ArtifactError, match="cannot be written: No such file"):
        broken.save_pretrained(saved)
    with pytest.raises(DataError, match="have no figures by category"):
        HubModel(model).save_pretrained(saved, model_card_kwargs={"results": {}})
    odd = {"categories": {"gasket": {"image_auroc": "high"}}}
    with pytest.raises(DataError, match="hold a figure that is no number"):
        HubModel(model).save_pretrained(saved, model_card_kwargs={"results": odd})
    with pytest.raises(ArtifactError, match=r"holds config\.json, so it is not one to replace"):
        HubModel(bundle).save_pretrained(saved)
    with pytest.raises(ArtifactError, match="lies there already"):
        HubModel(saved).save_pretrained(saved)
    with pytest.raises(ConfigError, match=r"has its own config\.json"):
        HubModel(model).save_pretrained(saved, config={"a": 1})
    assert contents(saved) == before


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("plant/none", {}, ArtifactError, "plant/none: no such repository at http://127.0.0.1:"),
        (NAME, {"revision": "v2"}, ArtifactError, "plant/disc: has no revision 'v2'; give a branch"),
        (
            NAME,
            {"subfolder": "bundle"},
            ArtifactError,
            "plant/disc/bundle: the repository holds no invad model",
        ),
        (NAME, {"subfolder": "../up"}, ConfigError, "give one inside the repository"),
        ("no/such/folder", {}, ConfigError, "'no/such/folder': neither a folder here nor a name of the hub"),
        ("plant/other", {}, ArtifactError, "plant/other: its config.json is not that of an invad model"),
        ("plant/empty", {}, ArtifactError, "plant/empty: the repository holds no invad model"),
        ("plant/evil", {}, ArtifactError, r"names the file '\.\./\.\./\.\./stolen', which lies outside"),
    ],
)
def test_a_wrong_repository_is_named_in_one_line(name, options, error, message, hub, model, tmp_path):
    for repository, files in {
        "plant/other": {"config.json": b'{"architectures": ["Bert"]}'},
        "plant/empty": {"README.md": b"# nothing"},
        "plant/evil": {"config.json": json.dumps({"files": {"../../../stolen": "00"}}).encode()},
    }.items():
        hub.commits[repository] = {}
        hub.commit(repository, "main", files)
    HubModel(model).push_to_hub(NAME)
    with pytest.raises(error, match=message) as raised:
        HubModel.from_pretrained(name, cache_dir=tmp_path, **options)
    assert "\n" not in str(raised.value)


def test_without_a_token_that_may_write_the_refusal_is_told(hub, model, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_reads_only")
    with pytest.raises(
        ArtifactError, match=r"plant/disc: the hub refuses \(403\); 'hf auth login'"
    ) as raised:
        HubModel(model).push_to_hub(NAME)
    assert "\n" not in str(raised.value)


def test_files_that_were_changed_on_the_way_are_refused(hub, model, tmp_path):
    HubModel(model).push_to_hub(NAME)
    hub.commit(NAME, "main", {"calibration.json": b"{}"})
    with pytest.raises(ArtifactError, match=r"calibration\.json: altered or truncated"):
        HubModel.from_pretrained(NAME, cache_dir=tmp_path).open()


def test_a_folder_that_is_no_model_and_a_broken_card_are_told(model, tmp_path):
    with pytest.raises(ArtifactError, match=r"holds neither bundle\.json nor config\.json"):
        HubModel(tmp_path)
    own = tmp_path / "own"
    shutil.copytree(model, own)
    (own / "README.md").write_text("---\na: [\n---\n")
    with pytest.raises(DataError, match=r"README\.md: its head is no YAML") as raised:
        HubModel(own).generate_model_card()
    assert "\n" not in str(raised.value)
