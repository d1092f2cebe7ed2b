"""What the kit's step adds to Keras' own, on two replicas and on one."""

import itertools
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from replicated_run import batches, compiled

from kit.training import trainer
from kit.training.step import check_compile, moving_statistics
from kit.training.strategy import make_strategy
from tests.images import MANIFEST
from tests.networks import sections

IMAGES, LABELS = batches()
PARAMETERS = sections().training


def dataset(images=IMAGES, labels=LABELS):
    return tf.data.Dataset.from_tensor_slices((images, labels)).repeat()


def train(model, data=None, steps=3, **options):
    data = dataset() if data is None else data
    return model.fit(data, steps_per_epoch=steps, shuffle=False, verbose=0, **options).history


@pytest.fixture(scope="module")
def trained():
    """Give a model whose two replicas have seen three batches, and the history."""
    strategy = make_strategy(replicas=2)
    model = compiled(strategy)
    history = train(model, validation_data=dataset().unbatch().take(5).batch(4))
    return strategy, model, history


def test_replicas_hold_the_same_statistics_and_evaluate_an_image_alike(trained):
    strategy, model, _ = trained
    for weight in model.weights:
        one, two = (copy.numpy() for copy in strategy.experimental_local_results(weight.value))
        np.testing.assert_array_equal(one, two, err_msg=weight.path)
    forward = tf.function(lambda: model(IMAGES[0], training=False))
    one, two = strategy.experimental_local_results(strategy.run(forward))
    np.testing.assert_array_equal(one, two)


def test_the_saved_model_is_each_replicas_and_loads_without_the_kit(trained, tmp_path):
    strategy, model, _ = trained
    trainer.save_model(model, run_dir=tmp_path, manifest=MANIFEST, parameters=PARAMETERS)
    code = (
        "import sys, keras, numpy\n"
        "model = keras.saving.load_model('model.keras')\n"
        "assert 'kit' not in sys.modules and type(model).__module__.startswith('keras.')\n"
        "numpy.savez('weights.npz', *model.get_weights())"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    saved = np.load(tmp_path / "weights.npz")
    for weight, name in zip(model.weights, saved.files, strict=True):
        for copy in strategy.experimental_local_results(weight.value):
            np.testing.assert_array_equal(copy.numpy(), saved[name], err_msg=weight.path)


def test_the_gradients_norm_is_logged_of_training_alone(trained):
    _, model, history = trained
    assert np.isfinite(history["gradient_norm"]).all()
    assert {"val_loss", "val_top1"} <= set(history)
    assert "val_gradient_norm" not in history
    assert "gradient_norm" not in model.evaluate(dataset().take(1), return_dict=True, verbose=0)


def test_a_step_that_is_not_finite_shows_at_once_and_to_the_end_of_the_epoch(two_replicas):
    """The broken image is one replica's; the norm is the batch's."""
    norms = []
    model = compiled(two_replicas)
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda step, logs: norms.append(float(logs["gradient_norm"]))
    )
    images = IMAGES[:4].astype("float32")
    images[2, -1] = np.inf
    train(model, dataset(images, LABELS[:4]), steps=4, callbacks=[watch])
    assert list(np.isfinite(norms)) == [True, True, False, False]


def test_the_gradient_of_the_whole_batch_is_clipped(two_replicas):
    """SGD's first step is the rate, 0.01, times the gradient."""
    moved = {}
    for longest in (0.0, 0.1):
        model = compiled(two_replicas, clip_grad_norm=longest, weight_decay=0.0)
        before = model.get_weights()
        norm = train(model, steps=1)["gradient_norm"][0]
        pairs = zip(model.weights, before, strict=True)
        moved[longest] = [w.numpy() - value for w, value in pairs if w.trainable]
    assert norm > 0.1
    for clipped, whole in zip(moved[0.1], moved[0.0], strict=True):
        np.testing.assert_allclose(clipped, whole * 0.1 / norm, rtol=1e-3, atol=1e-7)
    length = np.sqrt(sum((part**2).sum() for part in moved[0.1]))
    assert length == pytest.approx(0.01 * 0.1, rel=1e-3)


def test_one_hot_labels_train_as_numbers_do(two_replicas):
    one_hot = np.eye(6, dtype="float32")[LABELS]
    found = [
        train(compiled(two_replicas), dataset(labels=labels), validation_data=dataset().take(1))
        for labels in (LABELS, one_hot)
    ]
    for name, values in found[0].items():
        np.testing.assert_allclose(found[1][name], values, rtol=1e-4, err_msg=name)


def generated(seconds, starts):
    """Give batches that take so long, and note in `starts` each time that they are begun."""

    def generate():
        starts.append(time.perf_counter())
        for step in itertools.count():
            time.sleep(seconds)
            yield IMAGES[step], LABELS[step]

    return tf.data.Dataset.from_generator(generate, output_signature=dataset().element_spec)


