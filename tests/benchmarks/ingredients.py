"""What single ingredients of the recipes do on a small set of photographs, trained from scratch.

    python tests/benchmarks/ingredients.py DATA_DIR RESULTS.jsonl [--seeds 0,1,2] [--only NAME,NAME]

DATA_DIR holds shards that `python -m kit run --recipe folder --only 01` has made of photographs.
A smaller network on smaller images, so that a training takes a minute or two on a core; all have
the same budget of epochs. Pin it to one core (taskset -c 0), or the order of its sums, and with it
each figure, changes from run to run. A result that RESULTS holds already is not computed again.
Prints the table, and draws RESULTS with its suffix .png.
"""

import argparse
import functools
import json
import statistics
import tempfile
import time
from pathlib import Path

import keras
import tensorflow as tf
from matplotlib.ticker import PercentFormatter

from kit import params, plots
from kit.data import manifest
from kit.pipeline import dataset, preprocessing
from kit.training import schedule, strategy, trainer

EPOCHS, SIZE, BATCH, WIDTH = 20, 64, 64, 16
BASE = {
    "stage_sizes": [1, 1, 1, 1],
    "batch_size": BATCH,
    "learning_rate": 0.025,  # the recipe's 0.1 for 256 images
    "learning_rate_batch": 0,
    "rate_decay": "steps",
    "decay_epochs": [6, 12, 16, 18],  # 30, 60, 80 and 90 % of the epochs, as the recipe's
    "batch_norm_momentum": 0.9,  # 0.997 would still hold the initial statistics
    "image_size": SIZE,
    "resize_side": 73,  # 256 / 224 of the image size
}
COSINE = {"rate_decay": "cosine", "rate_every": "step"}
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
    "version 1": {"version": "1"},
    "random erasing 0.25": {"random_erasing": 0.25},
    "mixup 0.2": {"mixup": 0.2},
    "TrivialAugment": {"augmentation": "trivial_augment"},
    "cutmix 1.0": {"cutmix": 1.0},
    "zero-initialised last gammas": {"zero_gamma": True},
}
COMPILED = (
    *("version", "stage_sizes", "channel_means", "batch_norm", "batch_norm_momentum"),
    *("batch_norm_epsilon", "zero_gamma", "blur_pool", "drop_path", "weight_decay"),
    *("weight_decay_skips", "optimizer", "learning_rate", "momentum", "clip_norm", "loss"),
    *("label_smoothing", "target_threshold", "ema_decay", "precision"),
)
CROP = (
    *("image_size", "crop_sampling", "min_object_covered", "aspect_ratio_range", "area_range"),
    *("max_attempts", "scaled_decode"),
)
IMAGES = (
    *CROP,
    *("batch_size", "shuffle_shards", "augmentation", "augmentation_layers"),
    *("augmentation_magnitude", "random_erasing", "channel_means"),
    *("repeated_augmentation", "mixup", "cutmix"),
)
RATES = (
    *("learning_rate", "rate_decay", "decay_epochs", "decay_factor", "final_rate"),
    *("polynomial_power", "warmup_epochs", "warmup_start", "rate_every"),
)


def train(data_dir, name, seed):
    """Train with one ingredient; give the top-1 over the validation images, and the seconds."""
    order = INGREDIENTS[name].get("order", "shuffled")
    values = params.load() | BASE | {k: v for k, v in INGREDIENTS[name].items() if k != "order"}
    classes = manifest.class_names(data_dir)
    images = {key: values[key] for key in IMAGES}
    begin = time.perf_counter()
    trainer.fix_chance(seed=seed, deterministic=False)
    model = trainer.compile_model(
        strategy.make_strategy(replicas=1),
        classes=len(classes),
        width=WIDTH,
        **{key: values[key] for key in COMPILED},
    )
    training = functools.partial(
        dataset.training_dataset,
        data_dir=data_dir,
        seed=seed,
        deterministic=True,
        classes=len(classes),
        **images,
    )
    if order != "shuffled":
        training = functools.partial(unshuffled, data_dir, seed, images, order == "by class")
    validation = dataset.evaluation_dataset(
        data_dir=data_dir,
        split="validation",
        batch_size=BATCH,
        image_size=SIZE,
        resize_side=values["resize_side"],
    )
    steps = dataset.steps_per_pass(data_dir=data_dir, batch_size=BATCH)
    with tempfile.TemporaryDirectory() as run_dir:
        history = trainer.fit(
            model,
            training,
            validation,
            run_dir=run_dir,
            epochs=EPOCHS,
            steps_per_epoch=steps,
            training_sizes=[],
            schedule=schedule.scheduler(
                epochs=EPOCHS, steps_per_epoch=steps, **{key: values[key] for key in RATES}
            ),
            parameters={},
            checkpoint_minutes=0.0,
            keep_checkpoints=1,
            on_save_error="stop",
        ).history
    found = {key: history[key][-1] for key in ("val_top1", "val_cross_entropy", "top1")}
    return {"name": name, "seed": seed, **found, "seconds": time.perf_counter() - begin}


def unshuffled(data_dir, seed, settings, by_class, *, start_step):
    """Give endless batches in one order for ever: that of the shards, or of the classes."""
    crop = {key: settings[key] for key in CROP}

    def decode(position, example):
        own_seed = tf.stack([seed, position])
        image = preprocessing.training_image(example["encoded"], example["boxes"], own_seed, **crop)
        return image, example["label"]

    examples = list(dataset.encoded_examples(data_dir=data_dir, split="train"))
    if by_class:
        examples.sort(key=lambda example: int(example["label"]))
    encoded = [example["encoded"].numpy() for example in examples]
    labels = [int(example["label"]) for example in examples]
    none = tf.zeros([0, 4])  # photographs in folders have no boxes
    whole = len(labels) // BATCH * BATCH
    ordered = tf.data.Dataset.from_tensor_slices((encoded[:whole], labels[:whole]))
    return (
        ordered.map(lambda image, label: {"encoded": image, "label": label, "boxes": none})
        .repeat()
        .enumerate()
        .map(decode, num_parallel_calls=2)
        .batch(BATCH, drop_remainder=True)
        .prefetch(2)
    )


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
    """Draw each training as a dot, their mean as a bar, an ingredient a line."""
    found = by_ingredient(rows)
    figure, [[axes]] = plots.new_figure(9, 0.42 * len(found) + 1.2)
    for place, top1s in enumerate(found.values()):
        axes.plot(top1s, [place] * len(top1s), "o", color=plots.LIGHT, markersize=8)
        axes.plot(statistics.fmean(top1s), place, "|", color=plots.DARK, markersize=22, mew=3)
    axes.axvline(statistics.fmean(found["paper_steps"]), color=plots.GREY, linewidth=1)
    axes.set_yticks(range(len(found)), found)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("validation top-1 of each seed; bar: their mean")
    return figure


if __name__ == "__main__":
    main()
