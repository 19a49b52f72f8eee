"""Shell completion: bash itself asks, with the script that --show-completion prints."""

import shutil
import subprocess
import sys

import pytest

from invad.cli import options

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.fixture(scope="module")
def complete(environment, tmp_path_factory):
    """complete("invad tr") as bash completes it: the words it offers. In its folder is `part_one.png`."""
    folder = tmp_path_factory.mktemp("shell")
    (folder / "part_one.png").touch()
    command = folder / "bin" / "invad"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m invad "$@"\n')
    command.chmod(0o755)
    variables = environment(folder, _INVAD_COMPLETE="source_bash")
    variables["PATH"] = f"{command.parent}:{variables['PATH']}"
    script = subprocess.run(["invad"], env=variables, capture_output=True, text=True, check=True).stdout
    del variables["_INVAD_COMPLETE"]
    asks = (
        'COMP_WORDS=($1); [ "${1: -1}" = " " ] && COMP_WORDS+=("")\n'
        "COMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n"
        "read -r _ _ default _ function _ < <(complete -p invad)\n"
        '"$function" invad; printf "%s\\n" "${COMPREPLY[@]}"\n'
        '[ ${#COMPREPLY[@]} -gt 0 ] || compgen -o "$default" -- "${COMP_WORDS[COMP_CWORD]}"\n'
    )

    def call(line):
        done = subprocess.run(
            ["bash", "--norc", "-c", f"{script}\n{asks}", "bash", line],
            env=variables,
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert done.stderr == ""
        return done.stdout.split()

    return call


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("invad tra", ["train"]),
        ("invad benchmark ", ["run", "rescore"]),
        ("invad train parts --check", ["--checkpointing"]),
        ("invad train parts --preset ", list(options.PRESET_NAMES)),
        ("invad benchmark rescore run --metrics exact,ad", ["exact,adeval", "exact,ader200"]),
        ("invad predict model part", ["part_one.png"]),
    ],
)
def test_bash_completes(line, offered, complete):
    assert complete(line) == offered


def test_what_is_offered_is_what_there_is():
    from invad.backbones.registry import SUGGESTED
    from invad.data.datasets import DATASETS
    from invad.data.known import KNOWN
    from invad.evaluation.definitions import DEFINITIONS
    from invad.export import FORMATS, PRECISIONS
    from invad.fit.tracking import TRACKERS
    from invad.fit.training import PRECISIONS as TRAINING_PRECISIONS
    from invad.model.settings import PRESETS
    from invad.paper.ablation.studies import STUDIES
    from invad.runtime.engines import AUTO, ENGINES

    tables = {
        options.PRESET_NAMES: PRESETS,
        options.BACKBONES: SUGGESTED,
        options.LAYOUTS: ("auto", *DATASETS),
        options.KNOWN_SETS: KNOWN,
        options.DEFINITIONS: DEFINITIONS,
        options.STUDIES: STUDIES,
        options.TRACKERS: TRACKERS,
        options.ENGINES: (AUTO, *ENGINES),
        options.FORMATS: FORMATS,
        options.PRECISIONS: PRECISIONS,
        options.TRAINING_PRECISIONS: TRAINING_PRECISIONS,
    }
    assert [names for names, table in tables.items() if names != tuple(table)] == []
