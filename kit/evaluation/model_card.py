"""The card of a trained model, from what its run left: run_dir/model_card.md.

Its sections are those of the recipe's own page (recipe_resnet50_imagenet.md), in its order. Every
sentence holds a number or a name that a file of the run states; what no file states is said to be
missing.
"""

import csv
import json
from pathlib import Path

from kit import params
from kit.evaluation.tables import code, compared, escape, markdown, share
from kit.files import replacing
from kit.model.metadata import read_metadata

NEEDED = {"data": dict, "parameters": dict, "training_size": int}  # of model.json
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
    model = read_metadata(run_dir / "model.json", NEEDED)
    trained = (run_dir / "model.json").stat().st_mtime
    evaluation = _read(run_dir / "evaluation.json", trained)
    sections = [
        f"# ResNet-50 version {model['resnet_version']}, {len(model['classes']):,} classes",
        *_data(model, _read(run_dir / "params.json").get("demo_views", 0)),
        *_training(model, run_dir, _read(run_dir / "environment.json")),
        *_performance(model, evaluation),
        *_inference(model, run_dir, _read(run_dir / "latency.json", trained)),
        *_miscellaneous(evaluation),
    ]
    with replacing(run_dir / "model_card.md") as temporary:
        temporary.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    return run_dir / "model_card.md"


def _read(path, since=0.0):
    """Read a JSON file that was written after `since`; {} where there is none."""
    if not path.exists() or path.stat().st_mtime < since:
        return {}
    return json.loads(path.read_text(encoding="utf-8"))


def _data(model, demo_views):
    data = model["data"]
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
        f"{images} images of {len(model['classes']):,} classes; layout: {escape(data['layout'])}."
        + (" The kit's demonstration set: views of ten photographs." if demo_views else ""),
        "#### Path",
        code(data["source"]),
        "### Data Processing Methods",
        "#### Description",
        f"TFRecord: {shards} shards. Each image is stored {size}. Re-encoded: "
        f"{data['reencoded']:,}; quarantined: {data['quarantined']:,}; files skipped: "
        f"{data['skipped']:,}. Labels on disk count from {model['label_offset']}. Fingerprint of "
        f"the set: {code(data['fingerprint'])}.",
        "#### Code",
        f"`notebooks/01_data_prep.ipynb`, kit {data['kit_version']}, seed {made['seed']}.",
        "#### Path",
        code(model["parameters"]["data_dir"]),
    ]


def _training(model, run_dir, environment):
    given = model["parameters"]
    last = [f"{name} {version}" for name, version in environment.get("packages", {}).items()]
    last += environment.get("devices", [])
    if environment.get("git"):
        last.append(f"commit `{environment['git']['commit']}`")
    return [
        "## Training",
        "### Optimization Methods",
        "#### Description",
        f"ResNet-50 version {model['resnet_version']} with {model['stage_sizes']} blocks in its "
        f"stages, trained on {model['training_size']} x {model['training_size']} crops; optimizer "
        f"{given['optimizer']}, loss {given['loss']}, precision {model['precision']}.",
        "#### Code",
        f"`notebooks/02_training.ipynb`, kit {model['kit_version']}."
        + (f" The last run of the kit into this folder had {', '.join(last)}." if last else ""),
        "#### Hyperparameters",
        markdown(["parameter", "value", "params.yaml, where other"], list(_parameters(given))),
        "#### Dynamics",
        *_dynamics(run_dir),
        "#### Outputs",
        "In this folder: "
        + ", ".join(code(path.name) for path in sorted(run_dir.iterdir()) if path.name[0] != "."),
    ]


def _parameters(given):
    """Give a row of the table for each parameter that decides what a training computes."""
    recipe = params.load()
    others = {"raw_dir", "data_dir", "run_dir", "data_service"}
    others |= {*vars(recipe.saving), *vars(recipe.monitoring)}
    for name, value in given.items():
        if name not in others:
            default = recipe.values.get(name)
            other = "" if value == default else escape(json.dumps(default))
            yield [f"`{name}`", escape(json.dumps(value)), other]


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
    return [
        "### Performance metrics",
        "#### Target metrics",
        *(_accuracies(model, found) if found else ["Not evaluated since it was trained."]),
        "#### Code",
        "`notebooks/03_evaluation.ipynb`; `evaluation.json` holds it all.",
    ]


def _accuracies(model, found):
    size = model["image_size"]
    if found.get("shards") != model["data"]["fingerprint"]:
        yield "Evaluated on other shards than it was trained on."
    yield (
        f"Each of {found['images']:,} validation images once, the short side at "
        f"{model['resize_side']} pixels; a single {size} x {size} centre crop, but where said "
        f"otherwise. Cross-entropy {found['cross_entropy']:.3f} nats."
    )
    yield markdown(["", "accuracy", "95 % interval", "images"], list(_scores(found)))
    if calibration := found.get("calibration"):
        yield (
            f"Expected calibration error {calibration['before']['error']:.1%}; "
            f"{calibration['after']['error']:.1%} with the logits divided by the temperature "
            f"{calibration['temperature']:.2f}, fitted on {calibration['fitted_on']:,} of the "
            f"images; both of the other {calibration['images']:,}."
        )
    if other := found.get("comparison"):
        yield f"Less {code(other['compare_with'])}: {compared(other)}."


def _scores(found):
    """Give a row of the table for each accuracy that was measured."""
    rows = [("top-1", found["top1"], found), ("top-5", found["top5"], found)]
    rows += [(f"top-1, {view}", row["top1"], row) for view, row in found.get("views", {}).items()]
    rows += [
        (f"top-1 at {row['image_size']} pixels", row["top1"], row)
        for row in found.get("test_sizes", [])
    ]
    for name, words in (("real", "ReaL"), ("other_images", "top-1, other images")):
        if row := found.get(name):
            rows.append((words, row["top1"], row))
    for words, score, row in rows:
        yield [words, *share(score), f"{row['images']:,}"]


def _inference(model, run_dir, latency):
    timing = "Not timed since it was trained."
    if latency:
        total = latency["total"]
        timing = (
            f"{latency['fastest']}: median {total['p50']:.1f} ms for an image, preprocessing "
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
                words += f" of {cost['images']:,} validation images, top-1 {compared(cost)}"
            yield f"`export/{path.stem}` ({found['form']}): {words}."


def _miscellaneous(found):
    if not found:
        return ["## Miscellaneous", "Nothing is known of its accuracy."]
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
    return ["## Miscellaneous", "\n".join(f"- {line}" for line in limits)]
