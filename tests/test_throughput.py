import os
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kit.pipeline import demand, throughput
from kit.training import trainer
from tests.images import make_shards
from tests.small_training import NETWORK

CROP = {
    "crop_sampling": "distorted_box",
    "min_object_covered": 0.1,
    "aspect_ratio_range": [0.75, 1.33],
    "area_range": [0.05, 1.0],
    "max_attempts": 100,
    "scaled_decode": False,
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("data"), classes=3, images=12)


def paced(seconds, value=0):
    """Give an endless dataset that makes a value every so many seconds, without the CPU's work."""

    def wait(_):
        time.sleep(seconds)
        return np.int64(0)

    ticks = tf.data.Dataset.range(10**9).map(lambda i: tf.numpy_function(wait, [i], tf.int64))
    return ticks.map(lambda _: value).prefetch(2)


def test_bytes_per_image_are_those_of_the_files(data_dir):
    sizes = [path.stat().st_size for path in Path(data_dir).glob("train-*")]
    assert throughput.bytes_per_image(data_dir) == pytest.approx(sum(sizes) / 24)


def test_reading_is_measured_cached_and_cold(data_dir):
    rates = throughput.read_shards(data_dir, measured_seconds=0.05)
    assert rates["cached"] > 0
    assert rates["cold"] is None or rates["cold"] > 0


def test_reading_is_not_called_cold_where_the_kernel_cannot_be_asked(data_dir, monkeypatch):
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    assert throughput.read_shards(data_dir, measured_seconds=0.05)["cold"] is None


def test_no_time_to_measure_is_refused(data_dir):
    with pytest.raises(ValueError, match="measured_seconds: 0.0 measures nothing; give 1.0"):
        throughput.read_shards(data_dir, measured_seconds=0.0)


def test_a_pipeline_of_known_speed_is_measured_right():
    rate = throughput.batches_per_second(paced(0.02), measured_seconds=0.5)
    assert 25 < rate < 55  # at most 50, and what a window can hold more; a busy machine has less


@pytest.mark.parametrize("consumers", [2, 8])
def test_sleeping_consumers_get_what_the_simulation_says(consumers):
    """Compared loosely, from 0.4 to 1.1 times: other programs only ever take time from this one."""
    found = throughput.consume(
        paced(0.05), consumers=consumers, step_seconds=0.2, measured_seconds=1.5
    )
    expected = demand.simulate(
        consumers=consumers, step_seconds=0.2, batch_seconds=0.05, prefetch=2
    )
    assert 0.4 * expected < found < 1.1 * expected


def test_every_stage_of_the_input_is_measured(data_dir):
    rates = throughput.input_stages(data_dir, image_size=32, seed=0, measured_seconds=0.1, **CROP)
    assert list(rates) == ["parse", "decode", "resize"]
    assert min(rates.values()) > 0


def test_images_stored_smaller_are_smaller(data_dir):
    """The images are 48 x 64: a network of 16 pixels stores them at 23, one of 64 as they are."""
    settings = {"store_quality": 90, "seed": 0, "measured_seconds": 0.1, **CROP}
    found = throughput.decoding(data_dir, image_size=16, **settings)
    assert found["stored_side"] == 23
    assert found["stored_bytes"] < 0.9
    assert min(found[way] for way in ("original", "stored", "scaled")) > 0
    assert throughput.decoding(data_dir, image_size=64, **settings)["stored_bytes"] == 1


def test_training_waits_for_a_slow_input_and_not_for_a_batch_in_memory(one_replica):
    batch = tf.zeros([2, 32, 32, 3], tf.uint8), tf.zeros([2], tf.int64)
    model = trainer.compile_model(one_replica, **NETWORK | {"stage_sizes": (1, 1, 1, 1)})
    in_memory = tf.data.Dataset.from_tensors(batch).repeat()
    alone = throughput.steps_per_second(model, in_memory, measured_seconds=0.5)
    slow = paced(10 / alone["steps_per_second"], value=batch)
    waiting = throughput.steps_per_second(model, slow, measured_seconds=1)
    assert alone["waiting"] < 0.5 < waiting["waiting"] < 1
    assert waiting["steps_per_second"] < 0.3 * alone["steps_per_second"]


def test_transfers_are_counted():
    assert throughput.transfers_per_second(tf.zeros([2, 8]), measured_seconds=0.05) > 0
