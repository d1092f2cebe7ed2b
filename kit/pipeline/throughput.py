"""How fast each stage is between the shards and the weights, on this machine and these images.

Each measure is one rate: it warms up, then counts for `measured_seconds`. What the rates mean
beside the demand of GPUs is computed in kit/pipeline/demand.py.
"""

import os
import threading
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kit.data import manifest, records
from kit.machine import cores
from kit.pipeline import dataset, preprocessing

WARM_UP = 0.5  # of measured_seconds, uncounted: tf.data finds its number of threads meanwhile
TURNS = 3
CHUNK = 2**20  # bytes read at once
READ_AT_MOST = 2**28  # bytes of shards that the stages go through again and again
SAMPLE = 128  # images that are decoded in several ways
STORED = 320 / 224  # the short side of images stored smaller, over the side that the network sees


def bytes_per_image(data_dir):
    """Give the mean bytes of shard that a training image takes."""
    split = manifest.read_manifest(data_dir)["splits"]["train"]
    return sum(shard["bytes"] for shard in split["shards"]) / split["images"]


def read_shards(data_dir, *, measured_seconds):
    """Give the bytes/s of reading the first shards, one after the other, as {"cached", "cold"}.

    "cold" is after the kernel was asked to forget them (POSIX_FADV_DONTNEED): None where it cannot
    be asked, and no promise where the disk itself, or a host beneath this machine, has a cache.
    Raises ValueError for `measured_seconds` of 0 or less.
    """
    if measured_seconds <= 0:
        raise ValueError(f"measured_seconds: {measured_seconds} measures nothing; give 1.0 or more")
    paths = _first_shards(data_dir)
    forgotten = [_forget(path) for path in paths]
    cold = _read(paths, measured_seconds)
    for path in paths:
        _read([path], measured_seconds=60)  # into the cache, all of it
    return {
        "cached": _read(paths, measured_seconds, again=True),
        "cold": cold if all(forgotten) else None,
    }


def input_stages(data_dir, *, image_size, scaled_decode, seed, measured_seconds, **crop):
    """Give the images/s of the pipeline's map when it ends after "parse", "decode" and "resize".

    From the page cache, in the shards' order, on all cores. `crop` are the settings of
    `preprocessing.training_window`; only the crop is decoded. The flip counts with "resize".
    """
    size = {"image_size": image_size, "scaled_decode": scaled_decode}

    def parse(position, record):
        return tf.strings.length(records.parse_example(record)["encoded"])

    def decode(position, record):
        example = records.parse_example(record)
        shape = tf.io.extract_jpeg_shape(example["encoded"])
        window = preprocessing.training_window(shape, example["boxes"], [seed, position], **crop)
        return _touch(preprocessing.decode_window(example["encoded"], window, **size))

    def resize(position, record):
        example = records.parse_example(record)
        what = example["encoded"], example["boxes"], [seed, position]
        return _touch(preprocessing.training_image(*what, **size, **crop))

    shards = tf.data.TFRecordDataset(_first_shards(data_dir)).repeat().enumerate()
    stages = {"parse": parse, "decode": decode, "resize": resize}
    ends = {name: shards.map(stage, tf.data.AUTOTUNE) for name, stage in stages.items()}
    return _images_per_second(ends, measured_seconds)


def batches_per_second(batches, *, measured_seconds, clock=time.perf_counter):
    """Give the batches per second of an endless dataset to a consumer that does nothing else.

    By time.process_time as the clock they are batches per second of one core.
    """
    iterator = iter(batches)
    next(iterator)
    _count(iterator, WARM_UP * measured_seconds, clock)
    return _count(iterator, measured_seconds, clock)


