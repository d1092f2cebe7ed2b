"""Reads every known layout of raw images into one index. No image is opened, nothing is copied."""

import functools
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from operator import attrgetter

from kit.data import folders, paths
from kit.data.folders import named
from kit.data.manifest import ClassName
from kit.data.paths import printable
from kit.prep import devkit, imagenet, listing, parquet, splits, table
from kit.prep.boxes import WNID
from kit.prep.reading import Image, Index
from kit.prep.sections import Preparation

WRAPPERS = 4  # folders around a folder that are entered
HELD_OUT = "a validation split: validation_fraction of each class is held out for it"


def read_index(raw_dir, preparation: Preparation, *, seed) -> Index:
    """Read what lies in raw_dir: classes, and the images of the splits.

    A table of images, labels.csv (or raw_dir itself is one); ImageNet as its official archives,
    extracted, or as Kaggle has it; Hugging Face's parquet; folders of splits, as people name them,
    with a folder per class; or a folder per class in raw_dir itself. One folder around all of it
    is entered. Where there is no validation split, a seeded `validation_fraction` of each class is
    held out, at least one image. Raises ValueError or FileNotFoundError, in one line, for what no
    layout explains, and for an ImageNet of other counts, unless it is declared a `subset`.
    """
    root = table.root_of(raw_dir)
    if not paths.is_folder(root):
        problem = "is not a folder" if paths.exists(root) else "does not exist"
        raise FileNotFoundError(f"raw_dir {root} {problem}: name the folder of your images")
    if not paths.scan(root):
        raise ValueError(f"raw_dir {root} is empty: put a folder of images per class in it")
    index = _read_layout(raw_dir, fraction=preparation.validation_fraction, seed=seed)
    counts = Counter(image.split for image in index.images)
    if not counts["validation"]:
        raise ValueError(f"{root} gives no validation image: two or more of a class are needed")
    if index.layout.startswith("imagenet") and not preparation.subset:
        box_files = sum(bool(image.boxes) for image in index.images)
        imagenet.check_counts(root, counts, len(index.classes), box_files)
        return index
    index.missing.extend(_without_images(index))
    return replace(index, expect_boxes=0)


def _read_layout(raw_dir, **options) -> Index:
    root, beside = paths.resolve(raw_dir), []
    for _ in range(WRAPPERS):
        if index := _read_here(root, options):
            index.skipped.extend(beside)
            return index
        folders.list_images(root, beside)
        root = _only_folder(root)
    raise ValueError(f"{root} is in a folder in a folder and so on: name the one of the images")


def _read_here(root: str, options: dict) -> Index | None:
    hold_out = functools.partial(splits.hold_out, **options)
    if found := table.find(root):
        return _read_table(found, options)
    if files := parquet.find_files(root):
        return _read_parquet(root, files, hold_out)
    if at := imagenet.locate(root):
        return _read_splits(root, at, hold_out)
    if _only_folder(root):
        return None
    skipped = []
    images, wnids = _list_train(root, skipped)
    return Index("folder", _name_classes(wnids, {}), hold_out(images, wnids), skipped)


def _only_folder(root: str) -> str:
    """Give the one folder in root, around all others; "" where root itself holds the classes."""
    inner, files = folders.list_images(root, [])
    if len(inner) == 1 and not files:
        path = inner[0].path
        if folders.has_classes(path) or table.find(path) or parquet.find_files(path):
            return path
    return ""


def _without_images(index: Index) -> list[str]:
    """Say which classes have no image in a split that others have images in."""
    labels = defaultdict(set)
    for image in index.images:
        labels[image.split].add(image.label)
    return [
        f"{split} images of {named(absent)}"
        for split, found in labels.items()
        if (absent := [name.name for n, name in enumerate(index.classes) if n not in found])
    ]


def _read_table(path: str, options: dict) -> Index:
    skipped = []
    rows = sorted(table.read(path, skipped), key=attrgetter("label", "file.path"))
    wnids = sorted({row.label for row in rows})
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    images, group_of = {split: [] for split in splits.SPLITS}, {}
    for row in rows:
        container = row.file.path.rpartition("/")[0]
        file = listing.File(row.file.name, row.file.size, changed=row.file.changed)
        image = Image(row.split or "train", label_of[row.label], container, *file)
        images[image.split].append(image)
        if row.group:
            group_of[image] = row.group
    found, missing = images["train"] + images["validation"], []
    if not images["validation"]:
        missing = [HELD_OUT]
        if group_of:
            found = splits.hold_out_groups(found, group_of, **options)
        else:
            found = splits.hold_out(found, wnids, **options)
        if not any(image.split == "validation" for image in found):
            raise ValueError(
                f"{printable(path)}: the groups leave no validation image: each of these labels is "
                f"of one group: {named(wnids)}: add images, or a column split"
            )
    classes = _name_classes(wnids, {})
    return Index("table", classes, found + images["test"], skipped, missing)


def _read_splits(root: str, at: imagenet.Locations, hold_out) -> Index:
    skipped, unknown = [], []
    names, truth = devkit.read_devkit(root) or ({}, [])
    find_boxes = imagenet.box_finder(at.boxes, skipped)
    images, wnids = _list_train(at.train, skipped)
    _attach_boxes(images, wnids, find_boxes)
    flat = bool(at.validation) and not listing.has_classes(at.validation)
    layout = at.layout
    if layout == "folders":
        is_imagenet = flat or all(map(WNID.fullmatch, wnids))
        layout = "imagenet extracted" if is_imagenet else "split folders"
    if set(wnids) == set(imagenet.IMAGENETTE):
        layout, names = "split folders", imagenet.IMAGENETTE
    if at.validation:
        found = by_class(root, at.validation, truth, skipped)
        images += _label("validation", at, found, wnids, unknown)
    else:
        images = hold_out(images, wnids)
    images += _list_test(at, wnids, skipped, unknown)
    if unknown:
        raise ValueError(f"{'; '.join(unknown)}: correct the names, or remove them")
    if layout == "split folders":
        known = (at.train, at.validation, at.test)
        beside = {entry.path for entry in folders.list_images(root, skipped)[0]}.difference(known)
        skipped += [(path, "a folder beside the splits") for path in sorted(beside)]
    classes = _name_classes(wnids, imagenet.read_names(root, names))
    return _indexed(layout, classes, images, skipped, at.boxes, held_out=not at.validation)


