"""A program that kills what notebooks 03, 04, 05 and the report write, again and again.

See test_writers_kill.py. Forks before TensorFlow has begun any work, so that a try costs no import.
A kill comes at a random moment, or just before a random step: a file is opened, renamed or removed.
"""

import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import nbconvert  # noqa: F401  imported once, for all tries
import numpy as np
from nbformat.v4 import new_code_cell, new_markdown_cell
from PIL import Image

from kit import params, plots
from kit.data.cells import original
from kit.evaluation import calibration, comparison, model_card, scores
from kit.files import check_seal, hash_file, write_json
from kit.inference import batch, export, formats
from kit.inference.classifier import Classifier
from kit.model.metadata import read_metadata
from kit.runner import report
from kit.training import trainer
from tests.images import MANIFEST, jpeg
from tests.killed_run import STEPS
from tests.small_training import VALUES, compiled
from tests.test_plots_speed import MEASURED, ROUNDS, ROWS
from tests.test_report import write_executed

CLASSES = MANIFEST["classes"][:3]
PHOTOS = 70  # three batches


def evaluation(run_dir):
    """What notebook 03 writes: predictions.csv, figures, evaluation.json, the model card."""
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 3, 200), rng.normal(0, 1, [200, 3])
    results = scores.evaluate(labels, logits, CLASSES)
    comparison.write_predictions(run_dir, [f"{n}.jpg" for n in range(200)], labels, logits)
    plots.save(plots.class_accuracy(results["per_class"]), run_dir, "class_accuracy")
    plots.save(plots.confusion(results["confusion"], list("abc")), run_dir, "confusion")
    metadata = read_metadata(run_dir / "model.json")
    results["model"], results["shards"] = metadata["sha256"], metadata["data"]["fingerprint"]
    results["calibration"] = calibration.calibrate(labels, logits)
    write_json(run_dir / "evaluation.json", results)
    model_card.write_card(run_dir)


def inference(run_dir):
    """What notebook 04 writes: the table of a folder, latency.json, a figure, the model card."""
    metadata = read_metadata(run_dir / "model.json")
    classifier = Classifier(_brightness, metadata)
    batch.classify_folder(classifier, run_dir / "photos", predictions=run_dir / "photos.csv")
    measured = {"fastest": "quick", "total": MEASURED["forms"]["quick"]["total"]}
    write_json(run_dir / "latency.json", MEASURED | measured | {"model": metadata["sha256"]})
    plots.save(plots.latency(MEASURED), run_dir, "latency")
    model_card.write_card(run_dir)


def _brightness(pixels):
    mean = pixels.mean(axis=(1, 2)) + 1
    return (mean / mean.sum(axis=1, keepdims=True)).astype("float32")


def exports(run_dir):
    """What notebook 04 exports."""
    export.export_all(run_dir, ["saved_model"])


def throughput(run_dir):
    """What notebook 05 writes: throughput.json and two figures."""
    plots.save(plots.waterfall(ROUNDS, "input-bound: yes"), run_dir, "waterfall")
    plots.save(plots.supply_and_demand(ROWS, supply=1420), run_dir, "supply_and_demand")
    write_json(run_dir / "throughput.json", {"rounds": ROUNDS, "demand": ROWS})


def reporting(run_dir):
    report.write_report(run_dir)


STAGES = {f.__name__: f for f in (evaluation, inference, exports, throughput, reporting)}


def prepare(run_dir):
    """Write what a training leaves, photographs, and two executed notebooks."""
    write_executed(run_dir, "01_data_prep", new_markdown_cell("# Data"), new_code_cell("1 + 1"))
    write_executed(run_dir, "02_training", new_markdown_cell("# Training"))
    parameters = params.load(overrides={**VALUES, "precision": "float32"}).values
    manifest = MANIFEST | {"classes": CLASSES}
    trainer.save_model(compiled(), run_dir=run_dir, manifest=manifest, parameters=parameters)
    (run_dir / "photos").mkdir()
    for number in range(PHOTOS):
        (run_dir / "photos" / f"{number}.jpg").write_bytes(jpeg(40, 50, seed=number))


def fork(call, *arguments):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            call(*arguments)
            code = 0
        finally:
            os._exit(code)
    return child


