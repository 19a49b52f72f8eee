"""Models and exported bundles in repositories of the Hugging Face hub.

What is sent and fetched are the files that a model or bundle names itself, safetensors, graphs and JSON,
each with its SHA-256, which is checked when it is opened. Nothing is pickled, and torch is loaded for models
alone.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from invad.detector.opening import AUTO, open_detector
from invad.errors import ArtifactError, ConfigError, DataError, in_one_line
from invad.runtime.bundle import BUNDLE, is_bundle, named_files, read_bundle
from invad.runtime.predictor import Predictor
from invad.system.files import is_folder, take_place, writing
from invad.system.network import is_reachable
from invad.system.packages import importing, using
from invad.system.plain import read_json

HOST = ("huggingface-hub",)

with importing(HOST, "hub", __name__):
    from huggingface_hub import EvalResult, ModelCard, ModelCardData, ModelHubMixin, constants
    from huggingface_hub import errors as told
    from huggingface_hub import hf_hub_download as fetch
    from yaml import YAMLError

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

CONFIG, CARD = "config.json", "README.md"

UNANSWERED: tuple[Any, ...] = told.HfHubHTTPError.__bases__
"""What the client raises when a server refuses or is not reached: errors of its own HTTP library, OSError."""

REFUSED = (401, 403)

METRICS = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1max": "image F1-max",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_f1max": "pixel F1-max",
    "pixel_aupro": "AUPRO to a false-positive rate of 0.3",
    "false_alarm_rate": "false-alarm rate",
}
"""Figures of `invad evaluate --json` that a card shows, and their names there."""


BUNDLE_CARD = """\
---
library_name: invad
---
# Exported anomaly detector (invad)

Learned from normal images only, by diffusion inversion (arXiv 2504.05662). Format `{form}`, {precision},
images of {size}; preset `{preset}`, backbone `{backbone}`, licence of the backbone: {licence}. Made by invad
{version} on {created}, content {content}. It runs without PyTorch (`invad-runtime[{extra},hub]`):

