"""The verbs of the command line and what happens when one of them fails.

Exit status: 0 done, 1 the data, model or machine is at fault, 2 the command is, 3 `predict --fail-on`,
130 interrupted, by Ctrl-C or SIGTERM. Errors of invad itself keep their traceback.
"""

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from invad._version import __version__
from invad.cli.ablate import ablate
from invad.cli.bench import bench
from invad.cli.benchmark import benchmark, rescore
from invad.cli.calibrate import calibrate
from invad.cli.data import check, convert, list_sets
from invad.cli.data import verify as verify_set
from invad.cli.demo import demo
from invad.cli.distill import distill
from invad.cli.doctor import doctor
from invad.cli.evaluate import evaluate
from invad.cli.export import export, verify
from invad.cli.inspect import backbones, info
from invad.cli.predict import predict
from invad.cli.recipes import recipes
from invad.cli.reference import import_reference
from invad.cli.train import train
from invad.cli.voice import complain
from invad.errors import ConfigError, InvadError, reason
from invad.fit.launch import first_to_fail
from invad.waiting import sleep_in_this_process

FAILED, USAGE, INTERRUPTED = 1, 2, 130

FULL_INSTALL = ("torch", "torchvision", "timm", "safetensors", "scipy", "pydantic", "jinja2")
"""What the small runtime does without."""


class Verbs(TyperGroup):
    """Turns what a user can mend into one line and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        try:
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
        except KeyboardInterrupt:
            if first_to_fail():
                complain("interrupted")
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="First steps: 'invad demo --output demo', then 'invad train GOOD_IMAGES --output model' "
    "and 'invad predict model NEW_IMAGES'.",
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


app.command(epilog="Example: invad train good_parts --output model")(train)
app.command(epilog="Example: invad evaluate model parts --report report.html --json -")(evaluate)
app.command(epilog="Example: invad predict model incoming/ --output overlays --csv scores.csv --fail-on bad")(
    predict
)
app.command(epilog="Example: invad calibrate model fresh_good_images --false-alarm-rate 0.005")(calibrate)
app.command(epilog="Example: invad export model --format openvino --output bundle")(export)
app.command(epilog="Example: invad verify bundle --engine openvino")(verify)
app.command(epilog="Example: invad bench bundle --json rows.json")(bench)
app.command(epilog="Example: invad info model --json -")(info)
app.command(epilog="Example: invad backbones --match dinov2")(backbones)
app.command(epilog="Example: invad doctor")(doctor)
app.command(epilog="Example: invad demo --data my_images --output demo")(demo)
app.command(epilog="Example: invad distill --teacher resnet50 --images photographs --output my_backbone")(
    distill
)
app.command(epilog="Example: invad benchmark mvtec data/mvtec --setting unified --seeds 0,1,2 --output run")(
    benchmark
)
app.command(epilog="Example: invad rescore run --metrics exact,adeval")(rescore)
app.command(epilog="Example: invad recipes")(recipes)
app.command(epilog="Example: invad ablate steps parts --seeds 0,1,2 --output ablation")(ablate)
app.command("import-reference", epilog="Example: invad import-reference net.pth --heads 8 --output imported")(
    import_reference
)

data = typer.Typer(no_args_is_help=True, help="Look at data sets, check them, write them down as a list.")
data.command(epilog="Example: invad data check parts --sheet sheet.png")(check)
data.command("list", epilog="Example: invad data list --json -")(list_sets)
data.command("verify", epilog="Example: invad data verify visa VisA")(verify_set)
data.command(epilog="Example: invad data convert VisA --output meta.json")(convert)
app.add_typer(data, name="data")


def main() -> None:
    """Entry point of the `invad` command."""
    sleep_in_this_process()
    for stream in (sys.stdout, sys.stderr):
        # A file name that the terminal cannot show must not end a run, nor look like another.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="invad")
