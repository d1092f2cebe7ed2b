import time
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kit.data.manifest import shard_paths
from kit.data.records import parse_example
from kit.pipeline import dataset, order, preprocessing
from tests.images import make_shards
from tests.networks import sections, training_data

ALL_ON = {"augmentation": "rand_augment", "random_erasing": 0.5, "mixup": 0.2, "cutmix": 1.0}
ALL_ON |= {"repeated_augmentation": 3, "batch_size": 6, "crop_sampling": "random_resized"}
WHOLE = {"area_range": [0.999, 1.0], "aspect_ratio_range": [1.3, 1.36], "min_object_covered": 0.99}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Three classes of eight training and four validation images, in four and two shards."""
    root = tmp_path_factory.mktemp("data")
    return make_shards(root, classes=3, images=12, train_shards=4, validation_shards=2)


def data(data_dir, **changes):
    settings = {"batch_size": 5, "image_size": 32, "shuffle_shards": 3, "deterministic": True}
    return training_data(data_dir, **settings | changes)


def training(data_dir, start_step=0, **changes):
    return data(data_dir, **changes).batches(start_step)


def take(batches, count):
    return [(images.numpy(), labels.numpy()) for images, labels in batches.take(count)]


def evaluation(data_dir, **changes):
    settings = {"split": "validation", "batch_size": 5, "image_size": 32, "resize_side": 36}
    return dataset.evaluation_dataset(data_dir=data_dir, **settings | changes)


def test_training_batches_are_whole_and_uint8(data_dir):
    images, labels = training(data_dir).element_spec
    assert (images.shape, images.dtype) == ((5, 32, 32, 3), tf.uint8)
    assert (labels.shape, labels.dtype) == ((5,), tf.int64)


def test_each_pass_holds_every_image_once(data_dir):
    """A window that is always the whole photograph tells which photograph an image is."""
    batches = take(training(data_dir, batch_size=24, **WHOLE), 3)
    first, *others = (Counter(brightness(images)) for images, _ in batches)
    assert len(first) == 24
    for other in others:
        assert other == first
    assert Counter(batches[0][1].tolist()) == {0: 8, 1: 8, 2: 8}
    orders = [[round(value) for value in brightness(images)] for images, _ in batches]
    assert orders[0] != orders[1] != orders[2]


def brightness(images):
    """A number that a flip leaves as it is, and that differs from photograph to photograph."""
    return [round(float(image.astype("float64").mean()), 3) for image in images]


def assert_same(one, other):
    for (images, labels), (other_images, other_labels) in zip(one, other, strict=True):
        np.testing.assert_array_equal(images, other_images)
        np.testing.assert_array_equal(labels, other_labels)


def test_the_seed_decides_order_crops_and_flips(data_dir):
    one, same, other = (take(training(data_dir, seed=seed), 3) for seed in (1, 1, 2))
    assert_same(one, same)
    assert any(np.any(a[1] != b[1]) for a, b in zip(one, other, strict=True))


def test_another_seed_crops_an_image_of_the_same_position_otherwise(data_dir):
    crops, seeds = {}, range(3)
    for seed in seeds:
        ((images, _),) = take(training(data_dir, batch_size=24, seed=seed), 1)
        names = data(data_dir, batch_size=24, seed=seed).names(0)
        for place, (name, image) in enumerate(zip(names, images, strict=True)):
            kept = crops.setdefault((name, place), set())
            kept |= {min(image.tobytes(), image[:, ::-1].tobytes())}  # a flip counts nothing
    assert sum(map(len, crops.values())) == 24 * len(seeds)
    assert len(crops) < 24 * len(seeds)  # some image had some position under two seeds


def test_tensorflows_own_seed_changes_nothing(data_dir):
    one = take(training(data_dir), 5)
    keras.utils.set_random_seed(99)
    assert_same(one, take(training(data_dir), 5))


def test_starting_at_a_step_equals_skipping_to_it(data_dir):
    whole = take(training(data_dir), 13 + 4)
    for step in (1, 4, 5, 13):  # a pass is 4.8 steps
        assert_same(whole[step : step + 4], take(training(data_dir, start_step=step), 4))


def test_a_pass_need_not_be_whole_batches(data_dir):
    names = [name for step in range(4) for name in batch_names(data_dir, step, batch_size=18)]
    assert [len(set(names[at : at + 24])) for at in (0, 24, 48)] == [24, 24, 24]


def batch_names(data_dir, step, batch_size=5, times=1):
    settings = {"batch_size": batch_size, "repeated_augmentation": times}
    return data(data_dir, **settings).names(step)


def test_the_names_are_those_of_the_batch(data_dir):
    labels = {
        example["filename"].numpy().decode(): int(example["label"])
        for example in dataset.encoded_examples(data_dir=data_dir, split="train")
    }
    for step, (_, expected) in enumerate(take(training(data_dir), 7)):
        assert [labels[name] for name in batch_names(data_dir, step)] == expected.tolist()


def test_two_workers_share_the_batch_of_one(data_dir):
    whole = take(training(data_dir, batch_size=6, start_step=2), 5)  # over a pass's end
    parts = [
        take(training(data_dir, batch_size=6, start_step=2, worker=worker, workers=2), 5)
        for worker in (0, 1)
    ]
    joined = [
        tuple(np.concatenate(halves) for halves in zip(*step, strict=True))
        for step in zip(*parts, strict=True)
    ]
    assert_same(whole, joined)
    with pytest.raises(ValueError, match="batch_size: 5 does not divide among 2 workers"):
        training(data_dir, batch_size=5, workers=2)


def slowly(value, when):
    """Give an image of this value everywhere, after half a second `when` so."""
    wait = tf.numpy_function(lambda when: time.sleep(0.5 * when), [when], [])
    with tf.control_dependencies([wait]):
        return tf.fill([32, 32, 3], tf.cast(value, tf.uint8))


@pytest.mark.parametrize("deterministic", [True, False])
def test_an_image_that_decodes_slowly_keeps_its_place(data_dir, monkeypatch, deterministic):
    """The first takes longer than the next three batches; four are made at a time."""
    monkeypatch.setattr(dataset, "cores", lambda: 4)
    monkeypatch.setattr(
        preprocessing, "training_image", lambda *a, **_: slowly(a[2][1], a[2][1] == 0)
    )
    batches = take(training(data_dir, batch_size=2, deterministic=deterministic), 4)
    assert [image[0, 0, 0] for images, _ in batches for image in images] == list(range(8))


def test_an_evaluation_keeps_its_order_though_an_image_decodes_slowly(data_dir, monkeypatch):
    examples = dataset.encoded_examples(data_dir=data_dir, split="validation")
    encoded = [example["encoded"].numpy() for example in examples]
    monkeypatch.setattr(dataset, "cores", lambda: 4)
    monkeypatch.setattr(
        preprocessing,
        "evaluation_image",
        lambda data, **_: slowly(tf.strings.length(data) % 251, data == encoded[0]),
    )
    found = [image[0, 0, 0] for images, _ in evaluation(data_dir) for image in images.numpy()]
    assert found == [len(data) % 251 for data in encoded]
    assert len(set(found)) > 6


def test_an_image_gets_another_crop_in_each_pass(data_dir):
    batches = take(training(data_dir, batch_size=24), 2)
    one, other = ({image.tobytes() for image in images} for images, _ in batches)
    mirrored = {image[:, ::-1].tobytes() for image in batches[1][0]}
    assert len(one) == 24
    assert not one & (other | mirrored)


def test_without_augmentation_images_are_those_of_the_preprocessing(data_dir):
    records = order.ordered_records(data_dir=data_dir, shuffle_shards=3, seed=0).take(5)
    ((images, labels),) = take(training(data_dir), 1)
    for (position, record), image, label in zip(records, images, labels, strict=True):
        example = parse_example(record)
        made = preprocessing.training_image(
            example["encoded"], example["boxes"], [0, position], sections().crop, image_size=32
        )
        np.testing.assert_array_equal(image, made)
        assert label == example["label"]


def test_with_all_augmentation_starting_at_a_step_equals_skipping_to_it(data_dir):
    batches = training(data_dir, **ALL_ON)
    assert_same(take(batches, 15)[13:], take(training(data_dir, start_step=13, **ALL_ON), 2))
    images, labels = batches.element_spec
    assert (images.shape, images.dtype) == ((6, 32, 32, 3), tf.uint8)
    assert (labels.shape, labels.dtype) == ((6, 3), tf.float32)


def test_repeated_augmentation_crops_each_image_of_a_batch_so_often(data_dir):
    """The images follow each other in the order without repeats, each three times."""
    names = [batch_names(data_dir, step, batch_size=24, times=3) for step in range(3)]
    once = batch_names(data_dir, 0, batch_size=24)
    assert [name for batch in names for name in batch] == np.repeat(once, 3).tolist()
    for images, labels in take(training(data_dir, batch_size=6, repeated_augmentation=3), 4):
        assert len({image.tobytes() for image in images}) == 6
        assert (labels.reshape(2, 3) == labels[[0, 3], None]).all()


def test_two_workers_share_the_repeated_images(data_dir):
    settings = {"batch_size": 12, "repeated_augmentation": 3, "start_step": 1}
    whole = take(training(data_dir, **settings), 4)
    parts = [take(training(data_dir, **settings, worker=one, workers=2), 4) for one in (0, 1)]
    assert_same(whole, [tuple(map(np.concatenate, zip(*two))) for two in zip(*parts)])  # noqa: B905
    with pytest.raises(ValueError, match="repeated_augmentation: 3 does not divide batch_size: 4"):
        training(data_dir, batch_size=12, repeated_augmentation=3, workers=3)


def test_mixed_batches_have_their_partner_in_another_image(data_dir):
    """Of three crops each, an image is mixed with the crop three places before it."""
    settings = {"batch_size": 6, "repeated_augmentation": 3}
    plain = take(training(data_dir, **settings), 4)
    mixed = take(training(data_dir, **settings, mixup=1.0), 4)
    for (images, labels), (found, shares) in zip(plain, mixed, strict=True):
        share = np.linalg.lstsq(*parts_of(images, found), rcond=None)[0].item()
        one_hot = np.eye(3)[labels]
        expected = share * one_hot + (1 - share) * np.roll(one_hot, 3, axis=0)
        np.testing.assert_allclose(shares, expected, atol=0.01)


def parts_of(images, found):
    """Give what each pixel is if the share of its own image is 1, and what it is, less the rest."""
    others = np.roll(images, 3, axis=0).astype(float)
    return (images - others).reshape(-1, 1), (found - others).reshape(-1)


def test_evaluation_gives_each_image_once_and_in_order(data_dir):
    sizes = [len(labels) for _, labels in evaluation(data_dir)]
    assert sizes == [5, 5, 2]
    labels = np.concatenate([labels for _, labels in evaluation(data_dir)])
    examples = list(dataset.encoded_examples(data_dir=data_dir, split="validation"))
    np.testing.assert_array_equal(labels, [example["label"] for example in examples])
    assert len({example["filename"].numpy() for example in examples}) == 12


def test_evaluation_images_are_those_of_the_preprocessing(data_dir):
    images = np.concatenate([images for images, _ in evaluation(data_dir)])
    for image, example in zip(
        images, dataset.encoded_examples(data_dir=data_dir, split="validation"), strict=True
    ):
        expected = preprocessing.evaluation_image(example["encoded"], image_size=32, resize_side=36)
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("workers, batch_size", [(2, 8), (3, 9), (5, 5)])
def test_workers_share_the_evaluation(data_dir, workers, batch_size):
    """Twelve images: the last batch holds 4, 3 or 2, so that at last some workers get none."""
    whole = [image.tobytes() for images, _ in evaluation(data_dir) for image in images.numpy()]
    parts = [
        list(evaluation(data_dir, batch_size=batch_size, worker=worker, workers=workers))
        for worker in range(workers)
    ]
    steps = [[images.numpy() for images, _ in step] for step in zip(*parts, strict=True)]
    assert len(steps) == -(-12 // batch_size)
    assert {len(share) for step in steps[:-1] for share in step} == {batch_size // workers}
    assert [image.tobytes() for step in steps for share in step for image in share] == whole


def test_two_replicas_share_the_batch_of_one(data_dir, two_replicas):
    expected = take(training(data_dir, batch_size=6), 3)
    distributed = two_replicas.experimental_distribute_dataset(training(data_dir, batch_size=6))
    for (images, labels), batch in zip(expected, distributed, strict=False):
        halves = [two_replicas.experimental_local_results(part) for part in batch]
        assert [len(half) for half in halves[1]] == [3, 3]
        np.testing.assert_array_equal(np.concatenate(halves[0]), images)
        np.testing.assert_array_equal(np.concatenate(halves[1]), labels)


def test_a_pass_has_as_many_steps_as_whole_batches(data_dir):
    assert dataset.steps_per_pass(data_dir=data_dir, batch_size=5) == 4
    assert dataset.steps_per_pass(data_dir=data_dir, batch_size=24) == 1
    with pytest.raises(ValueError, match="batch_size: 25 is more than the 24 training images"):
        dataset.steps_per_pass(data_dir=data_dir, batch_size=25)


def test_a_shard_that_does_not_match_the_manifest_is_named(tmp_path):
    data_dir = make_shards(tmp_path)
    shard = shard_paths(data_dir, "train")[1]
    with Path(shard).open("ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match="train-00001-of-00002"):
        training(data_dir)
