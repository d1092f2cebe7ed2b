"""The numbers of an evaluation, from labels and logits."""

import numpy as np
from scipy.stats import binomtest

from kit.evaluation.one_vs_rest import one_vs_rest

AVERAGED = ("precision", "f1", "roc_auc", "average_precision")
MACRO = {"balanced_accuracy": "recall"} | {name: name for name in AVERAGED}  # average: of what


def evaluate(labels, logits, classes):
    """Compute the accuracies of `logits` [images, classes] against `labels` [images], 0-based.

    `classes` is the manifest's list of {"wnid", "name"}. Gives what evaluation.json holds:
    "images"; "top1" and "top5", each {"value", "low", "high", "correct"} with the 95 % Wilson
    interval; "cross_entropy" in nats; "per_class", a list of {"wnid", "name", "images", "correct",
    "top1", "low", "high", "precision", "recall", "f1", "roc_auc", "average_precision"}, all from
    "top1" on None for a class without images; "macro", the averages of the last five over the
    classes with images, that of the recalls as "balanced_accuracy"; "curves" of `one_vs_rest`;
    "confusion", rows the true class. Counts are summed and divided once. Raises ValueError when a
    logit is not finite, or the numbers of images or classes differ.
    """
    _check(labels, logits, classes)
    confusion = confusion_matrix(labels, logits.argmax(axis=1), len(classes))
    hits = np.bincount(labels[label_ranks(labels, logits) < 1], minlength=len(classes))
    areas, curves = one_vs_rest(labels, logits)
    counted = confusion.sum(axis=1), confusion.sum(axis=0), hits, np.diag(confusion)
    rows = [_class_row(*row) | area for *row, area in zip(classes, *counted, areas, strict=True)]
    known = {name: [r[of] for r in rows if r[of] is not None] for name, of in MACRO.items()}
    return {
        **summarise(labels, logits),
        "per_class": rows,
        "macro": {name: float(np.mean(of)) if of else None for name, of in known.items()},
        "curves": curves,
        "confusion": confusion.tolist(),
    }


def summarise(labels, logits):
    """Give the first four of what `evaluate` gives."""
    rank = label_ranks(labels, logits)
    return {
        "images": len(labels),
        "top1": accuracy(rank < 1),
        "top5": accuracy(rank < 5),
        "cross_entropy": cross_entropy(labels, logits),
    }


def accuracy(right):
    """Count what is right, bool [images]: {"value", "low", "high", "correct"}."""
    correct, total = int(right.sum()), len(right)
    low, high = wilson_interval(correct, total)
    return {"value": correct / total, "low": low, "high": high, "correct": correct}


def label_ranks(labels, logits):
    """Count the other classes that the label does not beat: 0 where it is the first choice alone.

    So a tie is no hit: a network that gives all classes the same is never right.
    """
    own = np.take_along_axis(logits, labels[:, np.newaxis], axis=1)
    return (~(logits < own)).sum(axis=1) - 1


def cross_entropy(labels, logits):
    """Average -log(probability of the label) over the images, in nats."""
    shifted = logits - logits.max(axis=1, keepdims=True)  # exp stays in range
    own = np.take_along_axis(shifted, labels[:, np.newaxis], axis=1)[:, 0]
    return float((np.log(np.exp(shifted).sum(axis=1, dtype=np.float64)) - own).mean())


def confusion_matrix(labels, predictions, classes):
    """Count images int64 [classes, classes]: row the true class, column the predicted one."""
    cells = np.bincount(labels * classes + predictions, minlength=classes**2)
    return cells.reshape(classes, classes)


def wilson_interval(correct, total, confidence=0.95):
    """Bound a share by Wilson's score interval (1927): low, high in [0, 1]."""
    low, high = binomtest(int(correct), int(total)).proportion_ci(confidence, method="wilson")
    return float(low), float(high)


def confidences(logits):
    """Give the probability of each image's first choice: the largest of the softmax, [images]."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return 1 / np.exp(shifted).sum(axis=1, dtype=np.float64)


def confused_pairs(labels, logits, count, *, examples):
    """List up to `count` pairs of true and predicted class, the most frequent confusion first.

    Each is {"label", "prediction", "images", "of", "positions"}: `images` of the class's `of`, and
    the positions in the dataset of up to `examples` of them, the most confident first.
    """
    predictions, confidence = logits.argmax(axis=1), confidences(logits)
    wrong = confusion_matrix(labels, predictions, logits.shape[1])
    of = wrong.sum(axis=1)
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = []
    for label, prediction in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if not wrong[label, prediction]:
            break
        found = np.flatnonzero((labels == label) & (predictions == prediction))
        found = found[np.argsort(-confidence[found], kind="stable")]
        pair = {"label": int(label), "prediction": int(prediction), "images": len(found)}
        pairs.append(pair | {"of": int(of[label]), "positions": found[:examples].tolist()})
    return pairs


def worst_mistakes(labels, logits, count):
    """List up to `count` wrong predictions, the most confident first.

    Each is {"position", "label", "prediction", "probability"}: the position of the image in the
    dataset, its class, the predicted class, and the probability of that.
    """
    predictions, confidence = logits.argmax(axis=1), confidences(logits)
    wrong = np.flatnonzero(predictions != labels)
    order = wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
    return records(
        position=order,
        label=labels[order],
        prediction=predictions[order],
        probability=confidence[order],
    )


def records(**columns):
    """Give arrays of one length as a list of dicts of plain numbers."""
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _check(labels, logits, classes):
    if logits.shape != (len(labels), len(classes)):
        text = f"logits of shape {list(logits.shape)} for {len(labels)} labels of {len(classes)}"
        raise ValueError(f"{text} classes: name the run_dir that was trained on this data_dir")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(
            f"labels from {labels.min()} to {labels.max()} for {len(classes)} classes: "
            "the shards are not the manifest's; prepare data_dir again"
        )
    if lost := int((~np.isfinite(logits)).any(axis=1).sum()):
        raise ValueError(
            f"the logits of {lost} of {len(labels)} images are not finite: "
            "the training diverged; train again with a lower learning_rate or a warm-up"
        )


def _class_row(names, images, predicted, correct, right):
    """Give the scores of a class, from numbers of images: its own; those predicted so; its own that
    are correct, where a tie is no hit; its own that are predicted so.
    """
    row = {"wnid": names["wnid"], "name": names["name"]}
    row |= {"images": int(images), "correct": int(correct)}
    if not images:
        return row | dict.fromkeys(("top1", "low", "high", "precision", "recall", "f1"))
    low, high = wilson_interval(correct, images)
    return row | {
        "top1": float(correct / images),
        "low": low,
        "high": high,
        "precision": float(right / max(predicted, 1)),  # 0 for a class that is never predicted
        "recall": float(right / images),
        "f1": float(2 * right / (images + predicted)),
    }
