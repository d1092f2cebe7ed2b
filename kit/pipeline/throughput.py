"""How fast each stage is from the shards to the weights, on this machine and these images.

The stages are measured in turns: what slows the machine down for a while slows them all.
"""

import os
import time
from pathlib import Path
from statistics import median

import keras
import tensorflow as tf

from kit.data import manifest, records
from kit.machine import cores
from kit.pipeline import dataset, preprocessing

ROUNDS = 5
TOLERANCE = 0.05  # by which two medians of the same thing may differ
LEAST = 2  # batches or steps that a turn counts, however short
CHUNK = 2**20  # bytes read at once
INPUT = {  # the stages of the input, each of which has those before it in it
    "read": "reading and shuffling",
    "parse": "parsing",
    "decode": "cropping and decoding",
    "resize": "resizing and flipping",
    "input": "augmenting and batching",
}
# what each measurement contains, and so cannot be faster than
BOUNDS = dict(zip([*INPUT][1:], [[part] for part in INPUT], strict=False))
BOUNDS["real"] = ["input", "synthetic"]


def bytes_per_image(data_dir):
    """Give the mean bytes of shard that a training image takes."""
    split = manifest.read_manifest(data_dir)["splits"]["train"]
    return sum(shard["bytes"] for shard in split["shards"]) / split["images"]


def disk_speed(data_dir, *, measured_seconds):
    """Give the bytes/s of reading the training shards, one after the other, from the disk.

    The kernel is asked to forget each shard first (POSIX_FADV_DONTNEED): None where it cannot be
    asked, and no promise where the disk itself, or a host beneath this machine, has a cache.
    """
    begin, size = time.perf_counter(), 0
    for path in manifest.shard_paths(data_dir, "train"):
        if not _forget(path):
            return None
        with Path(path).open("rb") as file:
            while chunk := file.read(CHUNK):
                size += len(chunk)
                if time.perf_counter() - begin > measured_seconds:
                    return size / (time.perf_counter() - begin)
    return size / (time.perf_counter() - begin)


def input_stages(data):
    """Give the input of a TrainingData, cut off after "read", "parse", "decode" and "resize".

    Each is an endless dataset with training's order, threads and options. An element is a batch of
    one number an image. Only the crop is decoded; the flip counts with "resize".
    """

    def parse(position, record):
        return tf.strings.length(records.parse_example(record)["encoded"])

    def decode(position, record):
        example = records.parse_example(record)
        shape = tf.io.extract_jpeg_shape(example["encoded"])
        seed = [data.seed, position]
        window = preprocessing.training_window(shape, example["boxes"], seed, data.crop)
        return _touch(tf.io.decode_and_crop_jpeg(example["encoded"], window, channels=3))

    def resize(position, record):
        example = records.parse_example(record)
        what = example["encoded"], example["boxes"], [data.seed, position], data.crop
        return _touch(preprocessing.training_image(*what, image_size=data.image_size))

    shuffled = data.serialized(0, 0, data.batch_size)
    stages = {"read": lambda _, record: tf.strings.length(record), "parse": parse}
    stages |= {"decode": decode, "resize": resize}
    options = dataset.options()
    return {
        name: shuffled.map(stage, num_parallel_calls=cores())
        .batch(data.batch_size)
        .prefetch(dataset.PREFETCHED)
        .with_options(options)
        for name, stage in stages.items()
    }


def in_turns(measurements, *, measured_seconds):
    """Measure several things in turns, ROUNDS times: {name: [images/s of each round]}.

    `measurements` maps a name to a function that measures for so many seconds, such as a
    TakingBatches. Each is measured for `measured_seconds` in all, after half as much of warm-up.
    """
    rounds = {name: [] for name in measurements}
    for _ in range(ROUNDS):
        for name, measure in measurements.items():
            rounds[name].append(measure(measured_seconds / ROUNDS))
    return rounds


