"""What a person is told: how far, until when, and when something is off; speed and waiting."""

import io
import re
import time
from datetime import datetime
from functools import partial
from types import SimpleNamespace

import keras
import pytest
import tensorflow as tf

from kit.training import callbacks
from kit.training.callbacks import ExpectedAccuracy, Measurements, Progress, input_bound
from tests.networks import compile_model, sections
from tests.test_trainer import SETTINGS, batches

STEPS = 4
SLOW = 0.25  # seconds, many times what the rest of a step takes

LOGS = {"loss": 2.5, "top1": 0.25, "images_per_second": 1234.5, "input_wait": 0.2}
VALIDATION = {"val_loss": 2.0, "val_top1": 0.5}


class Stream(io.StringIO):
    """Text, and as much of it as was there when it was last flushed."""

    def flush(self):
        self.flushed = self.getvalue()


def follow(monkeypatch, *, seconds, epochs=3, steps=10, first=0, live=False):
    """Give what Progress writes of a training: 5 s of compiling, then `seconds` a step, 20 between.

    `first` is the step that it starts after.
    """
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    stream = Stream()
    progress = Progress(
        epochs=epochs, steps_per_epoch=steps, print_fn=partial(print, file=stream), live=live
    )
    progress.on_train_begin()
    done, clock.now = first, clock.now + 5
    for epoch in range(first // steps, epochs):
        model = SimpleNamespace(
            optimizer=SimpleNamespace(iterations=done),
            distribute_strategy=tf.distribute.get_strategy(),
            latest_metrics=lambda: {"loss": 2.25, "top1": 0.3},
        )
        progress.set_model(model)
        progress.on_epoch_begin(epoch)
        for batch in range((epoch + 1) * steps - done):
            clock.now += seconds
            progress.on_train_batch_end(batch)
        done = (epoch + 1) * steps
        progress.on_test_begin()
        clock.now += 20
        progress.on_epoch_end(epoch, LOGS | VALIDATION)
    assert stream.flushed == stream.getvalue()  # so a pipe shows each line at once
    progress.on_train_end()
    return stream.getvalue()


def left(text):
    return re.findall(r"([\d:]+) left", text)


def test_in_batch_each_epoch_is_one_line(monkeypatch):
    start, *lines = follow(monkeypatch, seconds=4).splitlines()
    assert start[8:] == "  first step after 9 s"  # 5 s of compiling, and the step's 4
    told = (
        "loss 2.500  top-1 25.0%  validation 50.0%  1,234 images/s  input-bound: yes (20% waiting)"
    )
    ends = [line[10:] for line in lines]
    assert all(re.match(r"\d\d:\d\d:\d\d  epoch ", line) for line in lines)
    assert [end.split("  ")[0] for end in ends] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert all(told in end for end in ends)
    assert [len(left(end)) for end in ends] == [1, 1, 0]


def test_the_time_left_is_that_of_the_steps_with_what_lies_between(monkeypatch):
    """Ten steps of 4 s and 20 s of validation are a minute; the first epoch's pace lacks the step
    that compiles, and is 56 s for 9 steps.
    """
    first, second = left(follow(monkeypatch, seconds=4))
    assert first == f"0:02:{round(20 * 56 / 9) - 120:02}"
    assert second == "0:01:00"


def test_a_resumed_epoch_counts_the_steps_that_are_left(monkeypatch):
    first, *_ = left(follow(monkeypatch, seconds=4, first=14, epochs=4))
    assert first == f"0:02:{round(20 * (5 * 4 + 20) / 5) - 120:02}"  # 5 timed steps of epoch 2


def test_the_live_line_is_one_and_ends_clean(monkeypatch):
    text = follow(monkeypatch, seconds=4, live=True)
    assert text.count("\n") == 1
    assert text.endswith("\n")
    redraws = text.rstrip("\n").split("\r")
    assert redraws[0] == ""
    assert redraws[2].rstrip() == "first step after 9 s"
    for before, after in zip(redraws[1:], redraws[2:], strict=False):
        assert len(after) >= len(before.rstrip())  # nothing of the longer one stays
    assert redraws[18].startswith("epoch 2/3  step 4/10  0:01:40 left, ETA ")
    # the metrics of the epoch so far, and the rest of the one before
    assert "  loss 2.250  top-1 30.0%  validation 50.0%  1,234 images/s" in redraws[18]
    assert round(16 * 56 / 9) == 100  # seconds: 16 steps, at the first epoch's pace
    assert redraws[-2].endswith("validating")


def test_steps_of_milliseconds_are_drawn_every_two_seconds(monkeypatch):
    text = follow(monkeypatch, seconds=0.01, steps=1000, epochs=1, live=True)
    assert text.count("step ") == 5 + 1  # and once more where it says that it validates


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (8045, "2:14:05 left, ETA 16:14"),
        (10 * 3600, "10:00:00 left, ETA Tue 24 Nov 00:00"),
        (2 * 86400 + 60, "2 days, 0:01:00 left, ETA Wed 25 Nov 14:01"),
    ],
)
def test_the_time_of_arrival_names_another_day(seconds, words):
    assert callbacks.time_left(datetime(2026, 11, 23, 14, 0), seconds=seconds) == words


