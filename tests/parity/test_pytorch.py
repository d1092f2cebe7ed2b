"""The kit's network, its gradients and its training steps against torchvision's and PyTorch's."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kit.model import weights
from kit.model.weight_files import transposed
from kit.training import losses
from kit.training.optimizers import make_optimizer
from kit.training.step import TrainingModel
from tests import pytorch
from tests.networks import sections
from tests.parity.both import (
    NETWORK,
    in_double,
    kit_network,
    source,
    torch_network,
    torch_optimizer,
    torch_pixels,
    torch_steps,
)

pytestmark = pytest.mark.slow
VERSIONS = ["1", "1.5"]
STEPS = 20
MOMENTUM = 0.875  # NVIDIA's; float32, in which Keras keeps it, rounds 0.9


@pytest.fixture
def torch():
    return pytorch.torch()


@pytest.fixture(autouse=True)
def single_again():
    yield
    keras.config.set_floatx("float32")


def batches(count):
    """List (images uint8 [8, 64, 64, 3], labels int64 [8]): a colour for each class, and noise."""
    rng = np.random.default_rng(0)
    colours = rng.integers(40, 216, (NETWORK["classes"], 1, 1, 3))
    labels = rng.integers(0, NETWORK["classes"], (count, 8))
    noise = rng.normal(0, 40, (count, 8, 64, 64, 3))
    images = np.clip(colours[labels] + noise, 0, 255).astype("uint8")
    return list(zip(images, labels, strict=True))


def torch_logits(network, images):
    torch = pytorch.torch()
    with torch.no_grad():
        return network.eval()(torch_pixels(images, torch.float32)).numpy()


@pytest.mark.parametrize("version", VERSIONS)
def test_logits_agree_when_values_move_to_pytorch_and_back(version, torch):
    images = np.random.default_rng(1).integers(0, 256, (8, 64, 64, 3)).astype("uint8")
    ours = kit_network(version)
    theirs = torch_network(ours)
    expected = torch_logits(theirs, images)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(ours(images), expected, rtol=0, atol=1e-4)

    with torch.no_grad():
        for value in theirs.parameters():
            value.mul_(1 + 0.01 * torch.randn_like(value))
    expected = torch_logits(theirs, images)
    state = {name: transposed(value.numpy()) for name, value in theirs.state_dict().items()}
    found = weights.fitting(ours, state, weights.torchvision_name)
    weights.put(ours, found, source(ours))
    np.testing.assert_allclose(ours(images), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_gradient_agrees(version, torch):
    images, labels = batches(1)[0]
    network = kit_network(version)
    theirs = torch_network(network).double()
    logits = theirs(torch_pixels(images, torch.float64))
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).backward()
    expected = {name: value.grad.numpy() for name, value in theirs.named_parameters()}

    ours = in_double(network)
    variables = {key: v for key, v in weights.variables(ours).items() if v.trainable}
    with tf.GradientTape() as tape:
        logits = ours(images, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    gradients = tape.gradient(loss, [variable.value for variable in variables.values()])
    found = dict(zip(variables, (gradient.numpy() for gradient in gradients), strict=True))
    found = weights.in_torchvision_layout(found)
    assert found.keys() == expected.keys() and len(found) == 161
    for name, value in expected.items():
        error = np.abs(found[name] - value).max()
        assert error <= 1e-6 * np.abs(value).max(), name


def trained(network, steps, **values):
    """Train the network on each batch; give what is logged of each step."""
    model = TrainingModel(network.input, network.output, name=network.name)
    p = sections(momentum=MOMENTUM, **values)
    model.compile(
        make_optimizer(model, p.optimizer, p.weight_decay, p.schedule.learning_rate),
        clip_grad_norm=p.optimizer.clip_grad_norm,
        loss=losses.ClassificationLoss(p.loss),
        metrics=losses.metrics()[:1],  # the others take no float64
    )
    images, labels = (np.stack(part) for part in zip(*batches(steps), strict=True))
    data = tf.data.Dataset.from_tensor_slices((images, labels)).repeat()
    history = model.fit(data, epochs=steps, steps_per_epoch=1, shuffle=False, verbose=0)
    return {name: np.array(values) for name, values in history.history.items()}


@pytest.mark.parametrize("version, optimizer", [("1", "sgd"), ("1.5", "sgd"), ("1.5", "lamb")])
def test_twenty_steps_agree(version, optimizer, torch):
    """Losses, weights and statistics; PyTorch's own SGD, timm's LAMB."""
    pytorch.timm()
    from timm.optim import Lamb

    rate, decay = {"sgd": (2**-9, 2**-3), "lamb": (2**-10, 2**-6)}[optimizer]  # never rounded
    in_the_loss = decay if optimizer == "sgd" else 0.0
    network = kit_network(version, stage_sizes=(1, 1, 1, 1), weight_decay=in_the_loss)
    ours, theirs = in_double(network), torch_network(network).double()
    before = {name: value.clone() for name, value in theirs.state_dict().items()}
    if optimizer == "sgd":
        rival = torch_optimizer(
            theirs, torch.optim.SGD, weight_decay=decay, lr=rate, momentum=MOMENTUM
        )
    else:
        rival = torch_optimizer(theirs, Lamb, weight_decay=decay, lr=rate, max_grad_norm=1.0)
    counts = values_per_channel(theirs)
    expected = torch_steps(theirs, rival, batches(STEPS), [rate] * STEPS)
    logs = trained(
        ours,
        STEPS,
        optimizer=optimizer,
        learning_rate=rate,
        weight_decay=decay,
        clip_grad_norm=1.0 if optimizer == "lamb" else 0.0,
    )
    np.testing.assert_allclose(logs["cross_entropy"], expected, rtol=1e-9)
    found = weights.to_torchvision(ours, source(ours))
    for name, value in theirs.state_dict().items():
        value, start = value.numpy(), before[name].numpy()
        if name.endswith("num_batches_tracked"):
            continue
        if name.endswith("running_var"):  # PyTorch's counts n values as n - 1, Keras' as n
            n, kept = counts[name.removesuffix(".running_var")], 0.9**STEPS
            found[name] = kept * start + (found[name] - kept * start) * n / (n - 1)
        error = np.linalg.norm(found[name] - value)
        moved, rounded = np.linalg.norm(value - start), 1e-7 * np.linalg.norm(value)
        assert error <= 1e-6 * moved + rounded, name


def values_per_channel(network):
    """Give {batch norm's name: how many values of a channel it sees in a step}, filled by steps."""
    counts = {}
    for name, module in network.named_modules():
        if type(module).__name__ == "BatchNorm2d":
            module.register_forward_pre_hook(
                lambda module, inputs, name=name: counts.update(
                    {name: inputs[0].numel() // inputs[0].shape[1]}
                )
            )
    return counts