def test_time_spent_waiting_for_batches_is_counted(one_replica):
    model = compiled(one_replica)
    train(model)
    before, begin = model.seconds_waiting, time.perf_counter()
    train(model, generated(0.2, []), steps=5)
    waited = model.seconds_waiting - before
    assert 4 * 0.2 < waited < time.perf_counter() - begin  # one may be prefetched in a step's time


def test_fit_begins_the_data_once(one_replica):
    """Keras would begin it twice, to look at a batch: with ImageNet's, minutes of reading."""
    starts = []
    train(compiled(one_replica), generated(0.0, starts))
    assert len(starts) == 1


def test_an_evaluation_may_leave_replicas_without_images(two_replicas):
    """One image for two replicas; its loss as one device has it."""
    model, copy = compiled(two_replicas), compiled(tf.distribute.get_strategy())
    data = dataset().unbatch().take(5).batch(4)
    found, expected = (m.evaluate(data, return_dict=True, verbose=0) for m in (model, copy))
    assert found == pytest.approx(expected, rel=1e-5)


def test_synchronized_batch_norm_needs_no_averaging(two_replicas):
    assert moving_statistics(compiled(two_replicas, batch_norm="synchronized")) == []
    assert len(moving_statistics(compiled(two_replicas))) == 2 * 5  # stem, three and a shortcut


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_softmax_and_loss_are_float32_in_any_precision(precision):
    model = compiled(tf.distribute.get_strategy(), precision=precision, weight_decay=0.0)
    logits = model(IMAGES[0], training=False)
    loss = model.compute_loss(y=LABELS[0], y_pred=logits)
    assert logits.dtype == loss.dtype == tf.float32
    z = logits.numpy().astype("float64")
    expected = np.log(np.exp(z).sum(axis=1)) - z[np.arange(8), LABELS[0]]
    assert float(loss) == pytest.approx(expected.mean(), rel=1e-6)  # bfloat16 holds 1e-2


def test_bfloat16_trains_on_two_replicas(two_replicas):
    exact, model = (
        compiled(two_replicas, precision=precision) for precision in ("float32", "mixed_bfloat16")
    )
    losses = [train(m, epochs=3, steps=1)["loss"] for m in (exact, model)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.02)
    assert {w.dtype for w in model.weights} == {"float32"}


def test_float16_trains_on_one_device():
    model = compiled(tf.distribute.get_strategy(), precision="mixed_float16")
    assert np.isfinite(train(model)["gradient_norm"]).all()


def test_one_device_without_strategy_compiles_with_xla():
    model = compiled(tf.distribute.get_strategy())
    model.compile(keras.optimizers.SGD(0.01), loss=model.loss, jit_compile=True)  # GPUs: "auto"
    assert model.jit_compile
    assert np.isfinite(train(model, steps=1)["gradient_norm"]).all()


@pytest.mark.parametrize(
    "optimizer, settings, reason",
    [
        ({"clipnorm": 1.0}, {}, "clipnorm: 1.0 on 2 replicas clips each replica's gradient"),
        ({"global_clipnorm": 1.0}, {}, "global_clipnorm: 1.0 on 2 replicas"),
        ({"clipvalue": 1.0}, {}, "clipvalue: 1.0 on 2 replicas"),
        ({"gradient_accumulation_steps": 2}, {}, "gradient_accumulation_steps: 2 .* fails"),
        ({"use_ema": True, "ema_overwrite_frequency": 5}, {}, "ema_overwrite_frequency: 5 "),
        ({}, {"jit_compile": True}, "jit_compile: True on 2 replicas fails or hangs"),
        ({}, {"steps_per_execution": 4}, "steps_per_execution: 4 fails on several replicas"),
    ],
)
def test_what_keras_has_wrong_on_replicas_is_refused(trained, optimizer, settings, reason):
    strategy, model, _ = trained
    with strategy.scope(), pytest.raises(ValueError, match=reason):
        model.compile(keras.optimizers.SGD(0.1, **optimizer), loss=model.loss, **settings)


def test_one_device_may_clip():
    model = compiled(tf.distribute.get_strategy())
    model.compile(keras.optimizers.SGD(0.1, global_clipnorm=1.0), loss=model.loss)
    assert np.isfinite(train(model, steps=1)["loss"]).all()


def test_settings_that_are_wrong_on_several_replicas_pass_on_one():
    settings = {"clipnorm": 1.0, "jit_compile": True, "momentum": 0.9}
    check_compile(replicas=1, **settings)
    check_compile(replicas=2, momentum=0.9, clipnorm=None, jit_compile="auto")
    with pytest.raises(ValueError, match="clipnorm: 1.0 on 2 replicas clips each .* train on one"):
        check_compile(replicas=2, **settings)
    with pytest.raises(ValueError, match="steps_per_execution: 4 .* leave it at 1"):
        check_compile(replicas=1, steps_per_execution=4)
