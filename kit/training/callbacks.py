"""Callbacks that show progress, check the accuracy, and measure speed and input wait."""

import time
from datetime import datetime, timedelta

import keras
import tensorflow as tf

from kit.notebook import is_interactive
from kit.training.strategy import several_hosts

REDRAW_SECONDS = 2  # between two live lines: each waits for the device
INPUT_BOUND = 0.1  # share of the step time spent waiting, from which a faster input would pay


class Progress(keras.callbacks.Callback):
    """Print how far the training is, its metrics and when it will end.

    In a notebook that somebody has open, one line is redrawn; in batch, each epoch prints one.
    live: which of the two; None finds out. print_fn: takes the arguments of print. Also told once:
    the time to the end of the first step, which fills the shuffle buffer and compiles.

    The time left follows from the seconds per step, all between steps included, of the last whole
    epoch; during the first one, from the steps so far except the first, which compiles.
    """

    def __init__(self, *, epochs, steps_per_epoch, print_fn=print, live=None):
        super().__init__()
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        self.print_fn = print_fn
        self.live = is_interactive() if live is None else live
        self.pace = None  # seconds per step
        self.pace_from = None  # (time, step) from which it is measured
        self.last_logs = {}  # of the epoch before
        self.last_redraw = 0.0
        self.text = ""

    def on_train_begin(self, logs=None):
        self.began = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.first_step = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        if self.live:
            self.redraw(self.line(self.last_logs, self.first_step, self.pace))

    def on_train_batch_end(self, batch, logs=None):
        now, step = time.monotonic(), self.first_step + batch + 1
        if self.pace_from is None:
            self.pace_from, self.last_redraw = (now, step), now
            self.tell(f"first step after {now - self.began:.0f} s")
        if self.live and now - self.last_redraw > REDRAW_SECONDS:
            self.last_redraw = now
            alone = not several_hosts(self.model.distribute_strategy)  # else all would have to read
            logs = self.last_logs | (self.model.latest_metrics() if alone else {})
            self.redraw(self.line(logs, step, self.pace or self.measure_pace(now, step)))

    def measure_pace(self, now, step):
        since, first = self.pace_from or (now, step)
        return (now - since) / (step - first) if step > first else None

    def on_test_begin(self, logs=None):
        if self.live:
            self.redraw(f"{self.text}  validating")

    def on_epoch_end(self, epoch, logs=None):
        now, step = time.monotonic(), (epoch + 1) * self.steps_per_epoch
        self.pace = self.measure_pace(now, step) or self.pace
        self.pace_from = now, step
        self.last_logs = dict(logs)
        self.tell(self.line(logs, step, self.pace))

    def on_train_end(self, logs=None):
        if self.live:
            self.print_fn()

    def line(self, logs, step, pace):
        words = [f"epoch {self.epoch + 1}/{self.epochs}"]
        if done := step % self.steps_per_epoch:
            words.append(f"step {done:,}/{self.steps_per_epoch:,}")
        left = self.epochs * self.steps_per_epoch - step
        if left and pace:
            words.append(time_left(datetime.now(), seconds=left * pace))
        return "  ".join(words + describe(logs))

    def tell(self, text):
        if self.live:
            self.redraw(text)
        else:
            self.print_fn(f"{datetime.now():%H:%M:%S}  {text}", flush=True)

    def redraw(self, text):
        padded = text.ljust(len(self.text))  # to cover a longer line
        self.print_fn(f"\r{padded}", end="", flush=True)
        self.text = text


def describe(logs):
    """List the metrics among the logs that a person wants to see, in words."""
    forms = {
        "loss": "loss {:.3f}",
        "top1": "top-1 {:.1%}",
        "val_top1": "validation {:.1%}",
        "images_per_second": "{:,.0f} images/s",
    }
    words = [form.format(logs[name]) for name, form in forms.items() if name in logs]
    return words + ([input_bound(logs["input_wait"])] if "input_wait" in logs else [])


