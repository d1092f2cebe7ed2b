"""Published weights on your ImageNet validation images: make check-pretrained IMAGES=/path.

Each file of weights is fetched by its name and goes the whole way: the images are prepared, the
network is evaluated on the shards, exported, and the export is scored too. One table compares the
top-1 with the published one. Exit code 1: one is outside of the interval.

    python tests/check_pretrained.py IMAGES [WEIGHTS ...]
"""

import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kit import ROOT, params
from kit.data import manifest, paths
from kit.data.folders import named
from kit.evaluation import compatibility, predictions, scores, tables
from kit.inference import classifier, export, formats
from kit.model import pretrained
from kit.model.metadata import RESIZE, sizes_of
from kit.model.sections import PRETRAINED
from kit.pipeline.dataset import evaluation_dataset
from kit.prep import devkit, imagenet, listing, sources, splits, writer
from kit.prep.reading import Image, Index
from kit.training import trainer
from kit.training.step import training_model

OUT = ROOT / "runs" / "pretrained"  # shards, and a run_dir for each file of weights
WEIGHTS = ("torchvision_v1", "torchvision_v2", "keras")
BATCH = 64
FORMS = ("onnx", "litert", "saved_model")  # the first that is installed is checked


def main(images="", *weights) -> int:
    """Print the table; errors are a line each, before any long work."""
    try:
        index = read_index(images)
        fetch_all(weights or WEIGHTS)
        shards = prepare(index, images)
    except (ValueError, OSError) as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 2
    rows = [measure(name, shards) for name in weights or WEIGHTS]
    print(table(rows))
    count = shards["splits"]["validation"]["images"]
    seen = len({image.label for image in index.images})
    print(f"\n{count:,} images of {seen:,} classes; the published top-1 is of 50,000 of 1,000")
    outside = not all(row["low"] <= row["published"] <= row["high"] for row in rows)
    return int(outside and seen == len(index.classes))


def read_index(images) -> Index:
    """Read ImageNet's validation images: the official archive, a flat folder, or class folders.

    They lie in `images`, or in val/ or validation/ there. Labels of what is flat are found as
    notebook 01 finds them. Raises ValueError or FileNotFoundError in a line.
    """
    if not images:
        raise ValueError(
            "IMAGES is not given: make check-pretrained IMAGES=/path, ImageNet's validation images "
            f"({imagenet.VALIDATION_ARCHIVE} beside the devkit, or class folders named by wnid)"
        )
    root = paths.resolve(Path(images).absolute())
    if not paths.is_folder(root):
        raise FileNotFoundError(f"IMAGES={images} is no folder: name that of the images")
    lines = pretrained.CLASSES.read_text(encoding="utf-8").splitlines()
    classes = [manifest.ClassName(*line.split("\t")) for line in lines]
    skipped, found = [], []
    label_of = {row.wnid: label for label, row in enumerate(classes)}
    for wnid, container, files in by_class(root, skipped):
        if wnid not in label_of:
            raise ValueError(
                f"IMAGES={images}: {wnid} is no wnid of ImageNet's 1,000 classes; name the class "
                "folders by wnid, such as n01440764"
            )
        found += (Image("validation", label_of[wnid], container, *file) for file in files)
    if not found:
        raise ValueError(f"IMAGES={images} holds no image: name the folder of the images")
    # a set has training images; the first image stands for them, and nobody reads it
    return Index("validation", classes, [found[0]._replace(split="train"), *found], skipped)


def by_class(root, skipped):
    """Give (wnid, container, files) of the validation images in `root`, by class."""
    archive = paths.join(root, imagenet.VALIDATION_ARCHIVE)
    where = archive if paths.is_file(archive) else splits.by_name(root).get("validation", root)
    if not (listing.has_classes(where) or listing.list_flat(where, [])):
        return []
    _, truth = devkit.read_devkit(root) or ({}, [])
    return list(sources.by_class(root, where, truth, skipped))


def fetch_all(weights) -> None:
    """Fetch each file of weights; raise one error for all that cannot be had."""
    problems = [f"{name} is no name of weights" for name in weights if name not in PRETRAINED]
    for name in [] if problems else weights:
        try:
            pretrained.fetch(name)
        except (ValueError, OSError) as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))


def prepare(index, images) -> dict:
    """Write the shards, or take those that are there; gives the manifest."""
    shards = min(128, len(index.images) - 1)
    given = {"train_shards": 1, "validation_shards": shards, "subset": True}
    preparation = params.load(overrides=given).preparation
    found = writer.write_shards(
        index,
        preparation,
        raw_dir=images,
        data_dir=OUT / "shards",
        seed=0,
        progress=lambda tasks, total: tqdm(tasks, total=total, desc="shards"),
    )
    if lost := [entry["file"] for entry in found["quarantined"]]:
        print(f"cannot be read and are left out: {named(lost)}")
    return found


def measure(name, shards) -> dict:
    """Score the weights of this name on the shards, by Keras and by an export."""
    run_dir = OUT / name.replace("/", "_")
    save(name, shards, run_dir)
    model, metadata = classifier.load_model(run_dir)
    compatibility.check_model(model, metadata)
    compatibility.check_data(metadata, shards)
    images = shards["splits"]["validation"]["images"]
    labels, logits = predictions.predict(model, batches(metadata, name), images=images)
    compatibility.check_labels(labels, logits.argmax(axis=1), shards)
    form = next(filter(can_be_written, FORMS))
    [exported] = export.export_all(run_dir, [form])
    network = formats.load(exported["path"])
    answers = [network(pixels.numpy()).argmax(axis=1) for pixels, _ in batches(metadata, form)]
    top1 = scores.accuracy(scores.label_ranks(labels, logits) < 1)
    return {
        "weights": name,
        "published": PRETRAINED[name].top1 / 100,
        **top1,
        "form": form,
        "exported": float((np.concatenate(answers) == labels).mean()),
    }


def can_be_written(form) -> bool:
    return all(map(formats.is_installed, formats.FORMATS[form].modules))


def save(name, shards, run_dir) -> None:
    """Write the run_dir that a training of these weights would have left."""
    given = {"initial_weights": name, **dict(zip(RESIZE, PRETRAINED[name].resize, strict=True))}
    p = params.load(overrides=given)
    run_dir.mkdir(parents=True, exist_ok=True)
    network = training_model(pretrained.load(name)[0])
    trainer.save_model(network, run_dir=run_dir, manifest=shards, parameters=p.training)


def batches(metadata, what):
    """Give the batches of all validation images, with a progress bar."""
    data = {"data_dir": OUT / "shards", "split": "validation", "batch_size": BATCH}
    return tqdm(evaluation_dataset(**data, **sizes_of(metadata)), desc=what)


def table(rows) -> str:
    head = ["weights", "published top-1", "here", "95 % interval", "published is", "exported"]
    lines = []
    for row in rows:
        inside = "inside" if row["low"] <= row["published"] <= row["high"] else "OUTSIDE"
        published, exported = f"{row['published']:.2%}", f"{row['exported']:.2%} ({row['form']})"
        value, interval = f"{row['value']:.2%}", f"{row['low']:.2%} to {row['high']:.2%}"
        lines.append([row["weights"], published, value, interval, inside, exported])
    return tables.markdown(head, lines)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
