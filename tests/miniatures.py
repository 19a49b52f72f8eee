"""Every data set layout in miniature: real image files of a few pixels, named and placed as on disk.

    python tests/miniatures.py FOLDER

writes each into a folder of its own below FOLDER.
"""

import csv
import json
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 12, 10


def image(path: Path) -> None:
    """A grey ramp with noise, another one for each path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32("/".join(path.parts[-6:]).encode()))
    ramp = np.linspace(60, 180, WIDTH)[None, :, None] + rng.normal(0, 12, (HEIGHT, WIDTH, 3))
    Image.fromarray(ramp.clip(0, 255).astype(np.uint8)).save(path)


def mask(path: Path, level: int = 255, empty: bool = False) -> None:
    """12 defective pixels of one level on black, or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    if not empty:
        pixels[4:8, 3:6] = level
    Image.fromarray(pixels).save(path)


def soft_mask(path: Path) -> None:
    """As `mask`, with a rim of 64: averaged edges of few levels, which look like labels."""
    mask(path)
    pixels = np.asarray(Image.open(path)).copy()
    pixels[3:9, 2:7] = np.maximum(pixels[3:9, 2:7], 64)
    Image.fromarray(pixels).save(path)


def images(folder: Path, count: int, name: str = "{:03}.png") -> None:
    for i in range(count):
        image(folder / name.format(i))


def mvtec_category(root: Path, defects: tuple[str, ...], good: str = "good") -> None:
    images(root / "train" / good, 3)
    images(root / "test" / good, 2)
    for defect in defects:
        images(root / "test" / defect, 2)
        for i in range(2):
            mask(root / "ground_truth" / defect / f"{i:03}_mask.png")


def mvtec(root: Path) -> None:
    mvtec_category(root / "bottle", ("broken_large", "contamination"))
    mvtec_category(root / "carpet", ("hole",))
    (root / "license.txt").write_text("CC BY-NC-SA 4.0\n")


def mpdd(root: Path) -> None:
    mvtec_category(root / "bracket_black", ("hole", "scratches"))
    mvtec_category(root / "tubes", ("anomalous",))


def btad(root: Path) -> None:
    """Product 01 in .bmp with .png masks, 02 in .png with .bmp masks, 03 in both."""
    base = root / "BTech_Dataset_transformed"
    for name, suffix, mask_suffix in (("01", "bmp", "png"), ("02", "png", "bmp"), ("03", "bmp", "bmp")):
        images(base / name / "train/ok", 3, f"{{:04}}.{suffix}")
        images(base / name / "test/ok", 2, f"{{:04}}.{suffix}")
        images(base / name / "test/ko", 2, f"{{:04}}.{suffix}")
        for i in range(2):
            mask(base / name / "ground_truth/ko" / f"{i:04}.{mask_suffix}")
    image(base / "03/train/ok/0009.png")


def visa(root: Path) -> None:
    """As downloaded; masks of levels 1 and 2."""
    rows: dict[str, list[list[str]]] = {"1cls": [], "2cls_fewshot": [], "2cls_highshot": []}
    for name in ("candle", "pcb1"):
        for i in range(5):
            file = f"{name}/Data/Images/Normal/{i:04}.JPG"
            image(root / file)
            rows["1cls"].append([name, "train" if i < 3 else "test", "normal", file, ""])
            for split in ("2cls_fewshot", "2cls_highshot"):
                rows[split].append([name, "train" if i < 2 else "test", "normal", file, ""])
        for i in range(3):
            file, drawn = f"{name}/Data/Images/Anomaly/{i:03}.JPG", f"{name}/Data/Masks/Anomaly/{i:03}.png"
            image(root / file)
            mask(root / drawn, level=1 + i % 2)
            for split, part in (("1cls", "test"), ("2cls_fewshot", "train" if i < 1 else "test")):
                rows[split].append([name, part, "anomaly", file, drawn])
            rows["2cls_highshot"].append([name, "train" if i < 2 else "test", "anomaly", file, drawn])
    for split, listed in rows.items():
        write_csv(root / f"split_csv/{split}.csv", ["object", "split", "label", "image", "mask"], listed)


def visa_pytorch(root: Path) -> None:
    visa_prepared(root / "visa_pytorch")


