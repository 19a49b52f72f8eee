"""The public data sets that invad reads: what they hold, their licence, where to get them.

Nothing is downloaded: most may not be used commercially, and several ask for a form.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from invad.data.check import count
from invad.data.datasets import ALIASES
from invad.data.layouts.base import Dataset
from invad.errors import ConfigError

NON_COMMERCIAL = "CC BY-NC-SA 4.0 (not for commercial use)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Published numbers of images; test counts good and defective ones. None: not published."""

    train: int
    test: int
    defective: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownSet:
    """layout: key of DATASETS. categories: name -> numbers, None where only the total is published.

    has_split: whether the publisher splits the good images; else `total` counts all of them as training.
    """

    title: str
    layout: str
    licence: str
    source: str
    tree: str
    categories: dict[str, Count | None]
    total: Count
    has_split: bool = True


def verify(name: str, dataset: Dataset) -> list[str]:
    """What differs from the published numbers, one line each. Raises ConfigError for an unknown name."""
    if name not in KNOWN:
        raise ConfigError(f"data set {name!r} is unknown; choose one of {', '.join(KNOWN)}")
    known, counts = KNOWN[name], count(dataset)
    lines = []
    if dataset.layout != known.layout:
        lines.append(f"{dataset.root}: has layout {dataset.layout}, {known.title} has {known.layout}")
    lines += [f"category {c} is missing" for c in known.categories if c not in counts]
    lines += [f"category {c} is none of {known.title}" for c in counts if c not in known.categories]
    lines += [problem.line for problem in dataset.problems]
    for category, expected in known.categories.items():
        if category in counts and expected is not None:
            lines += _compared(category, _counted([counts[category]]), expected)
    if not lines:
        all_found = _counted(list(counts.values()))
        if not known.has_split:
            bad = all_found.defective or 0
            all_found = Count(train=all_found.train + all_found.test - bad, test=bad, defective=bad)
        lines += _compared("all categories", all_found, known.total)
    return lines


def recognised(layout: str, categories: Iterable[str]) -> tuple[str, dict[str, str]] | None:
    """The set that holds all of `categories`, and the set's name of each; None without one, or with two.

    layout: as it was asked for; "auto" fits every set. A folder of one category may be named after both, such
    as mvtec_bottle, and may then have been brought into another layout.
    """
    names = tuple(categories)
    found = []
    for key, known in KNOWN.items():
        fits = ALIASES.get(layout, layout) in ("auto", known.layout)
        own = {name: name.removeprefix(f"{key}_") for name in names if fits or name.startswith(f"{key}_")}
        if names and len(own) == len(names) and known.categories.keys() >= set(own.values()):
            found.append((key, own))
    return found[0] if len(found) == 1 else None


def _counted(rows: list[dict[str, int]]) -> Count:
    good, bad = (sum(row[key] for row in rows) for key in ("test_good", "test_defective"))
    return Count(train=sum(row["train"] for row in rows), test=good + bad, defective=bad)


def _compared(what: str, actual: Count, expected: Count) -> list[str]:
    pairs = [("training", actual.train, expected.train), ("test", actual.test, expected.test)]
    if expected.defective is not None:
        pairs.append(("defective test", actual.defective or 0, expected.defective))
    return [
        f"{what}: {has} {kind} images, published are {should}" for kind, has, should in pairs if has != should
    ]


def _table(text: str) -> dict[str, Count | None]:
    """Rows of `name train good defective`."""
    rows = (line.split() for line in text.strip().splitlines())
    return {
        name: Count(train=int(train), test=int(good) + int(bad), defective=int(bad))
        for name, train, good, bad in rows
    }


def _total(categories: dict[str, Count | None]) -> Count:
    counts = [c for c in categories.values() if c is not None]
    known = [c.defective for c in counts if c.defective is not None]
    return Count(
        train=sum(c.train for c in counts),
        test=sum(c.test for c in counts),
        defective=sum(known) if len(known) == len(counts) else None,
    )


