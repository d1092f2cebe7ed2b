"""Crash-safe checkpoints: all training state; a checkpoint is complete or absent.

The state is the weights, their average, the optimizer, whose iterations count the steps, and the
progress (see Backup in backup.py). The data needs no state: which image comes at which step, and
its crop, is a function of seed and step. A model's seed generators are among its variables.
"""

import concurrent.futures
import contextlib
import json
import logging
import math
import re
import shutil
from pathlib import Path

import tensorflow as tf

from kit.training.strategy import broadcast, several_hosts

SAVE_ERRORS = (OSError, tf.errors.OpError)
READ_ERRORS = (tf.errors.OpError, IndexError, OSError)  # of TensorFlow, for a damaged file

log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints under `folder`: the last `keep` in newest/, the best one in best/.

    A save copies all values after a step, and a thread writes them, so that the next step need not
    wait for the disk. TensorFlow's own asynchronous checkpoint fails in its second save of Keras
    3.15's variables, because keras/src/backend/tensorflow/core.py makes a variable in a
    tf.function. TensorFlow writes to a temporary name, renames, and checks a checksum per tensor.
    """

    def __init__(self, model, *, folder, keep):
        self.strategy = model.distribute_strategy
        self.average = getattr(model, "average", None)
        paths = [variable.path for variable in model.weights]
        weights = dict(zip(paths, evaluated_weights(model), strict=True))
        # not by path: Keras numbers optimizers and seed generators through the whole process
        others = [*seeds_of(model), *model.optimizer.variables]
        others += model.weights if self.average else []
        self.variables = [*weights.values(), *others]
        with tf.device("CPU:0"):
            self.copies = [tf.Variable(tf.convert_to_tensor(v.value)) for v in self.variables]
            self.progress = tf.Variable("{}")
        self.checkpoint = tf.train.Checkpoint(
            model=dict(zip(weights, self.copies, strict=False)),
            others=self.copies[len(weights) :],
            progress=self.progress,
        )
        self.newest = checkpoint_manager(self.checkpoint, Path(folder) / "newest", keep)
        self.best = checkpoint_manager(self.checkpoint, Path(folder) / "best", 1)
        self.thread = concurrent.futures.ThreadPoolExecutor(1)
        self.writing = None

    def save(self, progress, *, best=False):
        """Copy the model's state and write it with `progress`, a dict for JSON, in the background.

        Waits for the previous write, and raises its error, one of SAVE_ERRORS. Of several hosts
        only the first writes.
        """
        self.wait()
        if not self.strategy.extended.should_checkpoint:
            return
        # amid a validation the model holds the average
        trained = self.average.in_model(False) if self.average else contextlib.nullcontext()
        with trained:
            for copy, variable in zip(self.copies, self.variables, strict=True):
                copy.assign(variable.value)
        self.progress.assign(json.dumps(progress))
        # the best first: after a kill between the two, the epoch is trained and saved again
        managers = [self.best, self.newest] if best else [self.newest]
        self.writing = self.thread.submit(write, managers)

    def wait(self):
        """Wait for the write in the background, and raise its error."""
        writing, self.writing = self.writing, None
        if writing:
            writing.result()

    def restore(self):
        """Restore the newest undamaged checkpoint and return its progress, or None without any.

        A damaged one is skipped with a warning. Of several hosts the first reads and sends the
        values to the others. Raises ValueError for a checkpoint of another network, and when all
        are damaged.
        """
        progress = self.read()
        if several_hosts(self.strategy):
            text = json.dumps(progress).encode()
            size = int(broadcast(self.strategy, tf.constant([float(len(text))]))[0])
            shared = broadcast(self.strategy, tf.cast([*text.ljust(size)[:size]], tf.float32))
            progress = json.loads(bytes(tf.cast(shared, tf.uint8).numpy()))
            if progress:
                broadcast_variables(self.strategy, self.variables)
        return progress

    def read(self):
        paths = self.newest.checkpoints[::-1]
        for path in paths:
            try:
                self.checkpoint.restore(path).assert_consumed()
            except (AssertionError, ValueError):
                raise ValueError(
                    f"{path} is of another network; take another run_dir, or delete that folder"
                ) from None
            except READ_ERRORS as error:
                why = reason(error)
                log.warning("checkpoint %s is damaged (%s): the one before is used", path, why)
                continue
            for variable, copy in zip(self.variables, self.copies, strict=True):
                variable.assign(copy)
            return json.loads(self.progress.numpy())
        if paths:
            raise ValueError(f"{paths[0]} and those before are damaged; delete them to start anew")
        return None


def load_best(model, *, run_dir):
    """Restore the weights of the epoch with the best validation top-1.

    Raises FileNotFoundError when `run_dir` holds none.
    """
    folder = Path(run_dir) / "checkpoints" / "best"
    path = tf.train.latest_checkpoint(str(folder))
    if path is None:
        raise FileNotFoundError(f"{folder}: no checkpoint; one is there after the first epoch")
    copies = {variable.path: tf.Variable(variable.value) for variable in model.weights}
    status = tf.train.Checkpoint(model=copies).restore(path)
    status.assert_existing_objects_matched().expect_partial()  # the optimizer's state is not wanted
    for variable in model.weights:
        variable.assign(copies[variable.path])
    if average := getattr(model, "average", None):
        average.restart()


def evaluated_weights(model):
    """List the weights that are evaluated: the average where the model has one."""
    average = getattr(model, "average", None)
    return average.average if average else model.weights


def seeds_of(model):
    """List the states of the model's seed generators: what is neither a weight nor a metric."""
    others = [v for metric in model.metrics for v in metric.variables] + model.weights
    known = {id(variable) for variable in others}
    return [variable for variable in model.variables if id(variable) not in known]


