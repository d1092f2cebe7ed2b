"""What must fit together before a number is believed: a wrong fit prints a low one, no error."""

import numpy as np

from kit import ROOT
from kit.evaluation.scores import wilson_interval

VIEWS = ("flip", "ten_crop")
PREDICTIONS = "predictions.csv"  # in run_dir
NEEDED = ("channel_means", "stage_sizes", "label_offset", "store_short_side")
SURE = 2.575829  # standard deviations, of 99 %
REMEDY = "name the run_dir that was trained on this data_dir, or train again"


def check_settings(*, test_views, test_sizes, real_labels, other_images, compare_with):
    """Raise ValueError or FileNotFoundError for a parameter of notebook 03 that cannot be followed.

    An unknown view, a size too small for the network, a file or folder that is not there.
    """
    for view in test_views:
        if view not in VIEWS:
            raise ValueError(f'test_views: "{view}" is not one of {", ".join(VIEWS)}')
    for size in test_sizes:
        if not isinstance(size, int) or size < 32:
            raise ValueError(f"test_sizes: {size} is no whole number of pixels of 32 or more")
    files = {
        "real_labels": (real_labels, "", "name ReaL's real.json"),
        "other_images": (other_images, "", "name a folder of class folders"),
        "compare_with": (compare_with, PREDICTIONS, "evaluate that run first (notebook 03)"),
    }
    for name, (given, file, remedy) in files.items():
        if given and not (path := ROOT / given / file).exists():
            raise FileNotFoundError(f"{name}: {path} is not there; {remedy}, or leave it empty")


def check_model(model, metadata):
    """Raise ValueError unless the network is the one that model.json tells of.

    Its classes, the channel means that its first layer subtracts, and its blocks.
    """
    if missing := [name for name in NEEDED if name not in metadata]:
        raise ValueError(f"model.json lacks {', '.join(missing)}: train again")
    outputs, classes = model.output_shape[-1], len(metadata["classes"])
    if outputs != classes:
        raise ValueError(f"the network has {outputs} classes and model.json {classes}: train again")
    if len(metadata["channel_means"]) != 3:
        raise ValueError(
            f"model.json has the channel means {metadata['channel_means']}, which are not three, "
            "of R, G and B: train again"
        )
    layer = next((layer for layer in model.layers if layer.name == "subtract_means"), None)
    if layer is None:
        raise ValueError(
            "the network has no layer subtract_means: it is not the kit's; train again"
        )
    found = (-np.ravel(layer.offset)).tolist(), np.ravel(layer.scale).tolist()
    if not np.allclose(found[0], metadata["channel_means"], atol=1e-3) or found[1] != [1.0]:
        raise ValueError(
            f"the network subtracts the channel means {found[0]}, times {found[1]}, and model.json "
            f"says {metadata['channel_means']}: they are not of the same training; train again"
        )
    blocks = [layer.name.split("_")[0] for layer in model.layers if layer.name.endswith("_add")]
    sizes = [blocks.count(stage) for stage in sorted(set(blocks))]
    if sizes != list(metadata["stage_sizes"]):
        raise ValueError(
            f"the network has {sizes} blocks in its stages and model.json says "
            f"{metadata['stage_sizes']}: they are not of the same training; train again"
        )


def check_data(metadata, manifest):
    """Raise ValueError unless the data has the model's classes, in their order, and its labels.

    And images stored as in training: stored smaller they lose detail, and a model trained on one
    store is not judged on another.
    """
    model, data = (
        [(row["wnid"], row["name"]) for row in source["classes"]] for source in (metadata, manifest)
    )
    if len(model) != len(data):
        raise ValueError(f"the model has {len(model)} classes and the data {len(data)}: {REMEDY}")
    for number, (ours, theirs) in enumerate(zip(model, data, strict=True)):
        if ours != theirs:
            raise ValueError(
                f'class {number} is "{" ".join(ours)}" in the model and "{" ".join(theirs)}" '
                f"in the data: {REMEDY}"
            )
    stored = manifest["parameters"]
    sources = {"label_offset": manifest, "store_short_side": stored}
    if metadata["store_short_side"] and "store_quality" in metadata:  # older models don't tell
        sources["store_quality"] = stored
    for name, source in sources.items():
        if metadata[name] != (theirs := source[name]):
            raise ValueError(
                f"the model was trained on images with {name} {metadata[name]}, and these have "
                f"{theirs}: evaluate it on shards of the same, or train again"
            )


def check_labels(labels, predictions, manifest, split="validation"):
    """Raise ValueError unless there are as many images of each label as the manifest counts.

    labels, predictions: int64 [images], from 0. Raises too when the answers fit the labels better
    one class further on, as `fits_elsewhere` tells: labels that count from elsewhere, which no
    count of ImageNet's 50 images a class would show.
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
        if fits_elsewhere(labels, predictions, shift):
            raise ValueError(
                f"the answers fit the labels {shift:+d} far better than the labels: they count "
                "from elsewhere; prepare data_dir again"
            )


def fits_elsewhere(labels, predictions, shift):
    """Tell whether the answers are clearly right more often of `labels + shift` than of `labels`.

    Of the images, 99 % intervals apart; and of the classes, more than half, at 99 % again, among
    those that one of the two fits better. An untrained network answers whole classes alike, so that
    its images are no independent trials; and it has few answers, so that few classes fit at all.
    Seven classes must speak for it: of fewer nobody can tell it from such habits.
    """
    here = np.bincount(labels[predictions == labels], minlength=labels.max() + 1)
    there = np.bincount(labels[predictions == labels + shift], minlength=len(here))
    better, worse = int((there > here).sum()), int((there < here).sum())
    if not better:
        return False
    _, right = wilson_interval(here.sum(), len(labels), z=SURE)
    shifted, _ = wilson_interval(there.sum(), len(labels), z=SURE)
    share, _ = wilson_interval(better, better + worse, z=SURE)
    return shifted > right and share > 0.5