def _list_train(where: str, skipped: list) -> tuple[list[Image], list[str]]:
    images, wnids = [], []
    for wnid, container, files in listing.list_classes(where, skipped):
        if wnids[-1:] != [wnid]:
            wnids.append(wnid)
        images += (Image("train", len(wnids) - 1, container, *file) for file in files)
    _check_classes(where, wnids)
    return images, wnids


def _list_test(at: imagenet.Locations, wnids: list[str], skipped: list, unknown: list) -> list:
    """List the images of test/, if they have labels: if it has class folders."""
    if at.test and listing.has_classes(at.test):
        found = listing.list_classes(at.test, skipped)
        return _label("test", at, found, wnids, unknown)
    if at.test:
        count = len(listing.list_flat(at.test, skipped))
        skipped.append((at.test, f"{count:,} test images without class folders, so without labels"))
    return []


def _label(split: str, at, found, wnids: list[str], unknown: list[str]) -> list[Image]:
    """Give the images of a split by the labels of training; classes that it lacks go to unknown."""
    label_of, images, strange = {wnid: n for n, wnid in enumerate(wnids)}, [], []
    for wnid, container, files in found:
        if wnid in label_of:
            images += (Image(split, label_of[wnid], container, *file) for file in files)
        else:
            strange.append(wnid)
    if strange:
        classes = "classes" if len(strange) > 1 else "class"
        where = getattr(at, split)
        unknown.append(f"{where} has {classes} {named(strange)}, which {at.train} lacks")
    return images


def by_class(root: str, where: str, truth: list[str], skipped: list):
    """Give validation images as listing.list_classes does; flat ones by a list, or the `truth`."""
    if listing.has_classes(where):
        return listing.list_classes(where, skipped)
    files = listing.list_flat(where, skipped)
    wnids = imagenet.label_validation(root, where, [file.name for file in files], truth)
    by_class = {wnid: [] for wnid in sorted(set(wnids))}
    for wnid, file in zip(wnids, files, strict=True):
        by_class[wnid].append(file)
    return ((wnid, where, members) for wnid, members in by_class.items())


def _read_parquet(root: str, files: dict, hold_out) -> Index:
    images, wnids = [], {}
    skipped, where = [], ""
    for split, paths_of in files.items():
        for path in paths_of:
            if split == "test" and not parquet.has_labels(path):
                skipped.append((path, "test images without labels"))
                continue
            size, changed = paths.size_of(path), paths.changed(path)
            for row in parquet.read_rows(path):
                images.append(Image(split, row.label, path, row.name, size, row.position, changed))
                if wnids.setdefault(row.label, row.wnid) != row.wnid:
                    wnids[row.label] = ""
    for key in ("name", "label"):  # each sort keeps the order of the one before
        images.sort(key=attrgetter(key))
    images.sort(key=lambda image: splits.SPLITS.index(image.split))
    known = parquet.read_class_names(files["train"][0])
    known += map(str, range(len(known), 1 + max(wnids, default=-1)))
    classes = [wnids.get(label) or name for label, name in enumerate(known)]
    _check_classes(root, classes)
    if all(map(WNID.fullmatch, classes)):
        where = imagenet.locate_boxes(root)
        _attach_boxes(images, classes, imagenet.box_finder(where, skipped))
    if not files["validation"]:
        images = hold_out(images, classes)
    layout = "imagenet parquet" if all(map(WNID.fullmatch, classes)) else "parquet"
    names = imagenet.read_names(root, dict(zip(classes, known, strict=True)))
    classes, held_out = _name_classes(classes, names), not files["validation"]
    return _indexed(layout, classes, images, skipped, where, held_out=held_out)


def _attach_boxes(images: list[Image], wnids: list[str], find_boxes) -> None:
    """Add the boxes to the training images, which are sorted by class."""
    boxes, label = {}, -1
    for at, image in enumerate(images):
        if image.split == "train":
            if image.label != label:
                label, boxes = image.label, find_boxes(wnids[image.label])
            if found := boxes.pop(image.name.rpartition(".")[0], ""):
                images[at] = image._replace(boxes=found)


def _indexed(layout: str, classes, images, skipped, boxes: str, *, held_out: bool) -> Index:
    """Make the index of a set that may be ImageNet: say what it lacks, and expect its boxes."""
    missing, expected = [], 0
    if layout.startswith("imagenet"):
        if not boxes:
            missing.append(
                f"bounding boxes: {imagenet.BOXES_ARCHIVE} or {imagenet.BOXES_DIR}/ in raw_dir"
            )
        if all(name.name == name.wnid for name in classes):
            names_in = f"{imagenet.DEVKIT_ARCHIVE} or {imagenet.NAMES_FILE}"
            missing.append(f"names of the classes: {names_in} in raw_dir")
        # Kaggle's CSV is not the source from which the number is known.
        expected = imagenet.BOXES if boxes and not boxes.endswith(".csv") else 0
    if held_out:
        missing.append(HELD_OUT)
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
