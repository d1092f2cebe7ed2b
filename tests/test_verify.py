"""Verification: of our shards against their manifest, of others' shards for what they are."""

import struct

import numpy as np
import pytest
import tensorflow as tf
from images import class_folders, jpeg, make_shards
from scipy import stats
from test_writer import write

from kit.data import manifest
from kit.files import SEAL, seal, write_json
from kit.prep.examples import encode_example
from kit.prep.verify import UNMIXED, is_unmixed, verify


def write_others(data_dir, names, labels, first=1):
    """Write shards as others would: one list of labels from 0 each, `first` the lowest on disk."""
    data_dir.mkdir(exist_ok=True)
    number = 0
    for name, some in zip(names, labels, strict=True):
        with tf.io.TFRecordWriter(str(data_dir / name)) as writer:
            for label in some:
                number += 1
                example = encode_example(
                    encoded=b"image %d" % number,
                    height=1,
                    width=1,
                    label=int(label) + first - 1,
                    wnid="",
                    name="",
                    filename="a.jpg",
                    boxes=[],
                )
                writer.write(example)
    return data_dir


def two_names(split="train"):
    return [f"{split}-{number:05d}-of-00002" for number in (0, 1)]


def change_byte(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


# Ours


def test_every_record_is_counted(tmp_path):
    report = verify(make_shards(tmp_path), processes=1)
    assert report["splits"] == {
        "train": {"shards": 2, "images": 12},
        "validation": {"shards": 1, "images": 6},
    }
    assert report["labels"]["convention"] == "1-based, 3 classes"
    assert [report[key] for key in ("unmixed", "missing", "repeated")] == [[], [], []]


def test_number_of_processes_changes_nothing(tmp_path):
    data_dir = make_shards(tmp_path)
    assert verify(data_dir, processes=2) == verify(data_dir, processes=1)


def test_changed_byte_is_named_by_shard_and_record(tmp_path):
    data_dir = make_shards(tmp_path)
    path = data_dir / "train-00001-of-00002"
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    change_byte(path, length + 16 + 12 + 50)  # inside the second record
    with pytest.raises(ValueError, match="train-00001-of-00002: record 1 has another checksum"):
        verify(data_dir, processes=1)


def test_false_length_is_named_before_anything_is_read_by_it(tmp_path):
    data_dir = make_shards(tmp_path)
    path = data_dir / "train-00000-of-00002"
    data = bytearray(path.read_bytes())
    data[:8] = struct.pack("<Q", 2**62)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="train-00000-of-00002: record 0 .* a false length"):
        verify(data_dir, processes=1)


def edited(data_dir, edit, sealed=True):
    """Edit the manifest as its own writer would have written it, or with the old seal."""
    shards = manifest.read_manifest(data_dir)
    edit(shards)
    write_json(data_dir / "manifest.json", seal(shards) if sealed else shards)
    return data_dir


def first_shard(shards):
    return shards["splits"]["train"]["shards"][0]


def move_one(shards):
    histogram = first_shard(shards)["classes"]
    histogram[0], histogram[1] = histogram[0] + 1, histogram[1] - 1


def swap_splits(shards):
    splits = shards["splits"]
    splits["train"], splits["validation"] = splits["validation"], splits["train"]


def rename(shards):
    shards["classes"][1]["name"] = "renamed"


# what each says who knows only the manifest, or reads the records
EDITS = {
    "another sum": (
        lambda shards: first_shard(shards).update(sha256="0" * 64),
        "00000-of-00002: has changed since",
    ),
    "counts of classes": (move_one, "holds .* not the classes"),
    "reversed classes": (lambda shards: shards["classes"].reverse(), "does not have the classes"),
    "renamed class": (rename, "does not have the classes"),
    "swapped splits": (swap_splits, "train: a shard named 'validation-00000-of-00001'"),
    "images": (lambda shards: shards["splits"]["train"].update(images=13), "13 images are not"),
    "records": (lambda shards: first_shard(shards).update(records=7), "counts of classes are not"),
    "twice": (
        lambda shards: shards["splits"]["train"]["shards"].append(first_shard(shards)),
        "train-00000-of-00002 is listed twice",
    ),
}


@pytest.mark.parametrize("kind", EDITS)
def test_an_edit_of_the_manifest_is_noticed_even_if_it_is_sealed_anew(kind, tmp_path):
    edit, line = EDITS[kind]
    with pytest.raises(ValueError, match=line) as caught:
        verify(edited(make_shards(tmp_path), edit), processes=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["reversed classes", "renamed class", "another sum"])
def test_an_edit_is_noticed_by_whoever_reads_the_manifest(kind, tmp_path):
    data_dir = edited(make_shards(tmp_path), EDITS[kind][0], sealed=False)
    with pytest.raises(ValueError, match="it was edited since it was written"):
        manifest.shard_paths(data_dir, "train")


