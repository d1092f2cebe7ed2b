"""A training that is stopped and goes on, against the same one that was never stopped."""

import contextlib
import csv
import functools
import json
import os
import resource
import shutil
import signal
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from kit import params
from kit.signals import Preempted
from kit.training import backup, run_state
from kit.training.checkpoint import checkpoints_in, load_best
from tests.images import make_shards
from tests.networks import sections
from tests.small_training import compiled, train, training_data, untrained

TIMED = {"images_per_second", "input_wait"}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return make_shards(root, classes=3, images=12, train_shards=4, validation_shards=2)


@pytest.fixture(scope="module")
def whole(data_dir, tmp_path_factory):
    """The run that nothing stops: its folder, variables, and history."""
    run_dir = tmp_path_factory.mktemp("whole")
    model = untrained()
    history = train(model, data_dir, run_dir).history
    return run_dir, [variable.numpy() for variable in model.variables], history


class At(keras.callbacks.Callback):
    """Do something after a step, counted from 1 through all epochs, or amid a validation."""

    def __init__(self, action, *, step=None, validation=None):
        super().__init__()
        self.action, self.step, self.validation = action, step, validation

    def iterations(self):
        return int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))

    def on_train_batch_begin(self, batch, logs=None):
        if self.iterations() + 1 == self.step:
            self.action()

    def on_test_batch_begin(self, batch, logs=None):
        if batch == 1 and self.iterations() == self.validation:
            self.action()


def terminate(times=1):
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGTERM)


def rows(run_dir):
    with (run_dir / "history.csv").open() as file:
        return [
            {name: text for name, text in row.items() if name not in TIMED}
            for row in csv.DictReader(file)
        ]


def test_a_run_stopped_thrice_ends_bit_for_bit_as_one_never_stopped(whole, data_dir, tmp_path):
    """Amid an epoch, by two SIGTERM at once; amid a validation; and at an epoch's last step."""
    stops = [
        (At(lambda: terminate(2), step=3), 3),
        (At(terminate, validation=8), 8),
        (At(terminate, step=16), 16),
    ]
    for stop, step in stops:
        with pytest.raises(Preempted, match=f"SIGTERM: saved after step {step}"):
            train(untrained(), data_dir, tmp_path, callbacks=[stop])
    model = compiled()  # as in a new process
    history = train(model, data_dir, tmp_path).history

    run_dir, reference, expected = whole
    for ours, theirs in zip(model.variables, reference, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs, err_msg=ours.path)
    assert rows(tmp_path) == rows(run_dir)
    assert set(history) == set(expected)
    assert history["val_top1"] == expected["val_top1"]
    assert np.isfinite(history["images_per_second"]).all()


@pytest.mark.slow
def test_so_it_does_with_all_that_keeps_a_state_of_its_own(data_dir, tmp_path):
    """LAMB, an average of the weights, drop path and a rate of each step, on two replicas."""
    options = {"optimizer": "lamb", "ema_decay": 0.9, "clip_grad_norm": 1.0, "drop_path": 0.5}
    rates = {"schedule": "cosine", "warmup_epochs": 1, "schedule_update": "step"}

    def run(run_dir, *callbacks):
        settings = {"epochs": 2, "callbacks": callbacks, **rates}
        model = compiled(replicas=2, **options)
        return model, train(model, data_dir, run_dir, **settings).history

    for stop in (At(terminate, step=3), At(terminate, validation=8)):
        with pytest.raises(Preempted):
            run(tmp_path / "cut", stop)
    (model, history), (whole, expected) = run(tmp_path / "cut"), run(tmp_path / "whole")
    pairs = zip(state_of(model), state_of(whole), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.path)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert history["val_loss"] == expected["val_loss"]


def state_of(model):
    return [*model.variables, *model.optimizer.variables, *model.average.average]


class Scored(keras.callbacks.Callback):
    """Give the epochs these accuracies in place of their own."""

    def __init__(self, top1):
        super().__init__()
        self.top1 = top1

    def on_epoch_end(self, epoch, logs=None):
        logs["val_top1"] = self.top1[epoch]


def saved(run_dir, kind="newest"):
    """List the progress in each checkpoint of a kind, the oldest first."""
    paths = map(str, checkpoints_in(run_dir / "checkpoints" / kind))
    name = "progress/.ATTRIBUTES/VARIABLE_VALUE"
    return [json.loads(tf.train.load_checkpoint(path).get_tensor(name)) for path in paths]


