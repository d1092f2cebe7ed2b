"""Almost equal images in two splits are found; other images are not."""

import io

import numpy as np
import pytest
import tensorflow as tf
from images import class_folders, prepare
from PIL import Image

from kit.prep import near_duplicates
from kit.prep.demo import PHOTOGRAPHS

SPLITS = ("train", "val", "test")


def photographs():
    data = pytest.importorskip("skimage.data")
    return [Image.fromarray(getattr(data, p.function)()).convert("RGB") for p in PHOTOGRAPHS]


def encoded(picture, quality=90, kind="JPEG"):
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=quality)
    return buffer.getvalue()


def copies(picture):
    width, height = picture.size
    half = picture.resize((width // 2, height // 2), Image.LANCZOS)
    return {
        "saved again": encoded(picture, 40),
        "half": encoded(half, 80),
        "grey": encoded(picture.convert("L")),
        "png": encoded(picture, 100),  # as preparation stores it
        "brighter": encoded(picture.point(lambda value: min(255, value * 1.1))),
    }


def by_hand(picture):
    """Give the 256 bits by NumPy alone: means of boxes of pixels, compared."""
    grey = np.asarray(picture.convert("L"), float)
    rows = np.array_split(grey, 16, axis=0)
    means = [[box.mean() for box in np.array_split(row, 17, axis=1)] for row in rows]
    return np.diff(np.round(means)) > 0


def test_bits_say_which_square_is_darker_than_the_next():
    noise = np.random.default_rng(0).integers(0, 256, (16, 17), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((17 * 8, 16 * 8), Image.NEAREST)
    found = near_duplicates.difference_hash(encoded(picture, kind="PNG"))
    bits = np.unpackbits(found.view(np.uint8)).reshape(16, 16)
    np.testing.assert_array_equal(bits, by_hand(picture))


def test_copies_are_near_and_other_photographs_far():
    hashes = [near_duplicates.difference_hash(encoded(photo)) for photo in photographs()]
    for number, photo in enumerate(photographs()):
        for kind, data in copies(photo).items():
            found = near_duplicates.difference_hash(data)
            distances = [int(np.bitwise_count(found ^ other).sum()) for other in hashes]
            assert distances[number] <= near_duplicates.NEAR, kind
            assert min(distances[:number] + distances[number + 1 :]) > 60


@pytest.fixture
def shards(tmp_path):
    """Three splits of small images; val holds a copy of one of train, test a copy of one of val."""
    for number, split in enumerate(SPLITS):
        class_folders(tmp_path / "raw" / split, classes=2, images=4)
        for path in (tmp_path / "raw" / split).rglob("*.jpg"):
            noise = np.random.default_rng([number, *path.stem.encode()])
            coarse = Image.fromarray(noise.integers(0, 256, (9, 9, 3), dtype=np.uint8))
            path.write_bytes(encoded(coarse.resize((96, 96), Image.BICUBIC)))
    for source, target in (("train", "val"), ("val", "test")):
        with Image.open(tmp_path / "raw" / source / "class0/0_1.jpg") as picture:
            copy = encoded(picture.resize((64, 64), Image.LANCZOS), 60)
        (tmp_path / "raw" / target / "class1/copy.jpg").write_bytes(copy)
    prepare(tmp_path / "raw", tmp_path / "shards", validation_shards=2)
    return tmp_path / "shards"


@pytest.mark.parametrize("processes", [1, 2])
def test_planted_copies_are_found_and_nothing_else(shards, processes):
    found = near_duplicates.find(shards, processes=processes)
    places = [place for pair in found for place in (pair.image, pair.other)]
    titles = [title for _, title in near_duplicates.read(shards, places)]
    assert sorted(zip(titles[::2], titles[1::2], strict=True)) == [
        ("test: class1\ncopy.jpg", "validation: class0\n0_1.jpg"),
        ("validation: class1\ncopy.jpg", "train: class0\n0_1.jpg"),
    ]
    assert all(0 <= pair.distance <= near_duplicates.NEAR for pair in found)


def test_pixels_are_those_of_the_record(shards):
    (pair, *_) = near_duplicates.find(shards, processes=1)
    ((pixels, _),) = near_duplicates.read(shards, [pair.image])
    records = list(tf.data.TFRecordDataset(str(shards / pair.image.shard)).as_numpy_iterator())
    feature = tf.train.Example.FromString(records[pair.image.record]).features.feature
    data = feature["image/encoded"].bytes_list.value[0]
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(io.BytesIO(data))))


def test_nearest_is_what_a_comparison_of_all_bits_gives(monkeypatch):
    monkeypatch.setattr(near_duplicates, "BLOCK", 100)  # several blocks
    bits = np.random.default_rng(0).integers(0, 2, (90, 256), dtype=np.uint8)
    codes = np.packbits(bits, axis=1).view(np.uint64)
    found, distances = near_duplicates._nearest(codes[:40], codes[40:])
    differ = (bits[:40, None] != bits[None, 40:]).sum(2)
    np.testing.assert_array_equal(distances, differ.min(1))
    np.testing.assert_array_equal(differ[np.arange(40), found], differ.min(1))


def test_larger_sets_are_not_searched(shards, monkeypatch):
    monkeypatch.setattr(near_duplicates, "LARGEST", 20)
    assert near_duplicates.find(shards, processes=1) is None
