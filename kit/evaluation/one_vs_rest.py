"""Each class against all others: ROC and precision-recall curves, and the areas under them."""

import numpy as np

GRID = np.linspace(0, 1, 101)  # of the false positive rate, and of the recall
WORST = 3  # classes whose curves are kept


def one_vs_rest(labels, logits):
    """Measure how well the probability of each class tells its images from all others.

    labels: int64 [images], from 0; logits: [images, classes]. Returns, by class, a list of
    {"roc_auc", "average_precision"}, both None for a class without images, or without others; and
    the curves over GRID that `macro_curves` gives.
    """
    total = np.logaddexp.reduce(logits.astype("float64"), axis=1)
    rows, curves = [], {}
    for label in range(logits.shape[1]):
        true, false = counts(labels == label, logits[:, label] - total)
        known = true[-1] and false[-1]
        rows.append(areas(true, false) if known else {"roc_auc": None, "average_precision": None})
        if known:
            curves[label] = on_grid(true, false)
    return rows, macro_curves(rows, curves)


def counts(positive, scores):
    """Count true and false positives at each threshold, the highest score first.

    `positive` is bool [images]. Equal scores pass a threshold together.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    true = np.cumsum(positive[order])[last]
    return true, last + 1 - true


def areas(true, false):
    """Give the area under the ROC curve, by trapezoids, and the average precision.

    The latter is the sum of the precisions, each times the step of the recall, without
    interpolation: scikit-learn's average_precision_score.
    """
    recall, rate = true / true[-1], false / false[-1]
    precision = true / (true + false)
    return {
        "roc_auc": float(np.trapezoid([0, *recall], [0, *rate])),
        "average_precision": float((np.diff(recall, prepend=0) * precision).sum()),
    }


def on_grid(true, false):
    """Read both curves at the places of GRID: [2, 101], true positive rates and precisions.

    The precision of a recall is that of the highest threshold which reaches it.
    """
    recall, rate = true / true[-1], false / false[-1]
    precision = true / (true + false)
    return np.interp(GRID, [0, *rate], [0, *recall]), precision[np.searchsorted(recall, GRID)]


def macro_curves(rows, curves):
    """List the average of the classes' curves, then those of the WORST by average precision.

    Each is {"label", "roc", "precision_recall"}, two lists over GRID; the label of the average is
    None. Of any number of classes these are a few kilobytes, and can be told apart in a figure.
    """
    if not curves:
        return []
    worst = sorted(curves, key=lambda label: rows[label]["average_precision"])[:WORST]
    mean = np.mean(list(curves.values()), axis=0)
    shown = {None: mean} | {label: curves[label] for label in worst}
    rounded = {label: np.round(both, 4).tolist() for label, both in shown.items()}
    return [
        {"label": label, "roc": roc, "precision_recall": precision}
        for label, (roc, precision) in rounded.items()
    ]
