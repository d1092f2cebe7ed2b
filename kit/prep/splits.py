"""Splits: their folders, by the names that people give them, and the images that are held out."""

import hashlib
from collections import Counter
from itertools import groupby
from operator import attrgetter

from kit.data import folders
from kit.data.folders import named

SPLITS = ("train", "validation", "test")
NAMES = {  # in any case
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
ORDERS = 20  # in which groups are tried; the one with the evenest shares counts


def split_name(text: str) -> str:
    """Give the split that a name means, "" if none."""
    return NAMES.get(text.strip().casefold(), "")


def find(root: str) -> dict[str, str]:
    """Give the path of each split's folder in root; {} where such folders are classes.

    A class called "train" holds images, a split called "train" folders of them. Raises ValueError
    for two folders of one split, such as val/ and valid/, and for splits of which none is to train.
    """
    inner = folders.list_images(root, [])[0]
    ours = [entry for entry in inner if split_name(entry.name)]
    ready = {split_name(entry.name) for entry in ours if holds_classes(entry.path)}
    if "train" in ready:
        return by_name(root)
    if ready or (ours and len(ours) == len(inner)):
        raise ValueError(
            f"{root} has {named([f'{entry.name}/' for entry in ours])} but no train/ with a folder "
            "of images for each class: add it, or name another raw_dir"
        )
    return {}


def by_name(root: str, splits=SPLITS) -> dict[str, str]:
    """Give the path of each of these splits that has a folder in root, by the folders' names."""
    found = {split: [] for split in splits}
    for entry in folders.list_images(root, [])[0]:
        if (split := split_name(entry.name)) in found:
            found[split].append(entry)
    if double := [
        entry.name for entries in found.values() if len(entries) > 1 for entry in entries
    ]:
        both = " and ".join(f"{name}/" for name in double)
        raise ValueError(f"{root} has both {both}: remove one of them")
    return {split: entries[0].path for split, entries in found.items() if entries}


def holds_classes(folder: str) -> bool:
    """Tell whether a folder is one of class folders rather than a class with a folder in it."""
    inner, files = folders.list_images(folder, [])
    return len(inner) > 1 or bool(inner and not files)


def hold_out(images: list, classes: list[str], *, fraction, seed) -> list:
    """Turn a fraction of each class of training, sorted by class, into validation images.

    They are the first in the order of a hash of seed and name, so that neither the order of the
    listing nor one image more or less moves the others.
    """
    held_out = set()
    train = [image for image in images if image.split == "train"]
    for _, group in groupby(train, attrgetter("label")):
        group = sorted(group, key=lambda image: _hash(seed, f"{classes[image.label]}/{image.name}"))
        held_out.update(group[: min(_share(len(group), fraction), len(group) - 1)])
    return _moved(images, held_out)


def hold_out_groups(images: list, group_of: dict, *, fraction, seed) -> list:
    """As `hold_out`, but of whole groups: {image: group}; an image without one is its own.

    Groups are taken in a seeded order while they bring the classes nearer to their share, and each
    class to one image at least; the best of several orders counts. Every class keeps an image to
    train on.
    """
    members = {}
    for image in images:
        members.setdefault(group_of.get(image) or image, []).append(image)
    counts = {group: Counter(image.label for image in found) for group, found in members.items()}
    total = Counter(image.label for image in images)
    wanted = {label: _share(count, fraction) for label, count in total.items()}
    tries = []
    for number in range(ORDERS):
        order = sorted(
            counts, key=lambda group: _hash(f"{seed}/{number}", getattr(group, "name", group))
        )
        tries.append(_choose(order, counts, total, wanted))
    _, chosen = min(tries, key=lambda found: found[0])
    return _moved(images, {image for group in chosen for image in members[group]})


def _choose(order: list, counts: dict, total: Counter, wanted: dict) -> tuple[float, list]:
    """Give how far the classes stay from what is wanted of them, and the groups chosen."""
    held, chosen = Counter(), []

    def distance(label, count):  # no image at all is worse than any other number
        return ((count - wanted[label]) / wanted[label]) ** 2 if count else 1e9

    for group in order:
        change = sum(
            distance(label, held[label] + count) - distance(label, held[label])
            for label, count in counts[group].items()
        )
        keeps = all(held[label] + count < total[label] for label, count in counts[group].items())
        if change < 0 and keeps:
            chosen.append(group)
            held += counts[group]
    return sum(distance(label, held[label]) for label in total), chosen


def _share(count: int, fraction: float) -> int:
    return max(1, round(count * fraction))


def _hash(seed, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogateescape")).digest()


def _moved(images: list, held_out: set) -> list:
    train = [image for image in images if image.split == "train" and image not in held_out]
    held = [image._replace(split="validation") for image in images if image in held_out]
    return train + held + [image for image in images if image.split != "train"]
