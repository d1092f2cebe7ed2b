"""What TensorBoard reads of a training: its own reader of event files, and its own server."""

import io
import json
import time
import urllib.error
import urllib.request
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard import default, program
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from kit.training.callbacks import Measurements, Progress
from kit.training.tensorboard import TAGS, TensorBoard
from tests import small_training
from tests.images import make_shards
from tests.networks import compile_model
from tests.test_trainer import SETTINGS, batches

STEPS = 3
CUT = 12  # step of small_training: the fourth of the second epoch's eight
PARAMETERS = {"learning_rate": 0.05, "decay_epochs": [1, 2], "resnet_version": "1.5"}


def train(model, run_dir, first, last):
    """Train epochs first..last - 1, as one process of a run that may have been interrupted."""
    images, labels = batches(STEPS)
    data = tf.data.Dataset.from_tensor_slices((images, labels))
    return model.fit(
        data.repeat(),
        validation_data=data.take(1),
        initial_epoch=first,
        epochs=last,
        steps_per_epoch=STEPS,
        callbacks=[Measurements(batch_size=8), TensorBoard(run_dir, parameters=PARAMETERS)],
        shuffle=False,
        verbose=0,
    ).history


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """Give a run of four epochs, killed in its third and resumed from its second, and that part."""
    run_dir = tmp_path_factory.mktemp("run")
    keras.utils.set_random_seed(0)
    model = compile_model(tf.distribute.get_strategy(), **SETTINGS)
    train(model, run_dir, 0, 3)
    model.optimizer.iterations.assign(STEPS)
    time.sleep(1.1)  # files are read in the order of their names, which hold the second
    return run_dir, train(model, run_dir, 1, 4)


