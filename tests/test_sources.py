"""Layouts of folders, the split by a seeded share, and what each wrong folder is told."""

import os
from pathlib import Path

import pytest
from images import class_folders, index_of, jpeg

from kit.data.paths import printable
from kit.prep.imagenet import LABELS_FILE, NAMES_FILE

IMAGE = jpeg(8, 8)


def read(raw_dir, fraction=0.25, seed=0):
    return index_of(raw_dir, validation_fraction=fraction, seed=seed, subset=True)


def held_out(index):
    return {Path(i.path).name for i in index.images if i.split == "validation"}


def touch(path, data=IMAGE):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture
def extracted(tmp_path):
    """ImageNet's extracted form with two classes, one box file, four validation images."""
    touch(tmp_path / "train/n00000002/n00000002_1.JPEG")
    touch(tmp_path / "train/n00000001/n00000001_7.JPEG")
    touch(tmp_path / "train/n00000001/n00000001_30.JPEG")
    touch(tmp_path / "bounding_boxes/n00000001/n00000001_30.xml", b"")
    for number in (3, 1, 2, 4):
        touch(tmp_path / f"validation/ILSVRC2012_val_{number:08d}.JPEG")
    labels = "n00000002\nn00000001\nn00000001\nn00000002\n"
    (tmp_path / LABELS_FILE).write_text(labels)
    (tmp_path / NAMES_FILE).write_text("n00000001\ttench, Tinca tinca\nn99999999\tother\n")
    return tmp_path


# Layouts


def test_folders_are_classes_in_the_order_of_their_names(tmp_path):
    index = read(class_folders(tmp_path, classes=3, images=8))
    assert index.layout == "folder"
    assert [name.wnid for name in index.classes] == ["class0", "class1", "class2"]
    for image in index.images:
        assert Path(image.path).is_absolute()
        assert f"class{image.label}" in image.path
    assert len({image.path for image in index.images}) == 24


@pytest.mark.parametrize(
    ("images", "fraction", "expected"), [(8, 0.25, 2), (3, 0.01, 1), (2, 0.9, 1)]
)
def test_share_of_each_class_is_held_out_one_image_at_least(tmp_path, images, fraction, expected):
    index = read(class_folders(tmp_path, classes=2, images=images), fraction)
    for label in (0, 1):
        splits = [image.split for image in index.images if image.label == label]
        assert splits.count("validation") == expected
        assert splits.count("train") == images - expected


def test_class_of_one_image_keeps_it_for_training(tmp_path):
    class_folders(tmp_path, classes=2, images=4)
    touch(tmp_path / "single" / "only.jpg")
    assert {i.split for i in read(tmp_path).images if i.label == 2} == {"train"}


def test_split_depends_on_seed_and_names_alone(tmp_path):
    here = class_folders(tmp_path / "here", classes=2, images=20)
    there = class_folders(tmp_path / "there", classes=2, images=20)
    assert held_out(read(here)) == held_out(read(there))
    assert held_out(read(here)) != held_out(read(here, seed=1))


def test_one_more_image_moves_one_other_at_the_most(tmp_path):
    before = held_out(read(class_folders(tmp_path, classes=2, images=20)))
    touch(tmp_path / "class0" / "new.jpg")
    after = held_out(read(tmp_path))
    assert len(before - after) <= 1


@pytest.mark.parametrize("name", ["validation", "val"])
def test_ready_splits_are_taken_as_they_are(tmp_path, name):
    class_folders(tmp_path / "train", classes=3, images=2)
    class_folders(tmp_path / name, classes=2, images=1)
    index = read(tmp_path)
    assert index.layout == "split folders"
    assert [(i.split, i.label) for i in index.images] == [
        *(("train", label) for label in (0, 0, 1, 1, 2, 2)),
        ("validation", 0),
        ("validation", 1),
    ]


def test_extracted_imagenet_takes_validation_labels_in_the_order_of_file_names(extracted):
    index = read(extracted)
    assert index.layout == "imagenet extracted"
    labels = {i.path[-6:-5]: i.label for i in index.images if i.split == "validation"}
    assert labels == {"1": 1, "2": 0, "3": 0, "4": 1}


def test_extracted_imagenet_has_names_and_boxes_where_there_are_any(extracted):
    index = read(extracted)
    assert index.classes == [("n00000001", "tench, Tinca tinca"), ("n00000002", "n00000002")]
    boxes = {Path(i.path).name: Path(i.boxes).name for i in index.images if i.boxes}
    assert boxes == {"n00000001_30.JPEG": "n00000001_30.xml"}


def test_files_that_are_no_images_are_listed_with_the_reason(tmp_path):
    class_folders(tmp_path, classes=2, images=2)
    touch(tmp_path / "LICENSE")
    touch(tmp_path / "stray.jpg")
    touch(tmp_path / "class0" / "notes.txt")
    touch(tmp_path / "class0" / ".DS_Store")
    touch(tmp_path / "class0" / "film.MOV")
    touch(tmp_path / "__MACOSX" / "class0" / "._0_0.jpg")
    touch(tmp_path / "Thumbs.db")
    touch(tmp_path / "class1" / "deeper" / "lost.jpg")
    (tmp_path / ".git").mkdir()
    index = read(tmp_path)
    assert len(index.images) == 4
    assert {os.path.relpath(path, tmp_path): reason for path, reason in index.skipped} == {
        ".git": "hidden",
        "LICENSE": "not an image by its name",
        "Thumbs.db": "of the operating system",
        "__MACOSX": "of the operating system",
        "stray.jpg": "not in a class folder",
        "class0/notes.txt": "not an image by its name (.txt)",
        "class0/film.MOV": ".mov: a film: save some of its frames as images",
        "class0/.DS_Store": "hidden",
        "class1/deeper": "a folder within a class folder",
    }


