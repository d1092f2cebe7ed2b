"""The demonstration set: ImageNet's shape and oddities, true boxes, views that never repeat."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from kit.prep import demo, reading
from tests.images import index_of, preparation

VIEWS = 100


@pytest.fixture(scope="module")
def raw_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "raw"
    demo.make_demo(raw_dir=folder, demo_views=VIEWS, seed=0)
    return folder


@pytest.fixture(scope="module")
def index(raw_dir):
    return index_of(raw_dir, validation_fraction=0.1, subset=True)


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


def test_set_is_read_as_extracted_imagenet(index):
    assert index.layout == "imagenet extracted"
    assert len(index.classes) == 10
    assert index.classes[3] == ("n90000004", "rocket")
    assert index.skipped == []
    for split, each in (("train", VIEWS // 10), ("validation", VIEWS // 50)):
        labels = [image.label for image in index.images if image.split == split]
        assert np.bincount(labels).tolist() == [each] * 10


def test_order_of_validation_files_says_nothing_of_the_classes(index):
    labels = [image.label for image in index.images if image.split == "validation"]
    names = [image.path for image in index.images if image.split == "validation"]
    by_name = [label for _, label in sorted(zip(names, labels, strict=True))]
    assert by_name != sorted(by_name)
    assert by_name != [number % 10 for number in range(len(by_name))]


def test_label_files_name_what_the_pictures_show(index):
    for image in index.images:
        red, _, blue = np.asarray(Image.open(image.path).convert("RGB")).mean(axis=(0, 1))
        name = index.classes[image.label].name
        assert (red + blue < 75) == (name == "galaxies")
        assert (red < 0.8 * blue) == (name == "rocket")
        if name in ("retina", "coffee"):
            assert red > 1.7 * blue
        if name in ("brick", "grass", "gravel"):
            assert abs(red - blue) < 0.25 * blue


def test_training_views_hold_imagenets_oddities(index):
    kinds = []
    for image in index.images:
        assert image.path.endswith(".JPEG")
        with Image.open(image.path) as view:
            kinds.append((image.split, view.format, view.mode))
            assert 144 <= min(view.size) <= 176
    assert kinds.count(("train", "JPEG", "L")) == 1
    assert kinds.count(("train", "JPEG", "CMYK")) == 1
    assert kinds.count(("train", "PNG", "RGB")) == 1
    assert kinds.count(("train", "JPEG", "RGB")) == VIEWS - 3
    assert kinds.count(("validation", "JPEG", "RGB")) == VIEWS // 5


def test_each_training_view_has_a_box(index):
    for image in index.images:
        if image.split == "validation":
            assert image.boxes == ""
            continue
        ((ymin, xmin, ymax, xmax),) = reading.boxes_of(image, index.classes, 1, 1)
        assert 0 <= ymin < ymax <= 1
        assert 0 <= xmin < xmax <= 1
        if index.classes[image.label].name == "rocket":
            assert xmax - xmin < 0.4 < ymax - ymin + 0.2  # slim and upright


def test_box_encloses_the_object_as_the_view_shows_it():
    picture = Image.new("RGB", (450, 300))
    corners = (150, 60, 299, 239)
    ImageDraw.Draw(picture).rectangle(corners, fill="white")
    mask = Image.new("L", picture.size)
    ImageDraw.Draw(mask).rectangle(corners, fill=255)
    for number in range(40):
        view, box, _ = demo._draw_view((picture, mask), [0, 0, number])
        rows, columns = np.nonzero(np.asarray(view).max(axis=-1) > 90)
        seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert np.abs(np.subtract(seen, box)).max() <= 1


def test_view_never_leaves_its_photograph():
    white = Image.new("RGB", (400, 300), "white")
    mask = Image.new("L", white.size, 255)
    for number in range(40):
        view, _, _ = demo._draw_view((white, mask), [0, 0, number])
        assert np.asarray(view).std(axis=(0, 1)).max() < 1  # black corners would stand out


def test_no_view_appears_twice(index):
    shown = set()
    for image in index.images:
        pixels = Image.open(image.path).convert("RGB").tobytes()
        shown.add(hashlib.sha256(pixels).hexdigest())
    assert len(shown) == VIEWS + VIEWS // 5


def test_view_depends_on_seed_and_number_alone(raw_dir, tmp_path):
    demo.make_demo(raw_dir=tmp_path / "larger", demo_views=VIEWS + 10, seed=0)
    demo.make_demo(raw_dir=tmp_path / "other", demo_views=VIEWS, seed=1)
    here, larger, other = files(raw_dir), files(tmp_path / "larger"), files(tmp_path / "other")
    training = [name for name in here if name.startswith(("train", "bounding"))]
    assert len(training) == 2 * VIEWS
    assert all(here[name] == larger[name] for name in training)
    assert not any(here[name] == other[name] for name in training if name.endswith("JPEG"))


def test_second_call_does_nothing(raw_dir):
    before = {path: path.stat().st_mtime_ns for path in raw_dir.rglob("*")}
    demo.make_demo(raw_dir=raw_dir, demo_views=VIEWS, seed=0)
    assert {path: path.stat().st_mtime_ns for path in raw_dir.rglob("*")} == before


def test_set_of_other_arguments_is_refused(raw_dir):
    with pytest.raises(ValueError, match="holds the demonstration set .*: delete it or name"):
        demo.make_demo(raw_dir=raw_dir, demo_views=VIEWS, seed=1)


def test_folder_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(ValueError, match="holds something other than a demonstration set"):
        demo.make_demo(raw_dir=tmp_path, demo_views=VIEWS, seed=0)
    assert files(tmp_path) == {"holiday.jpg": b"mine"}


def test_too_few_views_are_refused():
    with pytest.raises(ValueError, match="demo_views: 49 is too few: 50 or more"):
        preparation(demo_views=49)
