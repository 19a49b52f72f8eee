"""What scripts rely on: verbs, options, exit status of usage errors, and that help is quick."""

import re
import subprocess
import sys

import pytest
from typer.main import get_command

from invad.cli.app import app
from invad.cli.options import split_names
from invad.cli.voice import Voice
from invad.system.version import __version__

SURFACE = {
    "demo": "--output --data --layout --steps --seed --device --serve --json",
    "train": "DATA --output --preset --steps --seed --resume --categories --review-rate --false-alarm-rate "
    "--device --json --layout --split --group-by --roi --parts --fusion --strict --sizes --moved "
    "--smallest-defect --tile --positions --scale --backbone --weights --cache --batch --accumulate "
    "--precision --checkpointing --track --deterministic",
    "evaluate": "MODEL DATA --protocol --report --csv --categories --pooled --device --json --layout --split "
    "--strict --parts --defects --scale --homography --min-area",
    "predict": "MODEL PATH --output --csv --category --fail-on --engine --device --json --strict --parts "
    "--every --events --batch --workers --threads --maps --report --defects --scale --homography "
    "--min-area --server --station",
    "calibrate": "MODEL NORMALS --false-alarm-rate --review-rate --roi --min-area --layout --split "
    "--group-by --parts --strict --device --output --json",
    "compare": "A B --report --csv --json --same-parts",
    "drift": "RESULTS --model --category --reference --evidence --floor --every --csv --json",
    "export": "MODEL --output --format --precision --json --size --batch --calibration --max-changed "
    "--layout --bits",
    "verify": "BUNDLE --engine --threads --device --json",
    "bench": "MODEL --engine --size --threads --seconds --device --json",
    "info": "MODEL --json",
    "doctor": "--json",
    "data check": "ROOT --layout --split --sheet --json",
    "data list": "--json",
    "data verify": "NAME ROOT --json",
    "data convert": "ROOT --output --to --layout --split --json",
    "labels to-coco": "MAPS --output --images --results --json",
    "labels from-coco": "FILE --images --output --category --json",
    "labels to-label-studio": "MAPS --output --images --url --shape --json",
    "labels from-label-studio": "FILE --images --output --category --json",
    "benchmark run": "DATASET ROOT --setting --categories --preset --seeds --steps --metrics --output "
    "--keep-models --device --json --split --strict --backbone --weights",
    "benchmark rescore": "PREDICTIONS --metrics --output --json",
    "roi draw": "IMAGE --to --roi",
    "serve run": "MODEL|LINE.toml --data --port --host --no-auth --stateless --model-name --key-file "
    "--engine --device --queue --batch --streams --threads --database --pictures --keep-good "
    "--keep-flagged --keep-rows --audit-share --notice-every --reserve "
    "--max-body --webhook --prefix --tls-certificate --tls-key",
    "serve backup": "--data --output --pictures --json",
    "serve restore": "BACKUP --data --pictures --json",
    "serve init": "--example",
    "serve schema": "",
    "serve check": "LINE.toml --data --database --pictures --json",
    "serve outputs": "--data --discard --database --json",
    "serve verdicts": "--data --output --station --database --pictures --json",
    "serve key": "--data --scopes --stations --name --database --json",
    "serve user add": "NAME --data --role --database",
    "serve user list": "--data --database --json",
    "serve user remove": "NAME --data --database",
    "serve user password": "NAME --data --database",
    "serve versions list": "--server --json",
    "serve versions add": "MODEL --name --server --json",
    "serve versions shadow": "VERSION --station --server --json",
    "serve versions compare": "--station --server --json",
    "serve versions activate": "VERSION --station --reason --server --json",
    "serve versions rollback": "--station --reason --server --json",
    "serve versions retire": "VERSION --reason --server --json",
    "models list": "INDEX --json",
    "models pull": "INDEX NAME --output --json",
    "models index": "MODEL --output --json",
    "paper recipes": "--json",
    "paper ablate": "STUDY ROOT --preset --values --seeds --categories --steps --pixels --output "
    "--precision --device --json",
    "paper import": "FILE --output --heads --normals --backbone --weights --device --review-rate "
    "--false-alarm-rate --json",
    "backbones list": "--match --json",
    "backbones distill": "--teacher --images --output --weights --start --pools --pool-size --seed --json",
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
    own = [option for p in get_command(app).params for option in p.opts]
    assert own == ["--version", "--install-completion", "--show-completion"]


def test_help_shows_the_verbs_in_the_order_of_use_and_then_the_groups(run):
    shown = re.findall(r"^│ (\w+) {2,}", run("--help").stdout.partition("Commands")[2], re.MULTILINE)
    assert shown == [name for name in SURFACE if " " not in name] + [
        "data",
        "labels",
        "benchmark",
        "roi",
        "serve",
        "models",
        "paper",
        "backbones",
    ]
    assert list(VERBS) == list(SURFACE)


def test_help_begins_with_at_most_ten_options():
    first = {
        name: [p for p in verb.params if p.param_type_name == "option" and p.rich_help_panel is None]
        for name, verb in VERBS.items()
    }
    assert [name for name, options in first.items() if len(options) > 10] == []
    assert len(first["train"]) == 10


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rescore run --metrics exact", "invad benchmark rescore"),
        ("recipes", "invad paper recipes"),
        ("ablate steps parts", "invad paper ablate"),
        ("import-reference net.pth --help", "invad paper import"),
        ("distill --teacher resnet50", "invad backbones distill"),
        ("backbones", "invad backbones list"),
        ("backbones --match dinov2", "invad backbones list --match"),
        ("benchmark mvtec data/mvtec", "invad benchmark run mvtec"),
        ("benchmark --seeds 0,1 visa VisA", "invad benchmark run --seeds"),
    ],
)
def test_a_verb_that_moved_is_one_line_with_its_new_name(old, new, run):
    result = run(*old.split())
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert f"write: {new}" in result.stderr


def test_a_slip_in_a_group_is_no_verb_that_moved(run):
    assert "Did you mean 'rescore'?" in run("benchmark", "rescor", "run").stderr


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
    code = "import sys, invad.cli; print(sorted({'torch', 'timm', 'scipy', 'jinja2'} & set(sys.modules)))"
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
