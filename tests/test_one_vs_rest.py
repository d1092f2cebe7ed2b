"""Areas and curves against scikit-learn's, and what is kept of a thousand classes."""

import json

import numpy as np
import pytest

from kit.evaluation import scores
from kit.evaluation.one_vs_rest import GRID, counts, on_grid, one_vs_rest

RNG = np.random.default_rng(0)
LABELS = RNG.choice(6, 400, p=[0.4, 0.3, 0.15, 0.1, 0.05, 0])  # none of the last class
LOGITS = RNG.normal(0, 1, (400, 7)).astype("float32").round(1)  # many ties; a class of no image
LOGITS[np.arange(400), LABELS] += RNG.normal(1, 1, 400).round(1)


def softmax(logits):
    exponents = np.exp(logits.astype("float64"))
    return exponents / exponents.sum(axis=1, keepdims=True)


def test_areas_are_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    rows, _ = one_vs_rest(LABELS, LOGITS)
    for label, row in enumerate(rows[:5]):
        truth, share = label == LABELS, softmax(LOGITS)[:, label].round(12)
        expected = (
            metrics.roc_auc_score(truth, share),
            metrics.average_precision_score(truth, share),
        )
        assert tuple(row.values()) == pytest.approx(expected, abs=1e-9)
    assert rows[5:] == [{"roc_auc": None, "average_precision": None}] * 2


def test_the_area_is_how_often_an_image_of_the_class_ranks_before_another():
    """Hanley & McNeil 1982: a tie counts a half."""
    (row, _), _ = one_vs_rest(
        np.array([0, 0, 1, 1, 1]), np.log([[5, 5], [8, 2], [5, 5], [1, 9], [9, 1]])
    )
    assert row["roc_auc"] == pytest.approx((0.5 + 1 + 0 + 1 + 1 + 0) / 6)
    assert row["average_precision"] == pytest.approx(1 / 2 * 1 / 2 + 1 / 2 * 2 / 4)


def test_equal_scores_pass_a_threshold_together():
    true, false = counts(np.array([1, 0, 0, 1], bool), np.array([0.5, 0.5, 0.5, 0.9]))
    assert (true.tolist(), false.tolist()) == ([1, 2], [0, 2])


def test_curves_go_through_scikit_learns_points():
    metrics = pytest.importorskip("sklearn.metrics")
    truth = RNG.integers(0, 2, 150).astype(bool)
    score = RNG.normal(truth, 1)
    true_rates, precisions = on_grid(*counts(truth, score))
    false, true, _ = metrics.roc_curve(truth, score, drop_intermediate=False)
    expected = [true[false <= place].max() for place in GRID]  # steps: no ties, so no slopes
    assert (true_rates >= np.array(expected) - 1e-12).all()
    assert np.abs(true_rates - np.interp(GRID, false, true)).max() < 1e-12
    precision, recall, _ = metrics.precision_recall_curve(truth, score, drop_intermediate=False)
    for place, found in zip(GRID, precisions, strict=True):
        reached = recall[:-1] >= place - 1e-12
        assert found == pytest.approx(precision[:-1][reached][-1])


@pytest.mark.parametrize("average", ["macro", None])
def test_precision_recall_and_f1_are_scikit_learns(average):
    metrics = pytest.importorskip("sklearn.metrics")
    classes = [{"wnid": str(i), "name": str(i)} for i in range(7)]
    logits = LOGITS + np.linspace(0, 1e-3, 7, dtype="float32")  # no tie: scikit-learn has none
    logits[:, 3] -= 20  # a class that is never predicted
    found, answers = scores.evaluate(LABELS, logits, classes), logits.argmax(axis=1)
    expected = metrics.precision_recall_fscore_support(
        LABELS, answers, labels=range(5), average=average, zero_division=0
    )[:3]
    if average:
        macro = [found["macro"][name] for name in ("precision", "balanced_accuracy", "f1")]
        assert macro == pytest.approx(list(expected))
        balanced = metrics.balanced_accuracy_score(LABELS, answers)
        assert found["macro"]["balanced_accuracy"] == pytest.approx(balanced)
        return
    for name, values in zip(("precision", "recall", "f1"), expected, strict=True):
        assert [row[name] for row in found["per_class"][:5]] == pytest.approx(list(values))
        assert [row[name] for row in found["per_class"][5:]] == [None, None]


def test_the_macro_areas_are_averages_over_the_classes_with_images():
    classes = [{"wnid": str(i), "name": str(i)} for i in range(7)]
    found = scores.evaluate(LABELS, LOGITS, classes)
    for name in ("roc_auc", "average_precision"):
        values = [row[name] for row in found["per_class"][:5]]
        assert found["macro"][name] == pytest.approx(sum(values) / 5)
    mean, *worst = found["curves"]
    precisions = [row["average_precision"] for row in found["per_class"][:5]]
    assert [curve["label"] for curve in worst] == np.argsort(precisions)[:3].tolist()
    each = [on_grid(*counts(i == LABELS, np.log(softmax(LOGITS)[:, i]).round(9))) for i in range(5)]
    np.testing.assert_allclose(mean["roc"], np.mean([roc for roc, _ in each], axis=0), atol=1e-4)
    np.testing.assert_allclose(
        mean["precision_recall"], np.mean([precision for _, precision in each], axis=0), atol=1e-4
    )


def test_a_thousand_classes_keep_few_curves():
    labels = np.repeat(np.arange(1000), 2)
    rows, curves = one_vs_rest(labels, np.random.default_rng(0).normal(0, 1, (2000, 1000)))
    assert len(rows) == 1000
    assert len(curves) == 4
    assert len(json.dumps(curves)) < 10_000


def test_of_one_class_alone_nothing_can_be_told():
    rows, curves = one_vs_rest(np.zeros(3, int), np.ones([3, 2]))
    assert (rows, curves) == ([{"roc_auc": None, "average_precision": None}] * 2, [])
