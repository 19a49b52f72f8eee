"""A table with one row per image, as CSV or Parquet: read and written.

| column | meaning |
|---|---|
| image_path | absolute, or relative to the folder of the table; the only column that must be there |
| split | train, test or another name that can be chosen with `split`; without the column, see `manifest` |
| label | good (or normal, ok, 0, false, empty) or the kind of defect; or `label_index` with 0 and 1 |
| mask_path | as image_path; empty when there is none |
| category | default: the name of the folder of the table |
| sample_id | the object of which this is one view; empty when each image is an object |
| mask_above | level above which a pixel of the mask is defective; empty: see `read_mask` |
"""

import csv
import difflib
import io
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from invad.data.layouts.base import GOOD_NAMES, Dataset, Split, category_name, held_out, sorted_out
from invad.data.lists import Named, Row, arrow, composed, table_rows
from invad.errors import ConfigError, DataError
from invad.records import GOOD, Sample
from invad.system.files import write_atomically

TEST = "test"
COLUMNS = ("image_path", "split", "label", "mask_path", "category", "sample_id", "mask_above")
SUFFIXES = (".csv", ".parquet")
NAMES = tuple(f"manifest{suffix}" for suffix in SUFFIXES)
FLAGS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
"""Whether an image is defective: a column with an empty cell has become one of decimals, or is of truths."""
DEFECT = "defect"


def manifest(root: Path, split: str | None = None) -> Split:
    """A table, or a folder with manifest.csv or manifest.parquet; rows keep their order.

    split: the name of the rows to test on. Rows of other names than this and "train" are not read, which is
    noted. Raises DataError where some rows have a split and others have none.
    Without the column, a fifth of the good images is held out for testing if there are defects, by their
    hashed paths; else all are for training. Columns of other names are not read.
    """
    path = table_of(root)
    if path is None:
        raise DataError(f"{root}: has no {' or '.join(NAMES)}; give the table itself")
    default, files = category_name(path.parent), Named(path.parent)
    listed: list[tuple[str, Sample | DataError]] = []
    without = 0
    with closing(
        table_rows(path, lambda columns: _wanted(path, columns))
    ) as rows:  # closed when a row is refused
        for line, row in rows:
            part = row["split"].strip().casefold() if "split" in row else ""
            without = without or (0 if part else line)
            try:
                listed.append((part, _sample(row, files, default)))
            except DataError as error:
                listed.append((part, DataError(f"{path}: line {line} {error}")))
    parts = {part for part, _ in listed}
    wanted = (split or TEST).casefold()
    if split is not None and wanted not in parts:
        splits = ", ".join(sorted(parts - {""})) or "none: leave the option away"
        raise ConfigError(f"{path}: has no split {split}; choose from {splits}")
    if parts == {""}:
        return sorted_out(_split([sample for _, sample in listed], path.parent), wanted)
    if "" in parts:
        raise DataError(f"{path}: line {without} has no split, as others do; give train, {TEST} or another")
    others = Counter(part for part, _ in listed if part not in ("train", wanted))
    if listed and others.total() == len(listed):
        splits = ", ".join(others)
        raise DataError(f"{path}: no row is of the split train or {wanted}, all are {splits}; rename them")
    return sorted_out(listed, wanted)._replace(notes=tuple(_unread(path, others)))


def _unread(path: Path, others: Mapping[str, int]) -> Iterator[str]:
    for part, number in others.items():
        rows = "1 row is" if number == 1 else f"{number} rows are"
        yield f"{path}: {rows} of the split {part} and not taken; '--split {part}' tests on them"


def _split(listed: list[Sample | DataError], base: Path) -> list[tuple[str, Sample | DataError]]:
    if wrong := [one for one in listed if isinstance(one, DataError)]:
        raise wrong[0]  # who knows whether it would be trained on
    samples = [one for one in listed if isinstance(one, Sample)]
    good = [sample.path for sample in samples if not sample.is_anomalous]
    kept_back = held_out(good, base) if len(good) < len(samples) else frozenset()
    return [(TEST if s.is_anomalous or s.path in kept_back else "train", s) for s in samples]