def finish(call, *arguments):
    assert os.waitpid(fork(call, *arguments), 0)[1] == 0, "failed by itself"


def until_step(call, run_dir, number, told):
    """Run a stage that kills itself before its step of that number; tell each step taken."""
    steps = itertools.count()

    def audit(event, arguments):
        opened = event == "open" and isinstance(arguments[0], str | Path)
        if (opened or event in STEPS) and str(arguments[0]).startswith(str(run_dir)):
            os.write(told, b".")
            if next(steps) == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)
    call(run_dir)


def measure(call, run_dir):
    """Give the steps of a whole run, and its seconds."""
    reader, told = os.pipe()
    began = time.monotonic()
    finish(until_step, call, run_dir, -1, told)
    seconds = time.monotonic() - began
    os.close(told)
    with os.fdopen(reader) as pipe:
        return len(pipe.read()), seconds


def kill(call, run_dir, source, steps, seconds):
    """Tell whether a run was killed before its end."""
    if source.random() < 0.5:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        child = fork(until_step, call, run_dir, source.randrange(steps), nowhere)
        os.close(nowhere)
    else:
        child = fork(call, run_dir)
        time.sleep(source.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "failed by itself"
    return os.WIFSIGNALED(status)


def visible(run_dir):
    """List the files that have a name of their own; temporary ones begin with a dot."""
    files = (path for path in sorted(run_dir.rglob("*")) if path.is_file())
    return [p for p in files if not any(x[0] == "." for x in p.relative_to(run_dir).parts)]


def check(path):
    """Raise an error unless the file is whole."""
    if path.suffix == ".json":
        check_seal(json.loads(path.read_text()))
    elif path.suffix == ".png":
        Image.open(path).load()
    elif path.name == comparison.PREDICTIONS:
        assert len(comparison.read_predictions(path.parent)) == 200
    elif path.name == "photos.csv":
        lines = path.read_text().splitlines()
        found = {original(line.partition(",")[0]) for line in lines[1:]}
        assert found == {f"{number}.jpg" for number in range(PHOTOS)} and len(lines) == PHOTOS + 1
    elif path.suffix == ".html":
        assert path.read_text().rstrip().endswith("</html>")
    elif path.name == "saved_model.json":
        formats.read_export(path.with_suffix(""))


def damaged(run_dir):
    found = []
    for path in visible(run_dir):
        try:
            check(path)
        except Exception as error:
            found.append(f"{path.name}: {error}")
    if (run_dir / "export" / "saved_model").exists():
        found += (
            [] if (run_dir / "export/saved_model/saved_model.pb").exists() else ["half a model"]
        )
    return found


def result(run_dir):
    """Give each file's hash; of a SavedModel, whose bytes differ from run to run, what it found."""
    hashes = {}
    for path in visible(run_dir):
        name = path.relative_to(run_dir).as_posix()
        hashes[name] = "" if name.startswith("export/") else hash_file(path)
    if (beside := run_dir / "export" / "saved_model.json").exists():
        hashes["checks"] = json.loads(beside.read_text())["checks"]
    return hashes


def main(stage, scratch, wanted):
    """Print the kills, the sets that they were of, and what was damaged or differed."""
    call, source = STAGES[stage], random.Random(stage)
    finish(prepare, scratch / "begun")
    cut = scratch / "cut"  # always at one place, which the model card and the report may name
    shutil.copytree(scratch / "begun", cut)
    steps, seconds = measure(call, cut)
    expected = result(cut)
    shutil.rmtree(cut)
    counts = {"kills": 0, "sets": 0, "steps": steps, "damaged": [], "differ": []}
    while counts["kills"] < wanted:
        shutil.copytree(scratch / "begun", cut)
        while counts["kills"] < wanted and source.random() < 0.8:  # five in a row, on average
            counts["kills"] += kill(call, cut, source, steps, seconds)
            counts["damaged"] += damaged(cut)
        finish(call, cut)
        counts["sets"] += 1
        found = result(cut)
        names = expected.keys() | found.keys()
        counts["differ"] += [n for n in names if expected.get(n) != found.get(n)]
        counts["differ"] += map(str, cut.rglob(".*"))  # no temporary file, no lock
        shutil.rmtree(cut)
    print(json.dumps(counts))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
