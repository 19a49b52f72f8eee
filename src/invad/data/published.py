"""Figures that others published for the public data sets, each with its source. We measured none of them.

Only what a source states is listed, and only metrics whose computation is known.
"""

from collections.abc import Mapping
from dataclasses import dataclass

MEAN = "mean"
"""In place of a category: the mean over all categories of a set."""

Figures = Mapping[str, Mapping[str, float]]
"""Category, or MEAN -> key of a metric -> value of 0..1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """One method on one set. source: where the figures stand. setting: single or unified, as of a benchmark.

    size: of the images that the network saw. image, pixel: the metric definition (of
    `invad.evaluation.definitions`) that the publication's computation equals, for metrics over images and for
    those over pixels. note: what else distinguishes its figures from ours, a sentence or nothing.
    """

    method: str
    source: str
    setting: str
    size: str
    image: str
    pixel: str
    figures: Figures
    note: str = ""

    def definition(self, metric: str) -> str:
        """The metric definition of one figure; an mAD is over pixels too."""
        return self.image if metric.startswith("image") else self.pixel


def _table(metrics: str, text: str) -> dict[str, dict[str, float]]:
    """Rows of a category and its figures in percent, as printed, separated by blanks or slashes."""
    keys = metrics.split()
    figures = {}
    for line in text.strip().splitlines():
        category, *values = line.replace("/", " ").split()
        figures[category] = {
            key: round(float(value) / 100, 6) for key, value in zip(keys, values, strict=True)
        }
    return figures


def _joined(first: Figures, second: Figures) -> dict[str, dict[str, float]]:
    """Two tables of the same categories as one."""
    return {category: {**first[category], **second[category]} for category in first}


_SEEN = "image_auroc image_ap image_f1max"
_FOUND = "pixel_auroc pixel_ap pixel_aupro"
_DINOMALY = "arXiv 2405.14325v1, tables"
_DINOMALY_NOTE = (
    "Images are cut from 448 x 448. Masks are above 0 after averaging, up to a pixel larger than the "
    "defects, which raises the pixel AP "
    "(README of guojiajeremy/Dinomaly). The pixel F1-max is left out, its thresholds are other ones."
)
_ADER = "arXiv 2406.03262, log of zhangzjn/ADer (ader_log/patchcore"
_ADER_NOTE = "Its metrics over pixels are of no definition here and left out."
_QUOTED = "as quoted in arXiv 2405.14325v1, table 2"


def _dinomaly(tables: str, seen: str, found: str) -> Publication:
    return Publication(
        method="Dinomaly",
        source=f"{_DINOMALY} {tables}",
        setting="unified",
        size="392 x 392",
        image="exact",
        pixel="ader200",
        figures=_joined(_table(_SEEN, seen), _table(_FOUND, found)),
        note=_DINOMALY_NOTE,
    )


def _dinomaly_single(image_auroc: float, pixel_ap: float, aupro: float) -> Publication:
    return Publication(
        method="Dinomaly",
        source="arXiv 2405.14325v1, table 2",
        setting="single",
        size="392 x 392",
        image="exact",
        pixel="ader200",
        figures={MEAN: {"image_auroc": image_auroc, "pixel_ap": pixel_ap, "pixel_aupro": aupro}},
        note=_DINOMALY_NOTE,
    )


def _patchcore_ader(name: str, seen: str) -> Publication:
    return Publication(
        method="PatchCore, run by ADer",
        source=f"{_ADER}/{name}_100e.log)",
        setting="unified",
        size="256 x 256",
        image="ader200",
        pixel="ader200",
        figures=_table(_SEEN, seen),
        note=_ADER_NOTE,
    )


def _quoted(method: str, paper: str, image_auroc: float, aupro: float | None = None) -> Publication:
    """A mean over a set that was read where another paper quotes it."""
    return Publication(
        method=method,
        source=f"arXiv {paper}, {_QUOTED}",
        setting="single",
        size="256 x 256" if method.startswith("EfficientAD") else "not stated",
        image="exact",
        pixel="adeval",
        figures={MEAN: {"image_auroc": image_auroc} | ({} if aupro is None else {"pixel_aupro": aupro})},
        note="AUPRO is by the evaluation code of MVTec: every threshold, where adeval takes 1001 steps."
        if aupro is not None
        else "",
    )


def _efficientad_s(image_auroc: float) -> Publication:
    return Publication(
        method="EfficientAD-S",
        source="arXiv 2303.14535, as quoted in the README of nelson1425/EfficientAD",
        setting="single",
        size="256 x 256",
        image="exact",
        pixel="adeval",
        figures={MEAN: {"image_auroc": image_auroc}},
    )


def _paper(image_auroc: float, mad: float | None = None) -> Publication:
    """The method that invad is named after. Its score is scaled over the labelled test set."""
    return Publication(
        method="InvAD (arXiv 2504.05662)",
        source="arXiv 2504.05662, table 2",
        setting="unified",
        size="256 x 256",
        image="official",
        pixel="official",
        figures={MEAN: {"image_auroc": image_auroc} | ({} if mad is None else {"mad": mad})},
        note="Its image score is scaled over the labelled test set, as that of the protocol paper.",
    )


PUBLISHED: dict[str, tuple[Publication, ...]] = {
    "mvtec": (
        Publication(
            method="PatchCore",
            source="arXiv 2106.08265, results.csv of amazon-science/patchcore-inspection "
            "(IM224_WR50_L2-3_P01_D1024-1024_PS-3_AN-1)",
            setting="single",
            size="224 x 224",
            image="exact",
            pixel="exact",
            # Its PRO is over the defective images alone, so it is another metric than ours and left out.
            note="Images are cut from 256 x 256.",
            figures=_table(
                "image_auroc pixel_auroc",
                """
