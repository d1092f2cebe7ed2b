"""Read an index of all of ImageNet, listed by made-up archives; prints the most MiB that it takes.

The listings of a thousand classes are generated one by one, as the tars' are; the rest is ours.
"""

import sys
from array import array
from pathlib import Path

from images import index_of

from kit.prep import imagenet, listing

WNIDS = [f"n{1440764 + 13631 * number:08d}" for number in range(imagenet.CLASSES)]
TAR = "/data/imagenet/ILSVRC2012_img_train.tar"


def files(prefix, count, start):
    return [
        listing.File(f"{prefix}_{7 * k}.JPEG", 90_000 + k, start + 110_000 * k)
        for k in range(count)
    ]


def list_classes(where, skipped):
    at = 0
    for number, wnid in enumerate(WNIDS):
        images = imagenet.IMAGES["train"] * (number + 1) // 1000
        yield wnid, TAR, files(wnid, images - at, 110_000 * at)
        at = images


def box_finder(where, skipped):
    """Give boxes to 544,546 images, two of them to 70,753."""
    table, found = {}, 0
    for _, _, members in list_classes("", []):
        for member in members[: -(-imagenet.BOX_FILES // 1000)]:
            if found < imagenet.BOX_FILES:
                boxes = 2 if found < imagenet.BOXES - imagenet.BOX_FILES else 1
                numbers = array("d", (375, 500, *range(4 * boxes)))
                table[member.name.removesuffix(".JPEG")] = numbers.tobytes()
                found += 1
    return lambda wnid: table


def label_validation(root, where, names, truth):
    return [WNIDS[number % 1000] for number in range(len(names))]


def memory(name):
    """Give this process's VmRSS (now) or VmHWM (at most) in MiB; ru_maxrss may be the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 2**10


def main(root):
    listing.list_classes = list_classes
    listing.has_classes = lambda where: False
    listing.list_flat = lambda where, skipped: files("ILSVRC2012_val", 50_000, 0)
    imagenet.box_finder, imagenet.label_validation = box_finder, label_validation
    places = imagenet.Locations("imagenet archives", "boxes.tar.gz", TAR, "val")
    imagenet.locate = lambda root: places
    before = memory("VmRSS")
    index = index_of(root)
    print(len(index.images), round(memory("VmHWM") - before))


if __name__ == "__main__":
    main(sys.argv[1])
