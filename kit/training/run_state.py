"""The file that tells whether run_dir holds an unfinished training; imports no TensorFlow."""

import json
import shutil
from contextlib import contextmanager
from pathlib import Path

from kit import locks
from kit.files import write_json

FILE = "checkpoints/run.json"
LOCK = ".training.lock"  # in run_dir, from the start of a training until its model is saved
# What may change when a run is resumed: where things are, what is shown, how often it is saved.
FREE = {
    *("raw_dir", "data_dir", "run_dir", "data_service"),
    *("checkpoint_minutes", "keep_checkpoints", "on_save_error"),
    *("tensorboard", "expected_top1", "outside_band"),
}


def parameters_of(run_dir):
    """Return the parameters of the unfinished training in `run_dir`, or None without any."""
    path = Path(run_dir) / FILE
    if not path.exists():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    return None if record["finished"] else record["parameters"]


def check(run_dir, parameters):
    """Raise ValueError when `run_dir` holds an unfinished training of other parameters.

    Only names that both have are compared, except those of FREE.
    """
    earlier = parameters_of(run_dir) or {}
    differences = [
        f"{name}: {earlier[name]!r} there, {value!r} now"
        for name, value in _comparable(parameters).items()
        if name in earlier and earlier[name] != value
    ]
    if differences:
        raise ValueError(
            f"run_dir: {run_dir} holds an unfinished training of other parameters "
            f"({'; '.join(differences)}); give them back to go on with it, take another run_dir, "
            "or delete its folder checkpoints to start anew"
        )


def begin(run_dir, parameters):
    """Prepare `run_dir` to resume the training in it, or clear the checkpoints for a new one.

    Raises ValueError as `check` does.
    """
    run_dir = Path(run_dir)
    check(run_dir, parameters)
    (run_dir / "nonfinite.json").unlink(missing_ok=True)
    if parameters_of(run_dir) is None:
        for name in ("newest", "best"):
            shutil.rmtree(run_dir / "checkpoints" / name, ignore_errors=True)
        record(run_dir, parameters)


@contextmanager
def alone(run_dir):
    """Refuse other processes that would train in `run_dir`, by locks.InUse, until `finish`.

    They may do so as well when the block ends by an error.
    """
    locks.keep(Path(run_dir) / LOCK, f"run_dir {run_dir} is being trained in")
    try:
        yield
    except BaseException:
        locks.release(Path(run_dir) / LOCK)
        raise


def record(run_dir, parameters, *, finished=False):
    """Record the parameters of the training in `run_dir`, and whether its model is saved."""
    state = {"finished": finished, "parameters": _comparable(parameters)}
    write_json(Path(run_dir) / FILE, state)


def finish(run_dir):
    """Mark the training in `run_dir` as finished, so that the next one starts anew."""
    parameters = parameters_of(run_dir)
    if parameters is not None:
        record(run_dir, parameters, finished=True)
    locks.release(Path(run_dir) / LOCK)


def _comparable(parameters):
    kept = {name: value for name, value in parameters.items() if name not in FREE}
    return json.loads(json.dumps(kept))
