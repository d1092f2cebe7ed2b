"""LAMB against NumPy, SGD against Keras, and what is left undecayed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kit.training.optimizers import Lamb, Sgd, undecayed
from tests.test_trainer import batches, compiled, gradients
from tests.test_trainer import train as train_epochs

DECAY, CLIP, AVERAGE, FACTOR = 0.02, 0.5, 0.8, 0.5
CHANGES = {
    "optimizer": "lamb",
    "weight_decay": DECAY,
    "clip_grad_norm": CLIP,
    "ema_decay": AVERAGE,
    "body_rate_factor": FACTOR,
    "stage_sizes": (1,),
}


def lamb(weights, gradients, state, *, rate, step, decayed):
    """You et al. 2020, algorithm 2, with what timm does: no ratio where there is no decay.

    The paper's phi is the identity, its epsilon 1e-6, its betas 0.9 and 0.999.
    """
    found = []
    for i, (w, g) in enumerate(zip(weights, gradients, strict=True)):
        m, v = state.get(i, (0.0, 0.0))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        state[i] = m, v
        r = m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-6)
        if decayed[i]:
            r = r + DECAY * w
            w_norm, r_norm = np.linalg.norm(w), np.linalg.norm(r)
            r = r * (w_norm / r_norm if w_norm > 0 and r_norm > 0 else 1)
        found.append(w - rate[i] * r)
    return found


def test_lamb_is_that_of_the_paper_and_of_timm():
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape) for shape in ((3, 4), (4,), (2, 2))]
    weights[2][:] = 0  # has no length yet, so that no ratio can be taken
    variables = [keras.Variable(w, dtype="float32") for w in weights]
    optimizer = Lamb(0.1, weight_decay=DECAY)
    optimizer.exclude_from_weight_decay(var_list=[variables[1]])
    optimizer.build(variables)
    state = {}
    for step in range(1, 8):
        optimizer.learning_rate = rate = 0.1 / step
        given = [rng.normal(size=w.shape) for w in weights]
        gradients = [tf.constant(g, tf.float32) for g in given]
        for variable, value in optimizer.changes(lambda v: v.value, gradients, variables):
            variable.assign(value)
        optimizer.iterations.assign_add(1)
        weights = lamb(
            weights, given, state, rate=[rate] * 3, step=step, decayed=[True, False, True]
        )
        for variable, expected in zip(variables, weights, strict=True):
            np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_keras_own(momentum):
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape) for shape in ((3, 4), (4,))]
    ours, theirs = ([keras.Variable(w, dtype="float32") for w in weights] for _ in range(2))
    optimizer, own = Sgd(0.1, momentum=momentum), keras.optimizers.SGD(0.1, momentum=momentum)
    optimizer.build(ours)
    for _ in range(3):
        given = [tf.constant(rng.normal(size=w.shape), tf.float32) for w in weights]
        own.apply(given, theirs)
        for variable, value in optimizer.changes(lambda v: v.value, given, ours):
            variable.assign(value)
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-6)


@pytest.mark.parametrize("replicas", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_training_is_lamb_of_the_clipped_mean_over_the_replicas(replicas, request, tmp_path):
    """Six steps of fit; the evaluated weights are their average (Keras' formula for use_ema)."""
    strategy = request.getfixturevalue(["one_replica", "two_replicas"][replicas - 1])
    images, labels = batches(6)
    model = compiled(strategy, **CHANGES)
    copy = compiled(tf.distribute.get_strategy(), **CHANGES)
    copy.set_weights(model.get_weights())
    decayed = [w.path.endswith("kernel") for w in copy.trainable_weights]
    factors = [1 if w.path.startswith("logits") else FACTOR for w in copy.trainable_weights]
    history = train_epochs(model, images, labels, tmp_path, epochs=3)

    first = [w.numpy() for w in copy.trainable_weights]
    state, norms, averages = {}, [], None
    for step, (image, label) in enumerate(zip(images, labels, strict=True)):
        parts = zip(np.split(image, replicas), np.split(label, replicas), strict=True)
        halves = [gradients(copy, i, c)[1] for i, c in parts]
        given = [np.mean(each, axis=0) for each in zip(*halves, strict=True)]
        norms.append(np.sqrt(sum((g**2).sum() for g in given)))
        given = [g * min(1, CLIP / norms[-1]) for g in given]
        now = [w.numpy() for w in copy.trainable_weights]
        rate = [0.05 * 0.1 ** (step // 2) * factor for factor in factors]
        now = lamb(now, given, state, rate=rate, step=step + 1, decayed=decayed)
        for weight, value in zip(copy.trainable_weights, now, strict=True):
            weight.assign(value)
        old = averages or now
        averages = [AVERAGE * a + (1 - AVERAGE) * w for a, w in zip(old, now, strict=True)]

    assert min(norms) > CLIP
    expected = np.reshape(norms, (3, 2)).mean(axis=1)
    np.testing.assert_allclose(history["gradient_norm"], expected, rtol=1e-3)
    assert history["l2_loss"] == [0, 0, 0]
    # of what was learnt: Adam's direction makes the sign of a rounding a whole step
    for held, expected in ((False, now), (True, averages)):
        with model.holding(average=held):
            for weight, begin, end in zip(model.trainable_weights, first, expected, strict=True):
                error = np.linalg.norm(weight.numpy() - end) / np.linalg.norm(end - begin)
                assert error < 1e-2, weight.path


@pytest.mark.parametrize(
    "skips, names",
    [
        (["norm", "bias"], {"gamma", "beta", "bias"}),
        (["norm"], {"gamma", "beta"}),
        (["bias"], {"bias"}),
        ([], set()),
    ],
)
def test_what_is_not_decayed_is_named(one_replica, skips, names):
    model = compiled(one_replica, stage_sizes=(1,))
    left_out = undecayed(model, skips)
    assert {weight.name for weight in left_out} == names
    assert len(left_out) == sum(w.name in names for w in model.trainable_weights)
