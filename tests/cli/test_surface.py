"""What scripts rely on: verbs, options, exit status of usage errors, and that help is quick."""

import subprocess
import sys

import pytest
from typer.main import get_command

from invad._version import __version__
from invad.cli.app import app
from invad.cli.options import split_names
from invad.cli.voice import Voice

SURFACE = {
    "train": "DATA --output --preset --backbone --weights --steps --seed --resume --categories --layout "
    "--split --strict --device --batch --accumulate --precision --checkpointing --cache --track "
    "--review-rate --false-alarm-rate --deterministic --json",
    "evaluate": "MODEL DATA --protocol --report --categories --layout --split --pooled --strict "
    "--device --json",
    "predict": "MODEL PATH --output --csv --category --fail-on --strict --batch --workers --engine --threads "
    "--device --json",
    "calibrate": "MODEL NORMALS --false-alarm-rate --review-rate --layout --split --strict --device --json",
    "export": "MODEL --output --format --precision --size --batch --calibration --max-changed --json",
    "verify": "BUNDLE --engine --threads --device --json",
    "info": "MODEL --json",
    "bench": "MODEL --engine --size --threads --seconds --device --json",
    "backbones": "--match --json",
    "doctor": "--json",
    "demo": "--output --data --layout --steps --seed --device --json",
    "distill": "--teacher --images --output --weights --start --pools --pool-size --seed --json",
    "benchmark": "DATASET ROOT --setting --categories --split --preset --backbone --weights --seeds --steps "
    "--metrics --output --keep-models --strict --device --json",
    "rescore": "PREDICTIONS --metrics --output --json",
    "recipes": "--json",
    "ablate": "STUDY ROOT --preset --values --seeds --categories --steps --pixels --output --device --json",
    "import-reference": "FILE --output --heads --normals --backbone --weights --device --review-rate "
    "--false-alarm-rate --json",
    "data check": "ROOT --layout --split --sheet --json",
    "data list": "--json",
    "data verify": "NAME ROOT --json",
    "data convert": "ROOT --output --to --layout --split --json",
}


def verbs(group, before=""):
    """Every command by its full name."""
    found = {}
    for name, command in group.commands.items():
        inside = getattr(command, "commands", None)
        found.update(verbs(command, f"{before}{name} ") if inside else {before + name: command})
    return found


VERBS = verbs(get_command(app))


def test_verbs_and_options_are_the_frozen_ones():
    found = {
        name: " ".join(p.opts[0] if p.opts[0].startswith("-") else str(p.metavar) for p in verb.params)
        for name, verb in VERBS.items()
    }
    assert found == SURFACE
    assert [option for p in get_command(app).params for option in p.opts] == ["--version"]


@pytest.mark.parametrize("verb", SURFACE)
def test_every_verb_explains_itself_with_an_example(verb, run):
    result = run(*verb.split(), "--help")
    assert result.exit_code == 0
    assert f"Example: invad {verb}" in " ".join(result.stdout.split())
    assert all(p.help for p in VERBS[verb].params)


def test_the_example_lines_are_commands_the_parser_takes():
    for name, verb in VERBS.items():
        assert verb.epilog.startswith(f"Example: invad {name}")
        words = verb.epilog.removeprefix(f"Example: invad {name}").split()
        required = {p.name for p in verb.params if p.required}
        given = verb.make_parser(verb.make_context(name, [], resilient_parsing=True)).parse_args(words)[0]
        assert required <= {key for key, value in given.items() if value not in (None, ())}, verb.epilog


def test_version(run):
    assert run("--version").stdout == f"invad {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["train"],
        ["fly"],
        ["train", "data", "--output", "out", "--stepz", "3"],
        ["train", "data", "--output", "out", "--steps", "0"],
        ["evaluate", "model", "data", "--protocol", "best"],
        ["predict", "model", "image", "--fail-on", "never"],
        ["info", "model", "--json", "/no/such/folder/x.json"],
        ["predict", "model", "image", "--csv", "/no/such/folder/x.csv"],
    ],
    ids=" ".join,
)
def test_usage_errors_have_status_2(arguments, run):
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "best"], "preset 'best' is unknown; choose one of standard"),
        (["--backbone", "no_such_net"], "backbone 'no_such_net' is unknown to timm"),
        (["--false-alarm-rate", "0"], "bad false-alarm rate = 0.0"),
        (["--false-alarm-rate", "0.2"], "bad rate 0.2 > review rate 0.05"),
        (["--device", "quantum"], "device 'quantum' cannot be used here"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_impossible_options_have_status_2_and_leave_nothing(arguments, words, run, parts, tmp_path, one_line):
    result = run("train", parts, "--output", tmp_path / "a" / "b", *arguments)
    assert result.exit_code == 2
    assert words in one_line(result)
    assert list(tmp_path.iterdir()) == []


def test_help_waits_for_no_heavy_library():
    code = "import sys, invad.cli; print(sorted({'torch', 'timm', 'scipy', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_names_are_split_at_commas():
    assert split_names("a, b c,") == ("a", "b c")
    assert split_names(None) is None


def test_words_keep_brackets_and_undecodable_names(capsys):
    Voice().say("part[1] :bug: \udcff.png")
    assert capsys.readouterr().out == "part[1] :bug: \\xff.png\n"


def test_a_table_is_aligned(capsys):
    Voice().table([("a", "long", "x"), ("bcd", "e", "")])
    assert capsys.readouterr().out == "a    long  x\nbcd  e\n"
