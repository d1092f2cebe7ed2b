"""Shards -> batches: order, map, batch, prefetch."""

import os

import tensorflow as tf

from kit.data import manifest, records
from kit.pipeline import augment, mixing, order, preprocessing, service

WAITING = 2  # batches that wait for the network; more only fill memory


def training_dataset(
    *,
    data_dir,
    batch_size,
    shuffle_shards,
    repeated_augmentation,
    mixup,
    cutmix,
    classes,
    seed,
    deterministic,
    data_service="",
    start_step=0,
    worker=0,
    workers=1,
    **image,
):
    """Give endless batches of (images uint8 [batch, size, size, 3], labels int64 [batch]).

    With `mixup` or `cutmix` the labels are float32 [batch, classes] (mixing.py). Each pass holds
    every image once, in another order. With `deterministic: true` the image at each place of each
    step and all that chance does to it depend on `seed` alone, wherever one starts; otherwise an
    image that decodes slowly does not hold up the others, and takes a later place.
    repeated_augmentation: crops of each image, side by side in its batch; a pass then takes so many
    times the steps. Holds WAITING decoded batches and the encoded images of two groups.

    data_service: grpc://host:port of a tf.data service whose workers then make the batches, in
    any order; "" makes them here. start_step: the step whose batch comes first. worker of
    workers: gives each global batch's slice number `worker`, of batch_size / workers images; the
    others are not decoded. Each slice is mixed within itself, so that with another number of
    workers mixup and cutmix give an image another partner. image: the settings of
    preprocessing.training_image and of augment.augmented. Raises ValueError for settings that
    exclude each other.
    """
    share = _share(batch_size, workers)
    repeated = {"repeated_augmentation": repeated_augmentation}
    mix = {"mixup": mixup, "cutmix": cutmix} | repeated
    mixing.check_mixing(**mix, batch_size=share)
    chosen = {"data_dir": data_dir, "shuffle_shards": shuffle_shards, "batch_size": batch_size}
    start = {"seed": seed, "start_step": start_step}
    calls = tf.data.AUTOTUNE if data_service else os.cpu_count()  # a worker has cores of its own
    batches = (
        _records(**chosen, **repeated, **start, worker=worker, share=share)
        .map(_image_maker(seed, **image), num_parallel_calls=calls)
        .batch(share, drop_remainder=True)
        .apply(mixing.mixer(**mix, **start, classes=classes))
        # or several hosts would ask each other at every step whether there is another batch
        .apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
        .prefetch(WAITING)
        .with_options(options(tuned=bool(data_service), deterministic=deterministic))
    )
    if not data_service:
        return batches
    where = {"data_service": data_service, "data_dir": data_dir}
    return service.distribute(batches, deterministic=deterministic, **where)


def batch_names(*, data_dir, seed, batch_size, shuffle_shards, repeated_augmentation, step):
    """Give the file names of the step's images, in their order, without decoding any."""
    chosen = {"data_dir": data_dir, "shuffle_shards": shuffle_shards, "seed": seed}
    chosen |= {"batch_size": batch_size, "repeated_augmentation": repeated_augmentation}
    batch = _records(**chosen, start_step=step, worker=0, share=batch_size).take(batch_size)
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
        .map(preprocess, num_parallel_calls=os.cpu_count(), deterministic=True)
        .batch(share)
    )
    rest = images % batch_size
    if rest and (worker + 1) * rest // workers == worker * rest // workers:
        empty = tf.zeros([0, image_size, image_size, 3], tf.uint8), tf.zeros([0], tf.int64)
        batches = batches.concatenate(tf.data.Dataset.from_tensors(empty))
    steps = -(-images // batch_size)
    batches = batches.apply(tf.data.experimental.assert_cardinality(steps))
    return batches.prefetch(WAITING).with_options(options())


def options(*, tuned=False, deterministic=True):
    """Give a dataset's options.

    Not tuned: TensorFlow's tuning thread sleeps in ever longer naps, up to a minute, and the end
    of an iterator may wait for the nap's end; a training ended 9 seconds late, a test a minute.
    """
    chosen = tf.data.Options()
    chosen.deterministic = deterministic
    chosen.autotune.enabled = tuned
    return chosen


def encoded_examples(*, data_dir, split):
    """Give each image of the split once, still encoded, in the order of `evaluation_dataset`.

    An element is a dict: encoded (JPEG bytes), label (0-based), boxes [n, 4], filename.
    """
    shards = tf.data.TFRecordDataset(manifest.shard_paths(data_dir, split))
    return shards.map(records.parse_example).with_options(options())


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


def _records(
    *, data_dir, batch_size, shuffle_shards, repeated_augmentation, seed, start_step, worker, share
):
    """Give endless (place, record) of the batches from start_step on.

    A record takes `repeated_augmentation` places in a row. Of each batch the slice of `worker` is
    given, `share` places.
    """

    def copies(position, record):
        places = tf.range(repeated_augmentation, dtype=tf.int64)
        return position * repeated_augmentation + places, tf.repeat(record, repeated_augmentation)

    found = order.ordered_records(
        data_dir=data_dir,
        shuffle_shards=shuffle_shards,
        seed=seed,
        start=start_step * batch_size // repeated_augmentation,
        wanted=lambda position: position * repeated_augmentation % batch_size // share == worker,
    )
    # a flat_map would make a dataset of each record: 0.3 ms an image
    return found if repeated_augmentation == 1 else found.map(copies).unbatch()


def _image_maker(
    seed,
    *,
    augmentation,
    augmentation_layers,
    augmentation_magnitude,
    random_erasing,
    channel_means,
    image_size,
    scaled_decode,
    **crop,
):
    """Give the function that makes an image and its label of a position and a record."""

    size = {"image_size": image_size, "scaled_decode": scaled_decode}
    preprocessing.check_crop(**crop)
    change = {"augmentation": augmentation, "random_erasing": random_erasing}
    change |= {"augmentation_layers": augmentation_layers}
    change |= {"augmentation_magnitude": augmentation_magnitude}
    augment.check_augmentation(**change)

    def make(position, record):
        example = records.parse_example(record)
        own_seed = [seed, position]  # each image of each pass has a crop of its own
        what = example["encoded"], example["boxes"], own_seed
        image = preprocessing.training_image(*what, **size, **crop)
        image = augment.augmented(image, own_seed, **change, channel_means=channel_means)
        return image, example["label"]

    return make
