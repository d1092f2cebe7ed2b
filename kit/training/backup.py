"""The callback that saves a training, resumes it, and stops it when the process is asked to end."""

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
from kit.training.strategy import on_any_host, several_hosts, sum_over_hosts

CHECK_SECONDS = 5  # between looks at the device, each of which waits for it
COLUMNS = (  # of history.csv; others, of callbacks that somebody adds, come after them
    *("epoch", "loss", "cross_entropy", "l2_loss", "top1", "top5"),
    *("val_loss", "val_cross_entropy", "val_l2_loss", "val_top1", "val_top5"),
    *("learning_rate", "gradient_norm", "images_per_second", "input_wait"),
)

log = logging.getLogger(__name__)


class Backup(keras.callbacks.Callback):
    """Save after each epoch, every `checkpoint_minutes`, and before the process ends on a signal.

    It also collects the history of all sessions of a run and writes it to history.csv. It must be
    the last callback, because it saves what the others add to the logs.

    saving: the section Saving. interruption: an Interruption, which holds the signal. names:
    `names(step)` lists the images of a step, for the report on a loss or gradient that is not
    finite; None: the report lists none.
    """

    def __init__(
        self, checkpoints, interruption, saving, *, run_dir, parameters, steps_per_epoch, names
    ):
        super().__init__()
        self.checkpoints, self.interruption = checkpoints, interruption
        self.run_dir, self.parameters = Path(run_dir), parameters
        self.steps_per_epoch, self.seconds = steps_per_epoch, saving.checkpoint_minutes * 60
        self.on_save_error, self.names = saving.on_save_error, names
        self.patience = saving.patience
        self.step, self.history = 0, []
        self.metrics = None  # running sums of an interrupted epoch's metrics, until it is resumed
        self.logs = None  # an epoch's training logs, while it is validated
        self.saved = self.checked = time.monotonic()

    def resume(self):
        """Restore the newest checkpoint and return the step to continue from: 0 in a new run."""
        progress = self.checkpoints.restore()
        if progress:
            self.step, self.history = progress["step"], progress["history"]
            self.metrics, self.logs = progress["metrics"], progress["logs"]
            self.write_history()
            log.warning("%s: goes on after step %s", self.run_dir, f"{self.step:,}")
        return self.step

    def on_epoch_begin(self, epoch, logs=None):
        if self.metrics:
            restore_metrics(self.model, self.metrics)  # Keras has just reset them
        self.metrics = None

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if self.step % self.steps_per_epoch:
            now = time.monotonic()
            if self.exchange_due(batch):
                if now - self.checked >= CHECK_SECONDS:
                    self.check_finite()
                self.save_if(self.seconds and now - self.saved >= self.seconds, in_epoch=True)
        else:  # the epoch is saved after its validation, for which Keras resets the metrics
            self.check_finite()
            self.logs = self.model.latest_metrics()

    def on_test_begin(self, logs=None):
        self.logs |= logs  # what Measurements has added

    def on_test_batch_end(self, batch, logs=None):
        if self.exchange_due(batch):
            self.save_if(False, logs=self.logs)

    def on_epoch_end(self, epoch, logs=None):
        self.history.append({"epoch": epoch, **logs})
        self.logs = None
        self.save_if(True, best=self.best_row == len(self.history) - 1)
        if self.exhausted:
            self.model.stop_training = True

    @property
    def best_row(self):
        """The number of the first epoch with the highest validation top-1, in the history."""
        scores = [row.get("val_top1", -1) for row in self.history]
        return scores.index(max(scores)) if scores else None

    @property
    def exhausted(self):
        """Whether `patience` epochs have passed without a better validation."""
        since = len(self.history) - 1 - self.best_row if self.history else 0
        return bool(self.patience and since >= self.patience)

    def keep_best(self):
        """With `patience`, let the model hold the best epoch's state in place of the last's."""
        if not self.patience:
            return
        self.try_to(self.checkpoints.wait)
        if progress := self.checkpoints.restore(best=True):
            kept = progress["history"][-1]
            log.warning(
                "%s: the model is that of epoch %s of %s, the best, with top-1 %.1f%%",
                *(self.run_dir, kept["epoch"] + 1, len(self.history), 100 * kept["val_top1"]),
            )

    def save_if(self, due, *, in_epoch=False, logs=None, best=False):
        """Save if `due` on any host; save and stop if any host's process was asked to end.

        in_epoch: between an epoch's steps, so that the running metrics are saved too. logs: the
        epoch's training logs, during its validation.
        """
        flags = bool(due), bool(self.interruption.signal)
        due, asked = on_any_host(self.model.distribute_strategy, flags)
        if due or asked:
            self.check_finite()
            self.saved = time.monotonic()
            progress = {"step": self.step, "history": self.history, "logs": logs}
            progress["metrics"] = running_metrics(self.model) if in_epoch else None
            self.try_to(self.checkpoints.wait)  # so that its failure does not prevent this save
            self.try_to(self.save, progress, best)
        if asked:
            self.try_to(self.checkpoints.wait)
            raise self.interruption.error(f"saved after step {self.step:,}")

    def exchange_due(self, batch):
        """Tell whether the hosts exchange flags after this batch: that takes over a millisecond."""
        return not several_hosts(self.model.distribute_strategy) or batch % 10 == 9

    def save(self, progress, best):
        self.checkpoints.save(progress, best=best)
        run_state.record(self.run_dir, self.parameters)
        self.write_history()

    def try_to(self, action, *arguments):
        """Call what may fail on a full disk; then stop with an error, or warn and continue."""
        try:
            action(*arguments)
        except SAVE_ERRORS as error:
            message = f"{self.run_dir}: a checkpoint could not be written ({reason(error)})"
            if self.on_save_error == "stop" or self.interruption.signal:
                remedy = "; those before are as they were: make room, and run the same again"
                raise OSError(message + remedy) from error
            log.warning("%s; training goes on without it", message)

    def close(self):
        """Wait until the last checkpoint is written."""
        self.try_to(self.checkpoints.wait)
        self.checkpoints.thread.shutdown()

    def check_finite(self):
        """Raise RuntimeError if a step's loss or gradient was not finite, and report its images."""
        self.checked = time.monotonic()
        if (found := self.model.nonfinite) is None:
            return
        name = "gradient_norm" if math.isfinite(found["loss"]) else "loss"
        epoch, step = divmod(found["step"], self.steps_per_epoch)
        names = self.names(found["step"]) if self.names else []
        report = {"step": found["step"], name: str(found[name]), "images": names}
        path = self.run_dir / "nonfinite.json"
        write_json(path, report)
        raise RuntimeError(
            f"the {name} became {found[name]} in epoch {epoch + 1}, at its step {step + 1}; its "
            f"images are named in {path}, and nothing of it is saved: lower learning_rate, in "
            "another run_dir"
        )

    def write_history(self):
        with (
            replacing(self.run_dir / "history.csv") as path,
            path.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, column_names(self.history))
            writer.writeheader()
            writer.writerows(self.history)

    def as_history(self):
        """Return the history of all sessions as Keras' History: a value per epoch, NaN for none."""
        history = keras.callbacks.History()
        history.epoch = [row["epoch"] for row in self.history]
        history.history = {
            name: [row.get(name, math.nan) for row in self.history]
            for name in column_names(self.history)
            if name != "epoch"
        }
        return history


def column_names(rows):
    found = dict.fromkeys(name for row in rows for name in row)
    return [n for n in COLUMNS if n in found] + [n for n in found if n not in COLUMNS]


def running_metrics(model):
    """List the sums and counts in the metrics of each replica, added up over the hosts."""
    sums = tf.stack([variable.read_value() for variable in metric_variables(model)])
    return sum_over_hosts(model.distribute_strategy, sums).numpy().tolist()


def restore_metrics(model, sums):
    first = model.distribute_strategy.extended.should_checkpoint  # its sums hold those of all hosts
    for variable, value in zip(metric_variables(model), sums, strict=True):
        variable.assign(value if first else 0)


def metric_variables(model):
    """List the variables of the metrics on each of this host's replicas."""
    copies = model.distribute_strategy.experimental_local_results
    variables = [variable for metric in model.metrics for variable in metric.variables]
    return [copy for variable in variables for copy in copies(variable.value)]
