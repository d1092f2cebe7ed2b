"""What single ingredients of the recipes do on a small set of photographs, trained from scratch.

    python tests/benchmarks/ingredients.py DATA_DIR RESULTS.jsonl [--seeds 0,1,2] [--only NAME,NAME]

DATA_DIR holds shards that `python -m kit run --recipe folder --only 01` has made of photographs.
A smaller network on smaller images, so that a training takes a minute or two on a core; all have
the same budget of epochs. Pin it to one core (taskset -c 0), or the order of its sums, and with it
each figure, changes from run to run. A result that RESULTS holds already is not computed again.
Prints the table, and draws RESULTS with its suffix .png.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import keras
import tensorflow as tf

from kit import params, plots
from kit.data import manifest
from kit.model.resnet import resnet50
from kit.pipeline import dataset, preprocessing
from kit.training import optimizers, trainer
from kit.training.losses import ClassificationLoss, metrics
from kit.training.schedule import LearningRateScheduler
from kit.training.step import training_model
from kit.training.strategy import make_strategy

EPOCHS, SIZE, BATCH, WIDTH = 20, 64, 64, 16
BASE = {
    "stage_sizes": [1, 1, 1, 1],
    "batch_size": BATCH,
    "learning_rate": 0.025,  # the 2018 recipe's 0.1 for 256 images
    "base_batch_size": 0,
    "epochs": EPOCHS,
    "batch_norm_momentum": 0.9,  # 0.997 would still hold the initial statistics
    "image_size": SIZE,
    "resize_side": 73,  # 256 / 224 of the image size
    "deterministic": True,
    "checkpoint_minutes": 0.0,
    "keep_checkpoints": 1,
}
COSINE = {"schedule": "cosine", "schedule_update": "step"}
INGREDIENTS = {
    "classes in order, not shuffled": {"order": "by class"},
    "classes mixed once, not shuffled": {"order": "as written"},
    "paper_steps": {},
    "cosine schedule": COSINE,
    "cosine, warm-up, LAMB, binary cross-entropy": COSINE
    | {"optimizer": "lamb", "loss": "binary_cross_entropy", "learning_rate": 5e-3}
    | {"weight_decay": 0.02, "warmup_epochs": 3},
    "label smoothing 0.1": {"label_smoothing": 0.1},
    "weight decay ten times weaker": {"weight_decay": 1e-5},
    "EMA 0.99": {"ema_decay": 0.99},
    "version 1": {"resnet_version": "1"},
    "random erasing 0.25": {"random_erasing": 0.25},
    "mixup 0.2": {"mixup": 0.2},
    "TrivialAugment": {"augmentation": "trivial_augment"},
    "cutmix 1.0": {"cutmix": 1.0},
    "zero-initialised last gammas": {"zero_gamma": True},
}


def train(data_dir, name, seed):
    """Train with one ingredient; give the top-1 over the validation images, and the seconds."""
    changes = dict(INGREDIENTS[name])
    order = changes.pop("order", "shuffled")
    p = params.load(None, BASE | changes | {"seed": seed})
    begin = time.perf_counter()
    trainer.set_seed(seed, deterministic=False)
    training = training_data(data_dir, p)
    if order != "shuffled":
        training = Unshuffled(training, by_class=order == "by class")
    steps = dataset.steps_per_pass(data_dir=data_dir, batch_size=BATCH)
    with tempfile.TemporaryDirectory() as run_dir:
        history = trainer.fit(
            compiled(p, classes=len(manifest.class_names(data_dir))),
            training,
            validation_data(data_dir, p),
            epochs=EPOCHS,
            steps_per_epoch=steps,
            callbacks=[LearningRateScheduler(p.schedule, steps_per_epoch=steps)],
            run_dir=run_dir,
            parameters={},
            saving=p.saving,
        ).history
    found = {key: history[key][-1] for key in ("val_top1", "val_cross_entropy", "top1")}
    return {"name": name, "seed": seed, **found, "seconds": time.perf_counter() - begin}


def compiled(p, classes):
    """Give the narrow network of these parameters, compiled as in notebook 02."""
    with make_strategy(replicas=1).scope():
        decay = optimizers.decay_in_loss(p.optimizer, p.weight_decay)
        network = resnet50(p.network, classes=classes, decay=decay, width=WIDTH)
        model = training_model(network, freeze=p.initial.freeze)
        rate = p.schedule.scaled(p.schedule.learning_rate)
        model.compile(
            optimizers.make_optimizer(model, p.optimizer, p.weight_decay, rate),
            loss=ClassificationLoss(p.loss),
            metrics=metrics(),
            clip_grad_norm=p.optimizer.clip_grad_norm,
            ema_decay=p.optimizer.ema_decay,
        )
    return model


def training_data(data_dir, p):
    return dataset.TrainingData(
        data_dir,
        p.reading,
        p.crop,
        p.augmentation,
        p.mixing,
        image_size=SIZE,
        batch_size=BATCH,
        fill=p.network.channel_means,
        seed=p.run.seed,
        deterministic=p.run.deterministic,
    )


def validation_data(data_dir, p):
    return dataset.evaluation_dataset(
        data_dir=data_dir,
        split="validation",
        batch_size=BATCH,
        image_size=SIZE,
        resize_side=p.resolution.resize_side,
    )


class Unshuffled:
    """The images of a TrainingData in one order for ever: that of the shards, or of the classes."""

    def __init__(self, training, *, by_class):
        self.training, self.by_class, self.batch_size = training, by_class, training.batch_size
        self.fingerprint = training.fingerprint

    def batches(self, start_step, image_size):
        examples = list(dataset.encoded_examples(data_dir=self.training.data_dir, split="train"))
        if self.by_class:
            examples.sort(key=lambda example: int(example["label"]))
        encoded = [example["encoded"].numpy() for example in examples]
        labels = [int(example["label"]) for example in examples]
        whole = len(labels) // BATCH * BATCH
        ordered = tf.data.Dataset.from_tensor_slices((encoded[:whole], labels[:whole]))
        numbered = ordered.repeat().enumerate().map(self.decode, num_parallel_calls=2)
        return numbered.batch(BATCH, drop_remainder=True).prefetch(2)

    def decode(self, position, example):
        encoded, label = example
        seed = tf.stack([self.training.seed, position])
        none = tf.zeros([0, 4])  # photographs in folders have no boxes
        crop = self.training.crop
        return preprocessing.training_image(encoded, none, seed, crop, image_size=SIZE), label

    def names(self, step):
        return []


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data_dir")
    parser.add_argument("results", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", default=",".join(INGREDIENTS).replace(", ", "; "))
    options = parser.parse_args()
    wanted = [name.strip().replace("; ", ", ") for name in options.only.split(",")]
    done = {(row["name"], row["seed"]) for row in read(options.results)}
    for seed in map(int, options.seeds.split(",")):
        for name in wanted:
            if (name, seed) not in done:
                row = train(options.data_dir, name, seed)
                with options.results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(row, flush=True)
                keras.backend.clear_session()
    rows = read(options.results)
    print("\n".join(table(rows)))
    draw(rows).savefig(options.results.with_suffix(".png"), dpi=plots.DPI)


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def by_ingredient(rows):
    """Give {name: its top-1s}, in the order of INGREDIENTS."""
    return {
        name: found
        for name in INGREDIENTS
        if (found := [row["val_top1"] for row in rows if row["name"] == name])
    }


def table(rows):
    """Give the lines of a table: mean and spread of top-1, and the difference seed by seed."""
    plain = {row["seed"]: row["val_top1"] for row in rows if row["name"] == "paper_steps"}
    yield "| | top-1, mean (lowest to highest) | against `paper_steps`, same seeds |"
    yield "|---|---|---|"
    for name, found in by_ingredient(rows).items():
        pairs = [(r["seed"], r["val_top1"]) for r in rows if r["name"] == name]
        apart = [top1 - plain[seed] for seed, top1 in pairs if seed in plain]
        spread = f"{100 * statistics.fmean(found):.1f} ({100 * min(found):.1f} to "
        spread += f"{100 * max(found):.1f})"
        difference = ""
        if name != "paper_steps" and apart:
            difference = f"{100 * statistics.fmean(apart):+.1f} ({100 * min(apart):+.1f} to "
            difference += f"{100 * max(apart):+.1f})"
        yield f"| {name} | {spread} | {difference} |"


@plots.STYLE
def draw(rows):
    """Draw each training as a dot, their mean as a bar, an ingredient a line, the best on top."""
    found = by_ingredient(rows)
    names = sorted(found, key=lambda name: statistics.fmean(found[name]))
    figure, [[axes]] = plots.new_figure(10, 0.42 * len(found) + 1.6)
    for place, name in enumerate(names):
        mean = statistics.fmean(found[name])
        axes.plot(mean, place, "|", color=plots.GREY, markersize=22, mew=3)
        axes.plot(found[name], [place] * len(found[name]), "o", color=plots.VALIDATION)
    axes.axvline(statistics.fmean(found["paper_steps"]), color=plots.GREY, linewidth=1, zorder=0)
    axes.set_yticks(range(len(names)), names)
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.set_title("Top-1 with one ingredient changed from paper_steps")
    axes.set_xlabel("validation top-1: a dot a seed, a bar their mean")
    return figure


if __name__ == "__main__":
    main()
