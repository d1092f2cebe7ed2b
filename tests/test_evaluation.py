import json

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from kit import evaluation
from kit.inference import Classifier
from kit.pipeline.dataset import encoded_examples, evaluation_dataset
from kit.prep.manifest import read_manifest
from tests.images import make_shards

CLASSES = [{"wnid": f"n{i}", "name": f"class {i}"} for i in range(7)]


def random_scores(images=200, classes=7, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=images)
    return labels, rng.normal(0, 2, (images, classes)).astype("float32")


def batches(*parts):
    """An unshuffled dataset of the given (pixels, labels) batches, as large as they are."""
    signature = (tf.TensorSpec([None, 4, 4, 3], tf.uint8), tf.TensorSpec([None], tf.int64))
    return tf.data.Dataset.from_generator(lambda: iter(parts), output_signature=signature)


@pytest.fixture(scope="module")
def model():
    """Mean colour, batch-normalised with statistics of its own, as three logits."""
    pixels = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(pixels)
    x = keras.layers.BatchNormalization(epsilon=0.0, name="norm")(x)
    x = keras.layers.Dropout(0.5)(x)
    model = keras.Model(pixels, x)
    ones = np.ones(3)
    model.get_layer("norm").set_weights([2 * ones, 5 * ones, 100 * ones, 16 * ones])
    return model


def test_predict_scores_each_image_once_in_order_with_the_moving_statistics(model):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3), dtype="uint8")
    labels = np.arange(8)
    dataset = batches(*((pixels[part], labels[part]) for part in np.split(labels, [3, 6])))
    found_labels, logits = evaluation.predict(model, dataset, images=8)
    np.testing.assert_array_equal(found_labels, labels)
    by_hand = 2 * (pixels.mean(axis=(1, 2)) - 100) / 4 + 5  # gamma (x - mean) / deviation + beta
    np.testing.assert_allclose(logits, by_hand, rtol=1e-5, atol=1e-4)
    assert logits.dtype == np.float32


@pytest.mark.parametrize("counted", [1, 3])
def test_predict_refuses_a_count_other_than_the_manifests(model, counted):
    dataset = batches((np.zeros([2, 4, 4, 3], "uint8"), np.zeros(2, "int64")))
    with pytest.raises(ValueError, match=f"2 images were scored .* counts {counted}"):
        evaluation.predict(model, dataset, images=counted)


def test_predict_scores_the_shards_as_inference_scores_their_photographs(model, tmp_path):
    data_dir = make_shards(tmp_path, classes=3, images=9, validation_shards=2)
    size = {"image_size": 32, "resize_side": 40}
    dataset = evaluation_dataset(data_dir=data_dir, split="validation", batch_size=4, **size)
    split = read_manifest(data_dir)["splits"]["validation"]
    labels, logits = evaluation.predict(model, dataset, images=split["images"])
    histogram = np.sum([shard["classes"] for shard in split["shards"]], axis=0)
    np.testing.assert_array_equal(np.bincount(labels), histogram)

    positions = [8, 0, 5]
    examples = encoded_examples(data_dir=data_dir, split="validation")
    photos = evaluation.examples_at(examples, positions)
    np.testing.assert_array_equal([photo["label"] for photo in photos], labels[positions])
    classifier = Classifier(model, {"classes": CLASSES[:3], **size})
    found = classifier.probabilities([photo["encoded"].numpy() for photo in photos])
    np.testing.assert_allclose(found, tf.nn.softmax(logits[positions]), atol=1e-5)


def test_predict_refuses_an_empty_split(model):
    with pytest.raises(ValueError, match="no image to score"):
        evaluation.predict(model, batches(), images=0)


def test_evaluate_gives_the_numbers_found_by_hand():
    logits = np.log([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]).astype("float32")
    results = evaluation.evaluate(np.array([0, 1, 2]), logits, CLASSES[:3])
    assert results["images"] == 3
    assert results["top1"]["correct"] == 2
    assert results["top1"]["value"] == pytest.approx(2 / 3)
    assert results["top5"]["value"] == 1  # of three classes every one is among the first five
    assert results["cross_entropy"] == pytest.approx(-np.log([0.5, 0.3, 0.8]).mean(), rel=1e-6)
    assert results["confusion"] == [[1, 0, 0], [1, 0, 0], [0, 0, 1]]
    assert [row["top1"] for row in results["per_class"]] == [1, 0, 1]
    assert results["per_class"][1] == CLASSES[1] | {"images": 1, "correct": 0, "top1": 0}


def test_evaluate_agrees_with_keras_metrics():
    labels, logits = random_scores()
    results = evaluation.evaluate(labels, logits, CLASSES)
    for key, k in (("top1", 1), ("top5", 5)):
        metric = keras.metrics.SparseTopKCategoricalAccuracy(k)
        metric.update_state(labels, logits)
        assert results[key]["value"] == pytest.approx(float(metric.result()), abs=1e-6)
    expected = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits.astype("float64"))
    assert results["cross_entropy"] == pytest.approx(expected.numpy().mean(), rel=1e-6)
    assert results["top1"]["low"] < results["top1"]["value"] < results["top1"]["high"]


def test_cross_entropy_survives_large_logits():
    logits = np.array([[1000, 0], [1000, 0]], "float32")
    assert evaluation.cross_entropy(np.array([0, 1]), logits) == pytest.approx(500)