def train_within(bands, outside_band, stream, epochs=3):
    """Train an epoch a step; give the validation's top-1 after each, and what it ended with."""
    model = compile_model(tf.distribute.get_strategy(), **SETTINGS)
    images, labels = batches(1)
    data = tf.data.Dataset.from_tensors((images[0], labels[0]))
    rows = keras.callbacks.History()
    monitoring = sections(expected_top1=bands, outside_band=outside_band).monitoring
    watched = [ExpectedAccuracy(monitoring, print_fn=partial(print, file=stream)), rows]
    run = {"epochs": epochs, "steps_per_epoch": 1, "validation_data": data, "verbose": 0}
    try:
        model.fit(data.repeat(), callbacks=watched, shuffle=False, **run)
    except RuntimeError as error:
        return rows.history["val_top1"], str(error)
    return rows.history["val_top1"], ""


def test_outside_of_a_band_the_training_warns_and_goes_on():
    stream = io.StringIO()
    accuracies, error = train_within([[2, 1.0, 1.0], [3, 0.0, 1.0]], "warn", stream)
    assert (len(accuracies), error) == (3, "")
    assert stream.getvalue().count("outside the expected band") == 1
    assert f"top-1 is {accuracies[1]:.1%} after 2 epochs, not 100.0% to 100.0%" in stream.getvalue()


@pytest.mark.parametrize("epochs", [3, 2])  # the band's epoch may be the last
def test_or_stops_once_the_epoch_is_kept(epochs):
    accuracies, error = train_within([[2, 1.0, 1.0]], "stop", io.StringIO(), epochs)
    assert len(accuracies) == 2
    assert error.startswith(f"outside the expected band: top-1 is {accuracies[1]:.1%} after 2")


@pytest.mark.parametrize(
    ("top1", "words"),
    [
        (0.735, ""),
        (0.77, ""),
        (0.734, "top-1 is 73.4% after 100 epochs, not 73.5% to 77.0%. Is the learning rate right"),
        (0.8, "top-1 is 80.0% after 100 epochs, not 73.5% to 77.0%. Are validation images among"),
    ],
)
def test_a_leak_looks_like_luck(top1, words):
    verdict = callbacks.band_message(100, top1, 0.735, 0.77)
    assert bool(verdict) == bool(words)
    assert words in verdict


class Slow(keras.callbacks.Callback):
    """Make each step slow, or the first of an epoch."""

    def __init__(self, first=False):
        super().__init__()
        self.first = first

    def on_train_batch_end(self, batch, logs=None):
        if not self.first or batch == 0:
            time.sleep(SLOW)


@pytest.fixture(scope="module")
def model():
    return compile_model(tf.distribute.get_strategy(), **SETTINGS)


def measure(model, *slow, input_seconds=0.0, steps=STEPS):
    images, labels = batches(steps)

    def slowly():
        for batch in zip(images, labels, strict=True):
            time.sleep(input_seconds)
            yield batch

    signature = tf.TensorSpec([8, 32, 32, 3], "uint8"), tf.TensorSpec([8], "int64")
    data = tf.data.Dataset.from_generator(slowly, output_signature=signature).repeat()
    measurements = Measurements(batch_size=8)
    history = model.fit(
        data,
        steps_per_epoch=steps,
        epochs=2,
        callbacks=[*slow, measurements],
        shuffle=False,
        verbose=0,
    )
    return {name: values[-1] for name, values in history.history.items()}


def test_a_slow_input_is_the_limit(model):
    logs = measure(model, input_seconds=SLOW)
    assert 0.5 < logs["input_wait"] <= 1
    assert logs["images_per_second"] == pytest.approx(8 / SLOW, rel=0.4)
    assert input_bound(logs["input_wait"]).startswith("input-bound: yes")


def test_a_slow_step_is_the_limit(model):
    logs = measure(model, Slow())
    assert 0 <= logs["input_wait"] < 0.1
    assert logs["images_per_second"] == pytest.approx(8 / SLOW, rel=0.4)
    assert input_bound(logs["input_wait"]).startswith("input-bound: no")


def test_an_epoch_of_one_step_is_measured_too(model):
    logs = measure(model, Slow(), steps=1)
    assert 0 < logs["images_per_second"] < 8 / SLOW
    assert 0 < logs["input_wait"] < 1


def test_of_two_steps_the_second_is_measured(model):
    logs = measure(model, Slow(first=True), steps=2)
    assert logs["images_per_second"] > 2 * 8 / SLOW  # what both would be at the most


@pytest.mark.parametrize(
    ("share", "words"),
    [(0, "no (0%"), (0.1, "no (10%"), (0.11, "yes (11%"), (0.874, "yes (87%")],
)
def test_input_bound_is_more_than_a_tenth_of_the_step(share, words):
    assert input_bound(share) == f"input-bound: {words} waiting)"
