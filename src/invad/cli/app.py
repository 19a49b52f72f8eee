"""The verbs of the command line and what happens when one of them fails.

Exit status: 0 done, 1 the data, model or machine is at fault, 2 the command is, 3 `predict --fail-on`,
130 interrupted, by Ctrl-C or SIGTERM. Errors of invad itself keep their traceback.
"""

import inspect
import os
import re
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from invad.cli import kept, labels, models, users, versions
from invad.cli import serve as serving
from invad.cli.ablate import ablate
from invad.cli.backbones import distill, list_backbones
from invad.cli.bench import bench
from invad.cli.benchmark import rescore, run
from invad.cli.calibrate import calibrate
from invad.cli.compare import compare
from invad.cli.data import check, convert, list_sets
from invad.cli.data import verify as verify_set
from invad.cli.demo import demo
from invad.cli.doctor import doctor
from invad.cli.drift import drift
from invad.cli.evaluate import evaluate
from invad.cli.export import export, verify
from invad.cli.former import FormerVerb, refuse_moved
from invad.cli.info import info
from invad.cli.options import spare_inputs
from invad.cli.outputs import outputs
from invad.cli.predict import predict
from invad.cli.progress import ending_when_interrupted
from invad.cli.recipes import recipes
from invad.cli.reference import import_reference
from invad.cli.roi import draw
from invad.cli.train import train
from invad.cli.voice import complain
from invad.errors import ConfigError, InvadError, reason
from invad.fit.launch import first_to_fail
from invad.system.version import __version__
from invad.system.waiting import sleep_in_this_process

FAILED, USAGE = 1, 2

FULL_INSTALL = ("torch", "torchvision", "timm", "safetensors", "scipy", "jinja2")
"""What the small runtime does without."""


class Verbs(TyperGroup):
    """Turns what a user can mend into one line and an exit status."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        refuse_moved(args[0])
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            with ending_when_interrupted(lambda: "interrupted"):
                return super().invoke(ctx)
        except InvadError as error:
            if first_to_fail():
                complain(str(error))
            raise typer.Exit(USAGE if isinstance(error, ConfigError) else FAILED) from None
        except BrokenPipeError:  # whoever read standard output has what it wanted
            raise typer.Exit(FAILED) from None
        except OSError as error:
            if first_to_fail():
                where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
                complain(f"{where}{reason(error)}")
            raise typer.Exit(FAILED) from None
        except ModuleNotFoundError as error:
            if error.name not in FULL_INSTALL and not str(error.name).startswith("invad."):
                raise
            complain(
                f"this needs {error.name}, which is not installed; 'pip install invad' brings all of it, the "
                "runtime alone predicts with exported bundles"
            )
            raise typer.Exit(FAILED) from None


class Verb(TyperCommand):
    """A command that does not write over what it reads."""

    def invoke(self, ctx: Any) -> Any:
        spare_inputs(ctx)
        return super().invoke(ctx)


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="First steps: 'invad demo --output demo', then 'invad train GOOD_IMAGES --output model' "
    "and 'invad predict model NEW_IMAGES'. 'invad --install-completion' lets the shell complete verbs, "
    "options and names.",
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"invad {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Find what is not normal in images, by diffusion inversion. It learns from good images only."""


COMMANDS, GROUPS = "Commands, in the order of use", "Groups of commands"


def _add(group: typer.Typer, verb: Callable[..., None], example: str, name: str | None = None) -> None:
    # Lines of a docstring end where the source file's do, which is not where a terminal's do.
    told = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(verb.__doc__ or ""))
    panel = COMMANDS if group is app else None
    group.command(name, cls=Verb, help=told, epilog=f"Example: invad {example}", rich_help_panel=panel)(verb)


_add(app, demo, "demo --data my_images --output demo")
_add(app, train, "train good_parts --output model")
_add(app, evaluate, "evaluate model parts --report report.html --json -")
_add(app, predict, "predict model incoming/ --output overlays --csv scores.csv --fail-on bad")
_add(app, calibrate, "calibrate model fresh_good_images --false-alarm-rate 0.005")
_add(app, compare, "compare before.csv after.csv --report beside.html")
_add(app, drift, "drift scores.csv --model model --csv series.csv")
_add(app, export, "export model --format openvino --output bundle")
_add(app, verify, "verify bundle --engine openvino")
_add(app, bench, "bench bundle --json rows.json")
_add(app, info, "info model --json -")
_add(app, doctor, "doctor")

data = typer.Typer(no_args_is_help=True, help="Look at data sets, check them, write them down as a list.")
app.add_typer(data, name="data", rich_help_panel=GROUPS)
_add(data, check, "data check parts --sheet sheet.png")
_add(data, list_sets, "data list --json -", "list")
_add(data, verify_set, "data verify visa VisA", "verify")
_add(data, convert, "data convert VisA --output meta.json")

