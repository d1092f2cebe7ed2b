"""The training step against NumPy and TensorFlow's own operations, on a one-block network."""

import csv
import hashlib
import io
import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from kit import params
from kit.training import schedule, trainer
from tests import small_training
from tests.images import MANIFEST

# a large decay, so that a wrong factor would show
SETTINGS = small_training.NETWORK | {"classes": 6, "weight_decay": 1e-2}
RATES = small_training.RATES | {"decay_epochs": [1, 2]}

PARAMETERS = params.load() | {"image_size": 32, "resize_side": 36}


def batches(count, batch_size=8, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, batch_size, 32, 32, 3)).astype("uint8")
    return images, rng.integers(0, 6, (count, batch_size))


def compiled(strategy, seed=0, **changes):
    keras.utils.set_random_seed(seed)
    return trainer.compile_model(strategy, **SETTINGS | changes)


def train(model, images, labels, run_dir, epochs, validation=None):
    data = tf.data.Dataset.from_tensor_slices((images, labels)).repeat()
    return trainer.fit(
        model,
        lambda start_step: data.skip(start_step),
        validation or tf.data.Dataset.from_tensors((images[0], labels[0])),
        run_dir=run_dir,
        epochs=epochs,
        steps_per_epoch=len(labels) // epochs,
        training_sizes=[],
        schedule=schedule.scheduler(**RATES),
        parameters={},
        checkpoint_minutes=0.0,
        keep_checkpoints=1,
        on_save_error="stop",
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


@pytest.mark.parametrize("replicas", [1, 2])
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


def test_two_replicas_compute_what_one_does(one_replica, two_replicas, tmp_path):
    """Each half of a batch holds the same images, so that batch norm has no reason to differ."""
    images, labels = batches(6, batch_size=4)
    images, labels = np.concatenate([images, images], 1), np.concatenate([labels, labels], 1)
    models = [compiled(strategy) for strategy in (one_replica, two_replicas)]
    one, two = (
        train(model, images, labels, tmp_path / str(i), epochs=3) for i, model in enumerate(models)
    )
    for name in (
        "loss",
        "cross_entropy",
        "l2_loss",
        "top1",
        "top5",
        "val_loss",
        "val_l2_loss",
        "val_top1",
    ):
        np.testing.assert_allclose(two[name], one[name], rtol=1e-4, atol=1e-5, err_msg=name)
    for a, b in zip(models[0].weights, models[1].weights, strict=True):
        np.testing.assert_allclose(b.numpy(), a.numpy(), rtol=1e-3, atol=2e-5, err_msg=a.path)


def test_l2_loss_of_the_validation_is_that_of_the_weights(two_replicas, tmp_path):
    images, labels = batches(4)
    model = compiled(two_replicas)
    validation = tf.data.Dataset.from_tensor_slices((images[0], labels[0])).batch(6)  # 6 and 2 left
    history = train(model, images, labels, tmp_path, epochs=2, validation=validation)
    kernels = [w.numpy() for w in model.weights if w.path.endswith("kernel")]
    expected = SETTINGS["weight_decay"] / 2 * sum((kernel**2).sum() for kernel in kernels)
    assert history["val_l2_loss"][-1] == pytest.approx(expected, rel=1e-3)


def test_history_holds_each_epoch(one_replica, tmp_path):
    images, labels = batches(4)
    history = train(compiled(one_replica), images, labels, tmp_path, epochs=2)
    names = {"loss", "cross_entropy", "l2_loss", "top1", "top5"}
    columns = names | {f"val_{name}" for name in names}
    columns |= {"learning_rate", "gradient_norm", "images_per_second", "input_wait"}
    assert set(history) == columns
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [0, 1]
    assert set(rows[0]) == columns | {"epoch"}
    assert [float(row["loss"]) for row in rows] == pytest.approx(history["loss"])


def test_the_saved_model_gives_the_same_logits(one_replica, tmp_path):
    images, _ = batches(1)
    model = compiled(one_replica)
    trainer.save_model(model, run_dir=tmp_path, manifest=MANIFEST, parameters=PARAMETERS)
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(loaded(images[0]), model(images[0]))
    metadata = json.loads((tmp_path / "model.json").read_text())
    saved = (tmp_path / "model.keras").read_bytes()
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
        ({"test_size": 40}, 32, 40),
        ({"training_sizes": [[0, 64], [3, 96]], "test_size": 128}, 96, 128),
    ],
)
def test_the_saved_model_says_what_it_was_trained_with(changes, trained_at, evaluated_at):
    parameters = PARAMETERS | changes
    metadata = json.loads(json.dumps(trainer.model_metadata(MANIFEST, parameters)))
    assert metadata["classes"] == MANIFEST["classes"]
    assert (metadata["label_offset"], metadata["store_short_side"]) == (1, 48)
    assert (metadata["training_size"], metadata["image_size"]) == (trained_at, evaluated_at)
    for name in ("version", "stage_sizes", "resize_side", "channel_means", "precision"):
        assert metadata[name] == PARAMETERS[name]
    assert (metadata["data"]["images"], metadata["data"]["shards"]) == ({"train": 8}, {"train": 2})
    assert metadata["parameters"] == parameters


def test_the_same_seed_gives_the_same_weights():
    one, same, other = (
        compiled(tf.distribute.get_strategy(), seed).get_weights() for seed in (1, 1, 2)
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_float16_on_two_replicas_is_refused_before_the_model_is_built(two_replicas):
    with pytest.raises(ValueError, match="mixed_float16 on several replicas"):
        compiled(two_replicas, precision="mixed_float16")
