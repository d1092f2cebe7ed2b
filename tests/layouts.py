"""One miniature of ImageNet, written in each of the layouts in which people hold the whole."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from images import jpeg

WNIDS = {"n00000001": "tench, Tinca tinca", "n00000004": "Hähne", "n00000007": "press"}
DEVKIT_ORDER = ("n00000007", "n00000001", "n00000004")  # its own numbers 1, 2, 3
SIZES = [(40, 48), (32, 32), (36, 50), (48, 40)]  # of each class's training images

TRAIN = {
    wnid: {
        f"{wnid}_{number * 9}.JPEG": jpeg(*size, seed=10 * label + number)
        for number, size in enumerate(SIZES)
    }
    for label, wnid in enumerate(WNIDS)
}
VALIDATION = {
    f"ILSVRC2012_val_{number:08d}.JPEG": (wnid, jpeg(32, 40, seed=100 + number))
    for number, wnid in enumerate(("n00000004", "n00000001", "n00000007", "n00000001"), 1)
}
# xmin, ymin, xmax, ymax in pixels, of some training images; the second has another class's too.
BOXES = {
    "n00000001_0": [("n00000001", 12, 10, 24, 30)],
    "n00000001_18": [("n00000001", 0, 0, 50, 9), ("n00000004", 1, 1, 9, 9)],
    "n00000007_9": [("Scottish_deerhound", 24, 30, 8, 2), ("n00000007", 3, 4, 5, 6)],
}


def examples():
    """Give what every layout must yield, in order: (split, label, name, bytes, boxes)."""
    labels = {wnid: label for label, wnid in enumerate(WNIDS)}
    found = []
    for wnid, files in TRAIN.items():
        for (name, data), (height, width) in zip(files.items(), SIZES, strict=True):
            found.append(("train", labels[wnid], name, data, _relative(name, wnid, height, width)))
    for wnid, label in labels.items():
        for name, (of, data) in VALIDATION.items():
            if of == wnid:
                found.append(("validation", label, name, data, []))
    return sorted(found)  # by name within each class


def _relative(name, wnid, height, width):
    boxes = []
    for of, x1, y1, x2, y2 in BOXES.get(name.removesuffix(".JPEG"), []):
        if of == wnid or of == "Scottish_deerhound":
            left, right, top, bottom = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
            boxes.append((top / height, left / width, bottom / height, right / width))
    return boxes


def write(path: Path, data) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def tar(files: dict[str, bytes], form=tarfile.PAX_FORMAT, mode="w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=form) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def box_xml(stem: str) -> str:
    height, width = SIZES[int(stem.rpartition("_")[2]) // 9]
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax>"
        f"<ymax>{y2}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2 in BOXES[stem]
    )
    size = f"<size><width>{width}</width><height>{height}</height></size>"
    return f"<annotation><filename>%s</filename>{size}{objects}</annotation>"


def meta_mat(compressed=True) -> bytes:
    """Give the devkit's meta.mat as SciPy writes it."""
    import scipy.io

    fields = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children")
    synsets = np.zeros((len(DEVKIT_ORDER) + 1, 1), dtype=[(field, object) for field in fields])
    for number, wnid in enumerate(DEVKIT_ORDER, 1):
        synsets[number - 1, 0] = (number, wnid, WNIDS[wnid], "a thing", 0, np.zeros((0, 0)))
    above = np.array([1.0, 2.0, 3.0])
    synsets[-1, 0] = (4, "n00000000", "entity", "", 3, above)  # above the classes: no label
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"synsets": synsets}, do_compression=compressed)
    return buffer.getvalue()


def ground_truth() -> str:
    return "".join(f"{DEVKIT_ORDER.index(wnid) + 1}\n" for wnid, _ in VALIDATION.values())


def archives(root: Path) -> None:
    inner = {f"{wnid}.tar": tar(files) for wnid, files in TRAIN.items()}
    write(root / "ILSVRC2012_img_train.tar", tar(dict(reversed(inner.items()))))
    images = {name: data for name, (_, data) in reversed(VALIDATION.items())}
    write(root / "ILSVRC2012_img_val.tar", tar(images, tarfile.GNU_FORMAT))
    xml = {f"./{stem.partition('_')[0]}/{stem}.xml": box_xml(stem).encode() for stem in BOXES}
    write(root / "ILSVRC2012_bbox_train_v2.tar.gz", tar(xml, tarfile.USTAR_FORMAT, "w:gz"))
    files = {
        "ILSVRC2012_devkit_t12/readme.txt": b"of the devkit",
        "ILSVRC2012_devkit_t12/data/meta.mat": meta_mat(),
        "ILSVRC2012_devkit_t12/data/" + TRUTH: ground_truth().encode(),
    }
    write(root / "ILSVRC2012_devkit_t12.tar.gz", tar(files, mode="w:gz"))


