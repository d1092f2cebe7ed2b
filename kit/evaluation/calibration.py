"""Whether the network is as often right as it is sure: bins, their error, and a temperature."""

import numpy as np

from kit.evaluation.scores import confidences, cross_entropy

BINS = 15  # of confidence, as in Guo et al. 2017
COLDEST, HOTTEST = 2.0**-6, 2.0**6  # temperatures tried
HALVINGS = 25


def calibrate(labels, logits):
    """Measure the calibration, and what one temperature for all logits makes of it.

    The temperature is fitted on the images at even places and judged on those at odd ones, so that
    it has not seen what it is judged by. Gives {"temperature", "fitted_on", "images", "before",
    "after"}; the last two, of the odd images, hold "error" (expected calibration error in [0, 1]),
    "cross_entropy" in nats and "bins", as `reliability` gives them. Of few images the error is
    mostly noise: a perfect network shows one too. Raises ValueError for a single image.
    """
    if len(labels) < 2:
        raise ValueError(f"{len(labels)} validation image: calibration needs two or more")
    temperature = fit_temperature(labels[::2], logits[::2])
    labels, logits, fitted_on = labels[1::2], logits[1::2], len(labels[::2])
    return {
        "temperature": temperature,
        "fitted_on": fitted_on,
        "images": len(labels),
        "before": _judge(labels, logits),
        "after": _judge(labels, logits / temperature),
    }


def reliability(labels, logits, bins=BINS):
    """Group the images by the probability of their answer, in `bins` equal steps from 0 to 1.

    A list of {"images", "confidence", "accuracy"}, the averages None where there is no image. A
    probability on a border belongs to the lower bin (Guo et al. 2017, section 2).
    """
    confidence = confidences(logits)
    right = logits.argmax(axis=1) == labels
    place = np.ceil(confidence * bins).astype(int) - 1
    counts, sure, correct = (
        np.bincount(place, weights, bins) for weights in (None, confidence, right)
    )
    return [
        {
            "images": int(count),
            "confidence": float(total / count) if count else None,
            "accuracy": float(hits / count) if count else None,
        }
        for count, total, hits in zip(counts, sure, correct, strict=True)
    ]


def expected_error(bins):
    """Average |accuracy - confidence| over the images (Guo et al. 2017, equation 3)."""
    filled = [row for row in bins if row["images"]]
    gaps = [row["images"] * abs(row["accuracy"] - row["confidence"]) for row in filled]
    return sum(gaps) / sum(row["images"] for row in filled)


def fit_temperature(labels, logits):
    """Find the number by which to divide the logits for the lowest cross-entropy.

    The cross-entropy is convex in the inverse of the temperature, where its slope is the expected
    logit less the label's (Guo et al. 2017, section 4.2): bisection finds its zero. At least
    COLDEST, which is what a network without mistakes gets, and at most HOTTEST.
    """
    logits = logits - logits.max(axis=1, keepdims=True)
    own = np.take_along_axis(logits, labels[:, np.newaxis], axis=1).mean(dtype=np.float64)
    low, high = np.log([COLDEST, HOTTEST])
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        weights = np.exp(logits * np.float32(np.exp(-middle)))
        expected = (weights * logits).sum(axis=1) / weights.sum(axis=1)
        if expected.mean(dtype=np.float64) > own:  # too sure of its largest logits
            low = middle
        else:
            high = middle
    return float(np.exp((low + high) / 2))


def _judge(labels, logits):
    bins = reliability(labels, logits)
    return {
        "error": expected_error(bins),
        "cross_entropy": cross_entropy(labels, logits),
        "bins": bins,
    }
