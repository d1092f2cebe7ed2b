import keras
import pytest
import tensorflow as tf

from kit.training.schedule import rate_of_epoch, scheduler

RECIPE = {
    "learning_rate": 0.1,
    "decay_epochs": [30, 60, 80, 90],
    "decay_factor": 0.1,
    "warmup_epochs": 0,
}


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


def test_rate_rises_in_equal_steps_while_warming_up():
    rates = [rate_of_epoch(epoch, **RECIPE | {"warmup_epochs": 3}) for epoch in range(5)]
    assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])


def test_the_optimizer_takes_the_rate_of_each_epoch():
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(9.0), "mse")
    data = tf.data.Dataset.from_tensors((tf.zeros([2, 1]), tf.zeros([2, 1])))
    callback = scheduler(learning_rate=0.5, decay_epochs=[1, 2], decay_factor=0.1, warmup_epochs=0)
    history = model.fit(data, epochs=3, callbacks=[callback], verbose=0)
    assert history.history["learning_rate"] == pytest.approx([0.5, 0.05, 0.005])
