"""Each known layout of raw images, read into one index; no image is opened."""

import hashlib
import os
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kit import ROOT

IMAGE_SUFFIXES = frozenset((".jpeg", ".jpg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"))
MAX_XML_BYTES = 2**20  # ImageNet's largest box file has a few thousand

# ImageNet's own lists, by the names that the Inception scripts gave them.
LABELS_FILE = "imagenet_2012_validation_synset_labels.txt"  # a wnid per validation image
NAMES_FILE = "imagenet_metadata.txt"  # wnid, tab, name
BOXES_DIR = "bounding_boxes"
WNID = re.compile(r"n\d{8}")


class ClassName(NamedTuple):
    wnid: str  # WordNet's id, or the folder's name
    name: str


class Image(NamedTuple):  # a tuple, because ImageNet has 1.3 million
    split: str  # "train" or "validation"
    label: int  # from 0
    path: str  # absolute
    boxes: str  # path of the XML file, "" when there is none


@dataclass(frozen=True)
class Index:
    layout: str  # "folder", "split folders" or "imagenet extracted"
    classes: list[ClassName]  # sorted by wnid
    images: list[Image]  # training first, then by class and name
    skipped: list[tuple[str, str]]  # path and reason of each file that cannot be an image


def read_index(*, raw_dir, validation_fraction, seed) -> Index:
    """Read what lies in raw_dir: classes, and the images of both splits.

    With train/ and validation/ (or val/) the splits are taken as they are; otherwise a seeded
    share `validation_fraction` of each class's folder is held out, one image at the least.
    Raises ValueError or FileNotFoundError, in one line, for what no layout explains.
    """
    root = ROOT / raw_dir
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise FileNotFoundError(f"raw_dir {root} {problem}: name the folder of your images")
    if not any(root.iterdir()):
        raise ValueError(f"raw_dir {root} is empty: put a folder of images per class in it")
    if (root / "train").is_dir():
        index = _read_splits(root)
    else:
        index = _read_folder(root, validation_fraction, seed)
    if not any(image.split == "validation" for image in index.images):
        raise ValueError(f"{root} gives no validation image: two or more of a class are needed")
    return index


def read_boxes(path, wnid) -> list[tuple[float, float, float, float]]:
    """Read an XML file of boxes: (ymin, xmin, ymax, xmax), each in [0, 1].

    Coordinates are relative to the size that the file states. Swapped ends are put right,
    boxes without area or of another class's wnid are left out; an object called by a word is
    kept. Raises ValueError, naming the file, when it cannot be read.
    Source: tensorflow/models, research/inception/inception/data/process_bounding_boxes.py.
    """
    try:
        if Path(path).stat().st_size > MAX_XML_BYTES:
            raise ValueError(f"larger than {MAX_XML_BYTES} bytes")
        data = Path(path).read_bytes()
        if b"<!" in data.replace(b"<!--", b""):
            raise ValueError("declares a document type or entities")
        return _parse_boxes(ElementTree.fromstring(data), wnid)
    except (ValueError, ElementTree.ParseError) as error:
        raise ValueError(
            f"boxes {printable(path)} cannot be read ({error}): correct or delete the file"
        ) from error


def printable(text) -> str:
    """Give a path or name as one line of UTF-8; what that cannot hold becomes U+FFFD."""
    known = os.fsencode(text).decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in known)


def _read_folder(root: Path, fraction: float, seed: int) -> Index:
    if not 0 < fraction < 1:
        raise ValueError(f"validation_fraction: {fraction} is not between 0 and 1")
    classes, skipped = _read_classes(root)
    _check_classes(root, classes)
    images = {"train": [], "validation": []}
    for label, paths in enumerate(classes.values()):
        held_out = _held_out(paths, fraction, seed)
        for path in paths:
            split = "validation" if path in held_out else "train"
            images[split].append(Image(split, label, path, ""))
    names = [ClassName(printable(name), printable(name)) for name in classes]
    return Index("folder", names, images["train"] + images["validation"], skipped)


def _held_out(paths: list[str], fraction: float, seed: int) -> set[str]:
    """Pick a class's validation images: the first in the order of a hash of seed and name.

    So neither the listing's order nor an image more or less moves the others.
    """
    count = min(max(1, round(len(paths) * fraction)), len(paths) - 1)

    def chance(path):
        return hashlib.sha256(os.fsencode(f"{seed}/{'/'.join(Path(path).parts[-2:])}")).digest()

    return set(sorted(paths, key=chance)[:count])


def _read_splits(root: Path) -> Index:
    held_out = _validation_dir(root)
    classes, skipped = _read_classes(root / "train")
    _check_classes(root / "train", classes)
    label_of = {wnid: label for label, wnid in enumerate(classes)}
    images = []
    for wnid, paths in classes.items():
        boxes = _box_files(root / BOXES_DIR / wnid)
        images += (
            Image("train", label_of[wnid], path, boxes.get(Path(path).stem, "")) for path in paths
        )
    by_class = any(entry.is_dir() and entry.name[0] != "." for entry in os.scandir(held_out))
    read = _read_classes if by_class else _read_flat
    found, more = read(held_out)
    for wnid, paths in found.items():
        if wnid not in label_of:
            raise ValueError(
                f"{held_out} has class {printable(wnid)}, which {root / 'train'} lacks: "
                "correct its name, or remove it"
            )
        images += (Image("validation", label_of[wnid], path, "") for path in paths)
    layout = "split folders" if by_class else "imagenet extracted"
    return Index(layout, _read_names(root, classes), images, skipped + more)


