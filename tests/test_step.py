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
from kit.training.nonfinite import Nonfinite
from kit.training.optimizers import Sgd
from kit.training.step import moving_statistics
from kit.training.strategy import make_strategy
from kit.training.validation import padded
from tests.images import MANIFEST
from tests.networks import sections

IMAGES, LABELS = batches()
PARAMETERS = sections().training
XLA = pytest.param(True, marks=pytest.mark.slow)  # it takes long to compile for a CPU


def dataset(images=IMAGES, labels=LABELS):
    return tf.data.Dataset.from_tensor_slices((images, labels)).repeat()


VALIDATION = dataset().unbatch().take(5).batch(4)


def train(model, data=None, steps=3, **options):
    data = dataset() if data is None else data
    return model.fit(data, steps_per_epoch=steps, shuffle=False, verbose=0, **options).history


@pytest.fixture(scope="module")
def trained():
    """Give a model whose two replicas have seen three batches, and the history of each."""
    strategy = make_strategy(replicas=2)
    model = compiled(strategy)
    history = train(model, epochs=3, steps=1, validation_data=VALIDATION)
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


@pytest.mark.parametrize("xla", [False, XLA])
def test_from_a_step_that_is_not_finite_on_nothing_changes(two_replicas, xla):
    """The broken image is one replica's; its step, the third, is kept on the devices."""
    model = compiled(two_replicas, ema_decay=0.9, xla=xla)
    whole = IMAGES[:2].astype("float32")
    broken = np.copy(whole)
    broken[0, -1] = np.inf
    train(model, dataset(whole, LABELS[:2]), steps=2)
    assert model.nonfinite is None
    before = [copy.numpy() for copy in state_of(two_replicas, model)]
    train(model, dataset(broken, LABELS[:2]), steps=1)
    train(model, dataset(whole, LABELS[:2]), steps=2)
    found = model.nonfinite
    assert found["step"] == 2
    assert not np.isfinite([found["loss"], found["gradient_norm"]]).all()
    for copy, value in zip(state_of(two_replicas, model), before, strict=True):
        np.testing.assert_array_equal(copy.numpy(), value)


@pytest.mark.parametrize("step", [0, 1, 7])
def test_the_first_step_that_is_not_finite_is_kept(one_replica, step):
    kept = Nonfinite(one_replica)

    def check(loss, norm, at):
        own = lambda variable: one_replica.experimental_local_results(variable)[0]  # noqa: E731
        return bool(kept.check(own, tf.constant(norm), tf.constant(loss), tf.constant(at)))

    for _ in range(2):  # of a run, and of the next one
        assert check(2.0, 3.0, step)
        assert kept.read() is None
        assert not check(2.5, np.inf, step)
        assert not check(np.nan, 4.0, step)
        assert not check(2.0, 3.0, step)
        assert kept.read() == {"step": step, "loss": 2.5, "gradient_norm": np.inf}
        kept.forget()
        assert kept.read() is None


def state_of(strategy, model):
    """List each replica's weights, moving statistics, average and optimizer variables."""
    variables = [*model.weights, *model.average.average, *model.optimizer.variables]
    results = strategy.experimental_local_results
    return [copy for variable in variables for copy in results(variable.value)]


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


def test_one_hot_labels_train_as_numbers_do(trained):
    strategy, _, expected = trained
    one_hot = dataset(labels=np.eye(6, dtype="float32")[LABELS])
    found = train(compiled(strategy), one_hot, epochs=3, steps=1, validation_data=VALIDATION)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, err_msg=name)


def generated(seconds, starts):
    """Give batches that take so long, and note in `starts` each time that they are begun."""

    def generate():
        starts.append(time.perf_counter())
        for step in itertools.count():
            time.sleep(seconds)
            yield IMAGES[step], LABELS[step]

    return tf.data.Dataset.from_generator(generate, output_signature=dataset().element_spec)


@pytest.fixture(scope="module")
def alone():
    """Give a model of one replica, whose graph is made."""
    model = compiled(make_strategy(replicas=1))
    train(model)
    return model


