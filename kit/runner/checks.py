"""What can be known to fail before hours of work: of paths at once, of devices within seconds."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from kit import ROOT
from kit.data import paths, storage
from kit.inference import formats
from kit.training import run_state

NEEDED = {  # a path that may be empty: the file that must be in it, and what to do
    "initial_weights": ("", "name a file of weights"),
    "real_labels": ("", "name ReaL's real.json"),
    "other_images": ("", "name a folder of class folders"),
    "compare_with": ("predictions.csv", "evaluate that run first (notebook 03)"),
    "photos": ("", "name an image or a folder of images"),
}
TABLES = (".csv", ".parquet")


def problems(tasks: Mapping[Path, dict], run_dir: str, root: Path) -> Iterator[str]:
    """Give a line for each path, export or unfinished training that would stop the run.

    `tasks` holds the values that each notebook uses. Makes no folder, and imports no TensorFlow.
    """
    yield from _own_folder(root / run_dir, run_dir, root)
    used = {name: value for values in tasks.values() for name, value in values.items()}
    if "demo_views" in used:
        yield from _images(used, root)
    elif used.get("data_dir"):
        yield from _shards(used["data_dir"])
    for name, (file, remedy) in NEEDED.items():
        if used.get(name) and not (path := root / used[name] / file).exists():
            yield f"{name}: {path} is not there; {remedy}, or leave it empty"
    if used.get("predictions"):
        yield from _table(root / used["predictions"])
    if "exports" in used:
        yield from _raised(formats.check_exports, used["exports"], used["calibration_images"])
    if "checkpoint_minutes" in used:
        told = {name: value for name, value in used.items() if name != "replicas"}
        yield from _raised(run_state.check, root / run_dir, told)  # 0 replicas may be any number


def _own_folder(path, run_dir, root):
    if path.resolve() in (root.resolve(), *root.resolve().parents):
        yield f"run_dir: {run_dir!r} holds the kit itself; write for example runs/mine"
    else:
        yield from _writable(path / "x", "run_dir", "folder")


def _writable(path, name, kind):
    """Give a line unless `path` can be written, whose folder need not be there."""
    folder = path.parent
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        yield f"{name}: {folder} is a file; name another {kind}"
    elif not os.access(folder, os.W_OK | os.X_OK):
        yield f"{name}: {folder} cannot be written; name another {kind}"


def _images(used, root):
    raw_dir = used["raw_dir"]
    if not used["demo_views"] and not paths.is_remote(raw_dir) and not (root / raw_dir).is_dir():
        yield f"raw_dir: {root / raw_dir} does not exist; name the folder of your images"


def _shards(data_dir):
    folder = storage.folder(data_dir)
    if folder.local and not folder.names():
        yield (
            f"data_dir: {folder} holds no finished shards: run notebook 01 first, or name the "
            "folder that holds them"
        )


def _table(path):
    if path.suffix not in TABLES:
        yield f'predictions: "{path}" ends neither in .csv nor in .parquet'
    elif path.is_dir():
        yield f'predictions: "{path}" is a folder; name a file'
    else:
        yield from _writable(path, "predictions", "file")


def _raised(check, *arguments):
    try:
        check(*arguments)
    except (ValueError, OSError) as error:
        yield str(error)


def check_training(p, used, devices: Sequence[str], count: int = 1) -> None:
    """Raise ValueError or OSError for what would fail on these devices, or takes TensorFlow to see.

    `p` are the parameters, and `used` the names that the notebooks use; `devices` are those of each
    of `count` hosts.
    """
    gpus = sum(device.startswith("GPU") for device in devices)
    replicas = (p.devices.replicas or gpus or 1) * count
    if "replicas" in used:
        p.devices.check(replicas, p.schedule.batch_size)
        p.mixing.check_batch(p.schedule.batch_size // count)
    if "initial_weights" in used and p.initial.initial_weights:
        from kit.model import weights  # TensorFlow's import takes seconds

        try:
            weights.check_fits(ROOT / p.initial.initial_weights, p.network)
        except ValueError as error:
            raise ValueError(f"initial_weights: {error}") from None
    if "data_service" in used and p.reading.data_service:
        from kit.pipeline import service  # as above

        service.check(data_service=p.reading.data_service, deterministic=p.run.deterministic)
    if "photos" in used and p.inference.photos:
        from kit.inference import batch  # as above

        batch.find_photos(ROOT / p.inference.photos)
