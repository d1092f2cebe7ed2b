"""What is written of a model, and what is read of it after the files were damaged."""

import random
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from kit.training.checkpoint import Checkpoints, load_best, seeds_of


class Network(keras.Sequential):
    """Enough of a network: weights, moving statistics, a seed generator, momentum."""

    def __init__(self, units=3):
        super().__init__(
            [
                keras.Input((5,)),
                keras.layers.Dense(units, name="dense"),
                keras.layers.BatchNormalization(name="norm"),
                keras.layers.Dropout(0.5, seed=0, name="dropout"),
            ],
            name="network",
        )
        self.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse", metrics=["mae"])
        self.optimizer.build(self.trainable_variables)

    def step(self):
        rng = np.random.default_rng(0)
        self.train_on_batch(rng.normal(size=(4, 5)), rng.normal(size=(4, self.output_shape[1])))

    def values(self):
        variables = [*self.weights, *seeds_of(self), *self.optimizer.variables]
        return [variable.numpy().tolist() for variable in variables]


@pytest.fixture(scope="module")
def network():
    return Network()


@pytest.fixture
def folder(network, tmp_path):
    """Three checkpoints, of progress 1, 2 and 3; the second is the best."""
    write(network, tmp_path, keep=3)
    return tmp_path


def write(network, folder, keep):
    checkpoints = Checkpoints(network, folder=folder, keep=keep)
    for number in 1, 2, 3:
        network.step()
        checkpoints.save({"number": number}, best=number == 2)
    checkpoints.wait()


def restored(folder, keep=3):
    model = Network()
    return Checkpoints(model, folder=folder, keep=keep).restore(), model


def newest(folder, suffix):
    return max(folder.glob(f"newest/ckpt-*{suffix}"), key=lambda path: int(path.stem[5:]))


def test_all_that_decides_what_comes_is_restored(network, folder):
    progress, model = restored(folder)
    assert progress == {"number": 3}
    assert model.values() == network.values()
    for _ in range(2):  # momentum, moving statistics and dropout go on alike
        network.step()
        model.step()
    assert model.values() == network.values()


def test_a_new_folder_holds_nothing(tmp_path):
    assert restored(tmp_path)[0] is None


def test_later_changes_do_not_reach_what_is_being_written(network, tmp_path):
    expected = network.values()
    checkpoints = Checkpoints(network, folder=tmp_path, keep=1)
    checkpoints.save({})
    network.step()
    checkpoints.wait()
    assert restored(tmp_path)[1].values() == expected


def test_the_last_two_are_kept_and_the_best_beside(network, tmp_path):
    write(network, tmp_path, keep=2)
    assert len(list(tmp_path.glob("newest/*.index"))) == 2
    (best,) = tmp_path.glob("best/*.index")
    progress = tf.train.load_checkpoint(str(best.with_suffix("")))
    assert b'"number": 2' in progress.get_tensor("progress/.ATTRIBUTES/VARIABLE_VALUE")


def test_the_best_weights_can_be_taken(tmp_path):
    network, kernels = Network(), []
    checkpoints = Checkpoints(network, folder=tmp_path / "checkpoints", keep=1)
    for number in 1, 2, 3:
        network.step()
        kernels.append(network.get_layer("dense").kernel.numpy())
        checkpoints.save({}, best=number == 2)
    checkpoints.wait()
    load_best(network, run_dir=tmp_path)
    np.testing.assert_array_equal(network.get_layer("dense").kernel.numpy(), kernels[1])
    with pytest.raises(FileNotFoundError, match="no checkpoint; one is there after"):
        load_best(network, run_dir=tmp_path / "elsewhere")


def test_tensorflows_own_asynchronous_checkpoint_still_fails_on_keras_variables(network, tmp_path):
    """If this fails, Keras or TensorFlow has mended it: Checkpoints may do without its copies."""
    checkpoint = tf.train.Checkpoint(model=network)
    options = tf.train.CheckpointOptions(experimental_enable_async_checkpoint=True)
    checkpoint.save(str(tmp_path / "first"), options=options)
    with pytest.raises(ValueError, match="only supports singleton tf.Variables"):
        checkpoint.save(str(tmp_path / "second"), options=options)


