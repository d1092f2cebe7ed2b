"""Refuses what does not fit together: a mismatch would show only as low accuracy."""

import numpy as np

from kit import ROOT
from kit.data.images import form_of
from kit.evaluation.scores import wilson_interval
from kit.evaluation.sections import FILES

NEEDED = ("channel_means", "stage_sizes", "label_offset", "store_short_side")
OTHER = "they are not of the same training; train again"
REMEDY = "name the run_dir that was trained on this data_dir, or train again"


def check_files(evaluation):
    """Raise FileNotFoundError for what the parameters of notebook 03 name and is not there."""
    for name, (file, remedy) in FILES.items():
        given = getattr(evaluation, name)
        if given and not (path := ROOT / given / file).exists():
            raise FileNotFoundError(f"{name}: {path} is not there; {remedy}, or leave it empty")


def check_model(model, metadata):
    """Raise ValueError unless the network is the one that model.json describes.

    The channel means that its first layer subtracts, and its blocks; `load_model` has compared the
    classes.
    """
    if missing := [name for name in NEEDED if name not in metadata]:
        raise ValueError(f"model.json lacks {', '.join(missing)}: train again")
    if "subtract_means" not in [layer.name for layer in model.layers]:
        text = "the network has no layer subtract_means"
        raise ValueError(f"{text}: it is not the kit's; train again")
    layer, means = model.get_layer("subtract_means"), metadata["channel_means"]
    found, scale = (-np.ravel(layer.offset)).tolist(), np.ravel(layer.scale).tolist()
    if len(means) != 3 or not np.allclose(found, means, atol=1e-3) or scale != [1.0]:
        text = f"the network subtracts the channel means {found}, times {scale}"
        raise ValueError(f"{text}, and model.json says {means}: {OTHER}")
    blocks = [layer.name.split("_")[0] for layer in model.layers if layer.name.endswith("_add")]
    sizes = [blocks.count(stage) for stage in sorted(set(blocks))]
    if sizes != list(metadata["stage_sizes"]):
        text = f"the network has {sizes} blocks in its stages"
        raise ValueError(f"{text} and model.json says {metadata['stage_sizes']}: {OTHER}")


def check_data(metadata, manifest):
    """Raise ValueError unless the data has the model's classes in the same order, and its labels.

    The images must also be stored in the same form as those of the training.
    """
    ours, theirs = metadata["classes"], manifest["classes"]
    if len(ours) != len(theirs):
        raise ValueError(f"the model has {len(ours)} classes and the data {len(theirs)}: {REMEDY}")
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        if one != other:
            raise ValueError(
                f'class {number} is "{one["wnid"]} {one["name"]}" in the model and '
                f'"{other["wnid"]} {other["name"]}" in the data: {REMEDY}'
            )
    ours, theirs = ({"label_offset": of["label_offset"]} for of in (metadata, manifest))
    ours |= form_of(metadata)._asdict()
    theirs |= form_of(manifest["parameters"])._asdict()
    if not ours["store_short_side"] or "store_quality" not in metadata:  # older models don't tell
        theirs["store_quality"] = ours["store_quality"]
    for name, value in ours.items():
        if value != theirs[name]:
            raise ValueError(
                f"the model was trained on images with {name} {value}, and these have "
                f"{theirs[name]}: evaluate it on shards of the same, or train again"
            )


def check_labels(labels, predictions, manifest, split="validation"):
    """Raise ValueError unless there are as many images of each label as the manifest counts.

    labels, predictions: int64 [images], from 0. Raises too when `is_shifted` finds that the labels
    are one off, which the counts cannot show where all classes have as many images. From eleven
    classes on that is found; with eight to ten of a good network; with fewer it is not.
    """
    shards = manifest["splits"][split]["shards"]
    counted = np.sum([shard["classes"] for shard in shards], axis=0)
    found = np.bincount(labels, minlength=len(counted))
    if found.tolist() != counted.tolist():
        first = int(np.flatnonzero(found != counted)[0])
        raise ValueError(
            f"{found[first]} images are labelled {first} and the manifest counts {counted[first]}: "
            "the shards are not the manifest's; prepare data_dir again"
        )
    for shift in (-1, 1):
        if is_shifted(labels, predictions, shift):
            raise ValueError(
                f"the predictions fit the labels {shift:+d} far better than the labels: these are "
                "not counted as in training; prepare data_dir again"
            )


def is_shifted(labels, predictions, shift):
    """Tell whether the predictions clearly fit `labels + shift` better than `labels`.

    Both by images (the 99 % intervals of the two accuracies do not overlap) and by classes (more
    than half of those that differ fit better shifted, at 99 %, which takes seven of them). Images
    alone would raise false alarms: an untrained network answers whole classes alike, so that its
    images are no independent trials.
    """
    here = np.bincount(labels[predictions == labels], minlength=labels.max() + 1)
    there = np.bincount(labels[predictions == labels + shift], minlength=len(here))
    if there.sum() <= here.sum():
        return False
    better, worse = (there > here).sum(), (there < here).sum()
    _, right = wilson_interval(here.sum(), len(labels), 0.99)
    shifted, _ = wilson_interval(there.sum(), len(labels), 0.99)
    share, _ = wilson_interval(better, better + worse, 0.99)
    return shifted > right and share > 0.5