class TakingBatches:
    """Measures the images/s of an endless dataset to a consumer that does nothing else."""

    def __init__(self, batches, *, batch_size):
        self.iterator = iter(batches)
        self.batch_size = batch_size

    def __call__(self, seconds):
        self.take(seconds / 2)  # what the pipeline has kept ready since the last turn goes first
        return self.batch_size * self.take(seconds)

    def take(self, seconds):
        """Take batches for so many seconds; give batches per second."""
        begin, count = time.perf_counter(), 0
        while count < LEAST or time.perf_counter() - begin < seconds:
            next(self.iterator)
            count += 1
        return count / (time.perf_counter() - begin)


class Transfers:
    """Measures the images/s of moving a batch to the first GPU; a CPU has nothing to move."""

    def __init__(self, images):
        self.images = images
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        self.device = devices[0].name

    def __call__(self, seconds):
        begin, count = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            with tf.device(self.device):
                tf.identity(self.images)
            tf.test.experimental.sync_devices()  # a GPU copies while Python goes on
            count += len(self.images)
        return count / (time.perf_counter() - begin)


class TrainingSteps(keras.callbacks.Callback):
    """Measures the images/s of a TrainingModel's `fit` on endless batches.

    The first step of a turn does not count: the first of all compiles. The weights change: give a
    model that is to be thrown away. `waiting` lists the share of each turn in which the next batch
    was not there yet.
    """

    def __init__(self, model, batches, *, batch_size):
        super().__init__()
        self.set_model(model)
        self.batches = batches
        self.batch_size = batch_size
        self.waiting = []

    def __call__(self, seconds):
        self.seconds = seconds
        self.model.fit(
            self.batches, steps_per_epoch=10**9, verbose=0, shuffle=False, callbacks=[self]
        )
        return self.rate

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            self.model.wait()  # the device runs behind Python
            self.begin, self.waited = time.perf_counter(), self.model.seconds_waiting
        elif batch >= LEAST and time.perf_counter() - self.begin > self.seconds:
            self.model.wait()
            seconds = time.perf_counter() - self.begin
            self.rate = self.batch_size * batch / seconds
            self.waiting.append((self.model.seconds_waiting - self.waited) / seconds)
            self.model.stop_training = True


def contradictions(rounds):
    """List a line for each measurement that is above one that it contains."""
    rates = {name: median(each) for name, each in rounds.items()}
    return [
        f"{name}: {rates[name]:,.0f} images/s cannot be, for it contains {part}, with "
        f"{rates[part]:,.0f}; measure again, with larger measured_seconds and nothing else running"
        for name, parts in BOUNDS.items()
        for part in parts
        if rates[name] > (1 + TOLERANCE) * rates[part]
    ]


def limit(rates, *, input_bound):
    """Say what limits training, and what each stage of INPUT adds to an image.

    `rates` maps the stages of INPUT, and "synthetic" (a step that never waits), to images/s;
    `input_bound` is whether training waits. Gives "limit", "milliseconds" (of each stage of INPUT)
    and "words".
    """
    ends = [0.0, *(1000 / rates[stage] for stage in INPUT)]
    milliseconds = {stage: max(ends[i + 1] - ends[i], 0.0) for i, stage in enumerate(INPUT)}
    slowest = max(milliseconds, key=milliseconds.get)
    limit = INPUT[slowest] if input_bound else "the training step"
    words = (
        f"the limit is {limit}: the input takes {ends[-1]:.2f} ms an image, "
        f"{milliseconds[slowest] / ends[-1]:.0%} of it {INPUT[slowest]}; "
        f"a step that never waits {1000 / rates['synthetic']:.2f} ms"
    )
    return {"limit": limit, "milliseconds": milliseconds, "words": words}


def _forget(path):
    """Ask the kernel to drop a file from its page cache; give whether it could be asked."""
    if not hasattr(os, "posix_fadvise") or not Path(path).is_file():
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # what is not written yet cannot be dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _touch(image):
    """Give one value of an image: a consumer of nothing might have it not computed."""
    return tf.cast(image[0, 0, 0], tf.int32)
