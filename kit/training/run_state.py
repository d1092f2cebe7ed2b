"""The file that tells which training run_dir holds, and whether it is finished; no TensorFlow."""

import dataclasses
import hashlib
import json
import shutil
from contextlib import contextmanager
from pathlib import Path

from kit import locks
from kit.files import read_json, write_json
from kit.training.sections import Schedule

FILE = "checkpoints/run.json"
FORM = {"finished": bool, "parameters": dict}
LOCK = ".training.lock"  # in run_dir, from the start of a training until its model is saved
# What may change when a run is resumed: where things are, what is shown, how often it is saved.
FREE = {
    *("raw_dir", "data_dir", "run_dir", "data_service"),
    *("checkpoint_minutes", "keep_checkpoints", "on_save_error"),
    *("tensorboard", "expected_top1", "outside_band"),
}


def parameters_of(run_dir):
    """Return the parameters of the unfinished training in `run_dir`, or None without any."""
    state = _read(run_dir)
    return None if state["finished"] else state["parameters"]


def check(run_dir, parameters):
    """Raise ValueError when `run_dir` holds a training or a model that must not be replaced.

    That is an unfinished training of other parameters, and a model, unless it is of the same
    parameters or can be trained longer (`is_longer`). Only names that both have are compared,
    except those of FREE.
    """
    state = _read(run_dir)
    earlier, now = state["parameters"], _comparable(parameters)
    differences = [
        f"{name}: {earlier[name]!r} there, {value!r} now"
        for name, value in now.items()
        if name in earlier and earlier[name] != value
    ]
    if not state["finished"] and differences:
        raise ValueError(
            f"run_dir: {run_dir} holds an unfinished training of other parameters "
            f"({'; '.join(differences)}); give them back to go on with it, take another run_dir, "
            "or delete its folder checkpoints to start anew"
        )
    if not state["finished"] or not (model := Path(run_dir) / "model.keras").exists():
        return
    remedy = f"take another run_dir, or delete {model} to start anew"
    if differences and not is_longer(earlier, now):
        raise ValueError(
            f"run_dir: {run_dir} holds a finished model of other parameters "
            f"({'; '.join(differences)}); only epochs may grow, where the learning rates of those "
            f"before stay as they were; {remedy}"
        )
    if not any(Path(run_dir, "checkpoints", "newest").glob("*.index")):
        raise ValueError(
            f"run_dir: {run_dir} holds a model, and no checkpoint to go on from; {remedy}"
        )


def is_longer(earlier, now):
    """Tell whether a training is an earlier one with more epochs: the same in those it had.

    Its learning rate must be the same in them: a cosine that ends later is another one throughout.
    """
    changed = {name for name in now if name in earlier and earlier[name] != now[name]}
    names = [field.name for field in dataclasses.fields(Schedule)]
    if changed != {"epochs"} or not set(names) <= earlier.keys() & now.keys():
        return False
    before, after = (Schedule(**{name: of[name] for name in names}) for of in (earlier, now))
    quarters = [number / 4 for number in range(4 * before.epochs)]
    return after.epochs > before.epochs and all(
        before.rate(epoch) == after.rate(epoch) for epoch in quarters
    )


def begin(run_dir, parameters):
    """Prepare `run_dir` to resume or extend the training in it, or to start a new one.

    Returns what identifies the training, for its checkpoints. Raises ValueError as `check` does.
    """
    run_dir = Path(run_dir)
    check(run_dir, parameters)
    (run_dir / "nonfinite.json").unlink(missing_ok=True)
    if _read(run_dir)["finished"] and not (run_dir / "model.keras").exists():
        shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)
        record(run_dir, parameters)
    return _identity(_read(run_dir))


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
    earlier, kept = _read(run_dir), _comparable(parameters)
    state = {"finished": finished, "parameters": kept}
    state["run"] = _identity(earlier if earlier["parameters"] else state)
    write_json(Path(run_dir) / FILE, state)


def finish(run_dir):
    """Mark the training in `run_dir` as finished: its model is saved."""
    parameters = parameters_of(run_dir)
    if parameters is not None:
        record(run_dir, parameters, finished=True)
    locks.release(Path(run_dir) / LOCK)


def _read(run_dir):
    """Return the record; of a folder without one, that of a finished training of no parameters."""
    path = Path(run_dir) / FILE
    if not path.exists():
        return {"finished": True, "parameters": {}}
    remedy = f"delete {path.parent} to start anew"
    return read_json(path, FORM, remedy=remedy)


def _identity(state):
    """Return the hash of the parameters with which a training began; it stays when it is longer."""
    text = json.dumps(state["parameters"], sort_keys=True)
    return state.get("run", hashlib.sha256(text.encode()).hexdigest())


def _comparable(parameters):
    kept = {name: value for name, value in parameters.items() if name not in FREE}
    return json.loads(json.dumps(kept))