def visa_pytorch_splits(root: Path) -> None:
    visa_prepared(root / "VisA_pytorch/1cls")
    visa_prepared(root / "VisA_pytorch/2cls_fewshot")
    for name in ("candle", "pcb1"):
        image(root / "VisA_pytorch/2cls_fewshot" / name / "train/bad/900.JPG")


def visa_prepared(root: Path) -> None:
    for name in ("candle", "pcb1"):
        images(root / name / "train/good", 3, "{:04}.JPG")
        images(root / name / "test/good", 2, "9{:03}.JPG")
        images(root / name / "test/bad", 2, "{:03}.JPG")
        for i in range(2):
            mask(root / name / "ground_truth/bad" / f"{i:03}.png", level=1)


def real_iad(root: Path) -> None:
    """As downloaded: two categories, each with four objects seen from five sides, one of them defective."""
    for split in ("realiad_jsons", "realiad_jsons_sv", "realiad_jsons_fuiad_0.1"):
        real_iad_lists(root / "realiad_256", root / "realiad_jsons" / split, split)


def real_iad_beside(root: Path) -> None:
    """One list per category beside the folders of the categories."""
    real_iad_lists(root, root, "realiad_jsons")


def real_iad_lists(base: Path, lists: Path, split: str) -> None:
    lists.mkdir(parents=True, exist_ok=True)
    for name in ("audiojack", "toy_brick"):
        content: dict[str, object] = {"meta": {"normal_class": "OK", "prefix": f"{name}/"}}
        views = (1,) if split.endswith("_sv") else range(1, 6)
        content["train"] = [view(base, name, n, None, c) for n in (1, 2) for c in views]
        content["test"] = [view(base, name, 3, None, c) for c in views]
        # A scratch that one of the views does not show.
        content["test"] += [view(base, name, 1, "HS" if c != 5 else None, c, "NG/HS") for c in views]  # type: ignore[operator]
        if "fuiad" in split:
            content["train"] += [view(base, name, 2, "HS", c, "NG/HS") for c in views]  # type: ignore[operator]
        (lists / f"{name}.json").write_text(json.dumps(content))


def view(
    base: Path, name: str, number: int, defect: str | None, camera: int, kind: str = "OK"
) -> dict[str, object]:
    file = f"{kind}/S{number:04}/{name}_{number:04}_{kind.replace('/', '_')}_C{camera}_2023102113.jpg"
    drawn = file.replace(".jpg", "_mask.png") if defect else None
    image(base / name / file)
    if drawn:
        soft_mask(base / name / drawn)
    return {"category": name, "anomaly_class": defect or "OK", "image_path": file, "mask_path": drawn}


def bmad(root: Path) -> None:
    """The re-packed sets, all six."""
    for name in ("Brain", "Liver", "Retina_RESC"):
        bmad_masked(root / name, "label")
    for name in ("Retina_OCT2017", "Chest", "Histopathology"):
        bmad_flat(root / name, "valid", inner="img/")


def bmad_original(root: Path) -> None:
    """The archives: each set has its own order of the words."""
    bmad_masked(root / "Brain_AD", "anomaly_mask")
    liver, resc = root / "Liver/Train/hist_DIY", root / "RESC"
    images(liver / "train/good", 3)
    images(resc / "Train/train/good", 3)
    for base, part in ((liver / "valid", "{}"), (liver / "test", "{}")):
        bmad_parted(base / part.format("img"), base / part.format("label"))
    bmad_parted(resc / "Val/val", resc / "Val/val_label")
    bmad_parted(resc / "Test/test", resc / "Test/test_label")
    bmad_flat(root / "OCT2017", "val", suffix="jpeg")
    bmad_flat(root / "Chest-RSNA", "val")
    bmad_flat(root / "camelyon16_256", "valid")


def bmad_masked(root: Path, label: str) -> None:
    images(root / "train/good", 3)
    for part, count in (("valid", 1), ("test", 2)):
        images(root / part / "good/img", count)
        images(root / part / "Ungood/img", count, "1{:03}.png")
        for i in range(count):
            mask(root / part / "Ungood" / label / f"1{i:03}.png", level=1)


