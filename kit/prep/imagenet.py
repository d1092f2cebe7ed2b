"""Finds ImageNet's parts in raw_dir, and reads its labels, names and boxes; checks its counts."""

import csv
import hashlib
import io
from collections.abc import Callable
from typing import NamedTuple

from kit.data import paths
from kit.data.paths import printable
from kit.prep import archives, boxes, splits

# The official archives, and their MD5 as image-net.org states it.
TRAIN_ARCHIVE = "ILSVRC2012_img_train.tar"
VALIDATION_ARCHIVE = "ILSVRC2012_img_val.tar"
DEVKIT_ARCHIVE = "ILSVRC2012_devkit_t12.tar.gz"
BOXES_ARCHIVE = "ILSVRC2012_bbox_train_v2.tar.gz"
MD5 = {
    TRAIN_ARCHIVE: "1d675b47d978889d74fa0da5fadfb00e",
    VALIDATION_ARCHIVE: "29b22e2961454d5413ddabcf34fc5622",
    DEVKIT_ARCHIVE: "fa75699e90414af021442c21a62c3abf",
}

# By the names that the Inception scripts gave them, and by Kaggle's.
LABELS_FILE = "imagenet_2012_validation_synset_labels.txt"  # a wnid per validation image
NAMES_FILE = "imagenet_metadata.txt"  # wnid, tab, name
BOXES_DIR = "bounding_boxes"
KAGGLE_NAMES = "LOC_synset_mapping.txt"  # wnid, space, name
KAGGLE_LABELS = "LOC_val_solution.csv"
KAGGLE_BOXES = "LOC_train_solution.csv"

MAX_TEXT_BYTES = 2**27  # of a list; Kaggle's boxes have 30 million
BLOCK_BYTES = 2**24  # read at once for an MD5

# Of the whole set.
IMAGES = {"train": 1_281_167, "validation": 50_000}
CLASSES = 1_000
BOX_FILES = 544_546  # of training images
BOXES = 615_299

# fastai's Imagenette: ten classes in train/ and val/, a set of its own.
IMAGENETTE = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}


class Locations(NamedTuple):
    layout: str
    boxes: str  # a folder of class folders of XML files, an archive, a CSV file, or ""
    train: str  # an archive, or a folder of class folders
    validation: str = ""  # an archive, or a folder, flat or of class folders; "": held out of train
    test: str = ""  # a folder, or ""


def locate(root: str) -> Locations | None:
    """Find both splits and the boxes in raw_dir; None when it has no training split by name.

    Raises FileNotFoundError naming what is missing for the layout that was found.
    """
    entries = {entry.name: entry.kind for entry in paths.scan(root)}
    for base in (paths.join(root, "ILSVRC"), root):
        train, validation = (paths.join(base, "Data/CLS-LOC", name) for name in ("train", "val"))
        if paths.is_folder(train):
            if not paths.is_folder(validation):
                raise FileNotFoundError(f"{validation} is missing: extract all of Kaggle's archive")
            boxes_at = locate_boxes(root, paths.join(base, "Annotations/CLS-LOC/train"))
            return Locations("imagenet kaggle", boxes_at, train, validation)
    archives_there = {name for name in MD5 if entries.get(name) == "file"}
    if TRAIN_ARCHIVE in archives_there:
        layout, found = "imagenet archives", {"train": paths.join(root, TRAIN_ARCHIVE)}
        found |= splits.by_name(root, ("validation",))
    else:
        layout, found = "folders", splits.find(root)
    if VALIDATION_ARCHIVE in archives_there:
        found["validation"] = paths.join(root, VALIDATION_ARCHIVE)
    if not found:
        return None
    _check_located(root, found)
    return Locations(layout, locate_boxes(root), **found)


def locate_boxes(root: str, annotations: str = "") -> str:
    """Find the boxes, in Kaggle's folder `annotations` or in raw_dir; "" where there are none."""
    known = [paths.join(root, name) for name in (BOXES_DIR, BOXES_ARCHIVE, KAGGLE_BOXES)]
    return next(filter(paths.exists, [annotations, *known] if annotations else known), "")


def label_validation(root: str, where: str, names: list[str], truth: list[str]) -> list[str]:
    """Give the wnid of each image of the flat validation set, `names` sorted.

    From the list of the Inception scripts, Kaggle's solution, or `truth`, the devkit's list.
    """
    labels_file, solution = paths.join(root, LABELS_FILE), paths.join(root, KAGGLE_LABELS)
    if paths.is_file(labels_file):
        wnids = _read_text(labels_file).split()
    elif paths.is_file(solution):
        wnid_of = {name: text.partition(" ")[0] for name, text in _read_csv(solution)}
        wnids = [wnid_of.get(name.rpartition(".")[0]) for name in names]
        if None in wnids:
            name = printable(names[wnids.index(None)])
            raise ValueError(f"{solution} has no label for {name}: get both of them again")
    elif truth:
        wnids, labels_file = truth, paths.join(root, DEVKIT_ARCHIVE)
    else:
        raise FileNotFoundError(
            f"{where} has no class folders, and none of {DEVKIT_ARCHIVE}, {KAGGLE_LABELS} and "
            f"{labels_file} is there to state the wnid of each validation image: add one of them"
        )
    if len(wnids) != len(names):
        raise ValueError(
            f"{labels_file} has {len(wnids)} labels but {where} {len(names)} images: one of them "
            "is incomplete"
        )
    return wnids