of_labels = typer.Typer(
    no_args_is_help=True, help="Exchange masks with tools where people mark defects: Label Studio, COCO."
)
app.add_typer(of_labels, name="labels", rich_help_panel=GROUPS)
_add(of_labels, labels.to_coco, "labels to-coco maps --output coco.json")
_add(of_labels, labels.from_coco, "labels from-coco coco.json --images parts --output labelled")
_add(of_labels, labels.to_label_studio, "labels to-label-studio maps --output tasks.json --images parts")
_add(
    of_labels,
    labels.from_label_studio,
    "labels from-label-studio export.json --images parts --output labelled",
)

benchmark = typer.Typer(
    cls=FormerVerb, no_args_is_help=True, help="Measure a preset on a whole data set, as papers do."
)
app.add_typer(benchmark, name="benchmark", rich_help_panel=GROUPS)
_add(benchmark, run, "benchmark run mvtec data/mvtec --setting unified --seeds 0,1,2 --output run")
_add(benchmark, rescore, "benchmark rescore run --metrics exact,adeval")

roi = typer.Typer(no_args_is_help=True, help="Say which part of the pictures counts: regions of interest.")
app.add_typer(roi, name="roi", rich_help_panel=GROUPS)
_add(roi, draw, "roi draw part.png --to region.html")

serve = typer.Typer(
    cls=serving.Serving,
    no_args_is_help=True,
    help="Stand beside the line: 'invad serve MODEL --data DIR' inspects parts over HTTP and keeps every "
    "result.",
)
app.add_typer(serve, name="serve", rich_help_panel=GROUPS)
_add(serve, serving.run, "serve run model --data line --port 8000")
_add(serve, serving.backup, "serve backup --data line --output copy")
_add(serve, serving.restore, "serve restore copy --data line")
_add(serve, serving.init, "serve init --example")
_add(serve, serving.schema, "serve schema")
_add(serve, serving.check, "serve check line.toml --data line")
_add(serve, outputs, "serve outputs --data line")
_add(serve, kept.verdicts, "serve verdicts --data line --output judged")
_add(serve, kept.key, "serve key --data line --scopes infer,read")
user = typer.Typer(no_args_is_help=True, help="People who use the page, and what each may do.")
serve.add_typer(user, name="user")
_add(user, users.add, "serve user add anna --role reviewer --data line")
_add(user, users.show, "serve user list --data line", "list")
_add(user, users.remove, "serve user remove anna --data line")
_add(user, users.password, "serve user password anna --data line")
of_versions = typer.Typer(
    no_args_is_help=True,
    help="Models of a running service: upload one, let it shadow, compare, switch, roll back.",
)
serve.add_typer(of_versions, name="versions")
_add(of_versions, versions.listed, "serve versions list", "list")
_add(of_versions, versions.add, "serve versions add bundle --name widget")
_add(of_versions, versions.shadow, "serve versions shadow 3f9c02")
_add(of_versions, versions.compare, "serve versions compare")
_add(of_versions, versions.activate, "serve versions activate 3f9c02")
_add(of_versions, versions.rollback, "serve versions rollback --reason 'too many alarms'")
_add(of_versions, versions.retire, "serve versions retire 3f9c02")

of_models = typer.Typer(no_args_is_help=True, help="Models by name, from an index that somebody keeps.")
app.add_typer(of_models, name="models", rich_help_panel=GROUPS)
_add(of_models, models.listed, "models list https://host/models/index.json", "list")
_add(of_models, models.pull, "models pull https://host/models/index.json gasket --output gasket")
_add(of_models, models.index, "models index gasket washer --output index.json")

paper = typer.Typer(no_args_is_help=True, help="Repeat the paper: its experiments, ablations, checkpoints.")
app.add_typer(paper, name="paper", rich_help_panel=GROUPS)
_add(paper, recipes, "paper recipes")
_add(paper, ablate, "paper ablate steps parts --seeds 0,1,2 --output ablation")
_add(paper, import_reference, "paper import net.pth --heads 8 --output imported", "import")

backbones = typer.Typer(cls=FormerVerb, help="List feature networks, or make a small one of a large one.")
app.add_typer(backbones, name="backbones", rich_help_panel=GROUPS)
_add(backbones, list_backbones, "backbones list --match dinov2", "list")
_add(backbones, distill, "backbones distill --teacher resnet50 --images photographs --output my_backbone")


def main() -> None:
    """Entry point of the `invad` command."""
    sleep_in_this_process()
    for stream in (sys.stdout, sys.stderr):
        # A file name that the terminal cannot show must not end a run, nor look like another.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="invad")
