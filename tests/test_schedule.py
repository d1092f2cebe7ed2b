"""Rates against the formulas of those who published them, in NumPy and PyTorch's own words."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kit.training.schedule import rate_of_epoch, scaled_rate, scheduler

RECIPE = {
    "epochs": 100,
    "learning_rate": 0.1,
    "rate_decay": "steps",
    "decay_epochs": [30, 60, 80, 90],
    "decay_factor": 0.1,
    "final_rate": 0.0,
    "polynomial_power": 2.0,
    "warmup_epochs": 0,
    "warmup_start": 0.0,
}


def rates(each=1, **changes):
    """Give the rate of every epoch, or `each` times within it."""
    settings = RECIPE | changes
    return [rate_of_epoch(i / each, **settings) for i in range(settings["epochs"] * each)]


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
    assert rate_of_epoch(step // 5000, **RECIPE) == pytest.approx(rate)
    assert rate_of_epoch(step / 5000, **RECIPE) == pytest.approx(rate)


def test_rate_rises_in_equal_steps_while_warming_up():
    warm = rates(epochs=5, warmup_epochs=3, warmup_start=0.025)
    assert warm == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])


def test_one_rate_is_scaled_to_the_batch():
    assert scaled_rate(learning_rate=0.1, learning_rate_batch=256, batch_size=256) == 0.1
    assert scaled_rate(learning_rate=0.1, learning_rate_batch=256, batch_size=1024) == 0.4
    assert scaled_rate(learning_rate=0.1, learning_rate_batch=0, batch_size=1024) == 0.1


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
        rate_decay="linear",
        warmup_epochs=peak,
        warmup_start=1e-4 * lr,
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
    settings = {"epochs": epochs, "learning_rate": lr, "rate_decay": "cosine"}
    ours = np.array(rates(warmup_epochs=warmup, **settings))
    np.testing.assert_allclose(ours[warmup:], theirs[warmup:], rtol=1e-12, atol=1e-15)
    ours = np.array(rates(warmup_epochs=warmup - 1, warmup_start=lr / warmup, **settings))
    np.testing.assert_allclose(ours[:warmup], theirs[:warmup], rtol=1e-12)
    assert np.max(np.abs(ours - theirs)) < 0.012 * lr  # as rate_of_epoch says


def test_cosine_behind_the_warm_up_is_timms():
    """CosineLRScheduler._get_lr of timm/scheduler/cosine_lr.py, with warmup_prefix=False."""
    lr, start, end, warmup, epochs = 5e-3, 1e-4, 1e-6, 5, 100
    wave = [end + 0.5 * (lr - end) * (1 + np.cos(np.pi * t / epochs)) for t in range(epochs)]
    rise = [start + t * (lr - start) / warmup for t in range(warmup)]
    ours = rates(
        learning_rate=lr,
        rate_decay="cosine_from_start",
        final_rate=end,
        warmup_epochs=warmup,
        warmup_start=start,
    )
    np.testing.assert_allclose(ours, rise + wave[warmup:], rtol=1e-12)


def test_polynomial_falls_by_its_power():
    """Keras' PolynomialDecay, on the epochs after the warm-up."""
    theirs = keras.optimizers.schedules.PolynomialDecay(0.1, 90, 0.001, power=3.0)
    ours = rates(rate_decay="polynomial", polynomial_power=3.0, final_rate=0.001, warmup_epochs=10)
    np.testing.assert_allclose(ours[10:], [float(theirs(e)) for e in range(90)], rtol=1e-4)


@pytest.mark.parametrize("rule", ["cosine", "cosine_from_start", "linear", "polynomial"])
def test_the_last_rate_is_the_final_one(rule):
    settings = RECIPE | {"rate_decay": rule, "final_rate": 0.01, "warmup_epochs": 5}
    assert rate_of_epoch(100, **settings) == rate_of_epoch(101, **settings) == 0.01


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
    callback = scheduler(
        rate_every="epoch", steps_per_epoch=2, **RECIPE | {"epochs": 3, "decay_epochs": [1, 2]}
    )
    taken, history = fit(callback, parts=[(0, 3, 2)])
    assert taken == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert history == pytest.approx([0.1, 0.01, 0.001])


def test_the_optimizer_takes_the_rate_of_each_step_in_a_cut_epoch_too():
    settings = RECIPE | {"epochs": 3, "rate_decay": "cosine", "warmup_epochs": 1}
    callback = scheduler(rate_every="step", steps_per_epoch=4, **settings)
    taken, history = fit(callback, parts=[(0, 1, 4), (1, 2, 1), (1, 2, 3), (2, 3, 4)])
    expected = [0, 0.025, 0.05, 0.075] + [
        0.05 * (1 + np.cos(np.pi * step / 8)) for step in range(8)
    ]
    assert taken == pytest.approx(expected)
    assert history == pytest.approx([expected[i] for i in (3, 4, 7, 11)])
