"""Every layout of one miniature of ImageNet gives the same examples, and is left as it was."""

import hashlib
import pickle
import re

import layouts
import pytest
from images import index_of, jpeg, prepare
from layouts import write

from kit.data.images import read_header
from kit.prep import imagenet, reading

slow = pytest.mark.slow  # needs pyarrow
LAYOUTS = [
    (layouts.archives, "imagenet archives"),
    (layouts.extracted, "imagenet extracted"),
    (layouts.extracted_with_devkit, "imagenet extracted"),
    (layouts.by_class, "imagenet extracted"),
    (layouts.kaggle, "imagenet kaggle"),
    (layouts.kaggle_without_annotations, "imagenet kaggle"),
    pytest.param(layouts.parquet, "imagenet parquet", marks=slow),
]


def read(root, subset=True):
    return index_of(root, validation_fraction=0.5, subset=subset)


def examples(index):
    found = []
    for image in index.images:
        data = reading.read_image(image)
        header = read_header(data)
        boxes = reading.boxes_of(image, index.classes, header.height, header.width)
        found.append((image.split, image.label, image.name, data, boxes))
    return found


def contents(folder):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.mark.parametrize(("make", "layout"), LAYOUTS)
def test_all_layouts_give_the_same_examples(tmp_path, make, layout):
    make(tmp_path)
    before = contents(tmp_path)
    index = read(tmp_path)
    assert index.layout == layout
    assert index.classes == list(layouts.WNIDS.items())
    assert examples(index) == layouts.examples()
    assert index.missing == []
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("make", "layout"), LAYOUTS)
def test_image_can_go_to_another_process(tmp_path, make, layout):
    make(tmp_path)
    for image in read(tmp_path).images:
        assert len(pickle.dumps(image)) < 500
        assert reading.read_image(pickle.loads(pickle.dumps(image))) == reading.read_image(image)


@pytest.mark.parametrize("make", [layouts.archives, layouts.kaggle_without_annotations])
def test_shards_are_byte_for_byte_those_of_the_extracted_form(tmp_path, make):
    written = []
    for number, each in enumerate((layouts.extracted, make)):
        each(tmp_path / f"raw{number}")
        data_dir = tmp_path / f"shards{number}"
        prepare(tmp_path / f"raw{number}", data_dir, subset=True, check="header")
        written.append({path.name: path.read_bytes() for path in data_dir.glob("*-of-*")})
    assert len(written[0]) == 3
    assert written[0] == written[1]


def test_what_is_missing_is_said(tmp_path):
    layouts.extracted(tmp_path)
    (tmp_path / "imagenet_metadata.txt").unlink()
    (tmp_path / "bounding_boxes").rename(tmp_path / "elsewhere")
    boxes, names = read(tmp_path).missing
    assert boxes.startswith("bounding boxes: ILSVRC2012_bbox_train_v2.tar.gz")
    assert names.startswith("names of the classes: ILSVRC2012_devkit_t12.tar.gz")


@pytest.mark.parametrize(
    ("make", "gone", "words"),
    [
        (layouts.archives, "ILSVRC2012_img_val.tar", "no ILSVRC2012_img_val.tar: add it"),
        (layouts.archives, "ILSVRC2012_img_train.tar", "neither ILSVRC2012_img_train.tar nor"),
        (layouts.archives, "ILSVRC2012_devkit_t12.tar.gz", "none of ILSVRC2012_devkit_t12.tar.gz"),
        (layouts.kaggle, "LOC_val_solution.csv", "none of .*LOC_val_solution.csv"),
        (layouts.kaggle, "ILSVRC/Data/CLS-LOC/val", "CLS-LOC/val is missing"),
    ],
)
def test_missing_part_of_a_layout_is_named(tmp_path, make, gone, words):
    make(tmp_path / "raw")
    (tmp_path / "raw" / gone).rename(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=words) as caught:
        read(tmp_path / "raw")
    assert "\n" not in str(caught.value)


# Counts