bottle 100 98.4839
cable 99.6814 98.4137
capsule 97.9258 98.9544
carpet 98.5955 99.0514
grid 97.9114 98.8008
hazelnut 100 98.6768
leather 100 99.2877
metal_nut 99.9022 98.3402
pill 96.6721 97.8010
screw 98.7702 99.5248
tile 99.4949 95.7117
toothbrush 100 98.5732
transistor 99.8750 96.0981
wood 99.1228 95.0774
zipper 99.5010 98.8678
mean 99.1635 98.1109
""",
            ),
        ),
        _patchcore_ader(
            "mvtec",
            """
bottle 100.000 100.000 100.000
cable 99.813 99.877 99.459
capsule 99.242 99.847 98.618
carpet 98.395 99.537 97.753
grid 99.415 99.802 98.246
hazelnut 100.000 100.000 100.000
leather 100.000 100.000 100.000
metal_nut 100.000 100.000 100.000
pill 96.972 99.431 96.528
screw 98.258 99.360 97.071
tile 99.964 99.986 99.408
toothbrush 91.944 96.218 95.238
transistor 99.792 99.699 97.500
wood 98.684 99.603 96.721
zipper 99.580 99.887 98.745
mean 98.804 99.550 98.352
""",
        ),
        _quoted("EfficientAD-M", "2303.14535", 0.991, 0.935),
        _efficientad_s(0.988),
        Publication(
            method="EfficientAD-S, another's code",
            source="nelson1425/EfficientAD, results/mvtec_ad_small.json",
            setting="single",
            size="256 x 256",
            image="exact",
            pixel="adeval",
            # The one category that docs/results.md compares: the paper's own were not at hand.
            figures=_table("image_auroc pixel_aupro", "bottle 100 95.4059"),
            note="No publication of the authors. AUPRO is by the evaluation code of MVTec: every threshold, "
            "where adeval takes 1001 steps.",
        ),
        _dinomaly(
            "A8 and A9",
            """
bottle 100./100./100.
cable 100./100./100.
capsule 97.9/99.5/97.7
hazelnut 100./100./100.
metal_nut 100./100./100.
pill 99.1/99.9/98.3
screw 98.4/99.5/96.1
toothbrush 100./100./100.
transistor 99.0/98.0/96.4
zipper 100./100./100.
carpet 99.8/100./98.9
grid 99.9/100./99.1
leather 100./100./100.
tile 100./100./100.
wood 99.8/99.9/99.2
mean 99.6/99.8/99.0
""",
            """
bottle 99.2/88.6/96.6
cable 98.6/72.0/94.2
capsule 98.7/61.4/97.2
hazelnut 99.4/82.2/97.0
metal_nut 96.9/78.6/94.9
pill 97.8/76.4/97.3
screw 99.6/60.2/98.3
toothbrush 98.9/51.5/95.3
transistor 93.2/59.9/77.0
zipper 99.2/79.5/97.2
carpet 99.3/68.7/97.6
grid 99.4/55.3/97.2
leather 99.4/52.2/97.6
tile 98.1/80.1/90.5
wood 97.6/72.8/94.0
mean 98.4/69.3/94.8
""",
        ),
        _dinomaly_single(0.997, 0.689, 0.950),
        _paper(0.990, 0.837),
    ),
    "visa": (
        _quoted("PatchCore", "2106.08265", 0.951),
        _quoted("EfficientAD-M", "2303.14535", 0.981, 0.940),
        _efficientad_s(0.975),
        _dinomaly(
            "A10 and A11",
            """
