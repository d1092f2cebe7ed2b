"""Weights of other libraries' networks, with random values, and the logits that these give."""

import json
import re

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format

from kit.data.manifest import ClassName
from kit.files import hash_file, seal, write_json
from kit.model.weights import APPLICATIONS, TORCHVISION, read_into, write_torchvision
from tests import networks, pytorch

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype("uint8")
SMALL = {"width": 8, "stage_sizes": [1, 2]}


def network(source, **changes):
    version = "1" if source is APPLICATIONS else "1.5"
    given = {"classes": 7, "resnet_version": version, "channel_means": source.channel_means}
    given |= {"batch_norm_epsilon": 1e-3}  # none of theirs
    return randomised(networks.network(**given | changes))


def randomised(model):
    """Give a Keras model all of whose values matter."""
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if "kernel" not in weight.path:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    return model


def assert_close(logits, expected):
    """Compare to 1e-4 of the largest; these networks' logits run to hundreds."""
    expected = np.asarray(expected)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.fixture(scope="module")
def applications(tmp_path_factory):
    """Give keras.applications' network and a file of its weights."""
    theirs = keras.applications.ResNet50(
        weights=None, classes=7, classifier_activation=None, input_shape=(64, 64, 3)
    )
    path = tmp_path_factory.mktemp("applications") / "theirs.weights.h5"
    randomised(theirs).save_weights(path)
    return theirs, path


@pytest.fixture(scope="module")
def small():
    return network(TORCHVISION, **SMALL)


def test_keras_applications_gives_its_logits_after_its_own_preprocessing(applications, tmp_path):
    theirs, path = applications
    theirs.save(tmp_path / "theirs.keras")
    with h5py.File(tmp_path / "theirs.h5", "w") as file:  # as before Keras 3
        legacy_h5_format.save_weights_to_hdf5_group(file, theirs)
    prepared = keras.applications.resnet.preprocess_input(PIXELS.astype("float32"))
    model = network(APPLICATIONS)
    for file in (path, tmp_path / "theirs.keras", tmp_path / "theirs.h5"):
        for weight in model.weights:
            weight.assign(np.zeros(weight.shape))
        assert read_into(model, file) == ("keras.applications", "")
        assert_close(model(PIXELS), theirs(prepared))


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_the_kits_own_weights_come_back(small, suffix, tmp_path):
    path = tmp_path / f"ours{suffix}"
    (small.save if suffix == ".keras" else small.save_weights)(path)
    model = network(TORCHVISION, **SMALL, drop_path=0.2)
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape))
    assert read_into(model, path) == ("the kit", "")
    expected = {weight.path: weight.numpy() for weight in small.weights}
    assert len(expected) == len(model.weights)
    for weight in model.weights:
        np.testing.assert_array_equal(weight, expected[weight.path])


def test_another_epsilon_of_batch_norm_goes_into_the_variances(small, tmp_path):
    small.save(tmp_path / "ours.keras")
    model = network(TORCHVISION, **SMALL, batch_norm_epsilon=0.1)
    read_into(model, tmp_path / "ours.keras")
    assert_close(model(PIXELS), small(PIXELS))


def test_a_head_of_other_classes_stays_as_it_was(small, tmp_path):
    small.save(tmp_path / "ours.keras")
    model = network(TORCHVISION, **SMALL, classes=3)
    head = [weight.numpy() for weight in model.get_layer("logits").weights]
    assert "so many classes" in read_into(model, tmp_path / "ours.keras").anew
    for ours, expected in zip(model.get_layer("logits").weights, head, strict=True):
        np.testing.assert_array_equal(ours, expected)
    np.testing.assert_array_equal(
        model.get_layer("stem_conv").kernel, small.get_layer("stem_conv").kernel
    )


def named(*names):
    return [ClassName(f"n{name}", name) for name in names]


@pytest.fixture
def pets(tmp_path):
    """Give the model.keras of a training on three pets."""
    model = network(TORCHVISION, **SMALL, classes=3)
    model.save(tmp_path / "model.keras")
    rows = [name._asdict() for name in named("cat", "dog", "hen")]
    values = {"classes": rows, "sha256": hash_file(tmp_path / "model.keras")}
    write_json(tmp_path / "model.json", seal(values))
    return tmp_path / "model.keras"