def test_imagenet_must_be_whole_unless_it_is_declared_a_subset(tmp_path):
    layouts.archives(tmp_path)
    with pytest.raises(ValueError, match="set subset to true") as caught:
        read(tmp_path, subset=False)
    for words in (
        "12 training images, not 1,281,167",
        "4 validation images, not 50,000",
        "3 classes, not 1,000",
        "3 images with boxes, not 544,546",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("make", "expected"),
    [(layouts.archives, 5), (layouts.extracted, 5), (layouts.kaggle_without_annotations, 0)],
)
def test_whole_imagenet_passes_and_states_its_boxes(tmp_path, monkeypatch, make, expected):
    make(tmp_path)
    monkeypatch.setattr(imagenet, "IMAGES", {"train": 12, "validation": 4})
    monkeypatch.setattr(imagenet, "CLASSES", 3)
    monkeypatch.setattr(imagenet, "BOX_FILES", 3)
    monkeypatch.setattr(imagenet, "BOXES", 5)
    index = read(tmp_path, subset=False)
    assert index.expect_boxes == expected
    assert read(tmp_path, subset=True).expect_boxes == 0
    imagenet.check_boxes(index, expected)
    if expected:
        with pytest.raises(ValueError, match="4 boxes were read, not ImageNet's 5"):
            imagenet.check_boxes(index, 4)


def test_imagenets_numbers_are_those_of_the_inception_scripts():
    assert imagenet.IMAGES == {"train": 1281167, "validation": 50000}
    assert (imagenet.CLASSES, imagenet.BOX_FILES, imagenet.BOXES) == (1000, 544546, 615299)


def test_other_sets_are_not_counted(tmp_path):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            write(tmp_path / split / name / "1.jpg", jpeg(8, 8))
    assert read(tmp_path, subset=False).layout == "split folders"


def test_imagenettes_ten_classes_are_a_set_of_their_own_with_names(tmp_path):
    """An eleventh makes it a part of ImageNet, whose counts are asserted."""
    for split in ("train", "val"):
        for wnid in imagenet.IMAGENETTE:
            write(tmp_path / split / wnid / "1.jpg", jpeg(8, 8))
    index = read(tmp_path, subset=False)
    assert index.layout == "split folders"
    assert index.classes[0] == ("n01440764", "tench")
    assert index.classes[-1] == ("n03888257", "parachute")
    write(tmp_path / "train" / "n01443537" / "1.jpg", jpeg(8, 8))
    with pytest.raises(ValueError, match="11 classes"):
        read(tmp_path, subset=False)


# MD5


def test_md5_of_archives_is_compared(tmp_path):
    data = b"x" * (imagenet.BLOCK_BYTES + 1)
    write(tmp_path / "a.tar", data)
    seen = []

    def progress(blocks, total):
        for block in blocks:
            seen.append((len(block), total))
            yield block

    known = {"a.tar": hashlib.md5(data).hexdigest(), "b.tar": "0"}
    assert imagenet.check_md5(tmp_path, known, progress) == ["a.tar"]
    assert seen == [(imagenet.BLOCK_BYTES, 2), (1, 2)]
    with pytest.raises(ValueError, match=r"a\.tar has the MD5 .*, not 1: get it again"):
        imagenet.check_md5(tmp_path, {"a.tar": "1"})
    with pytest.raises(FileNotFoundError, match="holds none of ILSVRC2012_img_train.tar"):
        imagenet.check_md5(tmp_path)


def test_known_md5_are_whole():
    assert all(re.fullmatch("[0-9a-f]{32}", digest) for digest in imagenet.MD5.values())


# Lists


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("LOC_val_solution.csv", "", "first line is not ImageId"),
        ("LOC_val_solution.csv", "ImageId,PredictionString\na,b,c\n", "line 2 has 3 columns"),
        ("LOC_val_solution.csv", "ImageId,PredictionString\na,n1 1\n", "no label for ILSVRC2012"),
        ("LOC_val_solution.csv", 'ImageId,PredictionString\n"' + "x" * 200000, "larger than field"),
        ("LOC_train_solution.csv", "ImageId,PredictionString\na,b c\n", "2 words are no boxes"),
    ],
)
def test_broken_list_of_kaggles_is_named(tmp_path, name, text, words):
    layouts.kaggle_without_annotations(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{name}.*{words}") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_huge_list_is_not_read(tmp_path):
    layouts.extracted(tmp_path)
    with (tmp_path / imagenet.NAMES_FILE).open("wb") as file:
        file.truncate(imagenet.MAX_TEXT_BYTES + 1)  # takes no room on the disk
    with pytest.raises(ValueError, match=r"imagenet_metadata.txt cannot be read: .*more than"):
        read(tmp_path)
