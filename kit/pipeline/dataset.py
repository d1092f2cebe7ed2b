"""Shards -> batches: order, map, batch, prefetch."""

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from kit.data import manifest, records
from kit.machine import cores
from kit.pipeline import augment, mixing, order, preprocessing, service
from kit.pipeline.sections import Augmentation, Crop, Mixing, Reading

PREFETCHED = 2  # batches that wait for the network; more only fill memory


@dataclass(frozen=True)
class TrainingData:
    """The training images in `data_dir`: `batches` gives them, from any step on.

    Each pass holds every image once, in another order. The image at each position of each step,
    its crop and its augmentation depend on `seed` alone, wherever one starts; through a data
    service images come in any order, which `deterministic` therefore refuses.

    image_size: pixels. batch_size: of all workers together. fill: R, G, B of pixels that an
    augmentation leaves empty. worker of workers: gives each global batch's slice number `worker`,
    of batch_size / workers images; the others are not decoded. Each slice is mixed within itself,
    so that with another number of workers mixup and cutmix give an image another partner.

    Raises ValueError for a batch that cannot be divided or mixed, and for an order that a data
    service cannot give.
    """

    data_dir: str
    reading: Reading
    crop: Crop
    augmentation: Augmentation
    mixing: Mixing
    image_size: int
    batch_size: int
    fill: Sequence[float]
    seed: int
    deterministic: bool
    worker: int = 0
    workers: int = 1

    def __post_init__(self):
        self.mixing.check_batch(share_of(self.batch_size, self.workers))
        self.reading.check_order(self.deterministic)

    def batches(self, start_step=0, image_size=None):
        """Give endless batches from `start_step` on, in place of `image_size` with another size.

        They are (images uint8 [batch, size, size, 3], labels int64 [batch]); under mixup or cutmix
        the labels are float32 [batch, classes] (mixing.py). With repeated augmentation the crops of
        an image stand side by side, and a pass takes so many times the steps. PREFETCHED decoded
        batches and the encoded images of two groups are held in memory. With
        `reading.data_service` the workers of that tf.data service make the batches, in any order.
        """
        share = share_of(self.batch_size, self.workers)
        data_service = self.reading.data_service
        calls = tf.data.AUTOTUNE if data_service else cores()  # a worker has cores of its own
        classes = len(manifest.class_names(self.data_dir))
        mixer = mixing.mixer(self.mixing, classes=classes, seed=self.seed, start_step=start_step)
        batches = (
            self.serialized(start_step, self.worker, share)
            .map(self._image_maker(image_size or self.image_size), num_parallel_calls=calls)
            .batch(share, drop_remainder=True)
            .apply(mixer)
            # or several hosts would ask each other at every step whether there is another batch
            .apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
            .prefetch(PREFETCHED)
            .with_options(options(served=bool(data_service)))
        )
        if not data_service:
            return batches
        return service.distribute(batches, data_service, data_dir=self.data_dir)

    @property
    def fingerprint(self):
        """The hash of all that decides the shards: another one is another training."""
        return manifest.read_manifest(self.data_dir)["fingerprint"]

    def names(self, step):
        """Give the file names of the step's images, in their order, without decoding any."""
        batch = self.serialized(step, 0, self.batch_size).take(self.batch_size)
        return [records.parse_example(record)["filename"].numpy().decode() for _, record in batch]

    def serialized(self, start_step, worker, share):
        """Give endless (position, record) of a worker's slices of the batches, from a step on.

        A record takes `repeated_augmentation` positions in a row.
        """
        times = self.mixing.repeated_augmentation

        def copies(position, record):
            positions = tf.range(times, dtype=tf.int64)
            return position * times + positions, tf.repeat(record, times)

        found = order.ordered_records(
            data_dir=self.data_dir,
            shuffle_shards=self.reading.shuffle_shards,
            seed=self.seed,
            start=start_step * self.batch_size // times,
            wanted=lambda position: position * times % self.batch_size // share == worker,
        )
        # a flat_map would make a dataset of each record: 0.3 ms an image
        return found if times == 1 else found.map(copies).unbatch()

    def _image_maker(self, image_size):
        """Give the function that makes an image and its label from a position and a record."""

        def make(position, record):
            example = records.parse_example(record)
            seed = [self.seed, position]  # each image of each pass has a crop of its own
            image = preprocessing.training_image(
                example["encoded"], example["boxes"], seed, self.crop, image_size=image_size
            )
            image = augment.augmented(image, seed, self.augmentation, fill=self.fill)
            return image, example["label"]

        return make


def evaluation_dataset(*, data_dir, split, batch_size, image_size, worker=0, workers=1, **resize):
    """Give batches of (images uint8, labels int64): each image once, in the shards' order.

    The last batch holds what is left. Another number of images than the manifest's is an error of
    TensorFlow. worker of workers: gives its slice of each batch; the last one is divided as evenly
    as can be, and may be empty, so that all workers count the same steps. `resize` is what
    `evaluation_image` takes besides.
    """
    images = images_in(data_dir, split)
    share = share_of(batch_size, workers)

    def preprocess(position, serialized):
        example = records.parse_example(serialized)
        encoded = example["encoded"]
        image = preprocessing.evaluation_image(encoded, image_size=image_size, **resize)
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
        .map(preprocess, num_parallel_calls=cores(), deterministic=True)
        .batch(share)
    )
    rest = images % batch_size
    if rest and (worker + 1) * rest // workers == worker * rest // workers:
        empty = tf.zeros([0, image_size, image_size, 3], tf.uint8), tf.zeros([0], tf.int64)
        batches = batches.concatenate(tf.data.Dataset.from_tensors(empty))
    steps = -(-images // batch_size)
    batches = batches.apply(tf.data.experimental.assert_cardinality(steps))
    return batches.prefetch(PREFETCHED).with_options(options())


def options(*, served=False):
    """Give the options of a dataset that keeps its order, or of one that a data service gives.

    Only that one is tuned: TensorFlow's tuning thread naps for up to a minute, and the end of an
    iterator may wait for it; a training ended 9 seconds late, a test a minute.
    """
    chosen = tf.data.Options()
    chosen.deterministic = not served
    chosen.autotune.enabled = served
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


def share_of(batch_size, workers):
    """Give the images of a batch that one worker decodes; ValueError unless it divides evenly."""
    if batch_size % workers:
        raise ValueError(
            f"batch_size: {batch_size} does not divide among {workers} workers: choose a multiple"
        )
    return batch_size // workers
