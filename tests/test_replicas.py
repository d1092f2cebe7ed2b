"""One, two and four logical replicas, given the same global batches."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import replicated_run
import tensorflow as tf
from replicated_run import (
    batches,
    compiled,
    losses_of_four_stages,
    one_step_in_double,
    twenty_steps_in_double,
)

from kit.training.step import moving_statistics

FOUR = pytest.param(4, marks=pytest.mark.slow)
METRICS = {"loss", "cross_entropy", "top1", "top5"}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Give a function that gives what training gives on so many replicas, {rule: arrays}."""

    @functools.cache
    def of(replicas):
        if replicas < 4:
            return replicated_run.results(replicas)
        return in_a_process(replicas, tmp_path_factory.mktemp("four"), "float32")

    return of


def in_a_process(replicas, folder, precision):
    subprocess.run(
        [sys.executable, Path(replicated_run.__file__), str(replicas), folder, precision],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        check=True,
        timeout=600,
    )
    return {path.stem: dict(np.load(path)) for path in folder.iterdir()}


def assert_equal(found, expected, tolerance=1e-5):
    """Compare to 1e-5, or another share, of each array's largest value."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        error = np.max(np.abs(found[name] - value))
        assert error <= tolerance * max(1e-2, np.max(np.abs(value))), f"{name}: off by {error}"


@pytest.mark.parametrize("replicas", [2, FOUR])
def test_a_synchronized_network_trains_alike_on_any_number_of_replicas(results, replicas):
    """Loss, metrics, gradients, velocities, weights and statistics, over a drop of the rate."""
    one = results(1)["synchronized"]
    assert METRICS | {f"val_{name}" for name in METRICS} | {"gradient_norm"} <= one.keys()
    assert_equal(results(replicas)["synchronized"], one)


@pytest.mark.parametrize("replicas", [1, 2, FOUR])
def test_per_replica_batch_norm_is_that_of_each_share_by_itself(results, replicas):
    """Every replica's share by itself on one device, the rest in NumPy."""
    expected = reference(replicas)
    found = results(replicas)["per_replica"]
    assert_equal({name: found[name] for name in expected}, expected)


def reference(replicas):
    """Give weights, moving statistics and the logs of each step as they must come out."""
    model = compiled(tf.distribute.get_strategy())
    weights, statistics = model.trainable_weights, moving_statistics(model)
    velocities = [np.zeros(w.shape, "float32") for w in weights]
    logs = {"cross_entropy": [], "gradient_norm": []}
    step_of = tf.function(functools.partial(of_share, model))
    for step, (images, labels) in enumerate(zip(*batches(), strict=True)):
        before = [s.numpy() for s in statistics]
        losses, gradients, after = [], [], []
        for share in np.split(np.arange(len(labels)), replicas):
            for statistic, value in zip(statistics, before, strict=True):
                statistic.assign(value)
            loss, gradient = step_of(images[share], labels[share])
            losses.append(float(loss))
            gradients.append([g.numpy() for g in gradient])
            after.append([s.numpy() for s in statistics])
        for statistic, values in zip(statistics, zip(*after, strict=True), strict=True):
            statistic.assign(np.mean(values, axis=0))
        gradients = [np.mean(shares, axis=0) for shares in zip(*gradients, strict=True)]
        for i, weight in enumerate(weights):
            if weight.path.endswith("kernel"):
                gradients[i] += 1e-2 * weight.numpy()
            velocities[i] = 0.9 * velocities[i] - (0.01 if step < 10 else 0.001) * gradients[i]
            weight.assign_add(velocities[i])
        logs["cross_entropy"].append(np.mean(losses))
        logs["gradient_norm"].append(
            np.sqrt(sum((g.astype("float64") ** 2).sum() for g in gradients))
        )
    return {name: np.array(values[1:]) for name, values in logs.items()} | {
        w.path: w.numpy() for w in model.weights
    }


def of_share(model, images, labels):
    """Give the cross-entropy and its gradients, by TensorFlow's own operation."""
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    return loss, tape.gradient(loss, [w.value for w in model.trainable_weights])


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [2, 4])
def test_a_step_of_four_stages_in_double_precision_is_that_of_one_replica(results, replicas):
    """Loss, each gradient and each moving statistic of `batch_norm: synchronized`, to 1e-10."""
    one = one_step_in_double(1)
    found = results(4)["in_double"] if replicas == 4 else one_step_in_double(replicas)
    assert {value.dtype for value in one.values()} == {np.dtype("float64")}
    assert_equal(found, one, 1e-10)


@pytest.mark.slow  # XLA takes long to compile for a CPU
@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_xla_trains_in_double_precision_as_without(replicas, tmp_path):
    """Twenty steps of one block: loss, metrics, gradients, weights and statistics, to 1e-10.

    Clipped, with an average of the weights, which is validated. Float64 rounds at 1e-16.
    """
    if replicas == 4:
        found = in_a_process(replicas, tmp_path, "float64")
    else:
        found = {str(xla): twenty_steps_in_double(replicas, xla=xla) for xla in (True, False)}
    with_xla, without = found["True"], found["False"]
    assert METRICS | {f"val_{name}" for name in METRICS} | {"gradient_norm"} <= without.keys()
    assert {value.dtype for value in without.values()} == {np.dtype("float64")}
    assert_equal(with_xla, without, 1e-10)


@pytest.mark.slow
def test_two_replicas_part_from_one_as_rounding_does():
    """In float32, over twenty steps of four stages, whose batch norms let the last bits grow.

    One replica, whose weights differ in their last bits, parts from itself as far.
    """
    one = losses_of_four_stages(1)
    rounded = [losses_of_four_stages(1, rounded=seed) for seed in range(3)]
    by_rounding = max(np.abs(other - one).max() for other in rounded)
    by_replicas = np.abs(losses_of_four_stages(2) - one)
    assert by_replicas[:3].max() < 1e-5
    assert by_replicas.max() < 3 * by_rounding