@pytest.mark.parametrize(
    "names, said",
    [
        ("cat dog hen", "^weights of the kit are loaded$"),
        (
            "cat hen dog",
            "loaded, but of the last layer, .*anew: its classes are others: 'dog' there is 'hen'",
        ),
        ("cat dog", "loaded, but of the last layer, .*anew: the file has none for so many classes"),
    ],
)
def test_the_last_layer_is_taken_over_for_the_same_classes_alone(pets, names, said):
    model = network(TORCHVISION, **SMALL, classes=len(names.split()))
    head = model.get_layer("logits").kernel
    before = head.numpy()
    loaded = read_into(model, pets, named(*names.split()))
    assert re.search(said, str(loaded))
    assert (not loaded.anew) == (names == "cat dog hen") == (not np.array_equal(before, head))
    assert len(str(loaded).splitlines()) == 1


def test_a_file_whose_classes_nothing_tells_is_taken_to_be_of_the_datas(pets):
    model = network(TORCHVISION, **SMALL, classes=3)
    assert read_into(model, pets, named("a", "b", "c")).anew
    other = json.loads(pets.with_name("model.json").read_text()) | {"sha256": "0" * 64}
    write_json(pets.with_name("model.json"), seal(other))  # of another file
    assert not read_into(model, pets, named("a", "b", "c")).anew
    pets.with_name("model.json").unlink()
    assert not read_into(model, pets, named("a", "b", "c")).anew


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"width": 16}, r"ours.keras: \w+/0 is \(.*\), not \(.*\): weights of another network"),
        ({"stage_sizes": [1, 1]}, "stage2_block2_add is in the file alone: weights of another"),
        ({"stage_sizes": [2, 2]}, "stage1_block2_add is in this network alone"),
        ({"resnet_version": "1"}, "stage2_block1_conv2_pad is in the file alone"),
        ({"blur_pool": True}, "stage2_block1_conv2_blur1 is in this network alone"),
        (
            {"channel_means": [1, 2, 3]},
            r"channel_means: \[1.0, 2.0, 3.0\] are not .*: set them to \[123",
        ),
    ],
)
def test_the_kits_weights_of_another_network_are_refused(small, changes, said, tmp_path):
    small.save(tmp_path / "ours.keras")
    model = network(TORCHVISION, **SMALL | changes)
    before = [weight.numpy() for weight in model.weights]
    with pytest.raises(ValueError, match=said):
        read_into(model, tmp_path / "ours.keras")
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


@pytest.mark.parametrize(
    "changes, said",
    [
        (
            {"resnet_version": "1.5", **SMALL},
            'keras.applications has ResNet-50 in version "1": set resnet_version',
        ),
        ({"stage_sizes": [3, 4, 6, 2]}, "conv5_block3_1_bn/0 has no place in this network"),
        ({"stage_sizes": [3, 4, 6, 4]}, "conv5_block4_1_conv/0 is missing"),
        ({"blur_pool": True, **SMALL}, "keras.applications has no blur_pool: set it to false"),
        (
            {"channel_means": [0, 0, 0], **SMALL},
            r"channel_means: .* set them to \[123.68, 116.779, 103.939",
        ),
    ],
)
def test_another_librarys_weights_of_another_network_are_refused(applications, changes, said):
    with pytest.raises(ValueError, match=f"theirs.weights.h5: {said}"):
        read_into(network(APPLICATIONS, **changes), applications[1])


@pytest.mark.slow
def test_version_2_of_keras_applications_is_refused(tmp_path):
    keras.applications.ResNet50V2(weights=None, classes=7).save_weights(tmp_path / "v2.weights.h5")
    with pytest.raises(ValueError, match="v2.weights.h5: .* has no place in this network"):
        read_into(network(APPLICATIONS), tmp_path / "v2.weights.h5")


def test_what_holds_no_weights_is_named(small, tmp_path):
    with pytest.raises(FileNotFoundError, match="none.keras: no such file; take one of .keras, "):
        read_into(small, tmp_path / "none.keras")
    for name in ("text.keras", "text.h5"):
        (tmp_path / name).write_text("no weights")
        with pytest.raises(ValueError, match=f"{name}: no weights can be read of it"):
            read_into(small, tmp_path / name)
    (tmp_path / "text.bin").touch()
    with pytest.raises(ValueError, match="text.bin: weights are read of .keras, .h5"):
        read_into(small, tmp_path / "text.bin")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["something"] = [1]
    with pytest.raises(ValueError, match="other.h5: no weights can be read of it"):
        read_into(small, tmp_path / "other.h5")


