"""The card of a trained model, from what its run left: run_dir/model_card.md.

Its sections are those of the recipe's own page (recipe_resnet50_imagenet.md), in its order. Every
sentence holds a number or a name that a file of the run states; what no file states is said to be
missing.
"""

import csv
import json
from pathlib import Path

from kit import params
from kit.data.manifest import rename_old_keys
from kit.evaluation import tables
from kit.files import replacing

# what notebook 02 is told beside how to train
NOT_TRAINING = ("data_dir", "run_dir", "data_service", "checkpoint_minutes")
NOT_TRAINING += (
    "keep_checkpoints",
    "on_save_error",
    "expected_top1",
    "outside_band",
    "tensorboard",
)
NEEDED = ("data", "parameters", "training_size")  # of model.json
SPLITS = {"train": "training", "validation": "validation"}
FIGURES = ("loss", "cross_entropy", "l2_loss", "accuracy")
OPTIONAL = {"real": "ReaL", "other_images": "other images", "comparison": "against another run"}
FEW = 20  # images of a class, of which one is more than 5 %


def write_card(run_dir):
    """Write the card, whole or not at all, and give its path.

    model.json must be there; history.csv, params.json, environment.json, evaluation.json,
    latency.json and exports are used where they are, the measurements if newer than the model.
    Raises ValueError for a model.json that tells nothing of the training.
    """
    run_dir = Path(run_dir)
    model = _read(run_dir / "model.json")
    if missing := [name for name in NEEDED if name not in model]:
        raise ValueError(f"{run_dir / 'model.json'} lacks {', '.join(missing)}: train again")
    newer = {
        name: _read(path)
        for name in ("evaluation", "latency")
        if (path := run_dir / f"{name}.json").exists()
        and path.stat().st_mtime >= (run_dir / "model.json").stat().st_mtime
    }
    environment, given = (
        _read(path) if (path := run_dir / f"{name}.json").exists() else {}
        for name in ("environment", "params")
    )
    sections = [
        [f"# ResNet-50 version {model['version']}, {len(model['classes']):,} classes"],
        _data(model, given.get("demo_views", 0)),
        _training(model, run_dir, environment),
        _performance(model, newer.get("evaluation")),
        _inference(model, run_dir, newer.get("latency")),
        _miscellaneous(model, newer.get("evaluation")),
    ]
    text = "\n\n".join(part for section in sections for part in section) + "\n"
    with replacing(run_dir / "model_card.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return run_dir / "model_card.md"


def _data(model, demo_views):
    data = rename_old_keys(model["data"])
    made = data["parameters"]
    size = f"at short side {made['store_short_side']}" if made["store_short_side"] else "as it came"
    images, shards = (
        " and ".join(f"{count:,} {SPLITS[split]}" for split, count in data[key].items())
        for key in ("images", "shards")
    )
    return [
        "## Data",
        "### Raw data",
        "#### Description",
        f"{images} images of {len(model['classes']):,} classes; layout: {data['layout']}."
        + (" The kit's demonstration set: views of ten photographs." if demo_views else ""),
        "#### Path",
        f"`{data['source']}`",
        "### Data Processing Methods",
        "#### Description",
        f"TFRecord: {shards} shards. Each image is stored {size}. "
        f"Re-encoded: {data['reencoded']:,}; quarantined as unreadable: {data['quarantined']:,}; "
        f"files skipped: {data['skipped']:,}. Labels on disk count from {model['label_offset']}. "
        f"Fingerprint of the set: `{data['fingerprint']}`.",
        "#### Code",
        f"`notebooks/01_data_prep.ipynb`, kit {data['kit_version']}, seed {made['seed']}.",
        "#### Path",
        f"`{model['parameters']['data_dir']}`",
    ]


def _training(model, run_dir, environment):
    given, recipe = model["parameters"], params.load()
    rows = [
        [f"`{name}`", json.dumps(value), "" if value == recipe[name] else json.dumps(recipe[name])]
        for name, value in given.items()
        if name not in NOT_TRAINING
    ]
    last = [f"{name} {version}" for name, version in environment.get("packages", {}).items()]
    last += environment.get("devices", [])
    if environment.get("git"):
        last.append(f"commit `{environment['git']['commit']}`")
    return [
        "## Training",
        "### Optimization Methods",
        "#### Description",
        f"ResNet-50 version {model['version']} with {model['stage_sizes']} blocks in its stages, "
        f"trained on {model['training_size']} x {model['training_size']} crops; optimizer "
        f"{given['optimizer']}, loss {given['loss']}, precision {model['precision']}.",
        "#### Code",
        f"`notebooks/02_training.ipynb`, kit {model['kit_version']}."
        + (f" The last run of the kit into this folder had {', '.join(last)}." if last else ""),
        "#### Hyperparameters",
        tables.markdown(["parameter", "value", "params.yaml, where other"], rows),
        "#### Dynamics",
        *_dynamics(run_dir),
        "#### Outputs",
        "In this folder: "
        + ", ".join(f"`{path.name}`" for path in sorted(run_dir.iterdir()) if path.name[0] != "."),
    ]


def _dynamics(run_dir):
    path = run_dir / "history.csv"
    if not path.exists():
        return ["No history.csv."]
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    first, last = rows[0], rows[-1]
    best = max(rows, key=lambda row: float(row["val_top1"] or 0))
    figures = [name for name in FIGURES if (run_dir / "figures" / f"{name}.png").exists()]
    return [
        f"{len(rows)} epochs. Training loss {float(first['loss']):.3f} in the first and "
        f"{float(last['loss']):.3f} in the last, at {float(last['images_per_second']):,.0f} "
        f"images/s. Validation top-1 {float(last['val_top1']):.1%} after the last; the highest was "
        f"{float(best['val_top1']):.1%}, after epoch {int(best['epoch']) + 1}.",
        "\n".join(f"![{name}](figures/{name}.png)" for name in figures),
    ]


def _performance(model, found):
    lines = ["### Performance metrics", "#### Target metrics"]
    if found is None:
        lines.append("Not evaluated since it was trained.")
    else:
        size = model["image_size"]
        if found.get("shards") != model["data"]["fingerprint"]:
            lines.append("Evaluated on other shards than it was trained on.")
        lines += [
            f"Each of {found['images']:,} validation images once, the short side at "
            f"{model['resize_side']} pixels; a single {size} x {size} centre crop, but where said "
            f"otherwise. Cross-entropy {found['cross_entropy']:.3f} nats.",
            tables.markdown(["", "accuracy", "95 % interval", "images"], list(_scores(found))),
            *_calibration(found),
        ]
        if "comparison" in found:
            other = found["comparison"]
            lines.append(f"Less `{other['compare_with']}`: {tables.compared(other)}.")
    return [*lines, "#### Code", "`notebooks/03_evaluation.ipynb`; `evaluation.json` holds it all."]


def _scores(found):
    """Give a row of the table for each accuracy that was measured."""
    yield ["top-1", *tables.share(found["top1"]), f"{found['images']:,}"]
    yield ["top-5", *tables.share(found["top5"]), f"{found['images']:,}"]
    for view, row in found.get("views", {}).items():
        yield [f"top-1, {view}", *tables.share(row["top1"]), f"{row['images']:,}"]
    for row in found.get("test_sizes", []):
        size = f"top-1 at {row['image_size']} pixels"
        yield [size, *tables.share(row["top1"]), f"{row['images']:,}"]
    for name, words in (("real", "ReaL"), ("other_images", "top-1, other images")):
        if name in found:
            yield [words, *tables.share(found[name]["top1"]), f"{found[name]['images']:,}"]


def _calibration(found):
    if "calibration" not in found:
        return []
    of = found["calibration"]
    return [
        f"Expected calibration error {of['before']['error']:.1%}; {of['after']['error']:.1%} with "
        f"the logits divided by the temperature {of['temperature']:.2f}, fitted on "
        f"{of['fitted_on']:,} of the images; both of the other {of['images']:,}."
    ]


def _inference(model, run_dir, latency):
    timing = "Not timed since it was trained."
    if latency:
        total = latency["total"]
        timing = (
            f"{latency['fastest']}: median {total['p50']:.1f} ms for a photograph, preprocessing "
            f"included (90th centile {total['p90']:.1f}), batch 1, {latency['device']}, "
            f"{latency['runs']} runs."
        )
    return [
        "## Inference",
        "#### Code",
        "`notebooks/04_inference.ipynb`",
        "#### Timing information",
        timing,
        "#### Serialization",
        "`model.keras` takes RGB pixels from 0 to 255 and subtracts the channel means."
        + "".join(f" {line}" for line in _exports(model, run_dir)),
    ]


def _exports(model, run_dir):
    """Give a sentence on each export of this very model; others may lie beside them."""
    for path in sorted(run_dir.glob("export/*.json")):
        found = _read(path)
        if found.get("sha256") == model.get("sha256", "") and path.with_suffix("").exists():
            checks = found["checks"]
            words = f"differs from Keras by {checks['max_difference']:.1e} at most"
            if cost := checks.get("cost"):
                words = f"same answer as Keras for {cost['agreement']:.1%}"
                words += f" of {cost['images']:,} validation images, top-1 {tables.compared(cost)}"
            yield f"`export/{path.stem}` ({found['form']}): {words}."


def _miscellaneous(model, found):
    lines = ["## Miscellaneous"]
    if found is None:
        return [*lines, "Nothing is known of its accuracy."]
    half = (found["top1"]["high"] - found["top1"]["low"]) / 2
    limits = [
        f"Of another {found['images']:,} images like these, top-1 might differ by "
        f"{half:.1%} or so; smaller differences between models need a paired test.",
    ]
    few = [row["name"] for row in found["per_class"] if row["images"] < FEW]
    if few:
        limits.append(f"{len(few)} classes are judged by fewer than {FEW} images each.")
    missing = [words for name, words in OPTIONAL.items() if name not in found]
    if missing:
        limits.append(f"Not measured: {', '.join(missing)}.")
    return [*lines, "\n".join(f"- {line}" for line in limits)]


def _read(path):
    return json.loads(path.read_text(encoding="utf-8"))