def extracted(root: Path) -> None:
    """As the Inception scripts left it."""
    _folders(root / "train", TRAIN)
    for name, (_, data) in VALIDATION.items():
        write(root / "validation" / name, data)
    labels = "".join(f"{wnid}\n" for wnid, _ in VALIDATION.values())
    write(root / "imagenet_2012_validation_synset_labels.txt", labels)
    lines = "".join(f"{wnid}\t{name}\n" for wnid, name in reversed(WNIDS.items()))
    write(root / "imagenet_metadata.txt", lines)
    _annotations(root / "bounding_boxes")


def extracted_with_devkit(root: Path) -> None:
    _folders(root / "train", TRAIN)
    for name, (_, data) in VALIDATION.items():
        write(root / "val" / name, data)
    _annotations(root / "bounding_boxes")
    write(root / "ILSVRC2012_devkit_t12/data/meta.mat", meta_mat(compressed=False))
    write(root / "ILSVRC2012_devkit_t12/data" / TRUTH, ground_truth())


def by_class(root: Path) -> None:
    """As torchvision and Keras users have it: the archives beside what was extracted from them."""
    archives(root)
    (root / "ILSVRC2012_img_train.tar").unlink()
    (root / "ILSVRC2012_img_val.tar").unlink()
    _folders(root / "train", TRAIN)
    for name, (wnid, data) in VALIDATION.items():
        write(root / "val" / wnid / name, data)


def kaggle(root: Path) -> None:
    images = root / "ILSVRC/Data/CLS-LOC"
    _folders(images / "train", TRAIN)
    for name, (_, data) in VALIDATION.items():
        write(images / "val" / name, data)
    write(images / "test/ILSVRC2012_test_00000001.JPEG", jpeg(8, 8))
    _annotations(root / "ILSVRC/Annotations/CLS-LOC/train")
    rows = [f"{n.removesuffix('.JPEG')},{w} 1 2 3 4 \n" for n, (w, _) in VALIDATION.items()]
    head = "ImageId,PredictionString\n"
    write(root / "LOC_val_solution.csv", head + "".join(reversed(rows)))
    rows = [f"{s},{' '.join(' '.join(map(str, b)) for b in BOXES[s])} \n" for s in BOXES]
    write(root / "LOC_train_solution.csv", head + "".join(rows))
    names = "".join(f"{wnid} {name}\n" for wnid, name in WNIDS.items())
    write(root / "LOC_synset_mapping.txt", names)


def kaggle_without_annotations(root: Path) -> None:
    kaggle(root)
    for path in sorted((root / "ILSVRC/Annotations").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def parquet(root: Path) -> None:
    """As Hugging Face has imagenet-1k, and the boxes beside it."""
    labels = {wnid: label for label, wnid in enumerate(WNIDS)}
    train = [(w, n, data) for w, files in TRAIN.items() for n, data in files.items()]
    validation = [(wnid, name, data) for name, (wnid, data) in VALIDATION.items()]
    parts = {
        "train-00000-of-00002": train[1::2],
        "train-00001-of-00002": train[0::2],
        "validation-00000-of-00001": validation,
    }
    for name, rows in parts.items():
        rows = [(labels[w], n.replace(".JPEG", f"_{w}.JPEG"), data) for w, n, data in rows]
        write_parquet(root / "data" / f"{name}.parquet", rows, list(WNIDS.values()))
    write_parquet(root / "data/test-00000-of-00001.parquet", [(-1, "t.JPEG", jpeg(8, 8))], [])
    _annotations(root / "bounding_boxes")


def write_parquet(path: Path, rows, names) -> None:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    features = {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    table = pyarrow.table(
        {
            "image": pyarrow.array([{"bytes": data, "path": name} for _, name, data in rows]),
            "label": pyarrow.array([label for label, _, _ in rows], pyarrow.int64()),
        },
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    pyarrow.parquet.write_table(table, path, row_group_size=3)


TRUTH = "ILSVRC2012_validation_ground_truth.txt"


def _folders(root: Path, classes) -> None:
    for wnid, files in classes.items():
        for name, data in files.items():
            write(root / wnid / name, data)


def _annotations(root: Path) -> None:
    for stem in BOXES:
        write(root / stem.partition("_")[0] / f"{stem}.xml", box_xml(stem))
