import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from kit.data.manifest import read_manifest
from kit.evaluation import predictions
from kit.inference.classifier import Classifier
from kit.pipeline.dataset import encoded_examples, evaluation_dataset
from tests.images import make_shards

CLASSES = [{"wnid": f"n{i}", "name": f"class {i}"} for i in range(3)]


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
    found_labels, logits = predictions.predict(model, dataset, images=8)
    np.testing.assert_array_equal(found_labels, labels)
    by_hand = 2 * (pixels.mean(axis=(1, 2)) - 100) / 4 + 5  # gamma (x - mean) / deviation + beta
    np.testing.assert_allclose(logits, by_hand, rtol=1e-5, atol=1e-4)
    assert logits.dtype == np.float32


@pytest.mark.parametrize("counted", [1, 3])
def test_predict_refuses_a_count_other_than_the_manifests(model, counted):
    dataset = batches((np.zeros([2, 4, 4, 3], "uint8"), np.zeros(2, "int64")))
    with pytest.raises(ValueError, match=f"2 images were scored .* counts {counted}"):
        predictions.predict(model, dataset, images=counted)


def test_predict_scores_the_shards_as_inference_scores_their_photographs(model, tmp_path):
    data_dir = make_shards(tmp_path, classes=3, images=9, validation_shards=2)
    size = {"image_size": 32, "resize_side": 40}
    dataset = evaluation_dataset(data_dir=data_dir, split="validation", batch_size=4, **size)
    split = read_manifest(data_dir)["splits"]["validation"]
    labels, logits = predictions.predict(model, dataset, images=split["images"])
    histogram = np.sum([shard["classes"] for shard in split["shards"]], axis=0)
    np.testing.assert_array_equal(np.bincount(labels), histogram)

    positions = [8, 0, 5]
    examples = encoded_examples(data_dir=data_dir, split="validation")
    photos = predictions.examples_at(examples, positions)
    np.testing.assert_array_equal([photo["label"] for photo in photos], labels[positions])
    classifier = Classifier.from_model(model, {"classes": CLASSES[:3], **size})
    found = classifier.probabilities([photo["encoded"].numpy() for photo in photos])
    np.testing.assert_allclose(found, tf.nn.softmax(logits[positions]), atol=1e-5)


def test_predict_refuses_an_empty_split(model):
    with pytest.raises(ValueError, match="no image to score"):
        predictions.predict(model, batches(), images=0)


def test_examples_come_in_the_order_asked_for():
    dataset = tf.data.Dataset.range(100).map(lambda i: {"number": 10 * i})
    found = predictions.examples_at(dataset, [70, 3, 99, 3])
    assert [int(example["number"]) for example in found] == [700, 30, 990, 30]
    assert predictions.examples_at(dataset, []) == []


def test_views_of_an_image_have_their_probabilities_averaged(model):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 4, 3), dtype="uint8")
    labels = np.array([0, 1, 2, 1, 0])
    parts = tf.data.Dataset.from_tensor_slices((pixels, labels)).batch(2)
    found_labels, logits = predictions.predict(model, parts, images=5)
    np.testing.assert_array_equal(found_labels, labels)
    shares = scipy.special.softmax(
        [model(pixels[:, view], training=False).numpy() for view in range(3)], axis=2
    ).mean(axis=0)
    np.testing.assert_allclose(np.exp(logits), shares, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.exp(logits).sum(axis=1), 1, rtol=1e-5)


def test_file_names_come_in_the_order_of_the_images(tmp_path):
    data_dir = make_shards(tmp_path, classes=3, images=9, validation_shards=2)
    examples = encoded_examples(data_dir=data_dir, split="validation")
    names = predictions.file_names(examples)
    assert len(set(names)) == 9
    assert [int(name[0]) for name in names] == [int(e["label"]) for e in examples]  # 2_5.jpg
