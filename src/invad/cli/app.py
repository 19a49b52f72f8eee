"""The verbs of the command line and what happens when one of them fails.

Exit status: 0 done, 1 the data, model or machine is at fault, 2 the command is, 3 `predict --fail-on`,
130 interrupted. Errors of invad itself keep their traceback.
"""

import errno
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from invad._version import __version__
from invad.cli.bench import bench
from invad.cli.calibrate import calibrate
from invad.cli.demo import demo
from invad.cli.distill import distill
from invad.cli.doctor import doctor
from invad.cli.evaluate import evaluate
from invad.cli.export import export, verify
from invad.cli.inspect import backbones, info
from invad.cli.predict import predict
from invad.cli.reference import import_reference
from invad.cli.train import train
from invad.cli.voice import complain
from invad.errors import ConfigError, InvadError

FAILED, USAGE, INTERRUPTED = 1, 2, 130

FULL_OR_FORBIDDEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
"""What the machine, not the program, is to blame for."""

FULL_INSTALL = ("torch", "torchvision", "timm", "safetensors", "scipy", "pydantic", "jinja2")
"""What the small runtime does without."""


class Verbs(TyperGroup):
    """Turns what a user can mend into one line and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except InvadError as error:
            complain(str(error))
            raise typer.Exit(USAGE if isinstance(error, ConfigError) else FAILED) from None
        except OSError as error:
            if error.errno not in FULL_OR_FORBIDDEN:
                raise
            complain(f"{error.filename or 'writing'}: {error.strerror}; free space or choose another folder")
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
app.command("import-reference", epilog="Example: invad import-reference net.pth --heads 8 --output imported")(
    import_reference
)


def main() -> None:
    """Entry point of the `invad` command."""
    for stream in (sys.stdout, sys.stderr):
        # A file name that the terminal cannot show must not end a run.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    app(prog_name="invad")
