"""Which images belong together, as a person says it: one part, one patient, one burst or one lot."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from invad.data.layouts.manifest import table_of
from invad.data.lists import Named, table_rows
from invad.errors import ConfigError, DataError
from invad.records import Sample

FOLDER, COLUMN = "folder", "column:"


def grouped(samples: Sequence[Sample], by: str, root: Path) -> tuple[Sample, ...]:
    """The samples with their `group`.

    by: `folder`, the folder that an image lies in; `column:NAME`, a column of the table that `root` is or
    holds; else a regular expression, searched in the path below `root` with slashes, of which the first
    group in parentheses, or the whole match, is the name. Raises ConfigError for an expression that is none
    or a table without the column, DataError naming the first image that has no group.
    """
    if by == FOLDER:
        names = [sample.path.parent.as_posix() for sample in samples]
    elif by.startswith(COLUMN):
        names = _from_table(samples, by.removeprefix(COLUMN), root)
    else:
        names = _matched(samples, by, root)
    return tuple(replace(sample, group=name) for sample, name in zip(samples, names, strict=True))


def _matched(samples: Sequence[Sample], by: str, root: Path) -> list[str]:
    try:
        pattern = re.compile(by)
    except re.error as error:
        raise ConfigError(
            f"--group-by {by!r}: no regular expression ({error}); give one, folder or column:NAME"
        ) from None
    names = []
    for sample in samples:
        path, base = sample.path.absolute(), root.absolute()
        shown = (path.relative_to(base) if path.is_relative_to(base) else path).as_posix()
        found = pattern.search(shown)
        name = found and (found.group(1) if pattern.groups else found.group())
        if not name:
            raise DataError(f"{sample.path}: --group-by {by!r} finds nothing in {shown!r}; change it")
        names.append(name)
    return names


def _from_table(samples: Sequence[Sample], column: str, root: Path) -> list[str]:
    table = table_of(root)
    if table is None:
        raise ConfigError(f"--group-by {COLUMN}{column}: {root} is no table and holds none; give a manifest")
    files = Named(table.parent)

    def choose(names: Sequence[str]) -> tuple[str, str]:
        if column not in names:
            raise ConfigError(f"{table}: has no column {column}; its columns are {', '.join(names)}")
        return "image_path", column

    of = {files.path(row["image_path"].strip()): row[column].strip() for _, row in table_rows(table, choose)}
    if missing := next((s for s in samples if not of.get(s.path)), None):
        raise DataError(f"{table}: column {column} is empty for {missing.path}; fill it in")
    return [of[sample.path] for sample in samples]
