"""The import rows of the package, and a few things that must never appear in it."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src"
PACKAGE = SRC / "invad"
ROWS = (  # a module imports only from rows above its own
    {"errors", "records", "observer"},
    {"system"},
    {"metrics", "data", "backbones", "diffusion", "scoring"},
    {"model", "runtime", "report"},
    {"fit", "graph"},
    {"detector"},
    {"evaluation", "export", "archive", "paper", "serve", "integrations"},
    {"cli"},
    {"__main__"},
)
ROW = {name: number for number, names in enumerate(ROWS) for name in names}
MODULES = sorted(PACKAGE.rglob("*.py"))
PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "shelve"}
each_module = pytest.mark.parametrize(
    "path", MODULES, ids=[path.relative_to(SRC).as_posix() for path in MODULES]
)


def imported(path: Path) -> set[str]:
    """Dotted names of everything that `path` imports, inside functions too; relative ones made absolute."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = path.relative_to(SRC).parts[: -node.level] if node.level else ()
            base = ".".join((*parents, *([node.module] if node.module else [])))
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def unit(path: Path) -> str:
    """The module or subpackage of invad that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def names_used(path: Path) -> set[str]:
    """Names and dotted `a.b` expressions in the code of `path`."""
    nodes = (
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name | ast.Attribute)
    )
    return {ast.unparse(node) for node in nodes}


@each_module
def test_modules_import_only_from_rows_above(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        return
    own = unit(path)
    assert own in ROW, f"{own} has no row; add it to ROWS"
    for name in sorted(imported(path)):
        top, *rest = name.split(".")
        if top != "invad" or rest[:1] == [own]:
            continue
        assert rest, "imports invad itself"
        assert rest[0] in ROW, f"imports {name}, which has no row"
        assert ROW[rest[0]] < ROW[own], f"{own} (row {ROW[own]}) imports {name} (row {ROW[rest[0]]})"


PACKAGES = sorted(path.parent for path in PACKAGE.glob("*/**/__init__.py"))


def stated_order(package: Path) -> list[str]:
    """The modules of a package in the order that its docstring states."""
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    stated = re.search(r"^Order of imports: (.*?)\.$", text, re.DOTALL | re.MULTILINE)
    assert stated, f"{package.name}: the first lines do not say 'Order of imports: a, b, c.'"
    return [name for name in re.split(r",\s+", stated[1]) if name]


@pytest.mark.parametrize("package", PACKAGES, ids=[p.relative_to(SRC).as_posix() for p in PACKAGES])
def test_modules_of_a_package_import_only_from_before_them(package: Path) -> None:
    order = stated_order(package)
    there = {p.stem for p in package.glob("*.py")} | {p.parent.name for p in package.glob("*/__init__.py")}
    assert set(order) == there - {"__init__"}
    base = ".".join(package.relative_to(SRC).parts)
    for path in package.rglob("*.py"):
        own = path.relative_to(package).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for name in imported(path):
            inside = name.removeprefix(f"{base}.").split(".")[0] if name.startswith(f"{base}.") else own
            if inside != own:
                assert inside in order, f"{path.name} imports {name} from the package itself"
                assert order.index(inside) < order.index(own), f"{path.name} imports {name}"


def test_few_names_at_the_top() -> None:
    names = {path.name for path in PACKAGE.iterdir()} - {"__pycache__"}
    assert len(names) <= 25


@each_module
def test_nothing_unwanted_in_a_module(path: Path) -> None:
    where, roots = path.relative_to(PACKAGE).as_posix(), {name.split(".")[0] for name in imported(path)}
    assert len(path.read_text().splitlines()) <= 400
    assert path.name not in ("utils.py", "util.py", "helpers.py")
    assert "print" not in names_used(path) or unit(path) == "cli"
    assert not roots & PICKLES
    loads = "torch.load" in names_used(path) | imported(path)
    assert not loads or where == "backbones/checkpoint.py"


LIGHT = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
before = set(sys.modules)
import invad
assert invad.__file__, "invad has no __init__.py"
files = {name: getattr(sys.modules[name], "__file__", None) or "" for name in set(sys.modules) - before}
heavy = [name for name, file in files.items() if "site-packages" in file]
own = [name for name in opened if name.startswith(sys.argv[1])]
print(sorted(heavy), [name for name in own if not name.endswith((".py", ".pyc"))])
"""


def test_import_is_light() -> None:
    """It loads nothing that is installed, so no extra slows it, and opens no file but its own sources."""
    environment = {**os.environ, "PYTHONPATH": str(SRC), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", LIGHT, str(PACKAGE)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[] []\n", "")


def test_the_help_is_light() -> None:
    """What it lists is imported when it is called; numpy and Pillow took a fourth of the time."""
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    said = "import sys, invad.cli.app; print(sorted({'numpy', 'PIL', 'torch', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", said], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_runtime_brings_what_its_modules_import() -> None:
    """At their tops; what functions import is asked for when it is used."""
    project = (SRC.parent / "runtime" / "pyproject.toml").read_text()
    listed = [
        SRC.parent / "runtime" / name for name in re.findall(r'^"(.+?)" = "invad/', project, re.MULTILINE)
    ]
    files = {one.resolve() for path in listed for one in (path.rglob("*.py") if path.is_dir() else [path])}
    full = {PACKAGE / "report" / name for name in ("page.py", "tables.py")}  # reports need the full install
    lacking = []
    for path in sorted(files - full):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("invad."):
                module = SRC / f"{node.module.replace('.', '/')}.py"
                if module.exists() and module not in files:
                    lacking.append(f"{path.relative_to(SRC)} imports {node.module}")
    assert lacking == []
