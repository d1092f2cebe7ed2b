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

from kit.files import plain_path
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
    Its CheckpointManager takes the folder's name for a pattern.

    run: what identifies the training (run_state.begin), which each checkpoint holds; a checkpoint
    of another one is refused.
    """

    def __init__(self, model, *, folder, keep, run=None):
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
        self.checkpoint.save_counter.assign(0)  # TensorFlow's own; restored with the others
        self.newest, self.best = Path(folder) / "newest", Path(folder) / "best"
        self.keep, self.run = keep, run
        for kind in (self.newest, self.best):
            clean(kind)
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
        self.progress.assign(json.dumps(progress | {"run": self.run}))
        # the best first: after a kill between the two, the epoch is trained and saved again
        folders = ([(self.best, 1)] if best else []) + [(self.newest, self.keep)]
        self.writing = self.thread.submit(self.write, folders)

    def write(self, folders):
        """Write a checkpoint into each folder, and keep so many; remove what fails, for its space.

        `folders`: pairs of folder and number.
        """
        for folder, keep in folders:
            before = checkpoints_in(folder)
            path = folder / f"ckpt-{number_of(before[-1]) + 1 if before else 1}"
            folder.mkdir(parents=True, exist_ok=True)
            try:
                self.checkpoint.write(str(path))
            except SAVE_ERRORS:
                clean(folder)
                raise
            for old in before[: len(before) + 1 - keep]:
                for file in sorted(folder.glob(f"{old.name}.*"), reverse=True):  # the index first
                    file.unlink()

    def wait(self):
        """Wait for the write in the background, and raise its error."""
        writing, self.writing = self.writing, None
        if writing:
            writing.result()

    def restore(self, *, best=False):
        """Restore the newest undamaged checkpoint, or the best; return its progress, or None.

        A damaged one is skipped with a warning. Of several hosts the first reads and sends the
        values to the others. Raises ValueError for a checkpoint of another network, and when all
        are damaged.
        """
        progress = self.read(self.best if best else self.newest)
        if several_hosts(self.strategy):
            text = json.dumps(progress).encode()
            size = int(broadcast(self.strategy, tf.constant([float(len(text))]))[0])
            shared = broadcast(self.strategy, tf.cast([*text.ljust(size)[:size]], tf.float32))
            progress = json.loads(bytes(tf.cast(shared, tf.uint8).numpy()))
            if progress:
                broadcast_variables(self.strategy, self.variables)
        return progress

    def read(self, folder):
        paths = checkpoints_in(folder)[::-1]
        for path in paths:
            try:
                with plain_path(path) as readable:
                    self.checkpoint.read(readable).assert_consumed()
                progress = json.loads(self.progress.numpy())
            except (AssertionError, ValueError):
                raise ValueError(
                    f"{path} is of another network; take another run_dir, or delete that folder"
                ) from None
            except READ_ERRORS as error:
                why = reason(error)
                log.warning("checkpoint %s is damaged (%s): the one before is used", path, why)
                continue
            if progress.pop("run", self.run) != self.run:
                raise ValueError(
                    f"{path} is a checkpoint of another training than that of {self.newest.parent};"
                    " delete it, or take another run_dir"
                )
            for variable, copy in zip(self.variables, self.copies, strict=True):
                variable.assign(copy)
            return progress
        if paths:
            raise ValueError(f"{paths[0]} and those before are damaged; delete them to start anew")
        return None


def load_best(model, *, run_dir):
    """Restore the weights of the epoch with the best validation top-1.

    Raises FileNotFoundError when `run_dir` holds none.
    """
    folder = Path(run_dir) / "checkpoints" / "best"
    if not (paths := checkpoints_in(folder)):
        raise FileNotFoundError(f"{folder}: no checkpoint; one is there after the first epoch")
    copies = {variable.path: tf.Variable(variable.value) for variable in model.weights}
    with plain_path(paths[-1]) as path:
        status = tf.train.Checkpoint(model=copies).read(path)
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


def checkpoints_in(folder):
    """List the whole checkpoints, by number: an index is the last of the files to be written."""
    found = (path.with_suffix("") for path in folder.glob("ckpt-*.index"))
    return sorted((path for path in found if path.name[5:].isdigit()), key=number_of)


def number_of(path):
    return int(path.name[5:])


def clean(folder):
    """Remove what a killed save left in `folder`, and TensorFlow's list of its checkpoints."""
    whole = {path.name for path in checkpoints_in(folder)}
    for path in folder.glob("*"):
        stem = path.name.split(".")[0]
        if stem not in whole:
            remove(path)
            if ".data-" in path.name:
                log.warning("checkpoint %s is damaged (no index): it is removed", folder / stem)


def reason(error):
    """Return the first line of an error, without the place in TensorFlow's graph."""
    line = (str(error) or type(error).__name__).splitlines()[0]
    return re.sub(r"^\{\{.*?\}\} | \[Op:\w+\]$", "", line)


def remove(path):
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
