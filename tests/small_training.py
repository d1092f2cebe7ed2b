"""A training of seconds on real shards, and a program that kills it again and again.

The program, for test_resume_kill.py, forks before TensorFlow computes anything: a start then costs
a second instead of an import.
"""

import csv
import functools
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import keras
import numpy as np

from kit.files import TEMPORARY, replacing
from kit.pipeline.dataset import evaluation_dataset
from kit.training import trainer
from kit.training.schedule import LearningRateScheduler
from kit.training.strategy import make_strategy
from tests import networks
from tests.networks import compile_model, sections

VALUES = {  # what differs from params.yaml
    "stage_sizes": [1, 1],
    "batch_norm_momentum": 0.9,
    "batch_size": 4,
    "image_size": 32,
    "resize_side": 36,
    "shuffle_shards": 2,
    "deterministic": True,
    "learning_rate": 0.05,
    "base_batch_size": 0,
    "decay_epochs": [2],
    "checkpoint_minutes": 0.0,
}
NETWORK = VALUES | {"classes": 3, "width": 4}  # as compile_model takes them
RUN = {"epochs": 3, "steps_per_epoch": 8, "parameters": {"seed": 0, "learning_rate": 0.05}}


def compiled(*, replicas=1, deterministic=True, **changes):
    trainer.set_seed(0, deterministic=deterministic)
    changes |= {"deterministic": deterministic}
    return compile_model(make_strategy(replicas=replicas), **NETWORK | changes)


@functools.cache
def _compiled_once(replicas):
    model = compiled(replicas=replicas)
    variables = [*model.variables, *model.optimizer.variables]
    return model, [(variable, variable.numpy()) for variable in variables]


def untrained(replicas=1):
    """Give the model of `compiled` as it was at first; the same one each time, which is quicker."""
    model, values = _compiled_once(replicas)
    trainer.set_seed(0, deterministic=True)  # which conftest.py ends after each test
    for variable, value in values:
        variable.assign(value)
    return model


def training_data(data_dir, **changes):
    """Give the TrainingData of VALUES, some of them changed."""
    return networks.training_data(data_dir, **VALUES | changes)


def validation_data(data_dir, *, batch_size=4, worker=0, workers=1):
    return evaluation_dataset(
        data_dir=data_dir,
        split="validation",
        batch_size=batch_size,
        image_size=32,
        resize_side=36,
        worker=worker,
        workers=workers,
    )


def train(
    model, data_dir, run_dir, *, callbacks=(), training_sizes=(), worker=0, workers=1, **changes
):
    """Train in `run_dir`, or go on there; give Keras' History. `changes` are of RUN or VALUES."""
    run = {name: changes.pop(name, value) for name, value in RUN.items()}
    p = sections(**VALUES | changes)
    part = {"batch_size": p.schedule.batch_size, "worker": worker, "workers": workers}
    scheduler = LearningRateScheduler(p.schedule, steps_per_epoch=run["steps_per_epoch"])
    return trainer.fit(
        model,
        training_data(data_dir, **changes | part),
        validation_data(data_dir, **part),
        callbacks=[scheduler, *callbacks],
        run_dir=run_dir,
        saving=p.saving,
        training_sizes=training_sizes,
        **run,
    )


class Tell(keras.callbacks.Callback):
    """Append the number of each step taken to a file, which a kill of the process leaves."""

    def __init__(self, path):
        super().__init__()
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def on_train_batch_end(self, batch, logs=None):
        os.write(self.file, b"%d\n" % keras.ops.convert_to_numpy(self.model.optimizer.iterations))


def start(data_dir, run_dir, replicas, xla):
    """Fork a training of some seconds that saves five times a second; give its process id."""
    child = os.fork()
    if child == 0:
        # XLA has no deterministic gradient of max pooling, and on a CPU needs none
        model = compiled(replicas=replicas, xla=xla, deterministic=xla == "false")
        run_dir.mkdir(parents=True, exist_ok=True)
        train(
            model,
            data_dir,
            run_dir,
            epochs=4,
            steps_per_epoch=50,
            checkpoint_minutes=0.2 / 60,
            callbacks=[Tell(run_dir / "steps")],
        )
        with replacing(run_dir / "weights.npz") as path:
            np.savez(path, *[variable.numpy() for variable in model.variables])
        os._exit(0)
    return child


def kill(child, *, when):
    """SIGKILL the child as soon as `when()`; tell whether that was before its end."""
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if when():
            os.kill(child, signal.SIGKILL)
            return os.WIFSIGNALED(os.waitpid(child, 0)[1])
        time.sleep(0.0005)
    return False


def moment(source, run_dir):
    """Give what to wait for: some time after a step, as often in a save, seldom while it starts."""
    kind = source.choices(["training", "save", "start"], [5, 5, 1])[0]
    seconds, since = source.expovariate(1 / 3), None  # on any machine some run to their end
    begun = told(run_dir)

    def when():
        nonlocal since
        if since is None and (kind == "start" or told(run_dir) > begun):
            since = time.monotonic()
        if since is None or time.monotonic() - since < seconds:
            return False
        return kind != "save" or any(run_dir.glob("checkpoints/*/*_temp*"))

    return when


def told(run_dir):
    path = run_dir / "steps"
    return path.stat().st_size if path.exists() else 0


def steps_lost(run_dir):
    """List how far back training went after each kill that took steps back."""
    steps = [int(line) for line in (run_dir / "steps").read_text().split()]
    return [a - b + 1 for a, b in zip(steps, steps[1:], strict=False) if b <= a]


def main(data_dir, scratch, wanted, replicas, xla):
    """Print the kills, how many of them amid a save, the steps lost, and the runs that differ."""
    source, scratch = random.Random(0), Path(scratch)
    whole = scratch / "whole"
    assert os.waitpid(start(data_dir, whole, replicas, xla), 0)[1] == 0
    result = {"kills": 0, "amid_a_save": 0, "lost": [], "runs": 0, "differ": 0}
    while result["kills"] < wanted:
        cut = scratch / f"cut{result['runs']}"
        while True:
            child = start(data_dir, cut, replicas, xla)
            enough = result["kills"] >= wanted  # then this run goes to its end
            if not kill(child, when=(lambda: False) if enough else moment(source, cut)):
                break
            result["kills"] += 1
            result["amid_a_save"] += any(cut.glob("checkpoints/*/*_temp*"))
        result["runs"] += 1
        result["lost"] += steps_lost(cut)
        result["differ"] += not same(whole, cut)
    print(json.dumps(result))


def same(whole, cut):
    """Tell whether two runs ended alike: each weight bit for bit, and history.csv but for speed.

    And nothing temporary is left.
    """
    if any(TEMPORARY.fullmatch(path.name) for path in cut.rglob("*")):
        return False
    with np.load(whole / "weights.npz") as a, np.load(cut / "weights.npz") as b:
        weights = all(np.array_equal(a[name], b[name]) for name in a)
    return weights and history(whole) == history(cut)


def history(run_dir):
    """Give the rows of history.csv without what is measured by the clock."""
    with (run_dir / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    timed = ("images_per_second", "input_wait")
    return [{name: value for name, value in row.items() if name not in timed} for row in rows]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
