import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from kit.evaluation import scores
from kit.files import write_json

CLASSES = [{"wnid": f"n{i}", "name": f"class {i}"} for i in range(7)]


def random_scores(images=200, classes=7, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=images)
    return labels, rng.normal(0, 2, (images, classes)).astype("float32")


def test_evaluate_gives_the_numbers_found_by_hand():
    logits = np.log([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]).astype("float32")
    results = scores.evaluate(np.array([0, 1, 2]), logits, CLASSES[:3])
    assert results["images"] == 3
    assert results["top1"]["correct"] == 2
    assert results["top1"]["value"] == pytest.approx(2 / 3)
    assert results["top5"]["value"] == 1  # of three classes every one is among the first five
    assert results["cross_entropy"] == pytest.approx(-np.log([0.5, 0.3, 0.8]).mean(), rel=1e-6)
    assert results["confusion"] == [[1, 0, 0], [1, 0, 0], [0, 0, 1]]
    assert [row["top1"] for row in results["per_class"]] == [1, 0, 1]
    low, high = scores.wilson_interval(0, 1)
    row = {"images": 1, "correct": 0, "top1": 0, "low": low, "high": high}
    row |= {"precision": 0, "recall": 0, "f1": 0}
    row |= {"roc_auc": 0.75, "average_precision": 1 / 2}  # one other image before it, with it
    assert results["per_class"][1] == CLASSES[1] | row


def test_evaluate_agrees_with_keras_metrics():
    labels, logits = random_scores()
    results = scores.evaluate(labels, logits, CLASSES)
    for key, k in (("top1", 1), ("top5", 5)):
        metric = keras.metrics.SparseTopKCategoricalAccuracy(k)
        metric.update_state(labels, logits)
        assert results[key]["value"] == pytest.approx(float(metric.result()), abs=1e-6)
    expected = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits.astype("float64"))
    assert results["cross_entropy"] == pytest.approx(expected.numpy().mean(), rel=1e-6)
    assert results["top1"]["low"] < results["top1"]["value"] < results["top1"]["high"]


def test_cross_entropy_survives_large_logits():
    logits = np.array([[1000, 0], [1000, 0]], "float32")
    assert scores.cross_entropy(np.array([0, 1]), logits) == pytest.approx(500)


def test_a_tie_is_no_hit():
    """The prediction is then the first of the classes, and the label's image not counted right."""
    labels = np.arange(7)
    results = scores.evaluate(labels, np.zeros([7, 7], "float32"), CLASSES)
    assert results["top1"]["correct"] == results["top5"]["correct"] == 0
    logits = np.array([[3, 3, 1, 0, 0, 0, 0], [9, 8, 7, 6, 5, 5, 4]], "float32")
    ranks = [scores.label_ranks(np.full(2, label), logits).tolist() for label in range(7)]
    assert ranks == [[1, 0], [1, 1], [2, 2], [6, 3], [6, 5], [6, 5], [6, 6]]


def test_confusion_matrix_has_true_classes_in_rows():
    labels, logits = random_scores()
    predictions = logits.argmax(axis=1)
    matrix = scores.confusion_matrix(labels, predictions, 7)
    np.testing.assert_array_equal(matrix, tf.math.confusion_matrix(labels, predictions, 7))
    np.testing.assert_array_equal(matrix.sum(axis=1), np.bincount(labels, minlength=7))


def test_class_without_images_has_no_accuracy():
    logits = np.eye(3, dtype="float32")[[0, 2]]
    rows = scores.evaluate(np.array([0, 2]), logits, CLASSES[:3])["per_class"]
    assert [row["top1"] for row in rows] == [1, None, 1]
    assert (rows[1]["low"], rows[1]["high"]) == (None, None)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_evaluate_refuses_logits_that_are_not_finite(bad):
    labels, logits = random_scores()
    logits[[3, 8], 2] = bad
    with pytest.raises(ValueError, match="2 of 200 images are not finite"):
        scores.evaluate(labels, logits, CLASSES)


def test_evaluate_refuses_another_number_of_classes():
    labels, logits = random_scores()
    with pytest.raises(ValueError, match=r"\[200, 7\] for 200 labels of 6 classes"):
        scores.evaluate(labels, logits, CLASSES[:6])


@pytest.mark.parametrize("label", [-1, 7])
def test_evaluate_refuses_labels_outside_the_classes(label):
    labels, logits = random_scores()
    labels[5] = label
    with pytest.raises(ValueError, match="for 7 classes"):
        scores.evaluate(labels, logits, CLASSES)


@pytest.mark.parametrize(
    "correct, total, low, high",
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)]
    + [(1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_is_the_published_one(correct, total, low, high):
    """Newcombe 1998, Two-sided confidence intervals for the single proportion, table I."""
    assert scores.wilson_interval(correct, total) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    "correct, total", [(0, 1), (1, 1), (0, 50), (50, 50), (7, 9), (37026, 50000)]
)
def test_at_the_ends_of_the_wilson_interval_the_share_is_just_in_reach(correct, total):
    """They solve |correct / total - p| = z sqrt(p (1 - p) / total), and lie within [0, 1]."""
    for end in scores.wilson_interval(correct, total):
        away = abs(correct / total - end)
        assert away == pytest.approx(1.959964 * np.sqrt(end * (1 - end) / total), abs=1e-6)


def test_worst_mistakes_come_most_confident_first():
    probabilities = [[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7], [0.2, 0.8]]
    labels = np.array([0, 1, 0, 1, 0])  # wrong: 1 at 0.8, 2 at 0.6, 4 at 0.8
    worst = scores.worst_mistakes(labels, np.log(probabilities), 10)
    assert [one["position"] for one in worst] == [1, 4, 2]
    assert [one["label"] for one in worst] == [1, 0, 0]
    assert [one["prediction"] for one in worst] == [0, 1, 1]
    assert [one["probability"] for one in worst] == pytest.approx([0.8, 0.8, 0.6])
    assert scores.worst_mistakes(labels, np.log(probabilities), 2) == worst[:2]


def test_confused_pairs_come_most_often_first_with_their_surest_images():
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    shares = np.full([7, 3], 0.1)
    shares[[0, 1, 2, 3, 4, 5, 6], [1, 1, 0, 1, 2, 1, 2]] = [0.6, 0.9, 0.8, 0.7, 0.8, 0.8, 0.8]
    pairs = scores.confused_pairs(labels, np.log(shares), 5, examples=2)
    assert pairs == [
        {"label": 0, "prediction": 1, "images": 3, "of": 4, "positions": [1, 3]},
        {"label": 1, "prediction": 2, "images": 1, "of": 2, "positions": [4]},
    ]
    assert scores.confused_pairs(labels, np.log(shares), 1, examples=2) == pairs[:1]


def test_confused_pairs_hold_every_mistake():
    labels, logits = random_scores()
    pairs = scores.confused_pairs(labels, logits, 49, examples=200)
    positions = [position for pair in pairs for position in pair["positions"]]
    wrong = np.flatnonzero(logits.argmax(axis=1) != labels)
    assert sorted(positions) == wrong.tolist()
    assert sum(pair["images"] for pair in pairs) == len(wrong)


def test_evaluation_file_holds_the_results(tmp_path):
    results = scores.evaluate(*random_scores(), CLASSES)
    write_json(tmp_path / "evaluation.json", results)
    assert json.loads((tmp_path / "evaluation.json").read_text()) == results
