"""Callbacks that measure a training and tell a person how it goes."""

import time
from datetime import datetime, timedelta

import keras
import tensorflow as tf
from IPython import get_ipython

INPUT_BOUND = 0.1  # of the step time: so much at least could be won by a faster input


def is_interactive():
    """Tell whether this code runs in a notebook that a person has open.

    Every request to a Jupyter kernel states whether a question could be asked (`allow_stdin` in
    Jupyter's messaging protocol): JupyterLab says yes; papermill, nbconvert and nbval say no.
    """
    kernel = getattr(get_ipython(), "kernel", None)
    return kernel is not None and kernel.get_parent("shell")["content"].get("allow_stdin", False)


class Progress(keras.callbacks.Callback):
    """Write how far the training is and when it will end.

    One line an epoch, by `say` (print, or its like); in a notebook that somebody has open (`live`,
    None: find out) one line that is redrawn.

    The pace, seconds per step with all that lies between steps, is that of the last whole epoch;
    before there is one, that of the steps so far but the first, which compiles.
    """

    def __init__(self, *, epochs, steps_per_epoch, say=print, live=None):
        super().__init__()
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        self.say = say
        self.live = is_interactive() if live is None else live
        self.mark = None  # (time, step) since which the pace is measured
        self.pace = None
        self.known = {}  # of the last epoch
        self.drawn = 0.0
        self.text = ""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.begun = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        if self.live:
            self.redraw(self.line(self.known, self.begun, self.pace))

    def on_train_batch_end(self, batch, logs=None):
        now, step = time.monotonic(), self.begun + batch + 1
        if self.mark is None:
            self.mark = now, step
        if self.live and now - self.drawn > 1:
            self.drawn = now
            self.redraw(self.line(self.known | logs, step, self.pace or self.measure(now, step)))

    def measure(self, now, step):
        since, first = self.mark or (now, step)
        return (now - since) / (step - first) if step > first else None

    def on_test_begin(self, logs=None):
        if self.live:
            self.redraw(f"{self.text}  validating")

    def on_epoch_end(self, epoch, logs=None):
        now, step = time.monotonic(), (epoch + 1) * self.steps_per_epoch
        self.pace = self.measure(now, step) or self.pace
        self.mark = now, step
        self.known = dict(logs)
        text = self.line(logs, step, self.pace)
        if self.live:
            self.redraw(text)
        else:
            self.say(f"{datetime.now():%H:%M:%S}  {text}", flush=True)

    def on_train_end(self, logs=None):
        if self.live:
            self.say()

    def line(self, logs, step, pace):
        words = [f"epoch {self.epoch + 1}/{self.epochs}"]
        if done := step % self.steps_per_epoch:
            words.append(f"step {done:,}/{self.steps_per_epoch:,}")
        left = self.epochs * self.steps_per_epoch - step
        if left and pace:
            words.append(arrival(datetime.now(), seconds=left * pace))
        return "  ".join(words + describe(logs))

    def redraw(self, text):
        over = text.ljust(len(self.text))  # all of a longer one
        self.say(f"\r{over}", end="", flush=True)
        self.text = text


def describe(logs):
    """Give what is worth a word among the logs, in order."""
    forms = {
        "loss": "loss {:.3f}",
        "top1": "top-1 {:.1%}",
        "val_top1": "validation {:.1%}",
        "images_per_second": "{:,.0f} images/s",
    }
    words = [form.format(logs[name]) for name, form in forms.items() if name in logs]
    return words + ([input_bound(logs["input_wait"])] if "input_wait" in logs else [])


def arrival(now, *, seconds):
    """Say how long a training still takes, and when it ends; another day is named."""
    left = timedelta(seconds=round(seconds))
    day = "" if (now + left).date() == now.date() else "%a %d %b "
    return f"{left} left, ETA {now + left:{day}%H:%M}"


class ExpectedAccuracy(keras.callbacks.Callback):
    """Compare the validation's top-1 with the bands that the section Monitoring expects.

    A training outside of a band is told of it, and with `outside_band` "stop" ends in a
    RuntimeError once that epoch is saved.
    """

    def __init__(self, monitoring, *, say=print):
        super().__init__()
        self.bands = {epoch: band for epoch, *band in monitoring.expected_top1}
        self.stop = monitoring.outside_band == "stop"
        self.say = say
        self.verdict = ""

    def on_epoch_end(self, epoch, logs=None):
        lowest, highest = self.bands.get(epoch + 1, (0, 1))
        self.verdict = band_message(epoch + 1, logs["val_top1"], lowest, highest)
        if self.verdict:
            self.say(f"\n{self.verdict}", flush=True)

    def on_epoch_begin(self, epoch, logs=None):
        # not sooner: by now the epoch is in history.csv, and its checkpoint is written
        if self.stop and self.verdict:
            raise RuntimeError(f"{self.verdict} To go on all the same, run it again.")

    def on_train_end(self, logs=None):
        self.on_epoch_begin(None)


def band_message(epochs, top1, lowest, highest):
    """Say what is wrong with this top-1 after so many epochs, and where to look; "" if nothing."""
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
    """Say whether the input limits a training, from the share of the step time it is waited for."""
    return f"input-bound: {'yes' if share > INPUT_BOUND else 'no'} ({share:.0%} waiting)"


class Measurements(keras.callbacks.Callback):
    """Add to each epoch's logs what Keras doesn't.

    - images_per_second, of the global batch, and input_wait, the share of the same time in which
      the step waited for its images. An epoch's first step, which may compile, does not count
      unless it is the only one.
    - device_memory: the most that a GPU has held so far, GiB.
    """

    def __init__(self, *, batch_size):
        super().__init__()
        self.batch_size = batch_size

    def on_epoch_begin(self, epoch, logs=None):
        self.start_clock()

    def start_clock(self):
        self.steps = 0
        self.start = self.end = time.perf_counter()
        self.waited = self.model.seconds_waiting

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0 and self.params["steps"] > 1:
            self.start_clock()
            return
        self.steps += 1
        self.end = time.perf_counter()  # Keras has waited for the device: it hands over numbers

    def on_test_begin(self, logs=None):
        if self.steps:
            logs |= self.of_the_steps()  # a session cut in the validation hands them on

    def on_epoch_end(self, epoch, logs=None):
        if self.steps:
            logs |= self.of_the_steps()

    def of_the_steps(self):
        """Give images_per_second, input_wait and device_memory of the epoch's steps so far."""
        seconds = self.end - self.start
        logs = {
            "images_per_second": self.batch_size * self.steps / seconds,
            "input_wait": (self.model.seconds_waiting - self.waited) / seconds,
        }
        if gpus := tf.config.list_logical_devices("GPU"):
            peaks = [tf.config.experimental.get_memory_info(gpu.name)["peak"] for gpu in gpus]
            logs["device_memory"] = max(peaks) / 2**30
        return logs
