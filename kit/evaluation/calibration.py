"""Calibration: reliability bins, the expected calibration error, and temperature scaling."""

import numpy as np
from scipy.special import softmax

from kit.evaluation.scores import confidences, cross_entropy

BINS = 15  # of confidence, as in Guo et al. 2017
COLDEST, HOTTEST = 2.0**-6, 2.0**6  # temperatures tried
HALVINGS = 25


def calibrate(labels, logits):
    """Measure the calibration before and after temperature scaling.

    The temperature is fitted on the images at even positions and evaluated on those at odd ones.
    Returns {"temperature", "fitted_on", "images", "before", "after"}; the last two, of the odd
    images, hold "error" (expected calibration error in [0, 1]), "cross_entropy" in nats and "bins",
    as `reliability` gives them. With few images the error is mostly noise: a perfect network shows
    one too. Raises ValueError for a single image.
    """
    if len(labels) < 2:
        raise ValueError(f"{len(labels)} validation image: calibration needs two or more")
    temperature = fit_temperature(labels[::2], logits[::2])
    labels, logits, fitted_on = labels[1::2], logits[1::2], len(labels[::2])
    return {
        "temperature": temperature,
        "fitted_on": fitted_on,
        "images": len(labels),
        "before": _measured(labels, logits),
        "after": _measured(labels, logits / temperature),
    }


def reliability(labels, logits, bins=BINS):
    """Group the images by confidence, the probability of their prediction, into equal bins.

    Returns a list of {"images", "confidence", "accuracy"}, the last two averages, or None without
    images. A confidence on a border belongs to the lower bin (Guo et al. 2017, section 2).
    """
    confidence = confidences(logits)
    right = logits.argmax(axis=1) == labels
    numbers = np.ceil(confidence * bins).astype(int) - 1
    counts, confident, correct = (
        np.bincount(numbers, weights, bins) for weights in (None, confidence, right)
    )
    return [
        {
            "images": int(count),
            "confidence": float(total / count) if count else None,
            "accuracy": float(hits / count) if count else None,
        }
        for count, total, hits in zip(counts, confident, correct, strict=True)
    ]


def expected_error(bins):
    """Average |accuracy - confidence| over the images (Guo et al. 2017, equation 3)."""
    filled = [row for row in bins if row["images"]]
    gaps = [row["images"] * abs(row["accuracy"] - row["confidence"]) for row in filled]
    return sum(gaps) / sum(row["images"] for row in filled)


def fit_temperature(labels, logits):
    """Find the temperature, which divides all logits, of the lowest cross-entropy.

    The cross-entropy is convex in the inverse of the temperature, and its slope is the expected
    logit minus the label's (Guo et al. 2017, section 4.2): bisection finds its zero. The result is
    from COLDEST, for a network without mistakes, to HOTTEST.
    """
    own = np.take_along_axis(logits, labels[:, np.newaxis], axis=1).mean(dtype=np.float64)
    low, high = np.log([COLDEST, HOTTEST])
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        expected = (softmax(logits * np.float32(np.exp(-middle)), axis=1) * logits).sum(axis=1)
        if expected.mean(dtype=np.float64) > own:  # too confident
            low = middle
        else:
            high = middle
    return float(np.exp((low + high) / 2))


def _measured(labels, logits):
    bins, nats = reliability(labels, logits), cross_entropy(labels, logits)
    return {"error": expected_error(bins), "cross_entropy": nats, "bins": bins}