_MVTEC = _table("""
bottle 209 20 63
cable 224 58 92
capsule 219 23 109
carpet 280 28 89
grid 264 21 57
hazelnut 391 40 70
leather 245 32 92
metal_nut 220 22 93
pill 267 26 141
screw 320 41 119
tile 230 33 84
toothbrush 60 12 30
transistor 213 60 40
wood 247 19 60
zipper 240 32 119
""")
_VISA = _table("""
candle 900 100 100
capsules 542 60 100
cashew 450 50 100
chewinggum 453 50 100
fryum 450 50 100
macaroni1 900 100 100
macaroni2 900 100 100
pcb1 904 100 100
pcb2 901 100 100
pcb3 905 101 100
pcb4 904 101 100
pipe_fryum 450 50 100
""")
_MPDD = _table("""
bracket_black 289 32 47
bracket_brown 185 26 51
bracket_white 110 30 30
connector 128 30 14
metal_plate 54 26 71
tubes 122 32 69
""")
_BTAD = _table("""
01 400 21 49
02 399 30 200
03 1000 400 41
""")
_BMAD: dict[str, Count | None] = {
    "brain": Count(train=7500, test=3715),
    "liver": Count(train=1542, test=1493),
    "resc": Count(train=4297, test=1805),
    "oct2017": Count(train=26315, test=968),
    "chest": Count(train=8000, test=17194),
    "camelyon16": Count(train=5088, test=1997),
}
_REAL_IAD = (
    "audiojack bottle_cap button_battery end_cap eraser fire_hood mint mounts pcb phone_battery plastic_nut "
    "plastic_plug porcelain_doll regulator rolled_strip_base sim_card_set switch tape terminalblock "
    "toothbrush toy toy_brick transistor1 u_block usb usb_adaptor vcpill wooden_beads woodstick zipper"
)

KNOWN: dict[str, KnownSet] = {
    "mvtec": KnownSet(
        title="MVTec AD",
        layout="mvtec",
        licence=NON_COMMERCIAL,
        source="https://www.mvtec.com/company/research/datasets/mvtec-ad",
        tree="CATEGORY/{train/good,test/{good,DEFECT},ground_truth/DEFECT}",
        categories=_MVTEC,
        total=_total(_MVTEC),
    ),
    "visa": KnownSet(
        title="VisA",
        layout="visa",
        licence="CC BY 4.0",
        source="https://github.com/amazon-science/spot-diff",
        tree="split_csv/1cls.csv, CATEGORY/Data/{Images/{Normal,Anomaly},Masks/Anomaly}",
        categories=_VISA,
        total=_total(_VISA),
    ),
    "mpdd": KnownSet(
        title="MPDD",
        layout="mpdd",
        licence=NON_COMMERCIAL,
        source="https://github.com/stepanje/MPDD",
        tree="CATEGORY/{train/good,test/{good,DEFECT},ground_truth/DEFECT}",
        categories=_MPDD,
        total=_total(_MPDD),
    ),
    "btad": KnownSet(
        title="BTAD",
        layout="btad",
        licence=NON_COMMERCIAL,
        source="https://avires.dimi.uniud.it/papers/btad/btad.zip",
        tree="BTech_Dataset_transformed/{01,02,03}/{train/ok,test/{ok,ko},ground_truth/ko}",
        categories=_BTAD,
        total=_total(_BTAD),
    ),
    "real_iad": KnownSet(
        title="Real-IAD",
        layout="real_iad",
        licence=NON_COMMERCIAL,
        source="https://realiad4ad.github.io/Real-IAD (form to fill in)",
        tree="realiad_1024/CATEGORY/{OK,NG/DEFECT}/Sxxxx, realiad_jsons/realiad_jsons/CATEGORY.json",
        categories=dict.fromkeys(_REAL_IAD.split()),
        total=Count(train=36465, test=114585, defective=51329),
    ),
    "bmad": KnownSet(
        title="BMAD",
        layout="bmad",
        licence="that of each source, see the project page",
        source="https://github.com/DorisBao/BMAD",
        tree="SET/{train/good,valid|val,test/{good,Ungood}}, labels in label or anomaly_mask",
        categories=_BMAD,
        total=_total(_BMAD),
    ),
    "kolektor_sdd": KnownSet(
        title="KolektorSDD",
        layout="kolektor_sdd",
        licence=NON_COMMERCIAL,
        source="https://www.vicos.si/resources/kolektorsdd",
        tree="kosXX/{PartX.jpg,PartX_label.bmp}",
        categories={"kolektor_sdd": None},
        total=Count(train=347, test=52, defective=52),
        has_split=False,
    ),
    "kolektor_sdd2": KnownSet(
        title="KolektorSDD2",
        layout="kolektor_sdd2",
        licence=NON_COMMERCIAL,
        source="https://www.vicos.si/resources/kolektorsdd2",
        tree="{train,test}/{10000.png,10000_GT.png}",
        categories={"kolektor_sdd2": None},
        total=Count(train=2085, test=1004, defective=110),
    ),
}
"""By name, as for `invad data verify`."""
