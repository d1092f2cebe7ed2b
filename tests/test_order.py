import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from kit.data import records
from kit.pipeline import order
from kit.prep.examples import encode_example
from tests.images import jpeg

SIZES = [
    7,
    4,
    6,
    6,
    1,
    5,
    6,
]  # 35 images in groups of different sizes


def write_set(folder, shards):
    """Write training shards of images with these labels, one tiny JPEG under many names."""
    folder.mkdir()
    entries, encoded, classes = [], jpeg(8, 8), 1 + max(map(max, shards))
    for number, labels in enumerate(shards):
        name = f"train-{number:05d}-of-{len(shards):05d}"
        with tf.io.TFRecordWriter(str(folder / name)) as writer:
            for place, label in enumerate(labels):
                filename = f"{number}_{place}.jpg"
                kind = {"label": label, "wnid": "n", "name": "n", "filename": filename}
                size = {"height": 8, "width": 8}
                writer.write(encode_example(encoded=encoded, boxes=[], **kind, **size))
        size = (folder / name).stat().st_size
        entry = {"name": name, "records": len(labels), "bytes": size, "sha256": ""}
        entry["classes"] = np.bincount(labels, minlength=classes).tolist()
        entries.append(entry)
    split = {"images": sum(map(len, shards)), "quarantined": 0, "shards": entries}
    manifest = {"fingerprint": "", "parameters": {}, "splits": {"train": split}, "label_offset": 1}
    manifest |= {name: [] for name in ("skipped", "reencoded", "quarantined")}
    manifest["classes"] = [{"wnid": "n", "name": "n"}] * classes
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    labels = [[place % 3 for place in range(size)] for size in SIZES]
    return write_set(tmp_path_factory.mktemp("order") / "shards", labels)


def take(data_dir, count, **settings):
    """Give (position, file name, label) of the first `count` images."""
    settings = {"shuffle_shards": 3, "seed": 0} | settings
    examples = order.ordered_records(data_dir=data_dir, **settings).map(
        lambda position, record: (position, records.parse_example(record))
    )
    return [
        (int(position), example["filename"].numpy().decode(), int(example["label"]))
        for position, example in examples.take(count)
    ]


def names(found):
    return [name for _, name, _ in found]


@pytest.mark.parametrize("shuffle_shards", [1, 2, 3, 7, 50])
def test_each_pass_holds_every_image_once(data_dir, shuffle_shards):
    """Groups of one shard, a smaller last group, one group, fewer shards than a group."""
    found = take(data_dir, 3 * 35, shuffle_shards=shuffle_shards)
    assert [position for position, _, _ in found] == list(range(3 * 35))
    everything = {f"{number}_{place}.jpg" for number, n in enumerate(SIZES) for place in range(n)}
    passes = [names(found[start : start + 35]) for start in (0, 35, 70)]
    assert all(set(one) == everything and len(one) == 35 for one in passes)
    assert passes[0] != passes[1] != passes[2] != passes[0]


def test_a_group_holds_whole_shards_thoroughly_mixed(data_dir):
    first = names(take(data_dir, 35))
    firsts = [name.split("_")[0] for name in first]
    shards = list(dict.fromkeys(firsts))
    group = set(shards[:3])
    size = sum(SIZES[int(shard)] for shard in group)
    assert set(firsts[:size]) == group and not set(firsts[size:]) & group
    assert firsts[:size] != sorted(firsts[:size], key=shards.index)


def test_each_pass_has_the_shards_in_another_order(data_dir):
    found = names(take(data_dir, 4 * 35, shuffle_shards=1))
    passes = [found[start : start + 35] for start in range(0, 4 * 35, 35)]
    orders = {tuple(dict.fromkeys(name.split("_")[0] for name in one)) for one in passes}
    assert len(orders) == 4


def test_each_group_of_each_pass_is_permuted_in_a_way_of_its_own(tmp_path):
    data_dir = write_set(tmp_path / "equal", [[0] * 8 for _ in range(4)])
    found = names(take(data_dir, 3 * 32, shuffle_shards=1))
    places = [int(name[:-4].split("_")[1]) for name in found]
    assert len({tuple(places[start : start + 8]) for start in range(0, 3 * 32, 8)}) == 12


