"""What is measured while a network trains."""

import time

import keras
import tensorflow as tf

INPUT_BOUND = 0.1  # of the step time: so much at least could be won by a faster input


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
