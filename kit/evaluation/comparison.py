"""Compares the predictions of two networks on the same images: is one significantly better?"""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from kit.data.cells import harmless, original
from kit.evaluation.scores import confidences
from kit.files import replacing

PREDICTIONS = "predictions.csv"  # in run_dir
Z95 = 1.959964  # standard deviations, of 95 %
COLUMNS = ("file", "label", "prediction", "probability")


def write_predictions(run_dir, files, labels, logits):
    """Write run_dir/predictions.csv, a row for each image, and return its path."""
    path = Path(run_dir) / PREDICTIONS
    names = map(harmless, files)
    columns = names, labels, logits.argmax(axis=1), confidences(logits).round(6)
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(zip(*columns, strict=True))
    return path


def read_predictions(run_dir):
    """Read a run's predictions.csv as `by_image` gives it; ValueError for another file."""
    path = Path(run_dir) / PREDICTIONS
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or set(rows[0]) != set(COLUMNS):
        raise ValueError(f"compare_with: {path} is not notebook 03's; evaluate that run again")
    labels, predictions = ([row[name] for row in rows] for name in ("label", "prediction"))
    return by_image([original(row["file"]) for row in rows], labels, predictions)


def by_image(files, labels, predictions):
    """Map each image, (file, label, number among those of that name), to whether it is correct."""
    found, seen = {}, Counter()
    for file, label, prediction in zip(files, labels, predictions, strict=True):
        image = file, int(label)
        found[(*image, seen[image])] = int(label) == int(prediction)
        seen[image] += 1
    return found


def pair(ours, theirs):
    """Return which images each of two runs got right, in the same order: bool [images] twice.

    Takes what `by_image` gives. Raises ValueError unless both runs are of the same images.
    """
    if missing := ours.keys() ^ theirs.keys():
        file, label, _ = min(missing)
        raise ValueError(
            f"compare_with: {len(missing)} images are not in both runs, such as {file} of class "
            f"{label}: evaluate both on the same data_dir"
        )
    return np.array([[ours[key], theirs[key]] for key in ours]).T


def compare(ours, theirs):
    """Test whether two networks differ, from which images each got right: bool [images] each.

    "p_value" is that of McNemar's exact test (1947), which counts the images that only one of them
    got right. "difference" is that of the accuracies, ours minus theirs, with the 95 % interval of
    Bonett and Price (2012): "low", "high".
    """
    only_ours, only_theirs = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    total = len(ours)
    gained, lost = (only_ours + 1) / (total + 2), (only_theirs + 1) / (total + 2)
    half = Z95 * np.sqrt((gained + lost - (gained - lost) ** 2) / (total + 2))
    return {
        "images": total,
        "only_ours": only_ours,
        "only_theirs": only_theirs,
        "difference": (only_ours - only_theirs) / total,
        "low": float(max(-1.0, gained - lost - half)),
        "high": float(min(1.0, gained - lost + half)),
        "p_value": mcnemar(only_ours, only_theirs),
    }


def mcnemar(one, other):
    """Return the two-sided p-value of `one` against `other` images, each as likely as the other."""
    return float(binomtest(one, one + other).pvalue) if one + other else 1.0
