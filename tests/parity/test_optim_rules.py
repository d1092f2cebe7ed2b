"""Rates, losses, LAMB and the average of the weights against those of timm and PyTorch themselves.

timm 1.0: what Wightman et al. 2021, ResNet Strikes Back, was trained with.
"""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import pytorch
import tensorflow as tf

from kit.training import losses
from kit.training.optimizers import Lamb
from tests.networks import sections

pytestmark = pytest.mark.slow
RATES = {
    "epochs": 40,
    "learning_rate": 5e-3,
    "decay_epochs": [10, 20, 30],
    "decay_factor": 0.1,
    "final_learning_rate": 1e-6,
    "warmup_epochs": 5,
    "warmup_learning_rate": 1e-4,
}
LOGITS = np.random.default_rng(0).normal(0, 3, (6, 9)).astype("float32")
NUMBERS = np.array([3, 0, 8, 2, 2, 5])
MIXED = (0.6 * np.eye(9)[NUMBERS] + 0.4 * np.eye(9)[NUMBERS[::-1]]).astype("float32")


@pytest.fixture(scope="module")
def timm():
    return pytorch.timm()


def parameters(torch, arrays):
    return [torch.nn.Parameter(torch.tensor(array)) for array in arrays]


def stepped(scheduler, optimizer):
    """List the rate of each epoch by a scheduler of PyTorch."""
    rates = []
    for _ in range(RATES["epochs"]):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def ours(rule, **changes):
    schedule = sections(**RATES | changes, schedule=rule).schedule
    return [schedule.rate(epoch) for epoch in range(RATES["epochs"])]


@pytest.mark.parametrize("prefix", [False, True])
def test_cosine_is_timms_before_and_after_the_warm_up(timm, prefix):
    import torch
    from timm.scheduler.cosine_lr import CosineLRScheduler

    optimizer = torch.optim.SGD(parameters(torch, [np.zeros(1)]), lr=RATES["learning_rate"])
    theirs = CosineLRScheduler(
        optimizer,
        t_initial=RATES["epochs"] - prefix * RATES["warmup_epochs"],
        lr_min=RATES["final_learning_rate"],
        warmup_t=RATES["warmup_epochs"],
        warmup_lr_init=RATES["warmup_learning_rate"],
        warmup_prefix=prefix,
    )
    expected = [theirs._get_lr(epoch)[0] for epoch in range(RATES["epochs"])]
    found = ours("cosine" if prefix else "cosine_from_start")
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("rule", ["cosine", "steps"])
def test_warm_up_and_what_follows_are_torchvisions(timm, rule):
    """As references/classification/train.py of torchvision puts PyTorch's schedulers together."""
    import torch
    from torch.optim import lr_scheduler

    optimizer = torch.optim.SGD(parameters(torch, [np.zeros(1)]), lr=0.5)
    warm = RATES["warmup_epochs"]
    rise = lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=warm)
    drops = [drop - warm for drop in RATES["decay_epochs"]]
    fall = {
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, RATES["epochs"] - warm),
        "steps": lambda: lr_scheduler.MultiStepLR(optimizer, drops, gamma=0.1),
    }[rule]()
    scheduler = lr_scheduler.SequentialLR(optimizer, [rise, fall], milestones=[warm])
    found = ours(rule, learning_rate=0.5, warmup_learning_rate=0.005, final_learning_rate=0.0)
    np.testing.assert_allclose(found, stepped(scheduler, optimizer), rtol=1e-6)


def loss_and_gradient(name, labels, **settings):
    settings = {"label_smoothing": 0.0, "target_threshold": 0.0} | settings
    settings |= {"loss": name, "class_weights": "none"}
    section = SimpleNamespace(
        **settings
    )  # the section Loss refuses smoothing and threshold at once
    logits = tf.Variable(LOGITS)
    with tf.GradientTape() as tape:
        loss = losses.ClassificationLoss(section)(labels, logits)
    return float(loss), tape.gradient(loss, logits).numpy()