def bmad_parted(pictures: Path, labels: Path) -> None:
    count = 1 if "val" in "/".join(pictures.parts[-2:]).lower() else 2
    images(pictures / "good", count)
    images(pictures / "Ungood", count, "1{:03}.png")
    for i in range(count):
        mask(labels / "good" / f"{i:03}.png", empty=True)
        mask(labels / "Ungood" / f"1{i:03}.png")


def bmad_flat(root: Path, valid: str, inner: str = "", suffix: str = "png") -> None:
    images(root / "train/good", 3, f"{{:03}}.{suffix}")
    for part, count in ((valid, 1), ("test", 2)):
        images(root / part / f"good/{inner}", count, f"{{:03}}.{suffix}")
        images(root / part / f"Ungood/{inner}", count, f"1{{:03}}.{suffix}")


def kolektor_sdd(root: Path) -> None:
    for item in range(1, 6):
        for part in range(3):
            image(root / f"kos{item:02}/Part{part}.jpg")
            mask(root / f"kos{item:02}/Part{part}_label.bmp", empty=(item, part) not in ((1, 0), (4, 2)))


def kolektor_sdd2(root: Path) -> None:
    """With the two stray files of the archive."""
    for part, first, bad in (("train", 10000, (10003,)), ("test", 20000, (20000, 20001))):
        for number in range(first, first + 4):
            image(root / part / f"{number}.png")
            mask(root / part / f"{number}_GT.png", empty=number not in bad)
    image(root / "train/10301 (copy).png")
    mask(root / "train/10301_GT (copy).png")


def folder(root: Path) -> None:
    images(root / "good", 8)
    images(root / "scratch", 2)
    for i in range(2):
        mask(root / "masks/scratch" / f"{i:03}.png")


MANIFEST = ["image_path", "split", "label", "mask_path", "category", "sample_id"]


def manifest_rows(root: Path) -> list[list[str]]:
    rows = []
    for i in range(4):
        image(root / f"cam/{i}.png")
        rows.append([f"cam/{i}.png", "train" if i < 3 else "val", "good", "", "gear", ""])
    for i in range(4, 8):
        image(root / f"cam/{i}.png")
        is_bad = i > 5
        if is_bad:
            mask(root / f"drawn/{i}.png")
        label, drawn = ("crack", f"drawn/{i}.png") if is_bad else ("normal", "")
        rows.append([f"cam/{i}.png", "test", label, drawn, "gear", f"object{i // 2}"])
    return rows


def manifest_csv(root: Path) -> None:
    write_csv(root / "manifest.csv", MANIFEST, manifest_rows(root))


def manifest_parquet(root: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = manifest_rows(root)
    columns = {name: [row[i] or None for row in rows] for i, name in enumerate(MANIFEST)}
    pyarrow.parquet.write_table(pyarrow.table(columns), root / "manifest.parquet")


def meta(root: Path) -> None:
    content: dict[str, dict[str, list[dict[str, object]]]] = {"train": {}, "test": {}}
    for name in ("nut", "bolt"):
        for part, kind, i in (
            ("train", "good", 0),
            ("train", "good", 1),
            ("test", "good", 2),
            ("test", "dent", 3),
        ):
            file, drawn = f"pictures/{name}_{i}.png", f"masks/{name}_{i}.png" if kind == "dent" else ""
            image(root / file)
            if drawn:
                mask(root / drawn)
            row = {"img_path": file, "mask_path": drawn, "cls_name": name, "specie_name": kind}
            content[part].setdefault(name, []).append({**row, "anomaly": int(kind == "dent")})
    (root / "meta.json").write_text(json.dumps(content))


def write_csv(path: Path, header: list[str], rows: list[list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


MINIATURES: dict[str, Callable[[Path], None]] = {
    make.__name__: make
    for make in (
        *(mvtec, mpdd, btad, visa, visa_pytorch, visa_pytorch_splits, real_iad, real_iad_beside),
        *(bmad, bmad_original, kolektor_sdd, kolektor_sdd2, folder, manifest_csv, manifest_parquet, meta),
    )
}


def write(name: str, folder: Path) -> Path:
    """One miniature as folder/name."""
    root = folder / name
    root.mkdir(parents=True)
    MINIATURES[name](root)
    return root


if __name__ == "__main__":
    for name in MINIATURES:
        print(write(name, Path(sys.argv[1])))
