"""PyTorch's files read without PyTorch: against torch.load, and files that would run something."""

import os
import pickle
import zipfile

import numpy as np
import pytest

from kit.model.torch_files import read_state


def states():
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(4, 3, 5, 2, generator=generator)
    return {
        "kernel": values,
        "channels_last": values.to(memory_format=torch.channels_last),
        "a part of the same storage": values[1:3],
        "turned": values[0, 0].T,
        "half": values.half(),
        "double": values.double(),
        "count": torch.tensor(7),
        "numbers": torch.arange(5, dtype=torch.int32),
        "empty": torch.zeros(0, 3),
    }


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.slow
def test_a_state_dict_is_read_as_pytorch_reads_it(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    path = tmp_path / "state.pth"
    torch.save(states(), path, _use_new_zipfile_serialization=zipped)
    expected = torch.load(path, weights_only=True)
    found = read_state(path)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(found[name], tensor.numpy())


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.slow
def test_a_network_is_read_with_its_metadata(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    path = tmp_path / "state.pth"
    torch.save(layer.state_dict(), path, _use_new_zipfile_serialization=zipped)
    found = read_state(path)
    for name, tensor in layer.state_dict().items():
        np.testing.assert_array_equal(found[name], tensor.numpy())


class Command:
    """What a hostile file pickles: unpickling it would make a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_run_a_command_runs_nothing(tmp_path, zipped):
    path, made = tmp_path / "hostile.pth", tmp_path / "made"
    data = pickle.dumps({"weight": Command(made)})
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", data)
    else:
        path.write_bytes(data)
    with pytest.raises(pickle.UnpicklingError, match="it names posix.mkdir, which is no part of"):
        read_state(path)
    assert not made.exists()
    pickle.loads(data)  # it would have
    assert made.exists()


class Reach:
    """Pickles a tensor of one storage of four numbers, with any offset, shape and strides."""

    def __init__(self, *place):
        self.place = place

    def __reduce__(self):
        from kit.model.torch_files import rebuild

        return rebuild, (("<f4", "0"), *self.place, False, None)


@pytest.mark.parametrize(
    "place", [(0, (5,), (1,)), (1, (4,), (1,)), (0, (3,), (2,)), (-1, (2,), (1,)), (3, (3,), (-1,))]
)
def test_a_tensor_beyond_its_numbers_is_refused(tmp_path, place):
    path = tmp_path / "damaged.pth"
    data = pickle.dumps({"weight": Reach(*place)}, protocol=2)
    data = data.replace(
        b"ckit.model.torch_files\nrebuild\n", b"ctorch._utils\n_rebuild_tensor_v2\n"
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/data/0", np.arange(4, dtype="<f4").tobytes())
    with pytest.raises(pickle.UnpicklingError, match="beyond its numbers"):
        read_state(path)


@pytest.mark.slow
def test_a_whole_checkpoint_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"state_dict": {}, "epoch": 3}, tmp_path / "checkpoint.pth")
    with pytest.raises(
        pickle.UnpicklingError, match="state_dict is no tensor: save the state dict"
    ):
        read_state(tmp_path / "checkpoint.pth")