@pytest.mark.parametrize("top1, best", [([0.6, 0.4, 0.2], 1), ([0, 0, 0], 1), ([0.3, 0.5, 0.5], 2)])
def test_the_epoch_of_the_highest_accuracy_is_kept_the_first_of_equals(
    data_dir, tmp_path, top1, best
):
    """Over all sessions: each of these is stopped in its second epoch and goes on."""
    stop, settings = At(terminate, step=3), {"steps_per_epoch": 2}
    with pytest.raises(Preempted):
        train(untrained(), data_dir, tmp_path, callbacks=[Scored(top1), stop], **settings)
    train(untrained(), data_dir, tmp_path, callbacks=[Scored(top1)], **settings)
    (progress,) = saved(tmp_path, "best")
    assert len(progress["history"]) == best
    assert progress["step"] == 2 * best


@pytest.fixture(scope="module")
def each_epoch(data_dir, tmp_path_factory):
    """The weights after each epoch of a training that keeps the last."""
    found = []

    class Weights(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            found.append([weight.numpy() for weight in self.model.weights])

    last, _ = weights_after(data_dir, tmp_path_factory.mktemp("run"), Weights(), top1=[0.9] * 6)
    assert_equal(last, found[-1])  # though the first was as good
    return found


@pytest.mark.parametrize(
    "top1, epochs, best",
    [
        ([0.1, 0.5, 0.3, 0.5, 0.9, 0.9], 4, 2),  # an equal one is no better
        ([0.6, 0.5, 0.4, 0.9, 0.9, 0.9], 3, 1),
        ([0.1, 0.5, 0.3, 0.6, 0.7, 0.2], 6, 5),  # it does not stop early, and keeps the best
    ],
)
def test_training_stops_after_two_epochs_that_are_no_better(
    each_epoch, data_dir, tmp_path, top1, epochs, best
):
    """The model is the best epoch's, as a training of so many epochs leaves it."""
    stop = At(terminate, step=2 * epochs - 1)  # in the last epoch: the count goes on
    with pytest.raises(Preempted):
        weights_after(data_dir, tmp_path, stop, top1=top1, patience=2)
    for _ in range(2):  # the second time as after a kill before the model is saved
        weights, shown = weights_after(data_dir, tmp_path, top1=top1, patience=2)
        assert shown == top1[:epochs]
        assert_equal(weights, each_epoch[best - 1])


def weights_after(data_dir, run_dir, *callbacks, top1, **settings):
    """Give the weights after a training whose validations are scored so, and the scores seen."""
    model, callbacks = untrained(), [Scored(top1), *callbacks]
    settings |= {"epochs": 6, "steps_per_epoch": 2, "decay_epochs": [1]}
    history = train(model, data_dir, run_dir, callbacks=callbacks, **settings).history
    return [weight.numpy() for weight in model.weights], history["val_top1"]


def assert_equal(weights, expected):
    for ours, theirs in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


class Clock(keras.callbacks.Callback):
    """A clock that each step takes so many seconds further; stands for the module time."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds, self.now = seconds, 1000.0

    def monotonic(self):
        return self.now

    def on_train_batch_end(self, batch, logs=None):
        self.now += self.seconds


@pytest.mark.parametrize(
    "minutes, steps",
    [
        (0.5, [3, 6, 8, 11, 14, 16]),
        (0, [8, 16]),
        (1.5, [8, 16]),
    ],
)
def test_a_save_is_due_so_long_after_the_one_before(
    data_dir, tmp_path, monkeypatch, minutes, steps
):
    """Steps of ten seconds, eight to an epoch, at whose end each is saved too."""
    clock = Clock(10)
    monkeypatch.setattr(backup, "time", clock)
    often = {"checkpoint_minutes": minutes, "keep_checkpoints": 99, "epochs": 2}
    train(untrained(), data_dir, tmp_path, callbacks=[clock], **often)
    assert [progress["step"] for progress in saved(tmp_path)] == steps


def test_a_run_that_dies_loses_what_came_after_its_last_timed_save(data_dir, tmp_path):
    def die():
        raise MemoryError("as a process does that is killed")

    with pytest.raises(MemoryError):
        crash = At(die, step=6)
        train(untrained(), data_dir, tmp_path, callbacks=[crash], checkpoint_minutes=1e-9)
    assert saved(tmp_path)[-1]["step"] == 5


@pytest.mark.parametrize("seconds, noticed", [(1, 13), (9, 12), (0.1, 16)])
def test_the_loss_is_looked_at_every_five_seconds_and_at_an_epochs_end(
    data_dir, tmp_path, monkeypatch, seconds, noticed
):
    """Spoilt at step 12, the fourth of its epoch; the look before was at step 8, an epoch's end."""
    clock, model = Clock(seconds), untrained()
    monkeypatch.setattr(backup, "time", clock)

    def spoil():
        model.get_layer("logits").kernel.assign(np.full((32, 3), np.nan))

    with pytest.raises(RuntimeError, match="in epoch 2, at its step 4; "):
        train(model, data_dir, tmp_path, callbacks=[At(spoil, step=12), clock])
    assert round((clock.now - 1000) / seconds) == noticed


def test_a_stopped_notebook_loses_no_step(data_dir, tmp_path):
    interrupt = functools.partial(os.kill, os.getpid(), signal.SIGINT)
    model = untrained()
    with pytest.raises(KeyboardInterrupt, match="saved after step 5"):
        train(model, data_dir, tmp_path, callbacks=[At(interrupt, step=5)])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(Preempted, match="saved after step 7"):  # in the same kernel
        train(model, data_dir, tmp_path, callbacks=[At(terminate, step=7)])


def test_other_parameters_are_refused_with_the_difference(data_dir, tmp_path):
    model = untrained()
    with pytest.raises(Preempted):
        train(model, data_dir, tmp_path, callbacks=[At(terminate, step=1)])
    changed = {"seed": 0, "learning_rate": 0.1}
    with pytest.raises(ValueError, match=r"learning_rate: 0.05 there, 0.1 now"):
        train(model, data_dir, tmp_path, parameters=changed)
    other = make_shards(tmp_path / "other", classes=3, images=3)
    with pytest.raises(ValueError, match="shards: "):
        train(untrained(), other, tmp_path)


def test_a_finished_run_of_more_epochs_ends_bit_for_bit_as_one_that_had_them(
    data_dir, tmp_path, caplog
):
    values = params.load("demo", {"schedule": "steps", "decay_epochs": [2], "warmup_epochs": 0})
    run = {"parameters": values.training | {"epochs": 2}, "epochs": 2}
    model = untrained()
    train(model, data_dir, tmp_path / "short", **run)
    (tmp_path / "short/model.keras").write_text("two epochs")
    run_state.finish(tmp_path / "short")
    assert "this training is finished" not in caplog.text
    train(untrained(), data_dir, tmp_path / "short", **run)  # nothing is left to do
    assert caplog.text.count("this training is finished") == 1
    run = {"parameters": values.training | {"epochs": 3}, "epochs": 3}
    train(untrained(), data_dir, tmp_path / "short", **run)
    extended = [variable.numpy() for variable in model.variables]
    train(untrained(), data_dir, tmp_path / "whole", **run)
    for one, other in zip(extended, model.variables, strict=True):
        np.testing.assert_array_equal(one, other.numpy())
    assert len(rows(tmp_path / "short")) == 3
    assert caplog.text.count("this training is finished") == 1


def test_a_checkpoint_of_another_run_is_refused(data_dir, tmp_path):
    train(untrained(), data_dir, tmp_path / "other", epochs=1)
    parameters = {"seed": 1, "learning_rate": 0.05}
    with pytest.raises(Preempted):
        train(
            untrained(),
            data_dir,
            tmp_path / "mine",
            parameters=parameters,
            callbacks=[At(terminate, step=1)],
        )
    newest = tmp_path / "mine/checkpoints/newest"
    for path in (tmp_path / "other/checkpoints/newest").glob("ckpt-1.*"):
        shutil.copy(path, newest / path.name.replace("ckpt-1", "ckpt-9"))
    with pytest.raises(ValueError, match="ckpt-9 is a checkpoint of another training"):
        train(untrained(), data_dir, tmp_path / "mine", parameters=parameters)


def test_a_run_goes_on_in_a_folder_of_any_name(data_dir, tmp_path):
    run_dir = tmp_path / "~ *? é 漢 {a,b} b\\s [1]"
    for step in 2, 11, 13:
        with pytest.raises(Preempted, match=f"saved after step {step}$"):
            train(untrained(), data_dir, run_dir, callbacks=[At(terminate, step=step)])
    assert len(train(untrained(), data_dir, run_dir).history["loss"]) == 3
    indices = list((run_dir / "checkpoints/newest").glob("*.index"))
    assert len(indices) == 3  # keep_checkpoints
    load_best(untrained(), run_dir=run_dir)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_loss_that_is_not_finite_stops_and_names_the_images(data_dir, tmp_path, replicas):
    model = untrained(replicas)

    def spoil():
        model.get_layer("logits").kernel.assign(np.full((32, 3), np.nan))

    with pytest.raises(RuntimeError, match="loss became nan in epoch 2, at its step 4; "):
        train(
            model,
            data_dir,
            tmp_path,
            callbacks=[At(spoil, step=12)],
            checkpoint_minutes=1e-9,
        )
    report = json.loads((tmp_path / "nonfinite.json").read_text())
    assert report == {"step": 11, "loss": "nan", "images": training_data(data_dir).names(11)}
    assert len(report["images"]) == 4
    model = untrained(replicas)
    with pytest.raises(Preempted, match="saved after step 12"):  # the last good one was step 11
        train(model, data_dir, tmp_path, callbacks=[At(terminate, step=12)])
    assert all(np.isfinite(variable.numpy()).all() for variable in model.variables)


def test_a_gradient_that_is_not_finite_stops_before_its_step_is_saved(tmp_path):
    """The loss of that step is finite still, as it is of the weights before."""
    settings = {"run_dir": tmp_path, "parameters": {}, "steps_per_epoch": 8, "names": None}
    ours = backup.Backup(None, None, sections().saving, **settings)
    found = {"step": 9, "loss": 1.0, "gradient_norm": float("inf")}
    ours.set_model(types.SimpleNamespace(nonfinite=found))
    with pytest.raises(
        RuntimeError, match="the gradient_norm became inf in epoch 2, at its step 2"
    ):
        ours.check_finite()


@pytest.mark.parametrize("several, batches", [(False, 30), (True, 3)])
def test_several_hosts_exchange_flags_after_every_tenth_batch(monkeypatch, several, batches):
    settings = {"run_dir": "", "parameters": {}, "steps_per_epoch": 8, "names": None}
    ours = backup.Backup(None, None, sections().saving, **settings)
    ours.set_model(types.SimpleNamespace(distribute_strategy=None))
    monkeypatch.setattr(backup, "several_hosts", lambda strategy: several)
    due = [batch for batch in range(30) if ours.exchange_due(batch)]
    assert len(due) == batches and due[-1] == 29


def test_a_trained_model_is_refused_for_a_new_run(data_dir, tmp_path):
    model = untrained()
    train(model, data_dir, tmp_path / "one", epochs=1)
    with pytest.raises(ValueError, match="trained for 8 steps; compile it anew"):
        train(model, data_dir, tmp_path / "two", epochs=1)


@contextlib.contextmanager
def largest_file(size):
    """Let no file of this process grow beyond `size` bytes; Python ignores the signal for it."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_without_room_training_stops_and_the_checkpoint_before_is_whole(data_dir, tmp_path):
    with pytest.raises(Preempted, match="saved after step 5"):
        train(untrained(), data_dir, tmp_path, callbacks=[At(terminate, step=5)])
    with largest_file(20_000), pytest.raises(OSError, match="a checkpoint could not be written"):
        train(untrained(), data_dir, tmp_path, checkpoint_minutes=1e-9)
    assert not list(tmp_path.glob("checkpoints/*/*_temp*"))
    with pytest.raises(Preempted, match="saved after step 6"):
        train(untrained(), data_dir, tmp_path, callbacks=[At(terminate, step=6)])


def test_without_room_training_goes_on_if_asked(whole, data_dir, tmp_path, caplog):
    with largest_file(20_000):
        history = train(untrained(), data_dir, tmp_path, on_save_error="continue").history
    assert history["loss"] == whole[2]["loss"]
    assert caplog.text.count("training goes on without it") == 3
    assert not list(tmp_path.glob("checkpoints/*/*.index"))


def test_a_folder_that_is_gone_comes_back_with_the_next_checkpoint(data_dir, tmp_path):
    run_dir = tmp_path / "run"

    def vanish():
        shutil.rmtree(run_dir)

    with pytest.raises(Preempted, match="saved after step 5"):
        train(untrained(), data_dir, run_dir, callbacks=[At(vanish, step=4), At(terminate, step=5)])
    with pytest.raises(Preempted, match="saved after step 6"):
        train(untrained(), data_dir, run_dir, callbacks=[At(terminate, step=6)])


def test_a_folder_that_takes_nothing_more_stops_training_with_a_clear_line(data_dir, tmp_path):
    run_dir = tmp_path / "run"

    def block():
        shutil.rmtree(run_dir)
        run_dir.write_text("a file stands where the folder was")

    with pytest.raises(OSError, match=r"run: a checkpoint could not be written .*make room"):
        train(untrained(), data_dir, run_dir, callbacks=[At(block, step=4)])