def flip(path, source):
    data = bytearray(path.read_bytes())
    bit = source.randrange(len(data) * 8)
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def cut(path, source):
    path.write_bytes(path.read_bytes()[: source.randrange(path.stat().st_size)])


def lose(path, source):
    path.unlink()


@pytest.mark.parametrize("damage", [flip, cut, lose])
@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_used(
    folder, suffix, damage, caplog, tmp_path_factory
):
    """A flipped bit of the index may be one that says nothing: then all is read as it was."""
    whole = restored(folder)[1].values()
    for seed in range(1 if damage is lose else 8):
        copy = tmp_path_factory.mktemp("copy") / "checkpoints"
        shutil.copytree(folder, copy)
        damage(newest(copy, suffix), random.Random(seed))
        caplog.clear()
        progress, model = restored(copy)
        if "is damaged (" in caplog.text:
            assert progress == {"number": 2}
            assert model.values() != whole
        else:
            assert (damage, suffix) == (flip, ".index")
            assert (progress, model.values()) == ({"number": 3}, whole)


def test_the_next_checkpoint_takes_the_place_of_a_damaged_one(network, folder):
    cut(newest(folder, ".index"), random.Random(0))
    checkpoints = Checkpoints(Network(), folder=folder, keep=3)
    checkpoints.restore()
    checkpoints.save({"number": "again"})
    checkpoints.wait()
    assert restored(folder)[0] == {"number": "again"}


def test_without_a_whole_checkpoint_nothing_is_made_up(folder):
    for path in folder.glob("newest/*.data*"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="damaged; delete them to start anew"):
        restored(folder)


def test_what_tensorflows_manager_wrote_is_read(network, folder):
    """Older kits wrote with it; its list of checkpoints may be damaged."""
    ours = Checkpoints(network, folder=folder, keep=3)
    ours.progress.assign('{"number": 4}')
    tf.train.CheckpointManager(ours.checkpoint, str(folder / "newest"), 9).save(checkpoint_number=4)
    (folder / "newest" / "checkpoint").write_text("damaged")
    assert restored(folder)[0] == {"number": 4}


def test_what_a_killed_save_left_is_removed(folder):
    newest_dir = folder / "newest"
    (newest_dir / "ckpt-9_temp").mkdir()
    (newest_dir / "ckpt-9_temp" / "part").write_text("half")
    (newest_dir / "ckpt-9.data-00000-of-00001").write_text("no index yet")
    (newest_dir / "checkpoint.tmp123").write_text("not yet renamed")
    assert restored(folder)[0] == {"number": 3}
    assert {path.name.split(".")[0] for path in newest_dir.iterdir()} <= {
        *("checkpoint", "ckpt-1", "ckpt-2", "ckpt-3", "ckpt-4")
    }


def test_a_checkpoint_of_another_network_is_refused(folder):
    other = Checkpoints(Network(units=4), folder=folder, keep=3)
    with pytest.raises(ValueError, match="is of another network; take another run_dir"):
        other.restore()


def test_a_run_may_be_moved(folder, tmp_path_factory):
    moved = tmp_path_factory.mktemp("moved") / "checkpoints"
    shutil.move(folder, moved)
    assert restored(moved)[0] == {"number": 3}


def test_both_replicas_are_restored(two_replicas, tmp_path):
    with two_replicas.scope():
        model = Network()
    checkpoints = Checkpoints(model, folder=tmp_path, keep=1)
    for variable in model.trainable_variables:
        variable.assign(variable + 1)
    checkpoints.save({})
    checkpoints.wait()
    expected = model.values()
    for variable in model.trainable_variables:
        variable.assign(variable * 0)
    checkpoints.restore()
    assert model.values() == expected
    for variable in model.trainable_variables:
        one, two = two_replicas.experimental_local_results(variable.value)
        np.testing.assert_array_equal(one, two)
