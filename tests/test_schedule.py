"""Rates against the formulas of those who published them, in NumPy and PyTorch's own words."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kit.training.schedule import LearningRateScheduler
from tests.networks import sections


def schedule(**changes):
    """Give the Schedule of params.yaml with some values changed."""
    return sections(**changes).schedule


def rates(each=1, **changes):
    """Give the rate of every epoch, or `each` times within it."""
    made = schedule(**{"schedule_update": "step"} | changes)
    return [made.rate(i / each) for i in range(made.epochs * each)]


@pytest.mark.parametrize(
    "step, rate",
    [
        (0, 1e-1),
        (149_999, 1e-1),
        (150_000, 1e-2),
        (299_999, 1e-2),
        (300_000, 1e-3),
        (400_000, 1e-4),
        (450_000, 1e-5),
        (499_999, 1e-5),
    ],
)
def test_rate_falls_at_each_boundary_of_the_recipe(step, rate):
    assert schedule().rate(step // 5000) == pytest.approx(rate)
    assert schedule().rate(step / 5000) == pytest.approx(rate)


def test_rate_rises_in_equal_steps_while_warming_up():
    warm = rates(epochs=5, decay_epochs=[], warmup_epochs=3, warmup_learning_rate=0.025)
    assert warm == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])


def test_one_rate_is_scaled_to_the_batch():
    assert schedule(batch_size=256, base_batch_size=256).scaled(0.1) == 0.1
    assert schedule(batch_size=1024, base_batch_size=256).scaled(0.1) == 0.4
    assert schedule(batch_size=1024, base_batch_size=0).scaled(0.1) == 0.1


def test_each_step_follows_the_line_of_ffcv():
    """get_cyclic_lr of ffcv-imagenet's train_imagenet.py, and its interpolation in an epoch."""
    epochs, peak, lr, steps = 16, 2, 1.7, 10
    ends = np.interp(range(epochs + 1), [0, peak, epochs], [1e-4 * lr, lr, 0])
    theirs = [
        np.interp(range(steps), [0, steps], ends[epoch : epoch + 2]) for epoch in range(epochs)
    ]
    ours = rates(
        steps,
        epochs=epochs,
        learning_rate=lr,
        schedule="linear",
        warmup_epochs=peak,
        warmup_learning_rate=1e-4 * lr,
    )
    np.testing.assert_allclose(ours, np.concatenate(theirs), rtol=1e-12, atol=1e-15)


def test_each_step_follows_tensorflows_official_models():
    """PiecewiseConstantDecayWithWarmup of official/vision/image_classification/resnet/common.py."""
    steps, warmup, boundaries = 7, 5, [30, 60, 80]
    theirs = []
    for step in range(90 * steps):
        drops = sum(step >= boundary * steps for boundary in boundaries)
        theirs.append(0.4 * (step / (warmup * steps) if step < warmup * steps else 0.1**drops))
    settings = {"epochs": 90, "learning_rate": 0.4, "decay_epochs": boundaries}
    np.testing.assert_allclose(rates(steps, warmup_epochs=warmup, **settings), theirs, rtol=1e-12)


def nvidia(epoch, lr, warmup, epochs):
    """lr_cosine_policy of DeepLearningExamples' PyTorch/Classification/ConvNets."""
    if epoch < warmup:
        return lr * (epoch + 1) / warmup
    return 0.5 * (1 + np.cos(np.pi * (epoch - warmup) / (epochs - warmup))) * lr


def test_cosine_after_the_warm_up_is_nvidias():
    lr, warmup, epochs = 1.024, 8, 90
    theirs = np.array([nvidia(epoch, lr, warmup, epochs) for epoch in range(epochs)])
    settings = {"epochs": epochs, "learning_rate": lr, "schedule": "cosine"}
    ours = np.array(rates(warmup_epochs=warmup, **settings))
    np.testing.assert_allclose(ours[warmup:], theirs[warmup:], rtol=1e-12, atol=1e-15)
    ours = np.array(rates(warmup_epochs=warmup - 1, warmup_learning_rate=lr / warmup, **settings))
    np.testing.assert_allclose(ours[:warmup], theirs[:warmup], rtol=1e-12)
    assert np.max(np.abs(ours - theirs)) < 0.012 * lr  # as Schedule.rate says


def test_cosine_behind_the_warm_up_is_timms():
    """CosineLRScheduler._get_lr of timm/scheduler/cosine_lr.py, with warmup_prefix=False."""
    lr, start, end, warmup, epochs = 5e-3, 1e-4, 1e-6, 5, 100
    wave = [end + 0.5 * (lr - end) * (1 + np.cos(np.pi * t / epochs)) for t in range(epochs)]
    rise = [start + t * (lr - start) / warmup for t in range(warmup)]
    ours = rates(
        learning_rate=lr,
        schedule="cosine_from_start",
        final_learning_rate=end,
        warmup_epochs=warmup,
        warmup_learning_rate=start,
    )
    np.testing.assert_allclose(ours, rise + wave[warmup:], rtol=1e-12)


@pytest.mark.parametrize("rule", ["cosine", "cosine_from_start", "linear"])
def test_the_last_rate_is_the_final_one(rule):
    settings = {"schedule": rule, "final_learning_rate": 0.01, "warmup_epochs": 5}
    made = schedule(**settings, schedule_update="step")
    assert made.rate(100) == made.rate(101) == 0.01


class Rates(keras.callbacks.Callback):
    """Note the rate by which each step was taken."""

    def __init__(self):
        super().__init__()
        self.rates = []

    def on_train_batch_end(self, batch, logs=None):
        rate = self.model.optimizer.learning_rate
        self.rates.append(float(keras.ops.convert_to_numpy(rate)))


def fit(callback, **options):
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(9.0), "mse")
    data = tf.data.Dataset.from_tensors((tf.zeros([2, 1]), tf.zeros([2, 1]))).repeat()
    seen, history = Rates(), []
    for first, last, steps in options["parts"]:
        fitted = model.fit(
            data,
            initial_epoch=first,
            epochs=last,
            steps_per_epoch=steps,
            callbacks=[callback, seen],
            verbose=0,
        )
        history += fitted.history["learning_rate"]
    return seen.rates, history


def test_the_optimizer_takes_the_rate_of_each_epoch():
    callback = LearningRateScheduler(schedule(epochs=3, decay_epochs=[1, 2]), steps_per_epoch=2)
    taken, history = fit(callback, parts=[(0, 3, 2)])
    assert taken == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert history == pytest.approx([0.1, 0.01, 0.001])


def test_the_optimizer_takes_the_rate_of_each_step_in_a_cut_epoch_too():
    settings = {"epochs": 3, "schedule": "cosine", "schedule_update": "step", "warmup_epochs": 1}
    callback = LearningRateScheduler(schedule(**settings), steps_per_epoch=4)
    taken, history = fit(callback, parts=[(0, 1, 4), (1, 2, 1), (1, 2, 3), (2, 3, 4)])
    expected = [0, 0.025, 0.05, 0.075] + [
        0.05 * (1 + np.cos(np.pi * step / 8)) for step in range(8)
    ]
    assert taken == pytest.approx(expected)
    assert history == pytest.approx([expected[i] for i in (3, 4, 7, 11)])