def test_equal_logits_count_for_the_first_class_only():
    labels = np.arange(7)
    ranks = evaluation.label_ranks(labels, np.zeros([7, 7], "float32"))
    np.testing.assert_array_equal(ranks, labels)
    results = evaluation.evaluate(labels, np.zeros([7, 7], "float32"), CLASSES)
    assert results["top1"]["correct"] == 1
    assert results["top5"]["correct"] == 5
    assert np.trace(results["confusion"]) == 1


def test_confusion_matrix_has_true_classes_in_rows():
    labels, logits = random_scores()
    predictions = logits.argmax(axis=1)
    matrix = evaluation.confusion_matrix(labels, predictions, 7)
    np.testing.assert_array_equal(matrix, tf.math.confusion_matrix(labels, predictions, 7))
    np.testing.assert_array_equal(matrix.sum(axis=1), np.bincount(labels, minlength=7))


def test_class_without_images_has_no_accuracy():
    logits = np.eye(3, dtype="float32")[[0, 2]]
    rows = evaluation.evaluate(np.array([0, 2]), logits, CLASSES[:3])["per_class"]
    assert [row["top1"] for row in rows] == [1, None, 1]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_evaluate_refuses_logits_that_are_not_finite(bad):
    labels, logits = random_scores()
    logits[[3, 8], 2] = bad
    with pytest.raises(ValueError, match="2 of 200 images are not finite"):
        evaluation.evaluate(labels, logits, CLASSES)


def test_evaluate_refuses_another_number_of_classes():
    labels, logits = random_scores()
    with pytest.raises(ValueError, match=r"\[200, 7\] for 200 labels of 6 classes"):
        evaluation.evaluate(labels, logits, CLASSES[:6])


@pytest.mark.parametrize("label", [-1, 7])
def test_evaluate_refuses_labels_outside_the_classes(label):
    labels, logits = random_scores()
    labels[5] = label
    with pytest.raises(ValueError, match="for 7 classes"):
        evaluation.evaluate(labels, logits, CLASSES)


@pytest.mark.parametrize(
    "correct, total", [(0, 1), (1, 1), (0, 50), (50, 50), (7, 9), (37026, 50000)]
)
def test_wilson_interval_agrees_with_scipy(correct, total):
    expected = scipy.stats.binomtest(correct, total).proportion_ci(0.95, method="wilson")
    assert evaluation.wilson_interval(correct, total) == pytest.approx(tuple(expected), abs=1e-7)


def test_worst_mistakes_come_most_confident_first():
    probabilities = [[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7], [0.2, 0.8]]
    labels = np.array([0, 1, 0, 1, 0])  # wrong: 1 at 0.8, 2 at 0.6, 4 at 0.8
    worst = evaluation.worst_mistakes(labels, np.log(probabilities), 10)
    assert [one["position"] for one in worst] == [1, 4, 2]
    assert [one["label"] for one in worst] == [1, 0, 0]
    assert [one["prediction"] for one in worst] == [0, 1, 1]
    assert [one["probability"] for one in worst] == pytest.approx([0.8, 0.8, 0.6])
    assert evaluation.worst_mistakes(labels, np.log(probabilities), 2) == worst[:2]


def test_examples_come_in_the_order_asked_for():
    dataset = tf.data.Dataset.range(100).map(lambda i: {"number": 10 * i})
    found = evaluation.examples_at(dataset, [70, 3, 99, 3])
    assert [int(example["number"]) for example in found] == [700, 30, 990, 30]
    assert evaluation.examples_at(dataset, []) == []


def test_same_classes_match():
    evaluation.check_matches({"classes": CLASSES}, {"classes": [dict(row) for row in CLASSES]})


def test_images_stored_otherwise_than_in_training_are_refused():
    trained = {"classes": CLASSES, "store_short_side": 320}
    same = {"classes": CLASSES, "parameters": {"store_short_side": 320}}
    evaluation.check_matches(trained, same)
    originals = {"classes": CLASSES, "parameters": {"store_short_side": 0}}
    with pytest.raises(ValueError, match="store_short_side 320, and these have 0: evaluate it on"):
        evaluation.check_matches(trained, originals)


def test_another_number_of_classes_is_refused():
    with pytest.raises(ValueError, match="model has 7 classes and the data 6: name the run_dir"):
        evaluation.check_matches({"classes": CLASSES}, {"classes": CLASSES[:6]})


def test_another_order_of_classes_is_refused():
    swapped = [*CLASSES[:2], CLASSES[3], CLASSES[2], *CLASSES[4:]]
    with pytest.raises(ValueError, match='class 2 is "n2 class 2" in the model and "n3 class 3"'):
        evaluation.check_matches({"classes": CLASSES}, {"classes": swapped})


def test_evaluation_file_holds_the_results(tmp_path):
    results = evaluation.evaluate(*random_scores(), CLASSES)
    path = evaluation.write_evaluation(tmp_path, results)
    assert json.loads(path.read_text()) == results
    assert list(tmp_path.iterdir()) == [tmp_path / "evaluation.json"]


def test_failed_write_leaves_the_old_evaluation(tmp_path):
    path = evaluation.write_evaluation(tmp_path, {"images": 1})
    with pytest.raises(ValueError):
        evaluation.write_evaluation(tmp_path, {"images": 2, "cross_entropy": float("nan")})
    assert json.loads(path.read_text()) == {"images": 1}