def test_time_spent_waiting_for_batches_is_counted(alone):
    model = alone
    before, begin = model.seconds_waiting, time.perf_counter()
    train(model, generated(0.2, []), steps=5)
    waited = model.seconds_waiting - before
    assert 4 * 0.2 < waited < time.perf_counter() - begin  # one may be prefetched in a step's time


def test_fit_begins_the_data_once(alone):
    """Keras would begin it twice, to look at a batch: with ImageNet's, minutes of reading."""
    starts = []
    train(alone, generated(0.0, starts))
    assert len(starts) == 1


def test_an_evaluation_may_leave_replicas_without_images(trained):
    """One image for two replicas; its loss as one device has it."""
    _, model, _ = trained
    copy = compiled(tf.distribute.get_strategy())
    copy.set_weights(model.get_weights())
    found, expected = (m.evaluate(VALIDATION, return_dict=True, verbose=0) for m in (model, copy))
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_moving_statistics_are_those_of_each_batch_norm(trained):
    assert len(moving_statistics(trained[1])) == 2 * 5  # stem, three and a shortcut


@pytest.mark.parametrize("fill", [lambda data: data, lambda data: padded(data, 4)])
def test_an_evaluations_numbers_are_numpys(trained, fill):
    """Seven images, whose labels are all six; what padding there is counts nothing."""
    _, model, _ = trained
    images, labels = np.concatenate(IMAGES)[:7], np.array([0, 0, 1, 2, 3, 4, 5])
    logits = model(images, training=False).numpy().astype("float64")
    right = logits[range(7), labels]
    higher = (logits > right[:, None]).sum(axis=1)
    kernels = [w.numpy() for w in model.weights if w.path.endswith("kernel")]
    expected = {
        "cross_entropy": np.mean(np.log(np.exp(logits).sum(axis=1)) - right),
        "l2_loss": 1e-2 / 2 * sum((kernel**2).sum() for kernel in kernels),
        "top1": np.mean(higher < 1),
        "top5": np.mean(higher < 5),
    }
    expected["loss"] = expected["cross_entropy"] + expected["l2_loss"]
    data = fill(tf.data.Dataset.from_tensor_slices((images, labels)).batch(4))
    found = model.evaluate(data, return_dict=True, verbose=0)
    assert found == pytest.approx(expected, rel=1e-5)
    assert 0 < expected["top1"] < expected["top5"] < 1  # or they could not tell much


def test_compile_does_what_it_is_asked_for_and_nothing_else():
    model = compiled(tf.distribute.get_strategy())
    model.compile(Sgd(0.1, momentum=0.9), loss=model.loss)
    assert (model.average, model.clip_grad_norm, model.xla) == (None, 0, False)
    model.compile(Sgd(0.1, momentum=0.9), loss=model.loss, ema_decay=0.9, xla=True)
    assert (model.average.decay, model.clip_grad_norm, model.xla) == (0.9, 0, True)


@pytest.mark.parametrize("precision", ["mixed_bfloat16"])
def test_softmax_and_loss_are_float32_in_any_precision(precision):
    model = compiled(tf.distribute.get_strategy(), precision=precision, weight_decay=0.0)
    logits = model(IMAGES[0], training=False)
    loss = model.compute_loss(y=LABELS[0], y_pred=logits)
    assert logits.dtype == loss.dtype == tf.float32
    z = logits.numpy().astype("float64")
    expected = np.log(np.exp(z).sum(axis=1)) - z[np.arange(8), LABELS[0]]
    assert float(loss) == pytest.approx(expected.mean(), rel=1e-6)  # bfloat16 holds 1e-2


def test_bfloat16_trains_on_two_replicas(trained):
    strategy, _, exact = trained
    model = compiled(strategy, precision="mixed_bfloat16")
    losses = train(model, epochs=3, steps=1)["loss"]
    np.testing.assert_allclose(losses, exact["loss"], rtol=0.02)
    assert {w.dtype for w in model.weights} == {"float32"}


