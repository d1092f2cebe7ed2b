"""Reads bounding boxes from XML and from Kaggle's CSV, by the rules of the Inception converter.

An image's boxes are packed as two doubles (height, width), then four for each box (ymin, xmin,
ymax, xmax). Height and width are those of the image that the boxes were drawn on, in whose pixels
they are; 0, 0 means the image itself.
"""

import re
import xml.etree.ElementTree as ElementTree
from array import array

MAX_XML_BYTES = 2**20  # ImageNet's largest box file has a few thousand
MAX_MEAN_BYTES = 2**11  # in an archive of many, once it has eight megabytes of them
WNID = re.compile(r"n\d{8}")


def from_xml(data: bytes, wnid: str) -> bytes:
    """Pack the boxes of an XML file, but those that name another class than `wnid`.

    An object called by a word is kept: ImageNet has a Scottish_deerhound. Raises ValueError.
    Source: tensorflow/models, research/inception/inception/data/process_bounding_boxes.py.
    """
    if len(data) > MAX_XML_BYTES:
        raise ValueError(f"larger than {MAX_XML_BYTES} bytes")
    text = data.decode("utf-8", "replace")  # as text: its own encoding cannot hide an entity
    if "<!" in text.replace("<!--", ""):
        raise ValueError("declares a document type or entities")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from None
    width, height = (_number(root, f"size/{side}") for side in ("width", "height"))
    if not (width > 0 and height > 0):
        raise ValueError(f"states a size of {width:g} x {height:g}")
    packed = array("d", (height, width))
    for item in root.iter("object"):
        if _is_of(wnid, (item.findtext("name") or "").strip()):
            sides = (f"bndbox/{side}" for side in ("ymin", "xmin", "ymax", "xmax"))
            packed.extend(_number(item, side) for side in sides)
    return packed.tobytes()


def from_csv(text: str, wnid: str) -> bytes:
    """Pack the boxes of one image in Kaggle's CSV: `name xmin ymin xmax ymax`, again and again."""
    words = text.split()
    if len(words) % 5:
        raise ValueError(f"{len(words)} words are no boxes of five each")
    packed = array("d", (0, 0))
    for name, *box in zip(*[iter(words)] * 5, strict=True):
        if _is_of(wnid, name):
            xmin, ymin, xmax, ymax = map(float, box)
            packed.extend((ymin, xmin, ymax, xmax))
    return packed.tobytes()


def scale(packed: bytes, height: int, width: int) -> list[tuple[float, float, float, float]]:
    """Give packed boxes as (ymin, xmin, ymax, xmax), each in [0, 1]; those without area go.

    height, width: the image's, for boxes that state no size of their own. Swapped ends are
    exchanged, and boxes are clipped to the image.
    """
    stated_height, stated_width, *numbers = array("d", packed)
    height, width = stated_height or height, stated_width or width
    boxes = []
    for top, left, bottom, right in zip(*[iter(numbers)] * 4, strict=True):
        ymin, ymax = _ends(top / height, bottom / height)
        xmin, xmax = _ends(left / width, right / width)
        if ymin < ymax and xmin < xmax:
            boxes.append((ymin, xmin, ymax, xmax))
    return boxes


def turn(boxes: list[tuple], orientation: int) -> list[tuple]:
    """Turn boxes (ymin, xmin, ymax, xmax) in [0, 1] with their image, by EXIF's number: 1 to 8."""
    if orientation in (2, 3, 7, 8):
        boxes = [(ymin, 1 - xmax, ymax, 1 - xmin) for ymin, xmin, ymax, xmax in boxes]
    if orientation in (3, 4, 6, 7):
        boxes = [(1 - ymax, xmin, 1 - ymin, xmax) for ymin, xmin, ymax, xmax in boxes]
    if orientation >= 5:
        boxes = [(xmin, ymin, xmax, ymax) for ymin, xmin, ymax, xmax in boxes]
    return boxes


def _is_of(wnid: str, name: str) -> bool:
    return name == wnid or not WNID.fullmatch(name)


def _ends(*ends: float) -> list[float]:
    return sorted(min(max(end, 0.0), 1.0) for end in ends)


def _number(item: ElementTree.Element, path: str) -> float:
    text = item.findtext(path)
    try:
        return float(text)
    except (TypeError, ValueError):
        raise ValueError(f"{path} is {str(text)[:40]!r}, not a number") from None