def assert_same(found, criterion, labels):
    """Compare a loss and its gradient with those of PyTorch's `criterion`."""
    import torch

    logits = torch.tensor(LOGITS, requires_grad=True)
    loss = criterion(logits, torch.tensor(labels))
    loss.backward()
    assert found[0] == pytest.approx(loss.item(), rel=1e-5)
    np.testing.assert_allclose(found[1], logits.grad.numpy(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("share", [0.0, 0.1])
@pytest.mark.parametrize("threshold", [0.0, 0.2])
def test_binary_cross_entropy_is_timms(timm, share, threshold):
    from timm.loss import BinaryCrossEntropy

    settings = {"label_smoothing": share, "target_threshold": threshold}
    found = loss_and_gradient("binary_cross_entropy", NUMBERS, **settings)
    criterion = BinaryCrossEntropy(smoothing=share, target_threshold=threshold or None)
    assert_same(found, criterion, NUMBERS)
    found = loss_and_gradient("binary_cross_entropy", MIXED, **settings)
    smooth = MIXED * (1 - share) + share / 9  # timm leaves that to its mixup
    assert_same(found, criterion, smooth)


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_cross_entropy_is_timms_and_pytorchs(timm, share):
    import torch
    from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy

    found = loss_and_gradient("cross_entropy", NUMBERS, label_smoothing=share)
    assert_same(found, LabelSmoothingCrossEntropy(share), NUMBERS)
    assert_same(found, torch.nn.CrossEntropyLoss(label_smoothing=share), NUMBERS)
    found = loss_and_gradient("cross_entropy", MIXED, label_smoothing=share)
    assert_same(found, torch.nn.CrossEntropyLoss(label_smoothing=share), MIXED)
    if not share:
        assert_same(found, SoftTargetCrossEntropy(), MIXED)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_lamb_is_timms(timm, clip):
    """Twenty steps; a matrix, a vector that is not decayed, and a matrix of zeros."""
    import torch
    from timm.optim import Lamb as Theirs

    rng = np.random.default_rng(0)
    shapes = (5, 7), (7,), (3, 4)
    weights = [rng.normal(size=shape).astype("float32") for shape in shapes]
    weights[2][:] = 0
    variables, decay = [keras.Variable(w) for w in weights], 0.02
    lamb = Lamb(0.1, weight_decay=decay)
    lamb.exclude_from_weight_decay(var_list=[variables[1]])
    lamb.build(variables)
    params = parameters(torch, weights)
    groups = [{"params": [params[0], params[2]]}, {"params": [params[1]], "weight_decay": 0.0}]
    theirs = Theirs(groups, lr=0.1, weight_decay=decay, max_grad_norm=clip)
    for step in range(20):
        lamb.learning_rate = rate = 0.1 / (step + 1)
        gradients = [rng.normal(size=shape).astype("float32") for shape in shapes]
        for param, gradient in zip(params, gradients, strict=True):
            param.grad = torch.tensor(gradient)
        for group in theirs.param_groups:
            group["lr"] = rate
        theirs.step()
        clipped = tf.clip_by_global_norm(gradients, clip)[0] if clip else gradients
        clipped = [tf.convert_to_tensor(g) for g in clipped]
        for variable, value in lamb.changes(lambda v: v.value, clipped, variables):
            variable.assign(value)
        lamb.iterations.assign_add(1)
    for variable, param in zip(variables, params, strict=True):
        np.testing.assert_allclose(variable.numpy(), param.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_the_average_is_pytorchs_and_timms(timm):
    """torchvision's recipes take AveragedModel with its buffers, timm's ModelEmaV3."""
    import torch
    from timm.utils import ModelEmaV3
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    from kit.training.ema import WeightAverage

    network = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization()])
    ours = WeightAverage(network, 0.9)
    module = torch.nn.BatchNorm1d(3)
    averaged = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    ema = ModelEmaV3(module, decay=0.9)
    rng = np.random.default_rng(0)
    for step in range(1, 9):
        values = [rng.normal(size=3).astype("float32") for _ in network.weights]
        network.set_weights(values)
        tensors = [module.weight, module.bias, module.running_mean, module.running_var]
        for tensor, value in zip(tensors, values, strict=True):
            tensor.data[:] = torch.tensor(value)
        ours.update(lambda v: v.value, step, True)
        averaged.update_parameters(module)
        ema.update(module, step=step)
    for theirs in (averaged.module, ema.module):
        expected = [theirs.weight, theirs.bias, theirs.running_mean, theirs.running_var]
        for average, tensor in zip(ours.average, expected, strict=True):
            np.testing.assert_allclose(average.numpy(), tensor.detach().numpy(), rtol=1e-5)
