"""What the kit relies on in Keras and TensorFlow, or works around, and no release notes promise.

A failure here means that a release has changed it: its message says what to reconsider.
"""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1])
IMAGES = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")


def small(strategy=None, *layers, optimizer=None, **settings):
    """Give a compiled keras.Model of one dense layer, after `layers`."""
    with (strategy or tf.distribute.get_strategy()).scope():
        keras.utils.set_random_seed(0)
        inputs = x = keras.Input((6,))
        for layer in (*(make() for make in layers), keras.layers.Dense(3)):
            x = layer(x)
        model = keras.Model(inputs, x)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer = optimizer() if optimizer else keras.optimizers.SGD(0.1)
        model.compile(optimizer, loss, **settings)
    return model


def fit(model, images=IMAGES, steps=1, **settings):
    data = tf.data.Dataset.from_tensors((images, LABELS)).repeat()
    return model.fit(data, steps_per_epoch=steps, verbose=0, shuffle=False, **settings).history


def copies(strategy, variable):
    return [copy.numpy() for copy in strategy.experimental_local_results(variable.value)]


def test_keras_lets_moving_statistics_drift_apart(two_replicas):
    norm = keras.layers.BatchNormalization
    model = small(two_replicas, norm)
    fit(model)
    one, two = copies(two_replicas, model.layers[1].moving_mean)
    assert np.abs(one - two).max() > 1e-3, (
        "Keras now averages the moving statistics over the replicas: TrainingModel need not "
        "(_over_replicas, kit/training/step.py)"
    )


def test_synchronized_batch_norm_is_of_the_whole_batch(two_replicas):
    def norm():
        return keras.layers.BatchNormalization(momentum=0.0, synchronized=True)

    model = small(two_replicas, norm)
    fit(model)
    for mean in copies(two_replicas, model.layers[1].moving_mean):
        np.testing.assert_allclose(
            mean,
            IMAGES.mean(axis=0),
            atol=1e-6,
            err_msg="BatchNormalization(synchronized=True) is not: batch_norm must not offer it",
        )


def test_loss_is_scaled_for_the_sum_over_replicas_by_keras(two_replicas):
    one, two = small(), small(two_replicas)
    losses = [fit(model)["loss"][0] for model in (one, two)]
    message = "Keras scales the loss differently on replicas: TrainingModel must divide it itself"
    assert losses[0] == pytest.approx(losses[1], rel=1e-5), message
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6, err_msg=message)


@pytest.mark.parametrize(
    "optimizer, settings",
    [
        ({"gradient_accumulation_steps": 2}, {}),
        ({"use_ema": True, "ema_overwrite_frequency": 2}, {}),
        ({}, {"steps_per_execution": 2}),
    ],
)
def test_what_the_kit_refuses_still_fails_on_replicas(two_replicas, optimizer, settings):
    model = small(
        two_replicas, optimizer=lambda: keras.optimizers.SGD(0.1, **optimizer), **settings
    )
    try:
        fit(model, steps=2)
    except Exception:  # whichever it is now
        return
    pytest.fail(
        f"{optimizer or settings} now works on replicas: TrainingModel.compile need not refuse it"
    )


def test_xla_is_off_under_a_strategy(two_replicas):
    assert not small(two_replicas).jit_compile, (
        "Keras now compiles under a strategy itself (keras#19005): the step's own compilation may "
        "go (_part, kit/training/step.py)"
    )


def test_train_functions_are_made_where_the_kit_makes_its_own():
    model = small()
    model.make_train_function()
    logs = model.train_function([(IMAGES, LABELS)])
    assert isinstance(logs, dict) and "loss" in logs, (
        "Keras' train_function no longer takes a list of a batch: see make_train_function in "
        "kit/training/step.py"
    )
    assert "self.train_function(iterator)" in inspect.getsource(keras.Model.fit), (
        "fit no longer hands an iterator to train_function: seconds_waiting counts nothing"
    )


def test_symbolic_build_is_asked_for_where_the_kit_answers():
    model = small(optimizer=lambda: keras.optimizers.SGD(0.1, momentum=0.9))
    calls = []
    model._maybe_symbolic_build = lambda **given: calls.append(given)
    fit(model)
    assert calls, "fit no longer calls _maybe_symbolic_build: it may draw a batch, see step.py"
    model = small(optimizer=lambda: keras.optimizers.SGD(0.1, momentum=0.9))
    model._symbolic_build(data_batch=(model.inputs[0], keras.KerasTensor((None,), "int64")))
    assert model.optimizer.built and len(model.optimizer.variables) == 4, (
        "_symbolic_build no longer makes the optimizer's variables: a checkpoint would lack them"
    )


