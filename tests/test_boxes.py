"""The rules of box files, and those that cannot be read."""

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageOps

from kit.data.manifest import ClassName
from kit.prep import boxes
from kit.prep.reading import boxes_of
from kit.prep.sources import Image

WNID = "n02092002"
CLASSES = [ClassName(WNID, "deerhound")]


def box_file(tmp_path, *objects, size=(200, 100)):
    items = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin>"
        f"<xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox></object>"
        for name, xmin, ymin, xmax, ymax in objects
    )
    path = tmp_path / "boxes.xml"
    path.write_text(
        f"<annotation><filename>%s</filename><size><width>{size[0]}</width>"
        f"<height>{size[1]}</height></size>{items}</annotation>"
    )
    return str(path)


def read(found, height=1, width=1):
    return boxes_of(Image("train", 0, "", "", 0, boxes=found), CLASSES, height, width)


RULES = [
    ((WNID, 20, 10, 100, 90), [(0.1, 0.1, 0.9, 0.5)]),
    (("Scottish_deerhound", 20, 10, 100, 90), [(0.1, 0.1, 0.9, 0.5)]),
    (("n02092339", 20, 10, 100, 90), []),  # another class's wnid
    ((WNID, 100, 90, 20, 10), [(0.1, 0.1, 0.9, 0.5)]),  # swapped ends
    ((WNID, -20, -1, 300, 101), [(0.0, 0.0, 1.0, 1.0)]),  # outside the image
    ((WNID, 20, 10, 20, 90), []),  # no width
    ((WNID, 210, 10, 300, 90), []),  # no width within the image
    ((WNID, 20, "nan", 100, 90), []),
    ((WNID, 20, "-inf", 100, "inf"), [(0.0, 0.1, 1.0, 0.5)]),
    ((WNID, "20.0", 10, 1e2, 90), [(0.1, 0.1, 0.9, 0.5)]),
]


@pytest.mark.parametrize(("entry", "expected"), RULES)
def test_rules_of_xml(tmp_path, entry, expected):
    assert read(box_file(tmp_path, entry)) == expected


@pytest.mark.parametrize(("entry", "expected"), RULES)
def test_rules_of_csv_are_the_same_in_the_pixels_of_the_image(entry, expected):
    packed = boxes.from_csv(" ".join(map(str, entry)), WNID)
    assert read(packed, height=100, width=200) == expected


def test_spaces_around_a_name_are_no_part_of_it(tmp_path):
    assert read(box_file(tmp_path, (f" {WNID} ", 20, 10, 100, 90))) == [(0.1, 0.1, 0.9, 0.5)]


def test_size_stated_in_the_xml_counts_not_the_images(tmp_path):
    path = box_file(tmp_path, (WNID, 20, 10, 100, 90))
    assert read(path, height=1000, width=1000) == [(0.1, 0.1, 0.9, 0.5)]


def test_all_boxes_of_an_image_are_read(tmp_path):
    path = box_file(
        tmp_path, (WNID, 0, 0, 20, 10), ("n00000001", 0, 0, 9, 9), (WNID, 0, 0, 200, 50)
    )
    assert read(path) == [(0.0, 0.0, 0.1, 0.1), (0.0, 0.0, 0.5, 1.0)]
    text = f"{WNID} 0 0 20 10 n00000001 0 0 9 9 {WNID} 0 0 200 50"
    assert read(boxes.from_csv(text, WNID), 100, 200) == read(path)


def test_image_without_object_has_no_box(tmp_path):
    assert read(box_file(tmp_path)) == []
    assert read(boxes.from_csv("", WNID)) == []
    assert read("") == []


HOSTILE = [
    ("", "no element found"),
    ("<annotation><size>", "no element found"),
    ("<annotation/>", "size/width is 'None'"),
    ("<a><size><width>0</width><height>9</height></size></a>", "a size of 0 x 9"),
    ("<a><size><width>nan</width><height>9</height></size></a>", "a size of nan x 9"),
    ("<a><size><width>" + "1" * 500 + "x</width><height>9</height></size></a>", "is '1{40}'"),
    ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "document type"),
    ("<a>" + " " * 2**20 + "</a>", "more than 1,048,576 bytes"),
]


@pytest.mark.parametrize(("text", "words"), HOSTILE)
def test_unreadable_box_file_is_named(tmp_path, text, words):
    path = tmp_path / "bad\n.xml"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"bad.\.xml cannot be read \(.*{words}") as caught:
        read(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "cp037"])
def test_no_encoding_hides_an_entity(encoding):
    entity = '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'.encode(encoding)
    head = b"" if encoding == "utf-16" else b'<?xml version="1.0" encoding="cp037"?>'
    with pytest.raises(ValueError, match="not well-formed|syntax error"):
        boxes.from_xml(head + entity, WNID)


def test_vanished_box_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.xml cannot be read"):
        read(str(tmp_path / "gone.xml"))


@pytest.mark.parametrize("text", ["n1 2 3", f"{WNID} a 1 2 3"])
def test_malformed_row_of_the_csv_is_refused(text):
    with pytest.raises(ValueError, match=r"words are no boxes|could not convert"):
        boxes.from_csv(text, WNID)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_with_their_image(orientation):
    """A picture of the box itself is turned by Pillow."""
    box = (0.25, 0.5, 0.5, 0.9)
    drawn = np.zeros([40, 100], np.uint8)
    drawn[10:20, 50:90] = 255
    exif = Pillow.Exif()
    exif[274] = orientation
    noted = Pillow.fromarray(drawn)
    noted.info["exif"] = exif.tobytes()
    shown = np.asarray(ImageOps.exif_transpose(noted))
    rows, columns = np.nonzero(shown.any(axis=1))[0], np.nonzero(shown.any(axis=0))[0]
    height, width = shown.shape
    expected = (rows[0] / height, columns[0] / width, (rows[-1] + 1) / height)
    expected += ((columns[-1] + 1) / width,)
    assert boxes.turn([box], orientation) == [pytest.approx(expected)]
