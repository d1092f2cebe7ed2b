"""The training step against NumPy and TensorFlow's own operations, on a one-block network."""

import csv
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from kit.training import schedule, trainer

SMALL = {"width": 4, "stage_sizes": (1, 1)}
SETTINGS = {
    "classes": 6,
    "version": "1.5",
    "channel_means": [123.68, 116.779, 103.939],
    "batch_norm": "per_replica",
    "batch_norm_momentum": 0.9,
    "batch_norm_epsilon": 1e-5,
    "zero_gamma": False,
    "weight_decay": 1e-2,  # large, so that a wrong factor would show
    "learning_rate": 0.05,
    "momentum": 0.9,
    "precision": "float32",
    **SMALL,
}
RATES = {"learning_rate": 0.05, "decay_epochs": [1, 2], "decay_factor": 0.1, "warmup_epochs": 0}


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
    classes = [(f"n{i}", f"thing {i}") for i in range(6)]
    sizes = {"image_size": 32, "resize_side": 36, "store_short_side": 48}
    trainer.save_model(model, run_dir=tmp_path, classes=classes, version="1.5", **sizes)
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(loaded(images[0]), model(images[0]))
    metadata = json.loads((tmp_path / "model.json").read_text())
    assert metadata["classes"][2] == {"wnid": "n2", "name": "thing 2"}
    assert {name: metadata[name] for name in sizes} == sizes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.keras"]


def test_the_same_seed_gives_the_same_weights():
    one, same, other = (
        compiled(tf.distribute.get_strategy(), seed).get_weights() for seed in (1, 1, 2)
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_float16_on_two_replicas_is_refused_before_the_model_is_built(two_replicas):
    with pytest.raises(ValueError, match="mixed_float16 on several replicas"):
        compiled(two_replicas, precision="mixed_float16")
