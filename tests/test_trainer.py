"""Training against NumPy and TensorFlow's own operations, what it leaves, and its image sizes."""

import csv
import gc
import hashlib
import io
import json
import os
import signal
import zipfile
from pathlib import Path
from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled

from kit import files
from kit.signals import Preempted
from kit.training import trainer
from kit.training.schedule import LearningRateScheduler
from tests import small_training
from tests.images import MANIFEST, make_shards
from tests.networks import compile_model, sections
from tests.small_training import train as train_on_shards
from tests.small_training import untrained

STATM = Path("/proc/self/statm")
# a large decay, so that a wrong factor would show
SETTINGS = small_training.NETWORK | {"classes": 6, "weight_decay": 1e-2}
SIZES = {"training_sizes": [[0, 32], [1, 64], [2, 32]]}

PARAMETERS = sections(image_size=32, resize_side=36).training


def batches(count, batch_size=8, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, batch_size, 32, 32, 3)).astype("uint8")
    return images, rng.integers(0, 6, (count, batch_size))


def compiled(strategy, seed=0, **changes):
    keras.utils.set_random_seed(seed)
    return compile_model(strategy, **SETTINGS | changes)


def train(model, images, labels, run_dir, epochs, validation=None):
    data = tf.data.Dataset.from_tensor_slices((images, labels)).repeat()
    training = SimpleNamespace(
        batches=lambda start_step, image_size: data.skip(start_step),
        names=lambda step: [],
        fingerprint="",
        data_dir="",
        batch_size=images.shape[1],
    )
    p = sections(**small_training.VALUES | {"decay_epochs": [1, 2], "keep_checkpoints": 1})
    steps = len(labels) // epochs
    return trainer.fit(
        model,
        training,
        validation or tf.data.Dataset.from_tensors((images[0], labels[0])),
        epochs=epochs,
        steps_per_epoch=steps,
        callbacks=[LearningRateScheduler(p.schedule, steps_per_epoch=steps)],
        run_dir=run_dir,
        parameters={},
        saving=p.saving,
    ).history


def gradients(model, images, labels):
    """Cross-entropy and its gradients alone, by TensorFlow's own operation on one device."""
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        loss = tf.reduce_mean(losses)
    return float(loss), [
        g.numpy() for g in tape.gradient(loss, [w.value for w in model.trainable_weights])
    ]


def test_loss_is_cross_entropy_plus_tensorflows_l2_loss(one_replica, tmp_path):
    images, labels = batches(1)
    model, copy = compiled(one_replica), compiled(tf.distribute.get_strategy())
    copy.set_weights(model.get_weights())
    history = train(model, images, labels, tmp_path, epochs=1)
    cross_entropy, _ = gradients(copy, images[0], labels[0])
    kernels = [w for w in copy.trainable_weights if w.path.endswith("kernel")]
    l2_loss = SETTINGS["weight_decay"] * sum(
        float(tf.nn.l2_loss(kernel.value)) for kernel in kernels
    )
    assert history["cross_entropy"][0] == pytest.approx(cross_entropy, rel=1e-5)
    assert history["loss"][0] == pytest.approx(cross_entropy + l2_loss, rel=1e-5)
    assert history["l2_loss"][0] == pytest.approx(l2_loss, rel=1e-4)


def test_the_parts_of_another_loss_are_measured_alike(one_replica, tmp_path):
    images, labels = batches(1)
    changes = {"loss": "binary_cross_entropy", "target_threshold": 0.2}
    model, copy = (compiled(s, **changes) for s in (one_replica, tf.distribute.get_strategy()))
    history = train(model, images, labels, tmp_path, epochs=1)
    cross_entropy, _ = gradients(copy, images[0], labels[0])
    logits = copy(images[0], training=True)
    binary = tf.nn.sigmoid_cross_entropy_with_logits(tf.one_hot(labels[0], 6), logits)
    l2_loss = float(sum(copy.losses))
    assert history["cross_entropy"][0] == pytest.approx(cross_entropy, rel=1e-5)
    assert history["l2_loss"][0] == pytest.approx(l2_loss, rel=1e-5)
    assert history["loss"][0] == pytest.approx(np.mean(binary) + l2_loss, rel=1e-5)


