"""What freezing and slower layers do on few images, from weights trained on other classes.

    python tests/benchmarks/fine_tuning.py SOURCE_DIR TARGET_DIR [--seeds 0,1,2]

Both hold shards that `python -m kit run --recipe folder --only 01` has made, of different classes.
The narrow network of ingredients.py is trained on the source for 20 epochs; then on the target for
ten from its weights, with each of WAYS. Prints mean, lowest and highest top-1, and seconds.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import keras
from ingredients import BASE, BATCH, COSINE, compiled, training_data, validation_data

from kit import params
from kit.data import manifest
from kit.model import weights
from kit.pipeline import dataset
from kit.training import trainer
from kit.training.schedule import LearningRateScheduler

EPOCHS = 10
WAYS = {
    "from scratch": {"initial_weights": ""},
    "all layers at one rate": {},
    "all but the last at a tenth": {"body_rate_factor": 0.1},
    "up to stage 2 frozen": {"freeze": "stage2"},
    "all but the last frozen": {"freeze": "body"},
}


def train(data_dir, path, *, epochs, seed, **changes):
    """Train from the weights that `changes` name, save to `path`; give top-1 and seconds."""
    p = params.load(None, BASE | COSINE | {"epochs": epochs, "seed": seed} | changes)
    trainer.set_seed(seed, deterministic=False)
    model = compiled(p, classes=len(manifest.class_names(data_dir)))
    if p.initial.initial_weights:
        weights.read_into(model, p.initial.initial_weights)
    steps = dataset.steps_per_pass(data_dir=data_dir, batch_size=BATCH)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as run_dir:
        history = trainer.fit(
            model,
            training_data(data_dir, p),
            validation_data(data_dir, p),
            epochs=epochs,
            steps_per_epoch=steps,
            callbacks=[LearningRateScheduler(p.schedule, steps_per_epoch=steps)],
            run_dir=run_dir,
            parameters={},
            saving=p.saving,
        ).history
    seconds = time.perf_counter() - begin
    model.save(path)
    keras.backend.clear_session()
    return history["val_top1"][-1], seconds


def ways(target_dir, source, folder, seed):
    """Train in each way with a seed; give (name, (top-1, seconds)) as each has ended."""
    given = {"initial_weights": str(source), "seed": seed}
    for name, changes in WAYS.items():
        yield name, train(target_dir, folder / "way.keras", epochs=EPOCHS, **given | changes)
    last, half = folder / "last.keras", {"epochs": EPOCHS // 2, "seed": seed}
    _, before = train(target_dir, last, **half | given | {"freeze": "body"})
    then = half | {"initial_weights": str(last), "body_rate_factor": 0.1}
    top1, seconds = train(target_dir, folder / "all.keras", **then)
    yield "the last layer first, then all", (top1, before + seconds)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("source_dir")
    parser.add_argument("target_dir")
    parser.add_argument("--seeds", default="0,1,2")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    source = folder / "source.keras"
    print("source", train(options.source_dir, source, epochs=20, seed=0), flush=True)
    found = {}
    for seed in map(int, options.seeds.split(",")):
        for name, row in ways(options.target_dir, source, folder, seed):
            print(seed, name, *row, flush=True)
            found.setdefault(name, []).append(row)
    for name, rows in found.items():
        scores, times = zip(*rows, strict=True)
        mean = statistics.mean(scores)
        print(f"{name}: {mean:.1%} ({min(scores):.1%} to {max(scores):.1%})", end="")
        print(f", {statistics.mean(times):.0f} s")


if __name__ == "__main__":
    main()
