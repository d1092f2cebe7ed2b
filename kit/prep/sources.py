"""Reads every known layout of raw images into one index. No image is opened, nothing is copied."""

import functools
import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from kit.data import paths
from kit.data.manifest import ClassName
from kit.data.paths import printable
from kit.prep import devkit, imagenet, listing, parquet
from kit.prep.boxes import WNID
from kit.prep.sections import Preparation


class Image(NamedTuple):  # small, because ImageNet has 1.3 million
    split: str  # "train" or "validation"
    label: int  # from 0
    container: str  # the folder, tar or parquet file that holds it: absolute path or URL
    name: str  # of its file there
    size: int  # bytes, as listed; of the whole file when that is a parquet
    position: int = -1  # first byte in a tar, row in a parquet file; -1: a file of its own
    boxes: str | bytes = ""  # path of its XML file, or packed as in boxes.py; "": none

    @property
    def path(self) -> str:
        return f"{self.container}/{self.name}"


@dataclass(frozen=True)
class Index:
    layout: str
    classes: list[ClassName]  # sorted by wnid
    images: list[Image]  # training first, then by class and name
    skipped: list[tuple[str, str]]  # path and reason of each file that cannot be an image
    missing: list[str] = field(default_factory=list)  # what could be there, in a line each
    expect_boxes: int = 0  # ImageNet's number of them, where it must be met


def read_index(raw_dir, preparation: Preparation, *, seed) -> Index:
    """Read what lies in raw_dir: classes, and the images of both splits.

    ImageNet as its official archives, extracted, or as Kaggle has it; Hugging Face's parquet;
    train/ and validation/ (or val/) with a folder per class; or a folder per class in raw_dir
    itself, where a seeded `validation_fraction` of each class is held out, at least one image.
    Raises ValueError or FileNotFoundError, in one line, for what no layout explains, and for an
    ImageNet of other counts, unless it is declared a `subset`.
    """
    root = paths.resolve(raw_dir)
    if not paths.is_folder(root):
        problem = "is not a folder" if paths.exists(root) else "does not exist"
        raise FileNotFoundError(f"raw_dir {root} {problem}: name the folder of your images")
    if not paths.scan(root):
        raise ValueError(f"raw_dir {root} is empty: put a folder of images per class in it")
    hold_out = functools.partial(_hold_out, fraction=preparation.validation_fraction, seed=seed)
    if files := parquet.find_files(root):
        index = _read_parquet(root, files, hold_out)
    elif at := imagenet.locate(root):
        index = _read_splits(root, at)
    else:
        index = _read_folder(root, hold_out)
    counts = Counter(image.split for image in index.images)
    if not counts["validation"]:
        raise ValueError(f"{root} gives no validation image: two or more of a class are needed")
    if index.layout.startswith("imagenet") and not preparation.subset:
        box_files = sum(bool(image.boxes) for image in index.images)
        imagenet.check_counts(root, counts, len(index.classes), box_files)
        return index
    return replace(index, expect_boxes=0)


def _read_folder(root: str, hold_out) -> Index:
    skipped = []
    images, wnids = _list_train(root, skipped)
    return Index("folder", _name_classes(wnids, {}), hold_out(images, wnids), skipped)


def _read_splits(root: str, at: imagenet.Locations) -> Index:
    skipped = []
    names, truth = devkit.read_devkit(root) or ({}, [])
    find_boxes = imagenet.box_finder(at.boxes, skipped)
    images, wnids = _list_train(at.train, skipped)
    _attach_boxes(images, wnids, find_boxes)
    by_class = listing.has_classes(at.validation)
    if by_class:
        found = listing.list_classes(at.validation, skipped)
    else:
        found = _group_flat(root, at.validation, truth, skipped)
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    for wnid, container, files in found:
        if wnid not in label_of:
            raise ValueError(
                f"{at.validation} has class {printable(wnid)}, which {at.train} lacks: "
                "correct its name, or remove it"
            )
        images += (Image("validation", label_of[wnid], container, *file) for file in files)
    layout = at.layout
    if layout == "folders":
        is_imagenet = not by_class or all(map(WNID.fullmatch, wnids))
        layout = "imagenet extracted" if is_imagenet else "split folders"
    classes = _name_classes(wnids, imagenet.read_names(root, names))
    return _indexed(layout, classes, images, skipped, at.boxes)


def _list_train(where: str, skipped: list) -> tuple[list[Image], list[str]]:
    """List the training images of class folders, or of tars, and the classes."""
    images, wnids = [], []
    for wnid, container, files in listing.list_classes(where, skipped):
        images += (Image("train", len(wnids), container, *file) for file in files)
        wnids.append(wnid)
    _check_classes(where, wnids)
    return images, wnids