def read(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def test_resumed_epochs_replace_those_that_are_trained_again(interrupted):
    run_dir, history = interrupted
    for split, prefix in ("train", ""), ("validation", "val_"):
        events = read(run_dir / "logs" / split)
        for name in ("loss", "cross_entropy", "l2_loss", "top1", "top5"):
            found = events.Tensors(TAGS[name])
            assert [event.step for event in found] == [1, 2, 3, 4]
            values = [float(tf.make_ndarray(event.tensor_proto)) for event in found[1:]]
            np.testing.assert_allclose(values, history[prefix + name], rtol=1e-6)


def test_the_axis_is_one_in_tensorboard_itself(interrupted):
    run_dir, history = interrupted
    server = program.TensorBoard(plugins=default.get_plugins())
    server.configure(["", f"--logdir={run_dir}/logs", "--host=127.0.0.1", "--port=0"])
    address = f"{server.launch()}data/plugin/scalars/scalars?run=train&tag={TAGS['loss']}"
    points, give_up = [], time.monotonic() + 60
    while len(points) < 4 and time.monotonic() < give_up:
        time.sleep(0.3)
        points = fetch(address)
    assert [step for _, step, _ in points] == [1, 2, 3, 4]
    np.testing.assert_allclose([value for *_, value in points[1:]], history["loss"], rtol=1e-6)


def fetch(address):
    try:
        with urllib.request.urlopen(address) as answer:
            return json.load(answer)
    except urllib.error.HTTPError:  # until the files are read
        return []


def test_only_the_training_split_holds_what_validation_does_not_have(interrupted):
    run_dir, _ = interrupted
    train, validation = (
        {tag for tag in read(run_dir / "logs" / split).Tags()["tensors"] if "/" in tag}
        for split in ("train", "validation")
    )
    assert validation == {tag for tag in TAGS.values() if tag.startswith(("loss", "accuracy"))}
    assert train - validation >= {TAGS["gradient_norm"], TAGS["input_wait"]}


def test_each_epoch_shows_images_as_the_network_got_them(interrupted):
    run_dir, _ = interrupted
    events = read(run_dir / "logs" / "train").Tensors("augmented")
    assert [event.step for event in events] == [1, 2, 3, 4]
    width, height, *encoded = tf.make_ndarray(events[0].tensor_proto)
    assert (width, height) == (b"32", b"32")
    shown = [tf.io.decode_png(image).numpy() for image in encoded]
    np.testing.assert_array_equal(shown, batches(STEPS)[0][0][:4])


def test_the_first_replicas_images_are_shown(two_replicas, tmp_path):
    model = compile_model(two_replicas, **SETTINGS)
    data = tf.data.Dataset.from_tensor_slices(batches(STEPS)).unbatch().batch(8)
    model.batch = next(iter(two_replicas.experimental_distribute_dataset(data)))
    callback = TensorBoard(tmp_path, parameters=PARAMETERS)
    callback.set_model(model)
    callback.on_epoch_begin(0)
    callback.on_train_batch_end(0)
    callback.on_train_end()
    (event,) = read(tmp_path / "logs" / "train").Tensors("augmented")
    shown = [tf.io.decode_png(image).numpy() for image in tf.make_ndarray(event.tensor_proto)[2:]]
    np.testing.assert_array_equal(shown, batches(STEPS)[0][0][:4])


def test_the_parameters_stand_in_a_table_and_the_input_in_a_line(interrupted):
    events = read(interrupted[0] / "logs" / "train")
    (text,) = [tf.make_ndarray(event.tensor_proto)[()] for event in events.Tensors("parameters")]
    assert text.decode().splitlines()[2:] == [
        "| learning_rate | `0.05` |",
        "| decay_epochs | `[1, 2]` |",
        "| resnet_version | `1.5` |",
    ]
    lines = [tf.make_ndarray(event.tensor_proto)[()] for event in events.Tensors("input_bound")]
    assert len(lines) == 4
    assert all(line.startswith((b"input-bound: yes (", b"input-bound: no (")) for line in lines)


def test_the_graph_folds_into_stages_and_blocks(interrupted):
    nodes = {node.name: node for node in read(interrupted[0] / "logs" / "train").Graph().node}
    assert {name.split("/")[0] for name in nodes} == {
        *("images", "subtract", "stem", "stage1", "stage2", "head", "logits")
    }
    assert set(nodes["stage1/block1/add"].input) == {
        "stage1/block1/norm3",
        "stage1/block1/shortcut_norm",
    }
    assert nodes["stage2/block1/conv1"].input == ["stage1/block1/relu3"]
    assert nodes["logits"].op == "Dense"
    assert not nodes["images"].input


def test_a_new_training_replaces_the_logs_of_the_one_before(tmp_path):
    model = compile_model(tf.distribute.get_strategy(), **SETTINGS)
    for _ in range(2):
        model.optimizer.iterations.assign(0)
        train(model, tmp_path, 0, 1)
    for split in ("train", "validation"):
        assert len(list((tmp_path / "logs" / split).iterdir())) == 1


def test_a_first_epoch_that_is_resumed_shows_the_parameters_once(tmp_path):
    model = compile_model(tf.distribute.get_strategy(), **SETTINGS)
    for steps_before in 0, 2:
        model.optimizer.iterations.assign(steps_before)
        callback = TensorBoard(tmp_path, parameters=PARAMETERS)
        callback.set_model(model)
        callback.on_epoch_begin(0)
        callback.on_train_end()
        time.sleep(1.1)  # see `interrupted`
    (event,) = read(tmp_path / "logs" / "train").Tensors("parameters")
    assert event.step == 0


class Cut(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations.numpy()) == CUT:
            raise RuntimeError("cut")


def test_an_epoch_that_is_cut_and_resumed_is_one_point_and_one_line(tmp_path):
    data_dir, run_dir, stream = make_shards(tmp_path), tmp_path / "run", io.StringIO()
    run, train_on = small_training.RUN, partial(small_training.train, data_dir=data_dir)

    def shown():
        sizes = {"epochs": run["epochs"], "steps_per_epoch": run["steps_per_epoch"]}
        progress = Progress(**sizes, print_fn=partial(print, file=stream))
        return [progress, TensorBoard(run_dir, parameters=run["parameters"])]

    cut = {"run_dir": run_dir, "callbacks": [Cut(), *shown()], "checkpoint_minutes": 1e-9}
    with pytest.raises(RuntimeError, match="cut"):
        train_on(small_training.compiled(), **cut)
    history = train_on(small_training.compiled(), run_dir=run_dir, callbacks=shown()).history
    for split, prefix in ("train", ""), ("validation", "val_"):
        for name in "loss", "top1":
            found = read(run_dir / "logs" / split).Tensors(TAGS[name])
            assert [event.step for event in found] == [1, 2, 3]
            values = [float(tf.make_ndarray(event.tensor_proto)) for event in found]
            np.testing.assert_allclose(values, history[prefix + name], rtol=1e-6)
    lines = [line.split("  ")[1] for line in stream.getvalue().splitlines()]
    lines = [line for line in lines if not line.startswith("first step after")]
    assert lines == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
