"""What a run was and what it measured, in words: for the end of the terminal and the report."""

import csv
import itertools
from collections.abc import Iterator
from pathlib import Path

from kit.data import manifest, storage
from kit.data.cells import original
from kit.evaluation import model_card, tables
from kit.evaluation.model_card import read

SHOWN = 3  # predictions


def lines(run_dir: Path) -> list[str]:
    """Say where things are, what was measured, and what the model sees in a few images."""
    places = {"executed notebooks": "notebooks", "figures": "figures", "report": "report.html"}
    rows = [(name, run_dir / place) for name, place in places.items()]
    rows += [*prepared(run_dir), *measured(run_dir)]
    rows += [("prediction", text) for text in predictions(run_dir)]
    return [f"{name + ':':20}{text}" for name, text in rows]


def described(run_dir: Path) -> Iterator[tuple[str, str]]:
    """Give name and value of what the run was: its data, date, commit, recipe and machine."""
    if model := read(run_dir / "model.json"):
        data, classes = model["data"], len(model["classes"])
        counts = tables.splits(data["images"])
        yield "data set", f"{data['source']}: {counts} images of {classes:,} classes"
    started = [
        read(path)["metadata"]["papermill"]["start_time"]
        for path in sorted((run_dir / "notebooks").glob("*.ipynb"))
    ]
    if started:
        yield "date", f"{max(started)[:16].replace('T', ' ')} UTC"
    if sources := list(read(run_dir / "params.json").get("sources", {}).values()):
        recipes = [source[7:] for source in sources if source.startswith("recipe ")]
        changed = sources.count("the command line")
        by_hand = f", {changed} value{'s' * (changed > 1)} changed by hand" if changed else ""
        yield "recipe", f"{recipes[0] if recipes else 'params.yaml'}{by_hand}"
    if found := read(run_dir / "environment.json"):
        packages = found["packages"]
        if commit := found["git"]:
            yield "commit", commit["commit"][:12] + ", files changed since" * commit["dirty"]
        versions = f"TensorFlow {packages['tensorflow']}, Keras {packages['keras']}"
        yield "machine", f"{', '.join(found['devices'])}; {versions}, Python {found['python']}"


def prepared(run_dir: Path) -> Iterator[tuple[str, str]]:
    """Say what became of the raw images, and why, where notebook 01 was executed."""
    data_dir = read(run_dir / "params.json").get("data_dir")
    executed = data_dir and any((run_dir / "notebooks").glob("01_*.ipynb"))
    if executed and storage.folder(data_dir).size(manifest.MANIFEST) is not None:
        for outcome, text in manifest.told(manifest.read_manifest(data_dir)):
            yield f"images {outcome}", text


def measured(run_dir: Path) -> Iterator[tuple[str, str]]:
    """Give name and value of what was measured: nothing of an earlier model."""
    if found := model_card.measured(run_dir, "evaluation.json"):
        yield "accuracy", _accuracy(found)
        if macro := found.get("macro"):
            yield "by class", f"{tables.macro(macro)} (averages over the classes)"
        if test := found.get("test"):
            yield "test split", _accuracy(test)
        if doubtful := found.get("suspicious_labels", {}).get("images"):
            yield "labels", f"the model doubts {doubtful:,} of {found['images']:,} (notebook 03)"
    if found := model_card.measured(run_dir, "latency.json"):
        yield "latency", f"{found['total']['p50']:.1f} ms for one image (median)"
    if found := read(run_dir / "throughput.json"):
        rate = found["images_per_second"]["input"]
        yield "input", f"{rate:,.0f} images/s; {found['input_bound']}"


def _accuracy(found: dict) -> str:
    top1, top5 = found["top1"], found["top5"]
    interval = f"(95 % interval {_percent(top1['low'])} to {_percent(top1['high'])})"
    scores = f"top-1 {_percent(top1['value'])} {interval}, top-5 {_percent(top5['value'])}"
    return f"{scores}, of {found['images']:,} images"


def predictions(run_dir: Path) -> Iterator[str]:
    """Say what the model sees in the first images of photos.csv, which precedes latency.json."""
    path = run_dir / "photos.csv"
    if not path.exists() or not model_card.measured(run_dir, "latency.json"):
        return
    with path.open(encoding="utf-8", newline="") as file:
        readable = (row for row in csv.DictReader(file) if not row["problem"])
        for row in itertools.islice(readable, SHOWN):
            photo, name = original(row["photo"]), original(row["name_1"])
            yield f"{photo} is {name} ({_percent(float(row['probability_1']))})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