@pytest.mark.parametrize("replicas", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_training_is_momentum_sgd_over_the_mean_of_the_replicas(replicas, request, tmp_path):
    """Six steps of fit against a NumPy loop: velocity, rate, decay, and the mean over the replicas.

    Batch norm sees each replica's own images, so the reference takes each half by itself.
    """
    strategy = request.getfixturevalue(["one_replica", "two_replicas"][replicas - 1])
    images, labels = batches(6)
    model, copy = compiled(strategy), compiled(tf.distribute.get_strategy())
    copy.set_weights(model.get_weights())
    history = train(model, images, labels, tmp_path, epochs=3)

    losses, velocities = [], [0.0] * len(copy.trainable_weights)
    for step, (image, label) in enumerate(zip(images, labels, strict=True)):
        halves = [
            gradients(copy, i, c)
            for i, c in zip(np.split(image, replicas), np.split(label, replicas), strict=True)
        ]
        losses.append(np.mean([loss for loss, _ in halves]))
        for i, weight in enumerate(copy.trainable_weights):
            gradient = np.mean([g[i] for _, g in halves], axis=0)
            if weight.path.endswith("kernel"):
                gradient = gradient + SETTINGS["weight_decay"] * weight.numpy()
            velocities[i] = 0.9 * velocities[i] - 0.05 * 0.1 ** (step // 2) * gradient
            weight.assign_add(velocities[i])

    np.testing.assert_allclose(
        history["cross_entropy"], np.reshape(losses, (3, 2)).mean(axis=1), rtol=1e-4
    )
    for ours, expected in zip(model.trainable_weights, copy.trainable_weights, strict=True):
        np.testing.assert_allclose(
            ours.numpy(), expected.numpy(), rtol=1e-3, atol=2e-5, err_msg=ours.path
        )


def test_l2_loss_of_the_validation_is_that_of_the_weights(two_replicas, tmp_path):
    images, labels = batches(4)
    model = compiled(two_replicas)
    validation = tf.data.Dataset.from_tensor_slices((images[0], labels[0])).batch(6)  # 6 and 2 left
    history = train(model, images, labels, tmp_path, epochs=2, validation=validation)
    kernels = [w.numpy() for w in model.weights if w.path.endswith("kernel")]
    expected = SETTINGS["weight_decay"] / 2 * sum((kernel**2).sum() for kernel in kernels)
    assert history["val_l2_loss"][-1] == pytest.approx(expected, rel=1e-3)


def test_history_holds_each_epoch(one_replica, tmp_path, capsys):
    images, labels = batches(4)
    history = train(compiled(one_replica), images, labels, tmp_path, epochs=2)
    assert capsys.readouterr().out == ""  # what is shown is for callbacks to say
    columns = [
        *("loss", "cross_entropy", "l2_loss", "top1", "top5"),
        *("val_loss", "val_cross_entropy", "val_l2_loss", "val_top1", "val_top5"),
        *("learning_rate", "gradient_norm", "images_per_second", "input_wait"),
    ]
    assert list(history) == columns
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [0, 1]
    assert list(rows[0]) == ["epoch", *columns]  # as notebooks/README.md says
    assert [float(row["loss"]) for row in rows] == pytest.approx(history["loss"])


def test_the_saved_model_gives_the_same_logits(one_replica, tmp_path):
    images, _ = batches(1)
    model = compiled(one_replica)
    trainer.save_model(model, run_dir=tmp_path, manifest=MANIFEST, parameters=PARAMETERS)
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(loaded(images[0]), model(images[0]))
    metadata = json.loads((tmp_path / "model.json").read_text())
    saved = (tmp_path / "model.keras").read_bytes()
    files.check_seal(metadata)
    assert metadata.pop(files.SEAL)
    assert metadata.pop("sha256") == hashlib.sha256(saved).hexdigest()
    assert metadata == json.loads(json.dumps(trainer.model_metadata(MANIFEST, PARAMETERS)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.keras"]


def test_the_saved_model_holds_each_weight_once_and_no_momentum(one_replica, tmp_path):
    model = compiled(one_replica, ema_decay=0.5)
    train(model, *batches(2), tmp_path / "run", epochs=1)
    assert sum(np.any(variable) for variable in model.optimizer.variables) > 10  # momentum
    trainer.save_model(model, run_dir=tmp_path, manifest=MANIFEST, parameters=PARAMETERS)
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        weights = h5py.File(io.BytesIO(archive.read("model.weights.h5")))
    sizes = []
    weights.visititems(lambda _, item: sizes.append(getattr(item, "size", 0)))
    assert sum(sizes) == model.count_params()


@pytest.mark.parametrize(
    "changes, trained_at, evaluated_at",
    [
        ({}, 32, 32),
        ({"evaluation_size": 40}, 32, 40),
        ({"training_sizes": [[0, 64], [3, 96]], "evaluation_size": 128}, 96, 128),
    ],
)
def test_the_saved_model_says_what_it_was_trained_with(changes, trained_at, evaluated_at):
    parameters = PARAMETERS | changes
    metadata = json.loads(json.dumps(trainer.model_metadata(MANIFEST, parameters)))
    assert metadata["classes"] == MANIFEST["classes"]
    assert (metadata["label_offset"], metadata["store_short_side"]) == (1, 48)
    assert (metadata["training_size"], metadata["image_size"]) == (trained_at, evaluated_at)
    same = ("resnet_version", "stage_sizes", "resize_side", "antialias", "channel_means")
    for name in (*same, "precision"):
        assert metadata[name] == PARAMETERS[name]
    assert (metadata["data"]["images"], metadata["data"]["shards"]) == ({"train": 8}, {"train": 2})
    assert metadata["parameters"] == parameters


def test_the_same_seed_gives_the_same_weights():
    one, same, other = (
        compiled(tf.distribute.get_strategy(), seed).get_weights() for seed in (1, 1, 2)
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("deterministic", [True, False])
def test_operations_are_deterministic_only_if_asked(deterministic):
    trainer.set_seed(0, deterministic=deterministic)
    assert is_op_determinism_enabled() == deterministic


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return make_shards(root, classes=3, images=12, train_shards=4, validation_shards=2)


@pytest.mark.parametrize(
    ("step", "training_sizes", "calls"),
    [
        (0, [], [(0, 0, 5, None)]),
        (23, [], [(23, 2, 3, None), (30, 3, 5, None)]),
        (20, [], [(20, 2, 5, None)]),
        (50, [], []),
        (0, [[0, 160], [3, 192]], [(0, 0, 3, 160), (30, 3, 5, 192)]),
        (0, [[2, 160], [3, 192]], [(0, 0, 2, None), (20, 2, 3, 160), (30, 3, 5, 192)]),
        (15, [[0, 160], [3, 192]], [(15, 1, 2, 160), (20, 2, 3, 160), (30, 3, 5, 192)]),
        (25, [[0, 160], [3, 192]], [(25, 2, 3, 160), (30, 3, 5, 192)]),
        (30, [[0, 160], [3, 192]], [(30, 3, 5, 192)]),
        (41, [[0, 160], [3, 192], [7, 224]], [(41, 4, 5, 192)]),
    ],
)
def test_what_is_left_is_cut_where_the_size_changes(step, training_sizes, calls):
    found = trainer.fit_calls(step, epochs=5, steps_per_epoch=10, training_sizes=training_sizes)
    assert found == calls


class Sizes(keras.callbacks.Callback):
    """Note the size of each step's images; SIGTERM the process after `last` steps."""

    def __init__(self, last=None):
        super().__init__()
        self.last, self.seen = last, []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(self.model.batch[0].shape[1])
        if len(self.seen) == self.last:
            os.kill(os.getpid(), signal.SIGTERM)


def weights(model):
    return [np.array(weight) for weight in [*model.weights, *model.optimizer.variables]]


def train_sized(data_dir, run_dir, last=None):
    """Give the size of each step, the validations' losses and the weights of a training."""
    sizes, model = Sizes(last), untrained()
    history = train_on_shards(model, data_dir, run_dir, callbacks=[sizes], **SIZES).history
    return sizes.seen, history["val_loss"], weights(model)


@pytest.fixture(scope="module")
def whole(data_dir, tmp_path_factory):
    return train_sized(data_dir, tmp_path_factory.mktemp("whole"))


def test_each_epoch_has_its_size(whole):
    seen, losses, _ = whole
    assert seen == [32] * 8 + [64] * 8 + [32] * 8
    assert len(losses) == 3


@pytest.mark.parametrize("cut", [8, 12])
def test_a_run_cut_at_any_size_ends_as_one_that_was_not(whole, cut, data_dir, tmp_path):
    with pytest.raises(Preempted):
        train_sized(data_dir, tmp_path, last=cut)
    seen, losses, found = train_sized(data_dir, tmp_path)
    assert seen == whole[0][cut:]
    assert losses == whole[1]
    for ours, theirs in zip(found, whole[2], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def live_memory():
    """Give the memory that this process holds now, MiB."""
    gc.collect()
    pages = int(STATM.read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
@pytest.mark.skipif(not STATM.exists(), reason="needs Linux")
def test_changes_of_size_do_not_add_up_in_memory(data_dir, tmp_path):
    """Print the memory after each four epochs, each at another size than the one before."""
    held = []

    class Held(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch % 4 == 3:
                held.append(live_memory())

    sizes = [[epoch, 32 + 32 * (epoch % 2)] for epoch in range(40)]
    settings = {"training_sizes": sizes, "epochs": 40, "callbacks": [Held()]}
    train_on_shards(untrained(), data_dir, tmp_path, **settings)
    print("\nMiB:", [round(memory) for memory in held])
    assert held[-1] - held[3] < 30  # six times four changes; a graph of this network is 3 MiB