pcb1 99.1/99.1/96.6
pcb2 99.3/99.2/97.0
pcb3 98.9/98.9/96.1
pcb4 99.8/99.8/98.0
macaroni1 98.0/97.6/94.2
macaroni2 95.9/95.7/90.7
capsules 98.6/99.0/97.1
candle 98.7/98.8/95.1
cashew 98.7/99.4/97.0
chewinggum 99.8/99.9/99.0
fryum 98.8/99.4/96.5
pipe_fryum 99.2/99.7/97.0
mean 98.7/98.9/96.2
""",
            """
pcb1 99.5/87.9/95.1
pcb2 98.0/47.0/91.3
pcb3 98.4/41.7/94.6
pcb4 98.7/50.5/94.4
macaroni1 99.6/33.5/96.4
macaroni2 99.7/24.7/98.7
capsules 99.6/65.0/97.4
candle 99.4/43.0/95.4
cashew 97.1/64.5/94.0
chewinggum 99.1/65.0/88.1
fryum 96.6/51.6/93.5
pipe_fryum 99.2/64.3/95.2
mean 98.7/53.2/94.5
""",
        ),
        _dinomaly_single(0.989, 0.507, 0.951),
        _paper(0.969),
    ),
    "mpdd": (
        _patchcore_ader(
            "mpdd",
            """
bracket_black 88.431 92.711 83.871
bracket_brown 95.626 97.229 95.327
bracket_white 93.333 94.761 88.889
connector 100.000 100.000 100.000
metal_plate 100.000 100.000 100.000
tubes 90.444 96.612 92.424
mean 94.639 96.885 93.419
""",
        ),
        _paper(0.965),
    ),
    "real_iad": (
        _quoted("PatchCore", "2106.08265", 0.894),
        _dinomaly(
            "A12 and A13",
            """
audiojack 86.8/82.4/72.2
bottle_cap 89.9/86.7/81.2
button_battery 86.6/88.9/82.1
end_cap 87.0/87.5/83.4
eraser 90.3/87.6/78.6
fire_hood 83.8/76.2/69.5
mint 73.1/72.0/67.7
mounts 90.4/84.2/78.0
pcb 92.0/95.3/87.0
phone_battery 92.9/91.6/82.5
plastic_nut 88.3/81.8/74.7
plastic_plug 90.5/86.4/78.6
porcelain_doll 85.1/73.3/69.6
regulator 85.2/78.9/69.8
rolled_strip_base 99.2/99.6/97.1
sim_card_set 95.8/96.3/88.8
switch 97.8/98.1/93.3
tape 96.9/95.0/88.8
terminalblock 96.7/97.4/91.1
toothbrush 90.4/91.9/83.4
toy 85.6/89.1/81.9
toy_brick 72.3/65.1/63.4
transistor1 97.4/98.2/93.1
u_block 89.9/84.0/75.2
usb 92.0/91.6/83.3
usb_adaptor 81.5/74.5/69.4
vcpill 92.0/91.2/82.0
wooden_beads 87.3/85.8/77.4
woodstick 84.0/73.3/65.6
zipper 99.1/99.5/96.5
mean 89.3/86.8/80.2
""",
            """
audiojack 98.7/48.1/91.7
bottle_cap 99.7/32.4/98.1
button_battery 99.1/46.9/92.9
end_cap 99.1/26.2/96.0
eraser 99.5/39.6/96.4
fire_hood 99.3/38.4/93.0
mint 96.9/22.0/77.6
mounts 99.4/39.9/95.6
pcb 99.3/55.0/95.7
phone_battery 99.7/51.6/96.8
plastic_nut 99.7/41.0/97.4
plastic_plug 99.4/31.7/96.4
porcelain_doll 99.3/27.9/96.0
regulator 99.3/42.2/95.6
rolled_strip_base 99.7/41.6/98.5
sim_card_set 99.0/52.1/90.9
switch 96.7/62.3/95.9
tape 99.8/54.0/98.8
terminalblock 99.8/48.0/98.8
toothbrush 96.9/38.3/90.4
toy 94.9/22.5/91.0
toy_brick 96.8/27.9/76.6
transistor1 99.6/53.5/97.8
u_block 99.5/41.8/96.8
usb 99.2/45.0/97.5
usb_adaptor 98.7/23.7/91.0
vcpill 99.1/66.4/93.7
wooden_beads 99.1/45.8/90.5
woodstick 99.0/50.9/90.4
zipper 99.3/67.2/97.8
mean 98.8/42.8/93.9
""",
        ),
        _dinomaly_single(0.920, 0.452, 0.951),
    ),
}
"""By name of the set, as in `invad.data.known`. Not there: BMAD, whose published mAD is of other metrics."""
