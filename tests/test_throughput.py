import os
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kit.pipeline import throughput
from tests.images import make_shards
from tests.networks import compile_model, training_data


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


def test_disk_speed_is_of_what_was_read_in_the_time(data_dir, monkeypatch):
    """By a clock that advances 1 s with each look; each shard takes one look."""
    ticks = iter(range(100))
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    sizes = [path.stat().st_size for path in sorted(Path(data_dir).glob("train-*"))]
    rate = throughput.disk_speed(data_dir, measured_seconds=60)
    assert rate in (None, pytest.approx(sum(sizes) / (len(sizes) + 1)))


def test_disk_speed_is_unknown_where_the_kernel_cannot_be_asked_to_forget(data_dir, monkeypatch):
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    assert throughput.disk_speed(data_dir, measured_seconds=0.05) is None


def small(data_dir, **values):
    settings = {"image_size": 32, "resize_side": 36, "batch_size": 4, "shuffle_shards": 2}
    return training_data(data_dir, deterministic=True, **settings, **values)


def test_a_pipeline_of_known_speed_is_measured_right():
    rate = throughput.TakingBatches(paced(0.02), batch_size=3)(0.5)
    assert 75 < rate < 165  # at most 150, and what a window can hold more; a busy machine has less


def test_what_a_pipeline_kept_ready_does_not_count():
    """A batch of a queue of 2 is there at once; then each takes 0.1 s."""
    taking = throughput.TakingBatches(paced(0.1), batch_size=1)
    taking(0.2)
    time.sleep(0.5)
    assert taking(0.4) < 15


def test_measurements_take_turns_of_equal_length():
    calls = []

    def measure(name):
        return lambda seconds: calls.append((name, seconds)) or len(calls)

    rounds = throughput.in_turns({"a": measure("a"), "b": measure("b")}, measured_seconds=1.0)
    assert calls == [("a", 0.2), ("b", 0.2)] * 5
    assert rounds == {"a": [1, 3, 5, 7, 9], "b": [2, 4, 6, 8, 10]}


def test_every_stage_of_the_input_gives_a_number_for_each_image(data_dir):
    stages = throughput.input_stages(small(data_dir))
    assert list(stages) == ["read", "parse", "decode", "resize"]
    for batches in stages.values():
        batch = next(iter(batches))
        assert batch.shape == [4] and batch.dtype == tf.int32
    assert throughput.TakingBatches(stages["resize"], batch_size=4)(0.1) > 0


def test_resized_pixels_are_those_of_training(data_dir):
    """The stage goes through training's own images: its numbers are pixels of their batches."""
    data = small(data_dir)
    images, _ = next(iter(data.batches()))
    found = next(iter(throughput.input_stages(data)["resize"]))
    np.testing.assert_array_equal(found, images[:, 0, 0, 0])


def test_crops_of_repeated_augmentation_count_as_images(data_dir):
    batch = next(iter(throughput.input_stages(small(data_dir, repeated_augmentation=2))["read"]))
    np.testing.assert_array_equal(batch[::2], batch[1::2])


def test_training_waits_for_a_slow_input_and_not_for_a_batch_in_memory(one_replica):
    batch = tf.zeros([2, 32, 32, 3], tf.uint8), tf.zeros([2], tf.int64)
    model = compile_model(one_replica, classes=3, width=4, stage_sizes=(1, 1, 1, 1))
    in_memory = tf.data.Dataset.from_tensors(batch).repeat()
    alone = throughput.TrainingSteps(model, in_memory, batch_size=2)
    rate = alone(0.5)
    slow = throughput.TrainingSteps(model, paced(10 * 2 / rate, value=batch), batch_size=2)
    assert slow(1) < 0.3 * rate
    assert alone.waiting[0] < 0.5 < slow.waiting[0] < 1


def test_transfers_are_counted():
    assert throughput.Transfers(tf.zeros([2, 8]))(0.05) > 0


FAIR = {"read": 9, "parse": 8, "decode": 4, "resize": 3, "input": 2, "synthetic": 7, "real": 1}


def test_a_measurement_above_what_it_contains_is_named():
    rounds = {name: [rate - 0.1, rate, rate + 0.1] for name, rate in FAIR.items()}
    assert throughput.contradictions(rounds) == []
    (line,) = throughput.contradictions(rounds | {"resize": [4.1, 4.3, 4.3]})
    assert line.startswith("resize: 4 images/s cannot be, for it contains decode, with 4;")
    assert "measured_seconds" in line
    assert throughput.contradictions(rounds | {"resize": [4.0, 4.15, 4.3]}) == []  # as fast, nearly
    lines = throughput.contradictions(rounds | {"real": [8.0, 8.0, 8.0]})
    assert [line.split(" with ")[0][-9:-1] for line in lines] == ["ns input", "ynthetic"]


RATES = {"read": 1000.0, "parse": 500.0, "decode": 100.0, "resize": 80.0, "input": 50.0}


def test_limit_divides_the_input_among_its_stages():
    found = throughput.limit(RATES | {"synthetic": 200.0}, input_bound=True)
    assert found["milliseconds"] == pytest.approx(
        {"read": 1, "parse": 1, "decode": 8, "resize": 2.5, "input": 7.5}
    )
    assert found["words"] == (
        "the limit is cropping and decoding: the input takes 20.00 ms an image, 40% of it cropping "
        "and decoding; a step that never waits 5.00 ms"
    )


def test_training_that_does_not_wait_is_its_own_limit():
    found = throughput.limit(RATES | {"synthetic": 10.0}, input_bound=False)
    assert found["limit"] == "the training step"
