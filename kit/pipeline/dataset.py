"""Shards -> batches: order, map, batch, prefetch."""

import tensorflow as tf

from kit.pipeline import order, preprocessing, service
from kit.prep import manifest, records


def training_dataset(
    *,
    data_dir,
    batch_size,
    shuffle_shards,
    ram_budget,
    seed,
    deterministic,
    data_service="",
    start_step=0,
    worker=0,
    workers=1,
    **crop,
):
    """Give endless batches of (images uint8 [batch, size, size, 3], labels int64 [batch]).

    Each pass holds every image once, in another order. With `deterministic: true` the image at
    each place of each step, its crop and its flip depend on `seed` alone, wherever one starts;
    otherwise an image that decodes slowly does not hold up the others, and takes a later place.
    ram_budget: MiB of decoded images that may wait; the encoded ones of two groups come on top.

    data_service: grpc://host:port of a tf.data service whose workers then make the batches, in
    any order; "" makes them here. start_step: the step whose batch comes first. worker of
    workers: gives each global batch's slice number `worker`, of batch_size / workers images; the
    others are not decoded. crop: image_size and the other settings of preprocessing.training_image.
    """

    def preprocess(position, serialized):
        example = records.parse_example(serialized)
        encoded, boxes = example["encoded"], example["boxes"]
        own_seed = [seed, position]  # each image of each pass has a crop of its own
        return preprocessing.training_image(encoded, boxes, own_seed, **crop), example["label"]

    share = _share(batch_size, workers)
    options = tf.data.Options()
    options.deterministic = deterministic
    options.autotune.ram_budget = ram_budget * 2**20
    batches = (
        order.ordered_records(
            data_dir=data_dir,
            shuffle_shards=shuffle_shards,
            seed=seed,
            start=start_step * batch_size,
            wanted=lambda position: position % batch_size // share == worker,
        )
        .map(preprocess, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(share, drop_remainder=True)
        # or several hosts would ask each other at every step whether there is another batch
        .apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
        .prefetch(tf.data.AUTOTUNE)
        .with_options(options)
    )
    if not data_service:
        return batches
    where = {"data_service": data_service, "data_dir": data_dir}
    return service.distribute(batches, deterministic=deterministic, **where)


def batch_names(*, data_dir, seed, batch_size, shuffle_shards, step):
    """Give the file names of the step's images, in their order, without decoding any."""
    start = step * batch_size
    batch = order.ordered_records(
        data_dir=data_dir, shuffle_shards=shuffle_shards, seed=seed, start=start
    ).take(batch_size)
    return [records.parse_example(record)["filename"].numpy().decode() for _, record in batch]


def evaluation_dataset(
    *, data_dir, split, batch_size, image_size, resize_side, worker=0, workers=1
):
    """Give batches of (images uint8, labels int64): each image once, in the shards' order.

    The last batch holds what is left. Another number of images than the manifest's is an error of
    TensorFlow. worker of workers: gives its slice of each batch; the last one is divided as evenly
    as can be, and may be empty, so that all workers count the same steps.
    """
    images = images_in(data_dir, split)
    share = _share(batch_size, workers)

    def preprocess(position, serialized):
        example = records.parse_example(serialized)
        image = preprocessing.evaluation_image(
            example["encoded"], image_size=image_size, resize_side=resize_side
        )
        return image, example["label"]

    def wanted(position, serialized):
        place = position % batch_size
        size = tf.minimum(images - (position - place), batch_size)
        return (place >= worker * size // workers) & (place < (worker + 1) * size // workers)

    batches = (
        tf.data.TFRecordDataset(manifest.shard_paths(data_dir, split))
        .apply(tf.data.experimental.assert_cardinality(images))
        .enumerate()
        .filter(wanted)
        .map(preprocess, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(share)
    )
    rest = images % batch_size
    if rest and (worker + 1) * rest // workers == worker * rest // workers:
        empty = tf.zeros([0, image_size, image_size, 3], tf.uint8), tf.zeros([0], tf.int64)
        batches = batches.concatenate(tf.data.Dataset.from_tensors(empty))
    steps = -(-images // batch_size)
    return batches.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(tf.data.AUTOTUNE)


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


def _share(batch_size, workers):
    """Give the images of a batch that one worker decodes; ValueError unless it divides evenly."""
    if batch_size % workers:
        raise ValueError(
            f"batch_size: {batch_size} does not divide among {workers} workers: choose a multiple"
        )
    return batch_size // workers