def is_manifest(root: Path) -> bool:
    return table_of(root) is not None


def table_of(root: Path) -> Path | None:
    if root.is_file():
        return root if root.suffix.lower() in SUFFIXES else None
    return next((root / name for name in NAMES if (root / name).is_file()), None)


def write_manifest(dataset: Dataset, path: str | Path) -> Path:
    """Write a set as a table; `.parquet` by the ending, else CSV. Paths below the folder of the file are
    relative to it, others absolute. Raises DataError when it cannot be written."""
    listed = [("train", s) for s in (*dataset.train, *dataset.left_out)] + [("test", s) for s in dataset.test]
    return _write(listed, Path(path))


def write_samples(samples: Iterable[Sample], path: str | Path) -> Path:
    """As `write_manifest`, of samples that belong to no part of a set yet: readers split them, see
    `manifest`."""
    return _write([("", sample) for sample in samples], Path(path))


def _write(listed: Iterable[tuple[str, Sample]], path: Path) -> Path:
    rows = [
        {
            "image_path": relative(sample.path, path.parent),
            "split": part,
            "label": sample.defect,
            "mask_path": relative(sample.mask_path, path.parent) if sample.mask_path else "",
            "category": sample.category,
            "sample_id": sample.sample_id or "",
            "mask_above": "" if sample.mask_above is None else str(sample.mask_above),
        }
        for part, sample in listed
    ]
    return write_atomically(path, _parquet(rows) if path.suffix.lower() == ".parquet" else _csv(rows))


def relative(path: Path, base: Path) -> str:
    """Path below `base` with slashes, or absolute when it is elsewhere."""
    path, base = path.absolute(), base.absolute()
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.as_posix()


def _csv(rows: Iterable[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _parquet(rows: list[Row]) -> bytes:
    pa = arrow()
    buffer = io.BytesIO()
    columns = {name: pa.array([row[name] for row in rows], pa.string()) for name in COLUMNS}
    pa.parquet.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def _wanted(path: Path, names: Sequence[str]) -> Collection[str]:
    """The columns that are read. Raises DataError when one is missing or seems misspelt."""
    for name in names:
        close = difflib.get_close_matches(name.casefold(), COLUMNS, n=1, cutoff=0.85)
        if name not in COLUMNS and close and close[0] not in names:
            raise DataError(f"{path}: column {name!r} is unknown; is {close[0]} meant? rename it")
    if "image_path" not in names:
        raise DataError(f"{path}: has no column image_path; its columns are {', '.join(names) or 'none'}")
    return (*COLUMNS, "label_index")


def _sample(row: Row, files: Named, default: str) -> Sample:
    """Raises DataError that says what the line has or lacks."""
    image = row["image_path"].strip()
    if not image:
        raise DataError("has no image_path")
    mask, above = row.get("mask_path", "").strip(), row.get("mask_above", "").strip()
    if above and not above.isdigit():
        raise DataError(f"has mask_above {above!r}; give a whole number")
    return Sample(
        path=files.path(image),
        category=composed(row.get("category", "").strip()) or default,
        defect=_defect(row),
        mask_path=files.path(mask) if mask else None,
        mask_above=int(above) if above else None,
        sample_id=row.get("sample_id", "").strip() or None,
    )


def _defect(row: Row) -> str:
    label, index = row.get("label", "").strip(), row.get("label_index", "").strip()
    flag = FLAGS.get(index.casefold())
    if index and flag is None:
        raise DataError(f"has label_index {index!r}; give 0 for good or 1 for defective")
    said = FLAGS.get(label.casefold(), label.casefold() not in GOOD_NAMES) if label else flag
    if label and flag not in (None, said):
        raise DataError(f"has label {label!r} and label_index {index}; make them agree")
    return GOOD if not said else DEFECT if label.casefold() in ("", *FLAGS) else label