def _group_flat(root: str, where: str, truth: list[str], skipped: list):
    """Give the images of a flat validation set as listing.list_classes gives those of folders."""
    files = listing.list_flat(where, skipped)
    wnids = imagenet.label_validation(root, where, [file.name for file in files], truth)
    by_class = {wnid: [] for wnid in sorted(set(wnids))}
    for wnid, file in zip(wnids, files, strict=True):
        by_class[wnid].append(file)
    return ((wnid, where, members) for wnid, members in by_class.items())


def _read_parquet(root: str, files: dict, hold_out) -> Index:
    images, wnids = [], {}
    for split, paths_of in files.items():
        for path in paths_of:
            size = paths.size_of(path)
            for row in parquet.read_rows(path):
                images.append(Image(split, row.label, path, row.name, size, row.position))
                if wnids.setdefault(row.label, row.wnid) != row.wnid:
                    wnids[row.label] = ""
    for key in ("name", "label", "split"):  # each sort keeps the order of the one before
        images.sort(key=attrgetter(key))
    known = parquet.read_class_names(files["train"][0])
    known += map(str, range(len(known), 1 + max(wnids, default=-1)))
    classes = [wnids.get(label) or name for label, name in enumerate(known)]
    _check_classes(root, classes)
    skipped, where = [], ""
    if all(map(WNID.fullmatch, classes)):
        where = imagenet.locate_boxes(root)
        _attach_boxes(images, classes, imagenet.box_finder(where, skipped))
    if not files["validation"]:
        images = hold_out(images, classes)
    layout = "imagenet parquet" if all(map(WNID.fullmatch, classes)) else "parquet"
    names = imagenet.read_names(root, dict(zip(classes, known, strict=True)))
    return _indexed(layout, _name_classes(classes, names), images, skipped, where)


def _attach_boxes(images: list[Image], wnids: list[str], find_boxes) -> None:
    """Add the boxes to the training images, which are sorted by class."""
    boxes, label = {}, -1
    for at, image in enumerate(images):
        if image.split == "train":
            if image.label != label:
                label, boxes = image.label, find_boxes(wnids[image.label])
            if found := boxes.pop(image.name.rpartition(".")[0], ""):
                images[at] = image._replace(boxes=found)


def _hold_out(images: list[Image], classes: list[str], *, fraction, seed) -> list[Image]:
    """Turn a fraction of each class, sorted by class, into validation images, listed at the end.

    They are the first in the order of a hash of seed and name, so that neither the order of the
    listing nor one image more or less moves the others.
    """

    def order(image):
        key = f"{seed}/{classes[image.label]}/{image.name}"
        return hashlib.sha256(os.fsencode(key)).digest()

    held_out = set()
    for _, group in groupby(images, attrgetter("label")):
        group = sorted(group, key=order)
        held_out.update(group[: min(max(1, round(len(group) * fraction)), len(group) - 1)])
    train = [image for image in images if image not in held_out]
    return train + [image._replace(split="validation") for image in images if image in held_out]


def _indexed(layout: str, classes, images, skipped, boxes: str) -> Index:
    """Make the index of a set that may be ImageNet: say what it lacks, and expect its boxes."""
    missing = []
    if not boxes:
        missing.append(
            f"bounding boxes: {imagenet.BOXES_ARCHIVE} or {imagenet.BOXES_DIR}/ in raw_dir"
        )
    if all(name.name == name.wnid for name in classes):
        missing.append(
            f"names of the classes: {imagenet.DEVKIT_ARCHIVE} or {imagenet.NAMES_FILE} in raw_dir"
        )
    if not layout.startswith("imagenet"):
        return Index(layout, classes, images, skipped)
    # Kaggle's CSV is not the source from which the number is known.
    expected = imagenet.BOXES if boxes and not boxes.endswith(".csv") else 0
    return Index(layout, classes, images, skipped, missing, expected)


def _check_classes(where: str, classes) -> None:
    if len(classes) < 2:
        raise ValueError(
            f"{where} has {len(classes)} class folders, and telling apart takes two or more: "
            "put the images of each class in a folder of its own"
        )


def _name_classes(wnids: Iterable[str], names: dict[str, str]) -> list[ClassName]:
    """Pair each wnid with its name, or with itself where it has none."""
    return [ClassName(printable(wnid), printable(names.get(wnid) or wnid)) for wnid in wnids]
