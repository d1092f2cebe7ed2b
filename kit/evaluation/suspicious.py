"""Labels that may be wrong: the images whose label the network doubts most."""

import numpy as np

from kit.evaluation.scores import records

TOLERANCE = 1e-6  # of a probability that equals the average of its class


def suspicious_labels(labels, logits):
    """List the images whose label is probably wrong, the most doubtful first.

    The rule is that of confident learning (Northcutt et al. 2021, arxiv.org/abs/1911.00068,
    sections 3.1 and 3.2), which needs predictions of images that were not trained on. A class is
    confident about an image whose probability of it is at least the average over the images that
    are labelled so. Suspicious is an image whose likeliest confident class is not its label (off
    the diagonal of the confident joint); as in the library cleanlab, not if its label is the
    prediction all the same. They are ordered by the margin, the probability of the label less the
    largest of the other classes.

    Returns a list of {"position", "label", "suggested", "probability", "suggested_probability"}:
    the position in the dataset, label and confident class, and their probabilities.
    """
    shares = np.exp(logits - np.logaddexp.reduce(logits.astype("float64"), axis=1, keepdims=True))
    own = np.take_along_axis(shares, labels[:, np.newaxis], axis=1)[:, 0]
    images = np.bincount(labels, minlength=shares.shape[1])
    sums = np.bincount(labels, own, shares.shape[1])
    thresholds = np.divide(sums, images, out=np.full(len(sums), np.inf), where=images > 0)
    confident = np.where(shares >= thresholds - TOLERANCE, shares, -1)
    suggested = confident.argmax(axis=1)
    found = np.flatnonzero(
        (confident.max(axis=1) >= 0) & (suggested != labels) & (shares.argmax(axis=1) != labels)
    )
    margins = own[found] - shares[found].max(axis=1)
    found = found[np.argsort(margins, kind="stable")]
    return records(
        position=found,
        label=labels[found],
        suggested=suggested[found],
        probability=own[found],
        suggested_probability=shares[found, suggested[found]],
    )