```python
from invad.integrations.hub import HubModel

model = HubModel.from_pretrained("this/repository")
print(model.open().predict("part.png"))
```
"""


class HubModel(
    ModelHubMixin,
    library_name="invad",
    tags=["anomaly-detection", "diffusion", "ddim-inversion"],
    paper_url="https://arxiv.org/abs/2504.05662",
):
    """A trained model, or an exported bundle, as it is kept in a folder and in repositories of the hub.

    folder: where it lies here. subfolder: where it lies in the repository; "" for its root, which can hold a
    model while `bundle-openvino` holds what was exported from it. commit: of the repository that it was
    fetched from, 40 hexadecimal digits; None for a folder.
    Raises ArtifactError for a folder that holds neither, ConfigError for a subfolder outside.
    """

    def __init__(self, folder: str | Path, subfolder: str = "", commit: str | None = None):
        self.folder = Path(folder)
        self.subfolder = _inside(subfolder)
        self.commit = commit
        self.files = tuple(named_files(self.folder))

    def open(
        self, engine: str = AUTO, *, device: str | None = None, threads: int | None = None
    ) -> "Predictor":
        """The detector, ready for `predict`: of a bundle without torch, unless that is its engine.

        Raises ArtifactError for damaged files, ConfigError for an engine that cannot run it.
        """
        return open_detector(self.folder, engine, device, threads)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        subfolder: str = "",
        local_files_only: bool = False,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        token: str | bool | None = None,
    ) -> "HubModel":
        """What a repository, or a folder of this machine, holds.

        revision: a branch, a tag, or a commit, which alone pins what will be fetched; by default the newest
        of `main`. All files are those of one commit. local_files_only: use the cache alone, as with
        HF_HUB_OFFLINE=1. A folder never touches the network.
        Raises ArtifactError when there is no such repository, revision or model in it, when the hub does not
        answer and the cache has not got it; ConfigError for a name that none can have.
        """
        folder = Path(pretrained_model_name_or_path)
        place = _inside(subfolder)
        if is_folder(folder):
            return cls(folder / place, place)
        name = str(pretrained_model_name_or_path)
        options: dict[str, Any] = {
            # The client would try again for most of a minute before it looks into its cache.
            "local_files_only": local_files_only or not _can_be_asked(),
            "cache_dir": cache_dir,
            "force_download": force_download,
            "token": token,
            "library_name": "invad",
        }
        with _in_one_line(name, revision):
            head = _head(name, place, revision, options)
            _require_own(name, head)
            commit = head.parents[len(PurePosixPath(place).parts)].name
            for file in named_files(head.parent):
                if file != head.name:
                    fetch(name, str(PurePosixPath(place, file)), revision=commit, **options)
            with suppress(told.EntryNotFoundError):
                fetch(name, str(PurePosixPath(place, CARD)), revision=commit, **options)
        return cls(head.parent, place, commit)

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | Path,
        *,
        config: None = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: Mapping[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> "CommitInfo | None":
        """Copy the files to a folder, below it in `subfolder`, with a card; a model there is replaced.

        model_card_kwargs: see `generate_model_card`. repo_id, push_to_hub, push_to_hub_kwargs: to send it,
        too. Raises ArtifactError for a folder that cannot be written or is the one it lies in, ConfigError
        for a config, because a model writes its own.
        """
        if config is not None:
            raise ConfigError("config: a model has its own config.json; leave it out")
        card_settings = dict(model_card_kwargs or {})
        self._copy_to(Path(save_directory) / self.subfolder, card_settings)
        if not push_to_hub:
            return None
        name = repo_id or Path(save_directory).resolve().name
        return self.push_to_hub(name, model_card_kwargs=card_settings, **push_to_hub_kwargs)

    def push_to_hub(self, repo_id: str, *, private: bool | None = True, **settings: Any) -> "CommitInfo":
        """Send it to a repository, which is made if need be; returns the commit.

        private: of a repository that is made; None for what the hub has as default. settings: those of
        `ModelHubMixin.push_to_hub`, such as token, branch, commit_message and model_card_kwargs. A README.md
        of the repository's root is replaced; ignore_patterns="README.md" leaves it.
        Raises ArtifactError when the hub refuses or cannot be reached, ConfigError for an impossible name.
        """
        if not _can_be_asked():
            raise ArtifactError(f"{repo_id}: not sent, for the hub cannot be asked{_why()}")
        with _in_one_line(repo_id, settings.get("branch")):
            return cast("CommitInfo", super().push_to_hub(repo_id, private=private, **settings))

    def generate_model_card(
        self,
        *,
        results: str | Path | Mapping[str, Any] | None = None,
        dataset: str | None = None,
        license: str | None = None,
        name: str | None = None,
    ) -> ModelCard:
        """The README.md of the folder, or of a bundle one made here, with what the hub reads at its head.

        results: what `invad evaluate --json FILE` wrote, or its content; its figures go into `model-index`.
        dataset: the name of the set they were measured on, by default that of its folder. license: an
        identifier of the hub, such as `apache-2.0`; by default none is claimed. name: of the model, by
        default that of its folder. Raises DataError for other results.
        """
        try:
            card = ModelCard(self._card())
        except (ValueError, OSError, YAMLError) as error:
            why = in_one_line(error)
            raise DataError(
                f"{self.folder / CARD}: its head is no YAML ({why}); mend it or delete the file"
            ) from None
        own = self._hub_mixin_info.model_card_data
        data: dict[str, Any] = card.data.to_dict()  # type: ignore[no-untyped-call]
        data |= {"library_name": own.library_name}
        data["tags"] = sorted({*(data.get("tags") or ()), *(own.tags or ())})
        if license is not None:
            data["license"] = license
        if results is not None:
            data.pop("model-index", None)
            found = results if isinstance(results, Mapping) else read_json(Path(results), DataError, "")
            data["model_name"] = name or self.folder.resolve().name
            data["eval_results"] = _eval_results(found, dataset)
        with using(HOST, __name__):
            card.data = ModelCardData(**data)
        return card

    def _card(self) -> str:
        if CARD in self.files:
            return (self.folder / CARD).read_text(encoding="utf-8")
        info, content = read_bundle(self.folder)
        return BUNDLE_CARD.format(
            form=info.format,
            precision=info.precision,
            size="any size" if info.size_hw is None else f"{info.size_hw[1]} x {info.size_hw[0]} pixels",
            preset=info.preset,
            backbone=info.backbone,
            licence=info.backbone_licence,
            version=info.invad_version,
            created=info.created,
            content=content[:16],
            extra="openvino" if info.format == "openvino" else "onnx",
        )

    def _copy_to(self, target: Path, card_settings: dict[str, Any]) -> None:
        if target.resolve() == self.folder.resolve():
            raise ArtifactError(f"{target}: it lies there already; give another folder")
        head = BUNDLE if is_bundle(self.folder) else CONFIG
        other = {BUNDLE: CONFIG, CONFIG: BUNDLE}[head]
        if (target / other).exists():
            raise ArtifactError(f"{target}: holds {other}, so it is not one to replace; give another folder")
        # The card is that of the repository, whose root a bundle below it does not speak for.
        card = None if self.subfolder else str(self.generate_model_card(**card_settings))
        with writing(target, ArtifactError):
            target.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=".partial-", dir=target))
            try:
                for name in self.files:
                    (staging / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(self.folder / name, staging / name)
                if card is not None:
                    (staging / CARD).write_text(card, encoding="utf-8")
                (target / head).unlink(missing_ok=True)
                for name in dict.fromkeys([*self.files[:-1], *([CARD] if card else []), head]):
                    (target / name).parent.mkdir(parents=True, exist_ok=True)
                    take_place(staging / name, target / name)
            finally:
                shutil.rmtree(staging, ignore_errors=True)


def _inside(subfolder: str) -> str:
    """The subfolder with slashes, relative. Raises ConfigError for one that lies outside."""
    path = PurePosixPath(subfolder.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in subfolder:
        raise ConfigError(f"subfolder {subfolder!r}: give one inside the repository, such as bundle-openvino")
    return "" if str(path) == "." else str(path)


def _head(name: str, place: str, revision: str | None, options: Mapping[str, Any]) -> Path:
    """The file that names the others: of a model, else of a bundle."""
    try:
        return Path(fetch(name, str(PurePosixPath(place, CONFIG)), revision=revision, **options))
    except told.EntryNotFoundError as no_model:
        try:
            return Path(fetch(name, str(PurePosixPath(place, BUNDLE)), revision=revision, **options))
        except told.LocalEntryNotFoundError:
            raise
        except told.EntryNotFoundError:
            where = f"{name}/{place}" if place else name
            raise ArtifactError(
                f"{where}: the repository holds no invad model there, neither {CONFIG} nor {BUNDLE}; "
                "check its name, the revision and the subfolder"
            ) from no_model


def _require_own(name: str, head: Path) -> None:
    """Other libraries have a config.json, too."""
    plain = read_json(head, ArtifactError, "")
    if not isinstance(plain.get("files"), dict):
        raise ArtifactError(f"{name}: its {head.name} is not that of an invad model; check the name")


def _eval_results(found: Mapping[str, Any], dataset: str | None) -> list[EvalResult]:
    """A row for each category and figure that there is."""
    categories = found.get("categories")
    if not isinstance(categories, Mapping) or not all(
        isinstance(row, Mapping) for row in categories.values()
    ):
        raise DataError("results: have no figures by category; give what 'invad evaluate --json FILE' wrote")
    figures = [row.get(key) for row in categories.values() for key in METRICS]
    if not all(figure is None or isinstance(figure, int | float) for figure in figures):
        raise DataError(
            "results: hold a figure that is no number; give what 'invad evaluate --json FILE' wrote"
        )
    of = dataset or Path(str(found.get("data") or "own images")).name
    return [
        EvalResult(
            task_type="anomaly-detection",
            dataset_type=of,
            dataset_name=of if len(categories) == 1 else f"{of}, {category}",
            dataset_split="test",
            metric_type=key,
            metric_name=METRICS[key],
            metric_value=round(row[key], 4),
        )
        for category, row in categories.items()
        for key in METRICS
        if row.get(key) is not None
    ]


def _can_be_asked() -> bool:
    return not constants.HF_HUB_OFFLINE and is_reachable(constants.ENDPOINT)


@contextmanager
def _in_one_line(name: str, revision: str | None) -> Iterator[None]:
    """What the hub or its client says, as one line that says what to do."""
    try:
        with using(HOST, __name__):
            yield
    except told.GatedRepoError:
        why = "its owner gives it to those who ask: do so on its page, then 'hf auth login'"
        raise ArtifactError(f"{name}: {why}") from None
    except told.RepositoryNotFoundError:
        raise ArtifactError(
            f"{name}: no such repository at {constants.ENDPOINT}, or one that you may not see; check the "
            "name, or 'hf auth login'"
        ) from None
    except told.RevisionNotFoundError:
        raise ArtifactError(
            f"{name}: has no revision {revision!r}; give a branch, a tag or a commit"
        ) from None
    except told.HFValidationError:
        raise ConfigError(
            f"{name!r}: neither a folder here nor a name of the hub; give a folder, or owner/name"
        ) from None
    except told.LocalEntryNotFoundError:
        of = f" at {revision}" if revision else ""
        raise ArtifactError(
            f"{name}: not in the local cache{of}, and the hub was not asked{_why()}; fetch it where there is "
            "a network and copy the cache, or give a folder"
        ) from None
    except UNANSWERED as error:
        answer = getattr(error, "response", None)
        if answer is not None and answer.status_code in REFUSED:
            raise ArtifactError(
                f"{name}: the hub refuses ({answer.status_code}); 'hf auth login' with a token that may"
            ) from None
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ArtifactError(f"{name}: {first}") from None


def _why() -> str:
    if constants.HF_HUB_OFFLINE:
        return " (HF_HUB_OFFLINE is set)"
    return "" if is_reachable(constants.ENDPOINT) else f" ({constants.ENDPOINT} cannot be reached)"
