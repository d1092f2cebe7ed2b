"""The callback that saves a training, restores it, and ends it when it must stop."""

import csv
import logging
import math
import time
from pathlib import Path

import keras
import tensorflow as tf

from kit.files import replacing, write_json
from kit.training import run_state
from kit.training.checkpoint import SAVE_ERRORS, reason
from kit.training.strategy import several_hosts, sum_over_hosts

log = logging.getLogger(__name__)


class Backup(keras.callbacks.Callback):
    """Save every epoch, every `checkpoint_minutes` (0: epochs alone), and when asked to end.

    It keeps the history over all sessions of a run, and writes history.csv from it. As it saves
    what the other callbacks add to the logs, it comes last.

    saving: the section Saving. interruption: an Interruption, which tells whether the process was
    asked to end. names: `names(step)` lists the images of a step, for the report on a loss or
    gradient that is not finite; None: they are not named.
    """

    def __init__(
        self, checkpoints, interruption, saving, *, run_dir, parameters, steps_per_epoch, names
    ):
        super().__init__()
        self.checkpoints, self.interruption = checkpoints, interruption
        self.run_dir, self.parameters = Path(run_dir), parameters
        self.steps_per_epoch, self.seconds = steps_per_epoch, saving.checkpoint_minutes * 60
        self.on_save_error, self.names = saving.on_save_error, names
        self.step, self.history = 0, []
        self.metrics = None  # sums of the cut epoch's metrics, until it goes on
        self.logs = None  # those of an epoch's steps, while it is validated
        self.saved = time.monotonic()

    def resume(self):
        """Restore the newest checkpoint, and give the step to go on from: 0 in a new run."""
        progress = self.checkpoints.restore()
        if progress:
            self.step, self.history = progress["step"], progress["history"]
            self.metrics, self.logs = progress["metrics"], progress["logs"]
            self.write_history()
            log.warning("%s: goes on after step %s", self.run_dir, f"{self.step:,}")
        return self.step

    def on_epoch_begin(self, epoch, logs=None):
        if self.metrics:
            set_metrics(self.model, self.metrics)  # Keras has just set them to zero
        self.metrics = None

    def on_train_batch_end(self, batch, logs=None):
        self.check_finite(logs)
        self.step += 1
        if self.step % self.steps_per_epoch:
            due = self.seconds and time.monotonic() - self.saved >= self.seconds
            if self.hosts_meet(batch):
                self.save_if(due, within=True)
        else:  # validated first, and saved at the epoch's end; Keras sets the metrics to zero
            results = self.model.get_metrics_result()
            self.logs = {name: float(value) for name, value in results.items()}

    def on_test_begin(self, logs=None):
        self.logs |= logs  # what was measured of the steps

    def on_test_batch_end(self, batch, logs=None):
        if self.hosts_meet(batch):
            self.save_if(False, logs=self.logs)

    def on_epoch_end(self, epoch, logs=None):
        best = max((row["val_top1"] for row in self.history if "val_top1" in row), default=-1)
        self.history.append({"epoch": epoch, **logs})
        self.logs = None
        self.save_if(True, best=logs.get("val_top1", -1) > best)

    def save_if(self, due, *, within=False, logs=None, best=False):
        """Save when it is due or the process was asked to end; then end it. So do all hosts.

        within: in the midst of an epoch's steps, whose running metrics are kept too. logs: those of
        the steps, in the midst of the validation.
        """
        flags = tf.constant([float(due), float(bool(self.interruption.signal))])
        due, asked = sum_over_hosts(self.model.distribute_strategy, flags).numpy()
        if due or asked:
            self.saved = time.monotonic()
            progress = {"step": self.step, "history": self.history, "logs": logs}
            progress["metrics"] = metrics_of(self.model) if within else None
            self.try_to(self.checkpoints.wait)  # a failure of the former save is none of this one
            self.try_to(self.save, progress, best)
        if asked:
            self.try_to(self.checkpoints.wait)
            raise self.interruption.error(f"saved after step {self.step:,}")

    def hosts_meet(self, batch):
        """Tell whether to ask the other hosts after this batch; it takes a millisecond or more."""
        return not several_hosts(self.model.distribute_strategy) or batch % 10 == 9

    def save(self, progress, best):
        self.checkpoints.save(progress, best=best)
        run_state.record(self.run_dir, self.parameters)
        self.write_history()

    def try_to(self, action, *arguments):
        """Do what may fail for want of room or of the folder; say so and stop, or go on."""
        try:
            action(*arguments)
        except SAVE_ERRORS as error:
            message = f"{self.run_dir}: a checkpoint could not be written ({reason(error)})"
            if self.on_save_error == "stop" or self.interruption.signal:
                remedy = "; those before are as they were: make room, and run the same again"
                raise OSError(message + remedy) from error
            log.warning("%s; training goes on without it", message)

    def close(self):
        """Wait for the last write."""
        self.try_to(self.checkpoints.wait)
        self.checkpoints.thread.shutdown()

    def check_finite(self, logs):
        """Raise RuntimeError for a step whose loss or gradient is not, and report its images."""
        for name in ("loss", "gradient_norm"):
            if math.isfinite(logs.get(name, 0)):
                continue
            epoch, step = divmod(self.step, self.steps_per_epoch)
            names = self.names(self.step) if self.names else []
            report = {"step": self.step, name: str(logs[name]), "images": names}
            path = self.run_dir / "nonfinite.json"
            write_json(path, report)
            raise RuntimeError(
                f"the {name} became {logs[name]} in epoch {epoch + 1}, at its step {step + 1}; its "
                f"images are named in {path}, and nothing of it is saved: lower learning_rate, in "
                "another run_dir"
            )

    def write_history(self):
        with replacing(self.run_dir / "history.csv") as path, path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns_of(self.history))
            writer.writeheader()
            writer.writerows(self.history)

    def as_history(self):
        """Give the history of all sessions as Keras' History: one value per epoch, NaN for none."""
        history = keras.callbacks.History()
        history.epoch = [row["epoch"] for row in self.history]
        history.history = {
            name: [row.get(name, math.nan) for row in self.history]
            for name in columns_of(self.history)
            if name != "epoch"
        }
        return history


def columns_of(rows):
    return list(dict.fromkeys(name for row in rows for name in row))


def metrics_of(model):
    """List the sums in the running metrics, each replica's by itself, those of all hosts added."""
    sums = tf.stack([part.read_value() for part in metric_parts(model)])
    return sum_over_hosts(model.distribute_strategy, sums).numpy().tolist()


def set_metrics(model, sums):
    first = model.distribute_strategy.extended.should_checkpoint  # the other hosts' are in its sums
    for part, value in zip(metric_parts(model), sums, strict=True):
        part.assign(value if first else 0)


def metric_parts(model):
    """List the variables of the metrics on each of this host's replicas."""
    parts = model.distribute_strategy.experimental_local_results
    variables = [variable for metric in model.metrics for variable in metric.variables]
    return [part for variable in variables for part in parts(variable.value)]