def test_logs_are_averaged_over_the_first_axis_on_several_hosts():
    source = inspect.getsource(inspect.getmodule(keras.Model.fit).reduce_per_replica)
    assert 'strategy.reduce("MEAN", v, axis=0)' in source, (
        "Keras reduces the logs of several hosts differently (keras#20585): "
        "reconsider the log of test_step in kit/training/step.py"
    )


class Order(keras.callbacks.Callback):
    """Note each call, and how many steps the metrics then count."""

    def __init__(self, name, calls):
        super().__init__()
        self.name, self.calls = name, calls

    def note(self, event):
        self.calls.append((event, self.name, float(self.model.metrics[0].count.value)))

    def on_train_begin(self, logs=None):
        self.note("train_begin")

    def on_epoch_begin(self, epoch, logs=None):
        self.note("epoch_begin")

    def on_train_batch_end(self, batch, logs=None):
        self.note("batch_end")

    def on_epoch_end(self, epoch, logs=None):
        assert "val_loss" in logs, "validation no longer comes before on_epoch_end: val_* are lost"
        logs["added"] = 1.0
        self.note("epoch_end")


def test_fit_resets_metrics_first_and_calls_callbacks_in_their_order():
    calls = []
    callbacks = [Order("a", calls), Order("b", calls)]
    history = fit(
        small(),
        steps=2,
        epochs=2,
        callbacks=callbacks,
        validation_data=tf.data.Dataset.from_tensors((IMAGES, LABELS)),
    )
    counts = [count for event, name, count in calls if event == "epoch_begin"]
    assert counts == [0, 0, 0, 0], (
        "fit no longer resets metrics before on_epoch_begin: a resumed epoch restores them there"
    )
    order = [(event, name) for event, name, _ in calls]
    one_epoch = [("epoch_begin",), ("batch_end",), ("batch_end",), ("epoch_end",)]
    expected = [(*event, name) for event in [("train_begin",), *one_epoch * 2] for name in "ab"]
    assert order == expected, (
        "fit calls callbacks in another order: measurements and checkpoints rely on the old"
    )
    assert history["added"] == [1.0, 1.0], (
        "what a callback adds to an epoch's logs no longer reaches the next: l2_loss is lost"
    )


def test_the_scheduler_sets_the_rate_as_an_epoch_begins():
    rates = []
    model = small()
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: rates.append(
            float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
        )
    )
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, rate: [0.5, 0.25][epoch])
    history = fit(model, steps=2, epochs=2, callbacks=[watch, scheduler])
    assert rates == [0.5, 0.5, 0.25, 0.25], (
        "LearningRateScheduler no longer acts at epoch begin: drops of the rate would come late"
    )
    assert history["learning_rate"] == [0.5, 0.25], "the learning rate is no longer logged by epoch"


def test_a_checkpoint_holds_a_keras_model_and_its_optimizer(tmp_path, two_replicas):
    def made():
        model = small(two_replicas, optimizer=lambda: keras.optimizers.SGD(0.1, momentum=0.9))
        with two_replicas.scope():
            model.optimizer.build(model.trainable_variables)
        return model, tf.train.Checkpoint(model=model, optimizer=model.optimizer)

    model, checkpoint = made()
    fit(model, steps=3)
    tf.train.CheckpointManager(checkpoint, tmp_path, max_to_keep=1).save()
    fresh, other = made()
    status = other.restore(tf.train.latest_checkpoint(tmp_path))
    status.assert_existing_objects_matched()
    message = "tf.train.Checkpoint no longer restores a Keras model: see kit/training/checkpoint.py"
    pairs = zip(model.optimizer.variables, fresh.optimizer.variables, strict=True)
    for saved, restored in [*pairs, *zip(model.weights, fresh.weights, strict=True)]:
        np.testing.assert_array_equal(saved.numpy(), restored.numpy(), err_msg=message)


def test_a_functional_graph_makes_a_subclass_whose_steps_are_its_own():
    class Named(keras.Model):
        def train_step(self, data):
            return super().train_step(data) | {"mine": tf.constant(1.0)}

    base = small()
    model = Named(base.input, base.output)
    model.compile(keras.optimizers.SGD(0.1), base.loss)
    assert "mine" in fit(model), "a functional subclass of keras.Model lost its train_step"
    assert model.layers == base.layers, "a model over another's graph no longer shares its layers"