def time_left(now, *, seconds):
    """Return in words how long a training still takes and when it ends, with a day if not today."""
    left = timedelta(seconds=round(seconds))
    day = "" if (now + left).date() == now.date() else "%a %d %b "
    return f"{left} left, ETA {now + left:{day}%H:%M}"


class ExpectedAccuracy(keras.callbacks.Callback):
    """Compare the validation's top-1 with the bands of the section Monitoring.

    A top-1 outside its band prints a warning; with `outside_band` "stop" the training also ends in
    a RuntimeError, after that epoch has been saved.
    """

    def __init__(self, monitoring, *, print_fn=print):
        super().__init__()
        self.bands = {epoch: band for epoch, *band in monitoring.expected_top1}
        self.stop = monitoring.outside_band == "stop"
        self.print_fn = print_fn
        self.warning = ""

    def on_epoch_end(self, epoch, logs=None):
        lowest, highest = self.bands.get(epoch + 1, (0, 1))
        self.warning = band_message(epoch + 1, logs["val_top1"], lowest, highest)
        if self.warning:
            self.print_fn(f"\n{self.warning}", flush=True)

    def on_epoch_begin(self, epoch, logs=None):
        # not earlier: by now the epoch is in history.csv and in a checkpoint
        if self.stop and self.warning:
            raise RuntimeError(f"{self.warning} To go on all the same, run it again.")

    def on_train_end(self, logs=None):
        self.on_epoch_begin(None)


def band_message(epochs, top1, lowest, highest):
    """Return a warning for a top-1 outside its band, with where to look; "" for one within."""
    if lowest <= top1 <= highest:
        return ""
    where = (
        "Is the learning rate right, and the weight decay? Are the classes mixed in the shards?"
        if top1 < lowest
        else "Are validation images among the training ones? Notebook 01 finds those."
    )
    return (
        f"outside the expected band: top-1 is {top1:.1%} after {epochs} epochs, "
        f"not {lowest:.1%} to {highest:.1%}. {where}"
    )


def input_bound(share):
    """Return in words whether the input limits a training that waits for it so much of its time."""
    return f"input-bound: {'yes' if share > INPUT_BOUND else 'no'} ({share:.0%} waiting)"


class Measurements(keras.callbacks.Callback):
    """Add speed, input wait and GPU memory to each epoch's logs.

    - images_per_second, of the global batch, and input_wait, the share of the same time in which
      the step waited for its images. An epoch's first step, which may compile, does not count
      unless it is the only one.
    - device_memory: the peak memory of the fullest GPU so far, GiB.
    """

    def __init__(self, *, batch_size):
        super().__init__()
        self.batch_size = batch_size

    def on_epoch_begin(self, epoch, logs=None):
        self.start_clock()

    def start_clock(self):
        self.model.wait()
        self.steps = 0
        self.start = self.end = time.perf_counter()
        self.waited = self.model.seconds_waiting

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0 and self.params["steps"] > 1:
            self.start_clock()
            return
        self.steps += 1
        if batch + 1 == self.params["steps"]:
            self.model.wait()
            self.end = time.perf_counter()

    def on_test_begin(self, logs=None):
        if self.steps:
            logs |= self.measured()  # Backup keeps them if the validation is interrupted

    def on_epoch_end(self, epoch, logs=None):
        if self.steps:
            logs |= self.measured()

    def measured(self):
        """Return images_per_second, input_wait and device_memory of the epoch's steps so far."""
        seconds = self.end - self.start
        logs = {
            "images_per_second": self.batch_size * self.steps / seconds,
            "input_wait": (self.model.seconds_waiting - self.waited) / seconds,
        }
        if gpus := tf.config.list_logical_devices("GPU"):
            peaks = [tf.config.experimental.get_memory_info(gpu.name)["peak"] for gpu in gpus]
            logs["device_memory"] = max(peaks) / 2**30
        return logs