@pytest.mark.parametrize("kind", ["reversed classes", "renamed class"])
def test_the_records_know_their_classes(kind, tmp_path):
    data_dir = edited(make_shards(tmp_path), EDITS[kind][0])
    table = manifest.classes_table(manifest.read_manifest(data_dir))
    (data_dir / manifest.CLASSES).write_text(table)
    with pytest.raises(ValueError, match="calls label [123] class"):
        verify(data_dir, processes=1)


def test_a_manifest_of_the_first_version_has_no_seal(tmp_path):
    data_dir = make_shards(tmp_path)
    read = manifest.read_manifest(data_dir)
    del read[SEAL]
    write_json(data_dir / "manifest.json", read)
    assert verify(data_dir, processes=1)["splits"]["train"]["images"] == 12


def test_same_image_under_two_names_is_found(tmp_path):
    raw_dir = class_folders(tmp_path / "raw", classes=2, images=4)
    twin = raw_dir / "class1/again.jpg"
    twin.write_bytes((raw_dir / "class0/0_0.jpg").read_bytes())
    write(raw_dir, tmp_path / "shards")
    (places,) = verify(tmp_path / "shards", processes=1)["repeated"]
    files = {record_at(tmp_path / "shards", *place) for place in places}
    assert files == {b"0_0.jpg", b"again.jpg"}


def record_at(data_dir, shard, record):
    found = list(tf.data.TFRecordDataset(str(data_dir / shard)).as_numpy_iterator())[record]
    example = tf.train.Example.FromString(found)
    return example.features.feature["image/filename"].bytes_list.value[0]


# Others'


@pytest.mark.parametrize(
    ("first", "classes", "words"),
    [
        (1, 1000, "1-based, 1000 classes (1001 outputs where 0 stands for the background)"),
        (0, 1000, "0-based, 1000 classes"),
        (0, 1001, "0-based, 1001 classes: 0 is used as if it were one"),
        (1, 7, "1-based, 7 classes"),
        (5, 7, "unclear"),
    ],
)
def test_label_convention_is_told(tmp_path, first, classes, words):
    labels = np.random.default_rng(0).permutation(classes)
    data_dir = write_others(tmp_path / "d", ["train-00000-of-00001"], [labels], first)
    found = verify(data_dir, processes=1)["labels"]
    assert found["convention"].startswith(words)
    assert (found["lowest"], found["highest"]) == (first, first + classes - 1)


def test_class_sorted_shards_are_told_from_mixed_ones(tmp_path):
    labels = np.repeat(np.arange(10), 40)
    in_order = write_others(tmp_path / "sorted", two_names(), np.split(labels, 2))
    assert verify(in_order, processes=1)["unmixed"] == two_names()
    mixed = np.random.default_rng(0).permutation(labels)
    report = verify(write_others(tmp_path / "d", two_names(), np.split(mixed, 2)), processes=1)
    assert report["unmixed"] == report["sorted"] == []


def test_shards_sorted_within_are_told(tmp_path):
    labels = np.repeat(np.arange(10), 20)
    report = verify(write_others(tmp_path / "d", two_names(), [labels, labels]), processes=1)
    assert (report["unmixed"], report["sorted"]) == ([], two_names())


def test_missing_shards_are_named(tmp_path):
    data_dir = write_others(tmp_path / "d", two_names()[1:], [[0, 1]])
    assert verify(data_dir, processes=1)["missing"] == ["train-00000-of-00002"]


def test_record_that_is_no_image_is_named(tmp_path):
    data_dir = write_others(tmp_path / "d", two_names()[:1], [[0, 1]])
    with tf.io.TFRecordWriter(str(data_dir / "train-00001-of-00002")) as writer:
        writer.write(tf.train.Example().SerializeToString())
    with pytest.raises(
        ValueError, match="00001-of-00002: record 0 is no Example of an image .image/encoded and"
    ):
        verify(data_dir, processes=1)


def test_folder_without_shards_is_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(8, 8))
    with pytest.raises(FileNotFoundError, match="holds no shards"):
        verify(tmp_path, processes=1)


# Chi-square


def test_threshold_is_crossed_by_a_shard_of_one_class_of_ten_from_8_records_on():
    for records, unmixed in ((7, False), (8, True)):
        assert is_unmixed([records, *[0] * 9], [1000] * 10) == unmixed
        degrees, expected = 9, records / 10
        chi_square = (records - expected) ** 2 / expected + 9 * expected
        assert (stats.chi2.sf(chi_square, degrees) < UNMIXED) == unmixed


def test_no_mixed_shard_of_imagenets_size_is_accused():
    rng = np.random.default_rng(0)
    totals = np.full(1000, 1280)
    shards = rng.multinomial(1251, totals / totals.sum(), size=1024)
    assert not any(is_unmixed(histogram, totals) for histogram in shards)


def test_a_shard_of_no_record_or_a_split_of_one_class_is_not_accused():
    assert not is_unmixed([0, 0], [5, 5])
    assert not is_unmixed([5], [10])
