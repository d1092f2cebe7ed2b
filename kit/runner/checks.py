"""What can be known to fail before hours of work: of paths at once, of devices within seconds."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from kit import ROOT, params
from kit.data import paths, storage
from kit.evaluation.sections import FILES
from kit.files import check_writable
from kit.inference import formats, table
from kit.prep import table as labels
from kit.training import run_state

NEEDED = {  # a path that may be empty: the file that must be in it, and what to name
    "initial_weights": ("", "name a file of weights"),
    "photos": ("", "name an image or a folder of images"),
    **FILES,
}


def problems(tasks: Mapping[Path, dict], run_dir: str, root: Path) -> Iterator[str]:
    """Give a line for each path, export or unfinished training that would stop the run.

    `tasks` holds the values that each notebook uses. Makes no folder, and imports no TensorFlow.
    """
    used = {name: value for values in tasks.values() for name, value in values.items()}
    yield from _raised(_check_run_dir, run_dir, root)
    if "demo_views" not in used:
        needing = [values for values in tasks.values() if not values.get("photos")]
        for data_dir in {values.get("data_dir", "") for values in needing} - {""}:
            yield from _raised(_check_shards, data_dir)
    elif not used["demo_views"]:
        yield from _raised(_check_images, used["raw_dir"], root)
    for name, (file, remedy) in NEEDED.items():
        value = used.get(name)
        if value and params.is_path(name, value) and not (path := root / value / file).exists():
            yield f"{name}: {path} is not there; {remedy}, or leave it empty"
    if used.get("predictions"):
        yield from _raised(table.check_table, root / used["predictions"])
    if "exports" in used:
        yield from _raised(formats.check_exports, used["exports"])
    if "checkpoint_minutes" in used:
        told = {name: value for name, value in used.items() if name != "replicas"}
        yield from _raised(run_state.check, root / run_dir, told)  # 0 replicas may be any number


def _raised(check, *arguments) -> Iterator[str]:
    try:
        check(*arguments)
    except (ValueError, OSError) as error:
        yield str(error)


def _check_run_dir(run_dir, root):
    path = root / run_dir
    if path.resolve() in (root.resolve(), *root.resolve().parents):
        raise ValueError(f"run_dir: {run_dir!r} holds the kit itself; write for example runs/mine")
    try:
        check_writable(path / "params.json")
    except OSError as error:
        why = f"cannot be written ({error.strerror})"
        raise OSError(f"run_dir: {path} {why}; name another") from None


def _check_images(raw_dir, root):
    if paths.is_remote(raw_dir):
        return
    path = root / raw_dir
    if not path.is_dir() and not labels.is_table(str(path)):
        remedy = "name the folder of your images, or their labels.csv"
        raise FileNotFoundError(f"raw_dir: {path} does not exist; {remedy}")
    if found := labels.find(path):
        labels.read(found, [])


def _check_shards(data_dir):
    if (folder := storage.folder(data_dir)).local and not folder.names():
        raise FileNotFoundError(
            f"data_dir: {folder} holds no finished shards: run notebook 01 first, or name the "
            "folder that holds them"
        )


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
        from kit.model import pretrained, weights  # TensorFlow's import takes seconds

        try:
            weights.check_fits(pretrained.fetch(p.initial.initial_weights), p.network)
        except ValueError as error:
            raise ValueError(f"initial_weights: {error}") from None
    if "data_service" in used and p.reading.data_service:
        from kit.pipeline import service  # as above

        service.check(p.reading.data_service)
    if "photos" in used and p.inference.photos:
        from kit.inference import batch  # as above

        batch.find_photos(ROOT / p.inference.photos)