@pytest.mark.parametrize("suffix", ["jfif", "JPE", "jpeg", "AVIF", "webp", "tiff"])
def test_images_are_known_by_all_their_endings(tmp_path, suffix):
    class_folders(tmp_path, classes=2, images=2)
    touch(tmp_path / "class0" / f"x.{suffix}")
    assert len(read(tmp_path).images) == 5


@pytest.mark.parametrize("installed", [True, False])
def test_heic_is_read_or_counted_with_what_to_install(tmp_path, monkeypatch, installed):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if installed else None)
    class_folders(tmp_path, classes=2, images=2)
    touch(tmp_path / "class0" / "phone.HEIC")
    index = read(tmp_path)
    assert len(index.images) == 4 + installed
    assert [reason for _, reason in index.skipped] == [
        ".heic: pip install -e '.[heic]', or convert it to JPEG"
    ] * (not installed)


def test_links_to_nowhere_and_round_in_a_circle_are_counted(tmp_path):
    class_folders(tmp_path, classes=2, images=2)
    (tmp_path / "class0" / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "class0" / "gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(tmp_path / "class0" / "pipe.jpg")
    (tmp_path / "loop").symlink_to("loop")
    index = read(tmp_path)
    assert len(index.images) == 4
    assert {reason for _, reason in index.skipped} == {"not a regular file"}
    assert len(index.skipped) == 4


def test_names_that_are_not_text_do_no_harm(tmp_path):
    class_folders(tmp_path, classes=2, images=2)
    name = os.fsdecode(b"caf\xe9.jpg")
    try:
        touch(tmp_path / os.fsdecode(b"gar\xe7on") / name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    index = read(tmp_path)
    assert index.classes[2] == ("gar\ufffdon", "gar\ufffdon")
    assert any(image.path.endswith(name) and Path(image.path).exists() for image in index.images)


def test_printable_gives_one_line_of_utf8():
    assert printable("häuser 1.jpg") == "häuser 1.jpg"
    assert printable("a\nb\t\udce9") == "a\ufffdb\ufffd\ufffd"


# Bad input: one line with the value and the remedy


def broken(tmp_path, case):
    """Makes raw_dir wrong in one way; returns it."""
    if case == "missing":
        return tmp_path / "nowhere"
    if case == "empty":
        return tmp_path
    if case == "a file":
        touch(tmp_path / "file")
        return tmp_path / "file"
    class_folders(tmp_path / "train", classes=2, images=2)
    if case == "class without image":
        touch(tmp_path / "train/hollow/notes.txt")
    if case == "one class":
        return tmp_path / "train/class0"
    if case == "both validation folders":
        (tmp_path / "val").mkdir()
    if case != "no validation":
        class_folders(tmp_path / "validation", classes=3 if case == "new class" else 2, images=1)
    return tmp_path


@pytest.mark.parametrize(
    ("case", "error", "words"),
    [
        ("missing", FileNotFoundError, "nowhere does not exist: name the folder"),
        ("a file", FileNotFoundError, "file is not a folder: name the folder"),
        ("empty", ValueError, "is empty: put"),
        ("class without image", ValueError, "hollow holds no image: add some, or remove it"),
        ("one class", ValueError, "has 0 class folders"),
        ("no validation", FileNotFoundError, "has a training split but no validation/ and no"),
        ("both validation folders", ValueError, "both val/ and validation/: remove"),
        ("new class", ValueError, "has class class2, which"),
    ],
)
def test_wrong_folder_gets_one_line(tmp_path, case, error, words):
    with pytest.raises(error) as caught:
        read(broken(tmp_path, case))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5])
def test_validation_fraction_lies_between_0_and_1(tmp_path, fraction):
    with pytest.raises(ValueError, match=f"validation_fraction: {fraction} is not between"):
        read(class_folders(tmp_path, classes=2, images=2), fraction)


def test_classes_of_single_images_give_no_validation(tmp_path):
    with pytest.raises(ValueError, match="no validation image"):
        read(class_folders(tmp_path, classes=2, images=1))


def test_label_file_of_another_length_is_refused(extracted):
    with (extracted / LABELS_FILE).open("a") as file:
        file.write("n00000001\n")
    with pytest.raises(ValueError, match=r"has 5 labels but .*validation 4 images"):
        read(extracted)


def test_missing_label_file_is_named(extracted):
    (extracted / LABELS_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=LABELS_FILE):
        read(extracted)


def test_label_of_a_class_without_training_images_is_refused(extracted):
    (extracted / LABELS_FILE).write_text("n00000003\n" * 4)
    with pytest.raises(ValueError, match="has class n00000003, which .*train lacks"):
        read(extracted)