def test_torchvision_is_written_from_its_own_network_alone(tmp_path):
    for changes, said in [
        ({"resnet_version": "1"}, 'torchvision or timm has ResNet-50 in version "1.5"'),
        ({"blur_pool": True}, "has no blur_pool"),
        ({"channel_means": [0, 0, 0]}, "channel_means"),
    ]:
        with pytest.raises(ValueError, match=said):
            write_torchvision(network(TORCHVISION, **SMALL | changes), tmp_path / "ours.pth")
    with pytest.raises(ValueError, match="ours.bin: its name must end in .pth or in .safetensors"):
        write_torchvision(network(TORCHVISION, **SMALL), tmp_path / "ours.bin")
    assert list(tmp_path.iterdir()) == []


def torch_resnet(library):
    """Give torchvision's or timm's ResNet-50 with random values, in evaluation."""
    if library == "torchvision":
        model = pytorch.torchvision().models.resnet50(weights=None, num_classes=7)
    else:
        model = pytorch.timm().create_model("resnet50", num_classes=7)
    import torch

    generator = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if value.ndim == 1:
            torch.nn.init.uniform_(value, 0.5, 1.5, generator=generator)
        assert value.ndim or name.endswith("num_batches_tracked")
    return model.eval()


def torch_logits(model):
    """Give its logits of PIXELS after torchvision's own preprocessing."""
    import torch

    normalize = pytorch.torchvision().transforms.functional.normalize
    images = torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        images = normalize(images, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        return model(images).numpy()


def torch_save(model, path):
    if path.suffix == ".safetensors":
        pytest.importorskip("safetensors.torch").save_file(model.state_dict(), path)
    else:
        pytest.importorskip("torch").save(model.state_dict(), path)


@pytest.mark.slow
@pytest.mark.parametrize("library", ["torchvision", "timm"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_state_dict_gives_its_librarys_logits_and_comes_back(library, suffix, tmp_path):
    theirs = torch_resnet(library)
    torch_save(theirs, tmp_path / f"theirs{suffix}")
    model = network(TORCHVISION)
    assert read_into(model, tmp_path / f"theirs{suffix}") == ("torchvision or timm", "")
    expected = torch_logits(theirs)
    assert_close(model(PIXELS), expected)

    kernel = theirs.state_dict()["conv1.weight"].numpy()
    ours = model.get_layer("stem_conv").kernel.numpy()
    assert np.linalg.norm(ours) == pytest.approx(np.linalg.norm(kernel), rel=0.02)

    write_torchvision(model, tmp_path / f"back{suffix}")
    again = torch_resnet(library)
    for value in again.state_dict().values():
        value.zero_()
    if suffix == ".pth":
        state = pytest.importorskip("torch").load(tmp_path / "back.pth", weights_only=True)
    else:
        state = pytest.importorskip("safetensors.torch").load_file(tmp_path / "back.safetensors")
    again.load_state_dict(state, strict=True)
    assert_close(torch_logits(again), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "network_of, said",
    [
        ("resnet101", r"layer3.6.conv1.weight has no place in this network"),
        ("wide_resnet50_2", r"layer1.0.conv1.weight is \(1, 1, 64, 128\), not \(1, 1, 64, 64\)"),
        ("resnet18", r"layer1.0.conv1.weight is \(3, 3, 64, 64\), not"),
        ("vgg11", "features.0.weight has no place in this network"),
    ],
)
def test_a_state_dict_of_another_network_is_refused(network_of, said, tmp_path):
    theirs = pytorch.torchvision().models.get_model(network_of, weights=None, num_classes=7)
    torch_save(theirs, tmp_path / "theirs.pth")
    with pytest.raises(ValueError, match=f"theirs.pth: {said}"):
        read_into(network(TORCHVISION), tmp_path / "theirs.pth")


@pytest.mark.slow
def test_a_pickle_is_not_run(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"weights": print}, tmp_path / "program.pth")
    with pytest.raises(ValueError, match="program.pth: no weights can be read of it"):
        read_into(network(TORCHVISION, **SMALL), tmp_path / "program.pth")
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(ValueError, match="text.safetensors: no weights can be read of it"):
        read_into(network(TORCHVISION, **SMALL), tmp_path / "text.safetensors")