def transfers_per_second(batch, *, measured_seconds):
    """Give how often per second a batch moves to the first GPU; a CPU has nothing to move."""
    device = (tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU"))[0]
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < measured_seconds:
        with tf.device(device.name):
            tf.identity(batch)
        tf.test.experimental.sync_devices()  # a GPU copies while Python goes on
        count += 1
    return count / (time.perf_counter() - begin)


def steps_per_second(model, batches, *, measured_seconds):
    """Train on endless batches for a while: {"steps_per_second", "waiting"}.

    "waiting" is the share of that time in which the next batch was not there yet. The weights
    change: give a model that is to be thrown away.
    """
    clock = _Clock(measured_seconds)
    model.fit(batches, steps_per_epoch=10**9, verbose=0, shuffle=False, callbacks=[clock])
    return {"steps_per_second": clock.rate, "waiting": clock.waiting}


class _Clock(keras.callbacks.Callback):
    """Stops `fit` after so many seconds; the first step, which compiles, and the next do not count.

    Reading the loss waits for the device, which runs ahead of Python.
    """

    def __init__(self, measured_seconds):
        super().__init__()
        self.measured_seconds = measured_seconds

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            float(logs["loss"])
            self.begin, self.waited = time.perf_counter(), self.model.seconds_waiting
        elif batch > 1 and time.perf_counter() - self.begin > self.measured_seconds:
            float(logs["loss"])
            seconds = time.perf_counter() - self.begin
            self.rate = (batch - 1) / seconds
            self.waiting = (self.model.seconds_waiting - self.waited) / seconds
            self.model.stop_training = True


def decoding(data_dir, *, image_size, store_quality, measured_seconds, **settings):
    """Give the images/s of cropping and decoding the same images from memory, in three ways.

    "original": as they stand in the shards; "stored": stored anew at the short side "stored_side",
    in pixels, with "stored_bytes" of the bytes; "scaled": as they stand, with scaled decode.
    `settings` are `seed` and those of `preprocessing.training_image`. Boxes are left out. The rates
    are what all cores give with nothing else to do, by the CPU time that is taken: they are to be
    compared, and the time of the clock tells of other programs too.
    """
    images = dataset.encoded_examples(data_dir=data_dir, split="train").take(SAMPLE)
    original = [example["encoded"].numpy() for example in images]
    side = round(STORED * image_size)
    stored = [_stored(encoded, side, store_quality) for encoded in original]
    settings = {"image_size": image_size, **settings}
    ways = {
        "original": _decode_all(original, **settings),
        "stored": _decode_all(stored, **settings),
        "scaled": _decode_all(original, **settings | {"scaled_decode": True}),
    }
    share = sum(map(len, stored)) / sum(map(len, original))
    by_core = _images_per_second(ways, measured_seconds, clock=time.process_time)
    rates = {way: cores() * rate for way, rate in by_core.items()}
    return {**rates, "stored_side": side, "stored_bytes": share}


def consume(batches, *, consumers, step_seconds, measured_seconds):
    """Give the batches per second that consumers get who sleep `step_seconds` over each of theirs.

    A real run beside `demand.simulate`: like GPUs, they leave the CPU to the pipeline.
    """
    iterator = iter(batches)
    next(iterator)
    taken, stop = [], threading.Event()

    def work():
        while not stop.is_set():
            next(iterator)
            taken.append(time.perf_counter())
            stop.wait(step_seconds)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(consumers)]
    for thread in threads:
        thread.start()
    time.sleep((WARM_UP + 1) * measured_seconds)
    while len(taken) < 2 * consumers + 1:  # too few to tell: the steps are long
        time.sleep(step_seconds)
    stop.set()
    for thread in threads:
        thread.join()
    moments = np.sort(taken)
    counted = moments[-max(np.sum(moments > moments[-1] - measured_seconds), consumers + 1) :]
    return float((len(counted) - 1) / (counted[-1] - counted[0]))


def _first_shards(data_dir):
    """Give the first training shards, READ_AT_MOST bytes of them but at least one."""
    paths = manifest.shard_paths(data_dir, "train")
    shards = manifest.read_manifest(data_dir)["splits"]["train"]["shards"]
    total, count = 0, 0
    while count < len(paths) and (not count or total + shards[count]["bytes"] <= READ_AT_MOST):
        total += shards[count]["bytes"]
        count += 1
    return paths[:count]


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


def _read(paths, measured_seconds, again=False):
    """Read the files once, or again and again, until the time is over; give bytes/s."""
    begin, size = time.perf_counter(), 0
    while True:
        for path in paths:
            with tf.io.gfile.GFile(path, "rb") as file:
                while chunk := file.read(CHUNK):
                    size += len(chunk)
                    if (seconds := time.perf_counter() - begin) > measured_seconds:
                        return size / seconds
        if not again:
            return size / seconds


def _images_per_second(ways, measured_seconds, clock=time.perf_counter):
    """Count the elements, one an image, of each of some datasets of scalars.

    They take turns, and the fastest turn counts: other programs only ever slow one down.
    """
    group = 32  # elements to a call of Python
    rates = dict.fromkeys(ways, 0.0)
    for name, scalars in [*ways.items()] * TURNS:
        batches = scalars.batch(group).prefetch(tf.data.AUTOTUNE)
        rate = batches_per_second(batches, measured_seconds=measured_seconds / TURNS, clock=clock)
        rates[name] = max(rates[name], group * rate)
    return rates


def _count(iterator, seconds, clock):
    """Take batches for so many seconds; give batches per second of the clock."""
    begin, end, count = clock(), time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        next(iterator)
        count += 1
    return count / (clock() - begin)


def _touch(image):
    """Give one value of an image: a consumer of nothing might have it not computed."""
    return tf.cast(image[0, 0, 0], tf.int32)


def _stored(encoded, side, quality):
    header = records.read_header(encoded)
    if min(header.height, header.width) <= side:
        return encoded
    return records.shrink(encoded, short_side=side, quality=quality)


def _decode_all(encoded, *, seed, **settings):
    def decode(position, image):
        boxes = tf.zeros([0, 4])
        return _touch(preprocessing.training_image(image, boxes, [seed, position], **settings))

    images = tf.data.Dataset.from_tensor_slices(encoded).repeat().enumerate()
    return images.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