def broadcast_variables(strategy, variables):
    """Copy the first host's values to all hosts, in one message for each dtype."""
    for dtype in sorted({variable.dtype for variable in variables}):  # in one order on all hosts
        chosen = [variable for variable in variables if variable.dtype == dtype]
        joined = tf.concat([tf.reshape(variable.value, [-1]) for variable in chosen], axis=0)
        parts = tf.split(
            broadcast(strategy, joined), [math.prod(variable.shape) for variable in chosen]
        )
        for variable, part in zip(chosen, parts, strict=True):
            variable.assign(tf.reshape(part, variable.shape))


def checkpoint_manager(checkpoint, folder, keep):
    """Return a tf.train.CheckpointManager, after removing what a killed save left in `folder`.

    TensorFlow's own list of checkpoints may lack the newest, or be damaged, so the list follows
    the index files: a checkpoint's index is the last of its files to be written.
    """
    whole = sorted(folder.glob("ckpt-*.index"), key=lambda path: int(path.stem[5:]))
    for path in folder.glob("*"):
        if path.name.split(".")[0] not in {index.stem for index in whole} | {"checkpoint"}:
            remove(path)
    paths = [str(path.with_suffix("")) for path in whole]
    manager = tf.train.CheckpointManager(checkpoint, folder, keep)
    if manager.checkpoints == paths:
        return manager
    newest = manager.latest_checkpoint
    if newest and newest not in paths:
        log.warning("checkpoint %s is damaged (no index): the one before is used", newest)
    remove(folder / "checkpoint")
    if paths:
        times = [path.stat().st_mtime for path in whole]
        tf.compat.v1.train.update_checkpoint_state(str(folder), paths[-1], paths, None, times)
    return tf.train.CheckpointManager(checkpoint, folder, keep)


def write(managers):
    """Write a checkpoint with each manager; remove an incomplete one, to free its space."""
    for manager in managers:
        try:
            manager.save()
        except SAVE_ERRORS:
            for path in Path(manager.directory).glob("*_temp*"):
                remove(path)
            raise


def reason(error):
    """Return the first line of an error, without the place in TensorFlow's graph."""
    line = (str(error) or type(error).__name__).splitlines()[0]
    return re.sub(r"^\{\{.*?\}\} | \[Op:\w+\]$", "", line)


def remove(path):
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
