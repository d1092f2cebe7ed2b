"""The average of the weights against NumPy, and who holds it when."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kit.training import trainer
from kit.training.checkpoint import Checkpoints, load_best
from kit.training.strategy import make_strategy
from tests.test_trainer import MANIFEST, PARAMETERS, batches, compiled

DECAY = 0.7
IMAGES, LABELS = batches(4)
VALIDATION = tf.data.Dataset.from_tensors((IMAGES[0], LABELS[0]))


class Weights(keras.callbacks.Callback):
    """Note the weights after each step."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(self.model.get_weights())


def train(model):
    """Take four steps, a validation after two each; give the weights after each and the history."""
    seen = Weights()
    history = model.fit(
        tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)),
        validation_data=VALIDATION,
        epochs=2,
        steps_per_epoch=2,
        callbacks=[seen],
        shuffle=False,
        verbose=0,
    )
    return seen.steps, history.history


@pytest.fixture(scope="module")
def trained():
    model = compiled(make_strategy(replicas=2), ema_decay=DECAY, stage_sizes=[1])
    before = model.evaluate(VALIDATION, return_dict=True, verbose=0)
    return model, *train(model), before


@pytest.fixture(scope="module")
def other():
    """Give a model of other weights, whose average is another."""
    return compiled(make_strategy(replicas=2), ema_decay=DECAY, stage_sizes=[1], seed=1)


@pytest.fixture(scope="module")
def average(trained):
    """The formula of Keras' use_ema and of PyTorch's AveragedModel, of every weight."""
    steps, found = trained[1], trained[1][0]
    for weights in steps[1:]:
        found = [DECAY * a + (1 - DECAY) * w for a, w in zip(found, weights, strict=True)]
    return found


def assert_holds(model, values):
    for weight, value in zip(model.weights, values, strict=True):
        np.testing.assert_allclose(weight.numpy(), value, rtol=1e-5, atol=1e-6)


def test_it_is_of_the_weights_and_statistics_after_each_step(trained, average):
    model, steps, _, _ = trained
    with model.holding(average=True):
        assert_holds(model, average)
        for weight in model.weights:
            copies = model.distribute_strategy.experimental_local_results(weight.value)
            np.testing.assert_array_equal(copies[0], copies[1], err_msg=weight.path)
    for weight, value in zip(model.weights, steps[-1], strict=True):  # bit for bit
        np.testing.assert_array_equal(weight.numpy(), value)


def test_training_goes_on_with_the_weights_themselves(trained, two_replicas):
    steps, history = train(compiled(two_replicas, stage_sizes=[1]))
    for ours, theirs in zip(trained[1][-1], steps[-1], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert trained[2]["loss"] == history["loss"]
    assert trained[2]["val_loss"] != history["val_loss"]


def test_keras_own_average_is_left_in_the_model_by_each_fit():
    """If this fails, Keras has mended it: `use_ema` might serve for more than one fit."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=DECAY), "mse")
    seen = Weights()
    model.fit(np.ones((8, 3)), np.ones((8, 1)), batch_size=2, callbacks=[seen], verbose=0)
    assert np.abs(model.get_weights()[0] - seen.steps[-1][0]).max() > 1e-3


def test_the_average_is_what_is_evaluated(trained, average):
    copy = compiled(tf.distribute.get_strategy(), stage_sizes=[1])
    begin = copy.evaluate(VALIDATION, return_dict=True, verbose=0)
    assert trained[3] == pytest.approx(begin, rel=1e-5)  # before a step there is none
    copy.set_weights(average)
    found = copy.evaluate(VALIDATION, return_dict=True, verbose=0)
    assert trained[2]["val_loss"][-1] == pytest.approx(found["loss"], rel=1e-4)
    assert trained[2]["val_l2_loss"][-1] == pytest.approx(found["l2_loss"], rel=1e-4)


def test_the_average_is_what_is_saved(trained, average, other, tmp_path):
    model, steps, _, _ = trained
    trainer.save_model(model, run_dir=tmp_path, manifest=MANIFEST, parameters=PARAMETERS)
    assert_holds(keras.saving.load_model(tmp_path / "model.keras"), average)

    checkpoints = Checkpoints(model, folder=tmp_path / "checkpoints", keep=1)
    with model.holding(average=True):  # as amid a validation
        checkpoints.save({}, best=True)
    checkpoints.wait()
    load_best(other, run_dir=tmp_path)
    assert_holds(other, average)
    Checkpoints(other, folder=tmp_path / "checkpoints", keep=1).restore()
    assert_holds(other, steps[-1])
    with other.holding(average=True):
        assert_holds(other, average)


def test_an_average_starts_again_at_the_best_weights(trained, average, other, tmp_path):
    """Taken into a model that has been trained, whose own average is another."""
    checkpoints = Checkpoints(trained[0], folder=tmp_path / "checkpoints", keep=1)
    checkpoints.save({}, best=True)
    checkpoints.wait()
    train(other)
    load_best(other, run_dir=tmp_path)
    assert_holds(other, average)
    with other.holding(average=True):
        assert_holds(other, average)