def test_shards_and_images_are_permuted_apart(tmp_path):
    """Of eight shards of eight images, the first pass and its first group have equal numbers."""
    data_dir = write_set(tmp_path / "eight", [[0] * 8 for _ in range(8)])
    for seed in range(4):
        found = names(take(data_dir, 64, shuffle_shards=1, seed=seed))
        shards = list(dict.fromkeys(name.split("_")[0] for name in found))
        assert shards != [name[:-4].split("_")[1] for name in found[:8]]


def test_one_shard_is_enough(tmp_path):
    data_dir = write_set(tmp_path / "one", [[0, 1, 2, 0, 1]])
    found = names(take(data_dir, 10, shuffle_shards=8))
    assert sorted(found[:5]) == sorted(found[5:]) and len(set(found)) == 5


def test_starting_anywhere_equals_skipping(data_dir):
    whole = take(data_dir, 4 * 35)
    for start in (1, 6, 17, 18, 34, 35, 36, 69, 70, 71, 100):
        assert take(data_dir, 40, start=start) == whole[start : start + 40], start


def test_a_late_start_reads_nothing_of_what_lies_before(data_dir):
    """A billion images later there is still an order, and it is there at once."""
    start = 35 * 10**9 + 3
    found = take(data_dir, 32, start=start)
    assert [position for position, _, _ in found] == list(range(start, start + 32))
    assert len(set(names(found))) == 32


def test_a_start_amid_a_pass_needs_no_shard_of_the_groups_before(tmp_path):
    data_dir = write_set(tmp_path / "shards", [[0] * size for size in SIZES])
    whole = take(data_dir, 35, shuffle_shards=1)
    shards = list(dict.fromkeys(name.split("_")[0] for name in names(whole)))
    start = sum(SIZES[int(shard)] for shard in shards[:3])
    for shard in shards[:3]:
        path = data_dir / f"train-{int(shard):05d}-of-{len(SIZES):05d}"
        path.write_bytes(bytes(path.stat().st_size))  # TensorFlow fails on its first record
    count = SIZES[int(shards[3])] + SIZES[int(shards[4])]
    found = take(data_dir, count, shuffle_shards=1, start=start)
    assert found == whole[start : start + count]


def test_the_seed_decides_the_order_and_tensorflows_own_does_not(data_dir):
    one = take(data_dir, 50, seed=1)
    keras.utils.set_random_seed(77)
    assert take(data_dir, 50, seed=1) == one
    assert take(data_dir, 50, seed=2) != one


def test_only_the_wanted_positions_are_given(data_dir):
    whole = take(data_dir, 50)
    odd = take(data_dir, 25, wanted=lambda position: position % 2 == 1)
    assert odd == whole[1::2]


def deviations(labels, batch_size):
    """Give how far the mixture of classes in batches is from chance, in standard deviations.

    Pearson's chi-square of the table batches x classes.
    """
    batches = np.reshape(labels, (-1, batch_size))
    classes = np.unique(labels)
    table = np.array([[np.sum(batch == label) for label in classes] for batch in batches])
    expected = batch_size * table.sum(axis=0) / len(labels)
    freedom = (len(classes) - 1) * (len(batches) - 1)
    return (np.sum((table - expected) ** 2 / expected) - freedom) / np.sqrt(2 * freedom)


def test_classes_are_mixed_as_by_random_sampling(tmp_path):
    """Shards of a single class each, read as one group; shard after shard fails the same bound."""
    data_dir = write_set(tmp_path / "sorted", [[label] * 60 for label in range(10)])
    for seed in range(5):
        mixed = [label for *_, label in take(data_dir, 600, shuffle_shards=10, seed=seed)]
        assert abs(deviations(mixed, 20)) < 4
        unmixed = [label for *_, label in take(data_dir, 600, shuffle_shards=1, seed=seed)]
        assert deviations(unmixed, 20) > 40
