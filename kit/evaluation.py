"""A trained model on the validation images: predictions, and every number drawn from them.

`predict` runs the network once over each image; the rest is NumPy on its logits.
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf

from kit.files import replacing


def predict(model, dataset, *, images):
    """Score each image of `dataset` once: labels int64 [images], logits float32 [images, classes].

    `dataset` gives batches (pixels, labels), the last one of any size. `images` is the manifest's
    count: ValueError when another number came out, so that no image is lost in silence.
    """
    if not images:
        raise ValueError("the validation split has no image to score; prepare data_dir again")
    # the batches differ in size once, at the end: trace for any size, not for each
    forward = tf.function(partial(model, training=False), autograph=False, reduce_retracing=True)
    labels, logits = [], []
    for pixels, batch_labels in dataset:
        labels.append(batch_labels.numpy())
        logits.append(forward(pixels).numpy())
    scored = sum(map(len, labels))
    if scored != images:
        raise ValueError(
            f"{scored} images were scored where the manifest counts {images}: the shards are not "
            "the manifest's; verify data_dir, or prepare it again"
        )
    return np.concatenate(labels), np.concatenate(logits)


def evaluate(labels, logits, classes):
    """Compute the accuracies of `logits` [images, classes] against `labels` [images], 0-based.

    `classes` is the manifest's list of {"wnid", "name"}. Gives what evaluation.json holds:
    "images"; "top1" and "top5", each {"value", "low", "high", "correct"} with the 95 % Wilson
    interval; "cross_entropy" in nats; "per_class", a list of {"wnid", "name", "images", "correct",
    "top1"}, where top1 is None for a class without images; "confusion", rows the true class.
    Counts are summed and divided once. Raises ValueError when a logit is not finite.
    """
    _check(labels, logits, classes)
    rank = label_ranks(labels, logits)
    confusion = confusion_matrix(labels, logits.argmax(axis=1), len(classes))
    return {
        "images": len(labels),
        "top1": _accuracy(rank < 1),
        "top5": _accuracy(rank < 5),
        "cross_entropy": cross_entropy(labels, logits),
        "per_class": [
            _class_row(names, row.sum(), row[label])
            for label, (names, row) in enumerate(zip(classes, confusion, strict=True))
        ],
        "confusion": confusion.tolist(),
    }


def label_ranks(labels, logits):
    """Count the classes that the network puts before the label: 0 when it is the first choice.

    Of equal logits the lower class number comes first, as in argmax: a network that gives every
    class the same gets no image right for free.
    """
    own = np.take_along_axis(logits, labels[:, np.newaxis], axis=1)
    earlier = np.arange(logits.shape[1]) < labels[:, np.newaxis]
    return ((logits > own) | ((logits == own) & earlier)).sum(axis=1)


def cross_entropy(labels, logits):
    """Average -log(probability of the label) over the images, in nats."""
    shifted = logits - logits.max(axis=1, keepdims=True)  # exp stays in range
    own = np.take_along_axis(shifted, labels[:, np.newaxis], axis=1)[:, 0]
    return float((np.log(np.exp(shifted).sum(axis=1, dtype=np.float64)) - own).mean())


def confusion_matrix(labels, predictions, classes):
    """Count images int64 [classes, classes]: row the true class, column the predicted one."""
    cells = np.bincount(labels * classes + predictions, minlength=classes**2)
    return cells.reshape(classes, classes)


def wilson_interval(correct, total, z=1.959964):
    """Bound a share by Wilson's score interval (1927): low, high in [0, 1]; 95 % by default."""
    share = correct / total
    scale = 1 + z**2 / total
    centre = (share + z**2 / (2 * total)) / scale
    half = z / scale * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def worst_mistakes(labels, logits, count):
    """List up to `count` wrong answers, the most confident first.

    Each is {"position", "label", "prediction", "probability"}: where the image stands in the
    dataset, its class, the class that it was given, and how sure the network was of it.
    """
    predictions = logits.argmax(axis=1)
    shifted = logits - logits.max(axis=1, keepdims=True)
    confidence = 1 / np.exp(shifted).sum(axis=1, dtype=np.float64)  # the largest of the softmax
    wrong = np.flatnonzero(predictions != labels)
    order = wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
    return [
        {
            "position": int(position),
            "label": int(labels[position]),
            "prediction": int(predictions[position]),
            "probability": float(confidence[position]),
        }
        for position in order
    ]


def examples_at(dataset, positions):
    """Read the elements at these positions of an unbatched dataset, in the order asked for."""
    wanted = tf.constant(sorted(set(positions)), tf.int64)
    found = (
        dataset.enumerate()
        .filter(lambda position, _: tf.reduce_any(position == wanted))
        .take(len(wanted))  # stop reading after the last
    )
    by_position = {int(position): example for position, example in found}
    return [by_position[position] for position in positions]


def check_matches(metadata, manifest):
    """Raise ValueError unless the data has the model's classes, and images stored as in training.

    Images stored smaller lose detail: a model trained on one store is not judged on another.
    """
    model, data = (
        [(row["wnid"], row["name"]) for row in source["classes"]] for source in (metadata, manifest)
    )
    if model == data:
        return _check_store(metadata, manifest)
    remedy = "name the run_dir that was trained on this data_dir, or train again"
    if len(model) != len(data):
        raise ValueError(f"the model has {len(model)} classes and the data {len(data)}: {remedy}")
    first = next(i for i, pair in enumerate(zip(model, data, strict=True)) if pair[0] != pair[1])
    raise ValueError(
        f'class {first} is "{" ".join(model[first])}" in the model and '
        f'"{" ".join(data[first])}" in the data: {remedy}'
    )


def _check_store(metadata, manifest):
    trained = metadata.get("store_short_side")
    found = manifest.get("parameters", {}).get("store_short_side")
    if trained is not None and found is not None and trained != found:
        raise ValueError(
            f"the model was trained on images stored with store_short_side {trained}, and these "
            f"have {found}: evaluate it on shards of the same, or train again"
        )


def write_evaluation(run_dir, results):
    """Write run_dir/evaluation.json, whole or not at all, and give its path."""
    path = Path(run_dir) / "evaluation.json"
    # a line a key: a confusion matrix of 1,000 classes would be a million lines
    lines = [
        f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in results.items()
    ]
    with replacing(path) as temporary:
        temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    return path


def _check(labels, logits, classes):
    if logits.shape != (len(labels), len(classes)):
        raise ValueError(
            f"logits of shape {list(logits.shape)} for {len(labels)} labels of {len(classes)} "
            "classes: name the run_dir that was trained on this data_dir"
        )
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(
            f"labels from {labels.min()} to {labels.max()} for {len(classes)} classes: "
            "the shards are not the manifest's; prepare data_dir again"
        )
    lost = int((~np.isfinite(logits)).any(axis=1).sum())
    if lost:
        raise ValueError(
            f"the logits of {lost} of {len(labels)} images are not finite: "
            "the training diverged; train again with a lower learning_rate or a warm-up"
        )


def _accuracy(right):
    correct, total = int(right.sum()), len(right)
    low, high = wilson_interval(correct, total)
    return {"value": correct / total, "low": low, "high": high, "correct": correct}


def _class_row(names, images, correct):
    return {
        "wnid": names["wnid"],
        "name": names["name"],
        "images": int(images),
        "correct": int(correct),
        "top1": float(correct / images) if images else None,
    }