def test_an_optimizer_that_the_step_does_not_know_is_refused(trained):
    strategy, model, _ = trained
    with strategy.scope(), pytest.raises(ValueError, match="optimizer: SGD cannot train here"):
        model.compile(keras.optimizers.SGD(0.1, clipnorm=1.0), loss=model.loss)
    with strategy.scope(), pytest.raises(ValueError, match="steps_per_execution: 4 fails"):
        model.compile(Sgd(0.1, momentum=0.9), loss=model.loss, steps_per_execution=4)


def test_padding_counts_nothing_in_an_evaluation(trained):
    """Five images in batches of four, with three of label -1 after them, and without."""
    _, model, _ = trained
    expected = model.evaluate(VALIDATION, return_dict=True, verbose=0)
    found = model.evaluate(padded(VALIDATION, 4), return_dict=True, verbose=0)
    assert found == pytest.approx(expected, rel=1e-6)
    assert set(found) == {"loss", "cross_entropy", "l2_loss", "top1", "top5"}


def test_xla_refuses_synchronized_batch_norm(two_replicas):
    with pytest.raises(ValueError, match="xla: true cannot compile batch_norm: synchronized"):
        compiled(two_replicas, batch_norm="synchronized", xla=True)


OPTIONS = {
    "sgd": {"label_smoothing": 0.1},
    "lamb": {
        "optimizer": "lamb",
        "clip_grad_norm": 1.0,
        "ema_decay": 0.9,
        "loss": "binary_cross_entropy",
    },
    "drop_path": {"drop_path": 0.5},
    "bfloat16": {"precision": "mixed_bfloat16"},
}


@pytest.mark.slow  # XLA takes long to compile for a CPU
@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("options", OPTIONS)
def test_xla_trains_as_without(options, replicas):
    """Four steps: loss, gradient norm and every weight, to what float32 rounds (bfloat16: its)."""
    strategy = make_strategy(replicas=replicas)
    histories, weights = [], []
    for xla in (False, True):
        trainer.set_seed(0, deterministic=False)
        model = compiled(strategy, xla=xla, **OPTIONS[options])
        histories.append(train(model, steps=1, epochs=4))
        weights.append([copy.numpy() for w in model.weights for copy in [w]])
    tolerance = 0.05 if options == "bfloat16" else 2e-3
    for name, values in histories[0].items():
        np.testing.assert_allclose(histories[1][name], values, rtol=tolerance, err_msg=name)
    for one, other in zip(*weights, strict=True):
        scale = max(np.abs(one).max(), 1e-3)
        np.testing.assert_allclose(other / scale, one / scale, atol=10 * tolerance)


@pytest.mark.slow  # XLA compiles ten functions
def test_a_part_is_compiled_once_for_each_replica_and_size(two_replicas):
    """One for training and one for evaluation, of each size; the update has no size."""
    model = compiled(two_replicas, xla=True)
    for size in (32, 16):
        images = IMAGES[:, :, :size, :size]
        model.train_function = model.test_function = None  # as trainer.fit does
        for _ in range(2):
            train(model, dataset(images), validation_data=dataset(images).take(2))
    counts = {name: part.experimental_get_tracing_count() for name, part in model.parts.items()}
    for place in (0, 1):
        parts = ("gradients", "update", "count")
        assert [counts[part, place] for part in parts] == [2, 1, 2]
    assert len(counts) == 6


def test_an_epoch_reads_the_device_a_few_times_and_not_once_a_step(alone, monkeypatch):
    """Each read goes through the tensor's own method, numpy(), whoever asks."""
    reads = []
    tensor = type(tf.constant(0))
    whole = tensor._numpy_internal
    monkeypatch.setattr(tensor, "_numpy_internal", lambda self: reads.append(1) or whole(self))
    counts = []
    for steps in (4, 24):
        reads.clear()
        train(alone, steps=steps)
        counts.append(len(reads))
    assert counts[0] == counts[1] > 0, counts
