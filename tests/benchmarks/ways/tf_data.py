"""Batches by TensorFlow: the kit's, the 2018 recipe's operations in plain tf.data, the decoder."""

import functools
from unittest import mock

import numpy as np
import tensorflow as tf

from kit import params
from kit.data import manifest, records
from kit.pipeline import order, preprocessing
from tests import networks
from ways.pillow import MEANS
from ways.shards import PHOTOGRAPHS, encoded_of, in_memory

BATCH, SIZE, SEED = 100, 224, 0
CROP = params.load().crop
NO_BOX = tf.zeros([0, 4])


def ours(data_dir, memory, **changes):
    """Give the kit's own batches; from memory, its order is replaced by that of the list."""
    return counted(batches(data_dir, memory, **changes))


def batches(data_dir, memory, **changes):
    data = training_data(data_dir, **changes)
    if not memory:
        return data.batches()
    listed = tf.data.Dataset.from_tensor_slices(in_memory(data_dir)).repeat().enumerate()
    with mock.patch.object(order, "ordered_records", lambda **_: listed):
        return data.batches()


def training_data(data_dir, **changes):
    """Give the kit's TrainingData of `params.yaml`, with smaller batches and less to shuffle."""
    sizes = {"batch_size": BATCH, "image_size": SIZE, "shuffle_shards": 2}
    return networks.training_data(data_dir, **sizes | changes)


def counted(found):
    """Give the number of images in each batch, which is made and dropped."""
    for batch in found:
        yield len(batch[0])


def plain(data_dir, memory):
    """Give the 2018 recipe's operations in tf.data as its authors wrote them, in parallel."""

    def preprocess(record):
        example = records.parse_example(record)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(example["encoded"]),
            bounding_boxes=example["boxes"][tf.newaxis],
            min_object_covered=CROP.min_object_covered,
            aspect_ratio_range=CROP.aspect_ratio_range,
            area_range=CROP.area_range,
            max_attempts=CROP.max_attempts,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.concat([begin[:2], size[:2]], axis=0)
        image = tf.io.decode_and_crop_jpeg(example["encoded"], window, channels=3)
        image = tf.image.random_flip_left_right(image)
        return tf.image.resize(image, [SIZE, SIZE]) - MEANS, example["label"]

    if memory:
        found = tf.data.Dataset.from_tensor_slices(in_memory(data_dir)).repeat()
    else:
        paths = manifest.shard_paths(data_dir, "train")
        found = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths)).repeat()
        found = found.interleave(tf.data.TFRecordDataset, num_parallel_calls=tf.data.AUTOTUNE)
        found = found.shuffle(500)
    options = tf.data.Options()
    options.deterministic = False
    found = found.map(preprocess, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH)
    return counted(found.prefetch(tf.data.AUTOTUNE).with_options(options))


def bound(data_dir):
    """Give the decoder alone: each window, chosen beforehand, is decoded and dropped."""
    found = tf.data.Dataset.from_tensor_slices((encoded_of(data_dir), windows(data_dir)))

    def decode(encoded, window):
        return (tf.shape(tf.io.decode_and_crop_jpeg(encoded, window, channels=3)),)

    found = found.repeat().map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
    return counted(found.batch(BATCH).prefetch(tf.data.AUTOTUNE))


@functools.cache
def windows(data_dir) -> np.ndarray:
    """Give the windows that our pipeline chooses for the photographs at their places in memory."""
    return np.stack(
        [
            preprocessing.distorted_window(
                tf.io.extract_jpeg_shape(encoded), NO_BOX, seed_of(number), CROP
            )
            for number, encoded in enumerate(encoded_of(data_dir))
        ]
    )


def flips(data_dir) -> list[bool]:
    return [
        bool(tf.random.stateless_uniform([], preprocessing.fold_in(seed_of(number), 1)) < 0.5)
        for number in range(PHOTOGRAPHS)
    ]


def seed_of(number):
    return tf.constant([SEED, number], tf.int64)


def first_images(data_dir) -> np.ndarray:
    """Give our images of the first photographs in memory, one batch, as float32."""
    images, _ = next(iter(batches(data_dir, memory=True, deterministic=True)))
    return images.numpy().astype(np.float32)


def pixel_differences(originals, stored) -> list[float]:
    """Give, per photograph, how far the same crop of the stored image is: mean levels of 255."""
    found = []
    pairs = zip(windows(originals), encoded_of(originals), encoded_of(stored), strict=True)
    for window, original, smaller in list(pairs)[:BATCH]:
        shapes = [tf.io.extract_jpeg_shape(encoded)[:2].numpy() for encoded in (smaller, original)]
        corners = np.rint(np.add.accumulate(window.reshape(2, 2)) * np.divide(*shapes)).astype(int)
        window_there = np.concatenate([corners[0], corners[1] - corners[0]])
        one, other = (
            preprocessing.resize(tf.io.decode_and_crop_jpeg(encoded, place, channels=3), SIZE, SIZE)
            for encoded, place in ((original, window), (smaller, window_there))
        )
        found.append(float(np.abs(np.subtract(one, other, dtype=float)).mean()))
    return found