def _validation_dir(root: Path) -> Path:
    found = [root / name for name in ("validation", "val") if (root / name).is_dir()]
    if not found:
        raise FileNotFoundError(
            f"{root} has train/ but no validation/: add it, or give {root / 'train'} as raw_dir "
            "to have a share of each class held out"
        )
    if len(found) > 1:
        raise ValueError(f"{root} has both validation/ and val/: remove one of them")
    return found[0]


def _read_classes(parent: Path) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """List the image paths of each class folder in `parent`, and the files set aside."""
    folders, strays, skipped = _scan(parent)
    skipped += [(path, "not in a class folder") for path in strays]
    classes = {}
    for folder in folders:
        deeper, images, more = _scan(folder)
        skipped += more + [(path, "a folder within a class folder") for path in deeper]
        if not images:
            raise ValueError(
                f"class folder {printable(folder)} holds no image: add some, or remove it"
            )
        classes[Path(folder).name] = images
    return classes, skipped


def _read_flat(folder: Path) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """List the images of ImageNet's flat validation folder by the wnid in the label file."""
    _, paths, skipped = _scan(folder)
    label_file = folder.parent / LABELS_FILE
    if not label_file.is_file():
        raise FileNotFoundError(
            f"{folder} has no class folders, and {label_file} is missing: it states the wnid of "
            "each validation image, one a line"
        )
    wnids = label_file.read_text(errors="replace").split()
    if len(wnids) != len(paths):
        raise ValueError(
            f"{label_file} has {len(wnids)} labels but {folder} {len(paths)} images: one of them "
            "is incomplete"
        )
    classes = {wnid: [] for wnid in sorted(set(wnids))}
    for wnid, path in zip(wnids, paths, strict=True):
        classes[wnid].append(path)
    return classes, skipped


def _scan(folder) -> tuple[list[str], list[str], list[tuple[str, str]]]:
    """List folders, image files, and all else with the reason it is skipped; sorted by name."""
    folders, images, skipped = [], [], []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            skipped.append((entry.path, "hidden"))
        elif entry.is_dir():
            folders.append(entry.path)
        elif not entry.is_file():
            skipped.append((entry.path, "not a regular file"))
        elif Path(entry.name).suffix.lower() not in IMAGE_SUFFIXES:
            skipped.append((entry.path, "not an image by its name"))
        else:
            images.append(entry.path)
    return folders, images, skipped


def _check_classes(parent: Path, classes: dict) -> None:
    if len(classes) < 2:
        raise ValueError(
            f"{parent} has {len(classes)} class folders, and telling apart takes two or more: "
            "put the images of each class in a folder of its own"
        )


def _read_names(root: Path, wnids) -> list[ClassName]:
    """Pair each wnid with its name of the names file, or with itself where it has none."""
    names = {}
    if (root / NAMES_FILE).is_file():
        for line in (root / NAMES_FILE).read_text(encoding="utf-8", errors="replace").splitlines():
            wnid, _, name = line.partition("\t")
            names[wnid] = name.strip()
    return [ClassName(printable(wnid), printable(names.get(wnid) or wnid)) for wnid in wnids]


def _box_files(folder: Path) -> dict[str, str]:
    """Map the stem of each XML file of the folder, if there is one, to its path.

    By the file's own name: the one that it states inside may be a literal "%s".
    """
    if not folder.is_dir():
        return {}
    paths = [entry.path for entry in os.scandir(folder) if entry.name.endswith(".xml")]
    return {Path(path).stem: path for path in paths}


def _parse_boxes(root: ElementTree.Element, wnid: str) -> list[tuple[float, float, float, float]]:
    width, height = (_number(root, f"size/{side}") for side in ("width", "height"))
    if not (width > 0 and height > 0):
        raise ValueError(f"states a size of {width:g} x {height:g}")
    boxes = []
    for item in root.iter("object"):
        name = (item.findtext("name") or "").strip()
        if WNID.fullmatch(name) and name != wnid:
            continue
        ymin, ymax = _ends(item, "y", height)
        xmin, xmax = _ends(item, "x", width)
        if ymin < ymax and xmin < xmax:
            boxes.append((ymin, xmin, ymax, xmax))
    return boxes


def _ends(item: ElementTree.Element, axis: str, length: float) -> list[float]:
    ends = (_number(item, f"bndbox/{axis}{end}") / length for end in ("min", "max"))
    return sorted(min(max(end, 0.0), 1.0) for end in ends)


def _number(item: ElementTree.Element, path: str) -> float:
    text = item.findtext(path)
    try:
        return float(text)
    except (TypeError, ValueError):
        raise ValueError(f"{path} is {text!r}, not a number") from None
