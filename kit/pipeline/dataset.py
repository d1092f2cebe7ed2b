"""Shards -> batches: files, interleave, shuffle, repeat, map, batch, prefetch."""

import tensorflow as tf

from kit.pipeline import preprocessing
from kit.prep import manifest, records


def training_dataset(
    *,
    data_dir,
    batch_size,
    image_size,
    min_object_covered,
    aspect_ratio_range,
    area_range,
    max_attempts,
    interleave_shards,
    shuffle_buffer,
    seed,
    deterministic,
):
    """Give endless batches of (images uint8 [batch, size, size, 3], labels int64 [batch]).

    Each pass holds every image once, in another order. With `deterministic: true` order, crops and
    flips depend on `seed` alone; otherwise a slow shard does not hold up the others, and the order
    varies. The shuffle buffer holds encoded photographs, a tenth of the memory of decoded ones.
    """
    paths = manifest.shard_paths(data_dir, "train")

    def preprocess(position, serialized):
        example = records.parse_example(serialized)
        image = preprocessing.training_image(
            example["encoded"],
            example["boxes"],
            [seed, position],
            image_size=image_size,
            min_object_covered=min_object_covered,
            aspect_ratio_range=aspect_ratio_range,
            area_range=area_range,
            max_attempts=max_attempts,
        )
        return image, example["label"]

    options = tf.data.Options()
    options.deterministic = deterministic
    return (
        tf.data.Dataset.from_tensor_slices(paths)
        .shuffle(len(paths), seed=seed)
        .interleave(
            tf.data.TFRecordDataset,
            cycle_length=interleave_shards,
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        .shuffle(shuffle_buffer, seed=seed)
        .repeat()
        .enumerate()  # the position gives each image of each pass a crop of its own
        .map(preprocess, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
        .with_options(options)
    )


def evaluation_dataset(*, data_dir, split, batch_size, image_size, resize_side):
    """Give batches of (images uint8, labels int64): each image once, in the shards' order.

    The last batch holds what is left. Another number of images than the manifest's is an error of
    TensorFlow.
    """

    def preprocess(serialized):
        example = records.parse_example(serialized)
        image = preprocessing.evaluation_image(
            example["encoded"], image_size=image_size, resize_side=resize_side
        )
        return image, example["label"]

    return (
        tf.data.TFRecordDataset(manifest.shard_paths(data_dir, split))
        .map(preprocess, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .apply(tf.data.experimental.assert_cardinality(images_in(data_dir, split)))
        .batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )


def encoded_examples(*, data_dir, split):
    """Give each image of the split once, still encoded, in the order of `evaluation_dataset`.

    An element is a dict: encoded (JPEG bytes), label (0-based), boxes [n, 4], filename.
    """
    return tf.data.TFRecordDataset(manifest.shard_paths(data_dir, split)).map(records.parse_example)


def steps_per_pass(*, data_dir, batch_size):
    """Give the number of whole batches in one pass over the training images.

    Raises ValueError when there is not one.
    """
    images = images_in(data_dir, "train")
    if images < batch_size:
        raise ValueError(
            f"batch_size: {batch_size} is more than the {images} training images; lower it"
        )
    return images // batch_size


def images_in(data_dir, split):
    """Give the number of images in the split, as the manifest counts them."""
    return manifest.read_manifest(data_dir)["splits"][split]["images"]