def read_names(root: str, known: dict[str, str]) -> dict[str, str]:
    """Give wnid -> name, from the lists in raw_dir, or as `known` by the devkit."""
    for name, separator in ((NAMES_FILE, "\t"), (KAGGLE_NAMES, " ")):
        path = paths.join(root, name)
        if paths.is_file(path):
            pairs = (line.partition(separator) for line in _read_text(path).splitlines())
            return {wnid: text.strip() for wnid, _, text in pairs}
    return known


def box_finder(where: str, skipped: list) -> Callable[[str], dict[str, str | bytes]]:
    """Give a function from a class's wnid to a dict: stem of an image -> its boxes.

    The dict may be emptied, and hold other classes' too. Names inside the XML files play no part:
    they may be a literal "%s".
    """
    if where.endswith(".gz"):
        table = _read_box_archive(where, skipped)
    elif where.endswith(".csv"):
        table = _read_box_csv(where)
    else:
        return lambda wnid: {
            entry.name.removesuffix(".xml"): entry.path
            for entry in (paths.scan(paths.join(where, wnid)) if where else ())
            if entry.name.endswith(".xml")
        }
    return lambda wnid: table


def check_counts(root: str, images: dict[str, int], classes: int, box_files: int) -> None:
    """Raise ValueError unless these are ImageNet's numbers; no boxes at all is no error."""
    counted = (
        ("training images", images["train"], IMAGES["train"]),
        ("validation images", images["validation"], IMAGES["validation"]),
        ("classes", classes, CLASSES),
        ("images with boxes", box_files, BOX_FILES if box_files else 0),
    )
    wrong = [f"{count:,} {name}, not {right:,}" for name, count, right in counted if count != right]
    if wrong:
        raise ValueError(
            f"{root} is not all of ImageNet: {'; '.join(wrong)}: complete it, or set subset to true"
        )


def check_boxes(index, found: int) -> None:
    """Raise ValueError when the boxes written are not as many as the index says ImageNet has."""
    if index.expect_boxes not in (0, found):
        raise ValueError(
            f"{found:,} boxes were read, not ImageNet's {index.expect_boxes:,}: get "
            f"{BOXES_ARCHIVE} again, or set subset to true"
        )


def check_md5(raw_dir, known=MD5, progress=lambda blocks, total: blocks) -> list[str]:
    """Compare the official archives in raw_dir with their MD5; give the names of those read.

    progress(blocks, total) wraps the stream of blocks of 16 MiB, as tqdm does. Raises ValueError
    naming the archive that differs, FileNotFoundError when there is none.
    """
    root = paths.resolve(raw_dir)
    sizes = {entry.name: entry.size for entry in paths.scan(root) if entry.name in known}
    if not sizes:
        raise FileNotFoundError(f"check_md5: {root} holds none of {', '.join(known)}")
    for name in sizes:
        digest = hashlib.md5(usedforsecurity=False)
        with paths.open_file(paths.join(root, name)) as file:
            blocks = iter(lambda file=file: file.read(BLOCK_BYTES), b"")
            for block in progress(blocks, -(-sizes[name] // BLOCK_BYTES)):
                digest.update(block)
        if digest.hexdigest() != known[name]:
            raise ValueError(
                f"{paths.join(root, name)} has the MD5 {digest.hexdigest()}, not {known[name]}: "
                "get it again"
            )
    return list(sizes)


def _check_located(root: str, found: dict[str, str]) -> None:
    if "train" not in found:
        raise FileNotFoundError(
            f"{root} has {VALIDATION_ARCHIVE}, but neither {TRAIN_ARCHIVE} nor train/: add one"
        )
    if "validation" not in found and ("test" not in found or found["train"].endswith(".tar")):
        raise FileNotFoundError(
            f"{root} has a training split but no validation/ and no {VALIDATION_ARCHIVE}: add it, "
            f"or give {found['train']} as raw_dir to hold out a part of each class"
        )


def _read_box_archive(path: str, skipped: list) -> dict[str, bytes]:
    """Read the boxes: some 30 microseconds for a file like ImageNet's, 0.15 s for each megabyte."""
    table, most = {}, 2**23
    with archives.open_tar(path) as file:
        for member in archives.read_members(file):
            stem, dot, suffix = member.base_name.rpartition(".")
            if suffix != "xml" or member.problem:
                skipped.append((paths.join(path, member.name), member.problem or "not an XML file"))
                continue
            try:
                data = archives.read_member(file, member, boxes.MAX_XML_BYTES)
                most += boxes.MAX_MEAN_BYTES - member.size
                if most < 0:
                    raise ValueError(f"more than {boxes.MAX_MEAN_BYTES:,} bytes on average")
                table[stem] = boxes.from_xml(data, stem.partition("_")[0])
            except ValueError as error:
                raise ValueError(f"{printable(member.name)[:200]}: {error}") from None
    return table


def _read_box_csv(path: str) -> dict[str, bytes]:
    table = {}
    for stem, text in _read_csv(path):
        try:
            table[stem] = boxes.from_csv(text, stem.partition("_")[0])
        except ValueError as error:
            raise ValueError(f"{path}, {printable(stem)[:200]}: {error}: get it again") from None
    return table


def _read_csv(path: str):
    """Give each row (ImageId, PredictionString) of a solution file of Kaggle's."""
    rows = csv.reader(io.StringIO(_read_text(path)))
    try:
        if next(rows, None) != ["ImageId", "PredictionString"]:
            raise ValueError("the first line is not ImageId,PredictionString")
        for row in rows:
            if len(row) != 2:
                raise ValueError(f"line {rows.line_num} has {len(row)} columns, not 2")
            yield row
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read ({error}): get it again") from None


def _read_text(path: str) -> str:
    try:
        return paths.read_file(path, MAX_TEXT_BYTES).decode("utf-8", "replace")
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
