"""Frozen layers and slower ones: what learns, how fast, on one and two replicas, and resumed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kit import params
from kit.signals import Preempted
from kit.training.layers import freeze
from kit.training.optimizers import Sgd
from kit.training.step import moving_statistics
from tests import networks, small_training
from tests.images import make_shards
from tests.test_backup import At, rows, state_of, terminate
from tests.test_trainer import batches, compiled, train

WEIGHTS = {"initial_weights": "some.keras"}  # which nobody reads here
PIXELS = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype("uint8")


@pytest.mark.parametrize(
    "part, trained",
    [
        ("none", {"stem", "stage1", "stage2", "stage3", "head", "logits"}),
        ("stage1", {"stage2", "stage3", "head", "logits"}),
        ("stage2", {"stage3", "head", "logits"}),
        ("body", {"logits"}),
    ],
)
@pytest.mark.parametrize("version", ["1.5", "2"])
def test_the_layers_up_to_a_part_are_frozen(part, trained, version):
    model = networks.network(width=4, stage_sizes=(1, 1, 1), resnet_version=version)
    freeze(model, part)
    found = {weight.path.partition("_")[0].partition("/")[0] for weight in model.trainable_weights}
    assert found == trained - ({"head"} if version == "1.5" else set())  # its norm is the last one


@pytest.mark.parametrize("part", ["stage1", "body"])
@pytest.mark.parametrize("replicas", [1, 2])
def test_what_is_frozen_stays_bit_for_bit_and_the_rest_learns(part, replicas, request, tmp_path):
    strategy = request.getfixturevalue(["one_replica", "two_replicas"][replicas - 1])
    model = compiled(strategy, freeze=part, stage_sizes=(1, 1), **WEIGHTS)
    model(PIXELS.astype("float32"), training=True)  # statistics of three replicas' worth of digits
    before = [weight.numpy() for weight in model.weights]
    learning = {w.path for w in [*model.trainable_weights, *moving_statistics(model)]}
    assert 0 < len(learning) < len(before)
    train(model, *batches(4), tmp_path, epochs=2)
    for weight, old in zip(model.weights, before, strict=True):
        assert np.array_equal(weight.numpy(), old) == (weight.path not in learning), weight.path


def test_frozen_batch_norm_uses_its_moving_statistics_in_training(one_replica):
    model = compiled(one_replica, freeze="body", **WEIGHTS)
    images = PIXELS.astype("float32")
    np.testing.assert_array_equal(model(images, training=True), model(images, training=False))
    free = compiled(one_replica)
    assert np.abs(free(images, training=True) - free(images, training=False)).max() > 0.01


def test_frozen_weights_are_not_decayed(one_replica):
    """Neither they nor their L2 loss: that of the last layer is left, half its squared sum."""
    model = compiled(one_replica, freeze="body", **WEIGHTS)
    kernel = model.get_layer("logits").kernel.numpy()
    assert float(sum(model.losses)) == pytest.approx(1e-2 / 2 * (kernel**2).sum(), rel=1e-5)


@pytest.mark.slow
def test_rates_of_layers_are_those_of_pytorchs_groups():
    """Seven steps of momentum with the same gradients; the rate stays, as velocities hold it."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    start = [rng.normal(size=shape).astype("float32") for shape in ((3, 4), (4,), (2,))]
    ours = [keras.Variable(value) for value in start]
    theirs = [torch.nn.Parameter(torch.from_numpy(value.copy())) for value in start]
    factors = (0.1, 0.5, 1.0)
    optimizer = Sgd(0.2, momentum=0.9, factors=factors)
    optimizer.build(ours)
    groups = [{"params": [w], "lr": 0.2 * f} for w, f in zip(theirs, factors, strict=True)]
    reference = torch.optim.SGD(groups, momentum=0.9)
    for _ in range(7):
        given = [rng.normal(size=value.shape).astype("float32") for value in start]
        gradients = [tf.constant(gradient) for gradient in given]
        for variable, value in optimizer.changes(lambda v: v.value, gradients, ours):
            variable.assign(value)
        for weight, gradient in zip(theirs, given, strict=True):
            weight.grad = torch.from_numpy(gradient)
        reference.step()
    for mine, weight in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine.numpy(), weight.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "lamb"])
@pytest.mark.parametrize("replicas", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_all_layers_but_the_last_learn_so_much_more_slowly(optimizer, replicas, request, tmp_path):
    """One step from the same weights: the body moves a quarter as far, the last layer as far."""
    strategy = request.getfixturevalue(["one_replica", "two_replicas"][replicas - 1])
    changes = {}
    for factor in (1.0, 0.25):
        model = compiled(strategy, optimizer=optimizer, body_rate_factor=factor)
        before = [weight.numpy() for weight in model.trainable_weights]
        train(model, *batches(1), tmp_path / str(factor), epochs=1)
        after = [weight.numpy() for weight in model.trainable_weights]
        paths = [weight.path for weight in model.trainable_weights]
        moved = (new - old for new, old in zip(after, before, strict=True))
        changes[factor] = dict(zip(paths, moved, strict=True))
    for path, whole in changes[1.0].items():
        share = 1 if path.startswith("logits") else 0.25
        error = np.linalg.norm(changes[0.25][path] - share * whole)
        assert error < 1e-2 * share * np.linalg.norm(whole) + 1e-6, path


@pytest.mark.slow
def test_it_is_resumed_bit_for_bit(tmp_path_factory, tmp_path):
    data_dir = make_shards(tmp_path_factory.mktemp("shards"))
    changes = {"freeze": "stage1", "body_rate_factor": 0.3, "ema_decay": 0.9, **WEIGHTS}

    def run(run_dir, *callbacks):
        model = small_training.compiled(**changes)
        small_training.train(model, data_dir, run_dir, epochs=2, callbacks=callbacks)
        return state_of(model)

    for stop in (At(terminate, step=3), At(terminate, validation=8)):
        with pytest.raises(Preempted):
            run(tmp_path / "cut", stop)
    for ours, theirs in zip(run(tmp_path / "cut"), run(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.path)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


@pytest.mark.parametrize(
    "wrong, line",
    [
        ({"freeze": "body"}, "freeze: body would leave random weights as they are; take none, or"),
        ({"freeze": "stage4"} | WEIGHTS, 'freeze: "stage4" is not one of none, stage1, stage2, '),
        ({"freeze": "stage3", "stage_sizes": [1, 1]} | WEIGHTS, "freeze: stage3 is not there: "),
        (
            {"body_rate_factor": 0.0},
            "body_rate_factor: 0.0 is not above 0; take 0.1, or freeze: bo",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(wrong, line):
    with pytest.raises(ValueError) as error:
        params.load(overrides=wrong)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)
