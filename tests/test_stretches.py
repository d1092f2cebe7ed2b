"""Which epochs are trained at which size, and that a run in parts is the run in one."""

import gc
import os
import signal
from pathlib import Path

import keras
import numpy as np
import pytest
from kit.training.stretches import stretches

from kit.signals import Preempted
from tests.images import make_shards
from tests.small_training import train, untrained

STATM = Path("/proc/self/statm")
SIZES = {"training_sizes": [[0, 32], [1, 64], [2, 32]], "epochs": 3}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return make_shards(root, classes=3, images=12, train_shards=4, validation_shards=2)


@pytest.mark.parametrize(
    ("step", "training_sizes", "parts"),
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
def test_what_is_left_is_cut_where_the_size_changes(step, training_sizes, parts):
    found = stretches(step, epochs=5, steps_per_epoch=10, training_sizes=training_sizes)
    assert found == parts


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


def test_each_epoch_has_its_size(data_dir, tmp_path):
    watcher = Sizes()
    history = train(untrained(), data_dir, tmp_path, watchers=[watcher], **SIZES)
    assert watcher.seen == [32] * 8 + [64] * 8 + [32] * 8
    assert len(history.history["val_top1"]) == 3


@pytest.mark.parametrize("cut", [5, 8, 12])
def test_a_run_cut_at_any_size_ends_as_one_that_was_not(cut, data_dir, tmp_path):
    whole = untrained()
    expected = train(whole, data_dir, tmp_path / "whole", **SIZES).history["val_loss"]
    expected_weights = weights(whole)
    with pytest.raises(Preempted):
        train(untrained(), data_dir, tmp_path / "cut", watchers=[Sizes(cut)], **SIZES)
    rest, model = Sizes(), untrained()
    found = train(model, data_dir, tmp_path / "cut", watchers=[rest], **SIZES).history["val_loss"]
    assert rest.seen == ([32] * 8 + [64] * 8 + [32] * 8)[cut:]
    assert found == expected
    for ours, theirs in zip(weights(model), expected_weights, strict=True):
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
    settings = {"training_sizes": sizes, "epochs": 40, "watchers": [Held()]}
    train(untrained(), data_dir, tmp_path, **settings)
    print("\nMiB:", [round(memory) for memory in held])
    assert held[-1] - held[3] < 30  # six times four changes; a graph of this network is 3 MiB
